//! The limits of the admin endpoint and the agent, and the names that the endpoint answers to.

use std::io;
use std::time::Duration;

/// The limits of the admin endpoint.
///
/// ```
/// let mut limits = tidegate::admin::AdminLimits::default();
/// limits.connections = 16;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdminLimits {
    /// Connections held at the same time; default 64. The newest gets in: a connection that is not being served
    /// makes room for it.
    pub connections: usize,
    /// Bytes of a request's head; default 8 KiB.
    pub head_bytes: usize,
    /// Time from accept to a complete head; default 2 s.
    pub head_time: Duration,
    /// Time from accept to the end of all; default 5 s.
    pub total_time: Duration,
    /// Time an answered client may take to close; default 1 s.
    pub linger_time: Duration,
    /// Descriptors held in reserve, so that it answers when the process has none; default 8.
    pub reserve_descriptors: usize,
}

impl Default for AdminLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            head_bytes: 8 * 1024,
            head_time: Duration::from_secs(2),
            total_time: Duration::from_secs(5),
            linger_time: Duration::from_secs(1),
            reserve_descriptors: 8,
        }
    }
}

/// The limits of the agent.
///
/// ```
/// let mut limits = tidegate::admin::AgentLimits::default();
/// limits.connections = 4;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentLimits {
    /// Connections held at the same time; default 16. Each has had its answer, so the newest takes the place of the
    /// oldest.
    pub connections: usize,
    /// Time from accept to the end; default 1 s.
    pub total_time: Duration,
    /// Descriptors held in reserve, so that it answers when the process has none; default 2.
    pub reserve_descriptors: usize,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self { connections: 16, total_time: Duration::from_secs(1), reserve_descriptors: 2 }
    }
}

/// What is done at the order to read the configuration again.
pub(super) type OnReload = Box<dyn Fn() -> io::Result<()> + Send>;

/// What every connection and request is measured by.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) limits: AdminLimits,
    pub(super) hosts: super::host::Hosts,
    /// Orders are taken.
    pub(super) control: bool,
}
