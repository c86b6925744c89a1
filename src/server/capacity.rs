//! What limits come to: descriptors and bytes.

use super::error::BuildError;
use crate::limits::Limits;

/// What is kept for everything but connections: `fd_reserve`, and each listener's socket, which its acceptor
/// and its observers hold.
fn reserve(limits: &Limits, listeners: usize) -> usize {
    limits.fd_reserve + listeners * 2
}

/// How many connections the limit of open files allows, beside what the server itself needs.
pub(crate) fn connections_possible(limits: &Limits, listeners: usize) -> usize {
    let limit = crate::sys::raise_open_files(u64::MAX) as usize;
    limit.saturating_sub(reserve(limits, listeners) + limits.lingering)
}

/// Raises the soft limit of open files as far as needed, and checks that it is enough.
pub(crate) fn check_descriptors(limits: &Limits, listeners: usize) -> Result<(), BuildError> {
    let reserve = reserve(limits, listeners);
    let wanted = limits.max_connections + limits.lingering + reserve;
    let limit = crate::sys::raise_open_files(wanted as u64);
    if (limit as usize) < limits.max_connections + reserve {
        return Err(BuildError::Descriptors {
            wanted: limits.max_connections,
            reserve,
            limit: limit as usize,
        });
    }
    Ok(())
}
