//! The options of the gate: how connections are passed on to backends. Each can also be a listener's own.

use crate::limits::Limits;
use crate::service::{ConnectOn, ProxyBuilder, ProxyVersion};
use clap::Args;
use std::time::Duration;
use tidegate_units as units;

/// Options of listeners with the service `proxy:BACKEND[,BACKEND..]`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gate")]
pub(super) struct GateOptions {
    /// Connections that each backend may have at once [default: 100]
    #[arg(long, value_name = "N", value_parser = units::positive)]
    backend_connections: Option<u64>,
    /// Connections that all backends of a listener may have together [default: as many as each may have]
    #[arg(long, value_name = "N", value_parser = units::positive)]
    backend_total: Option<u64>,
    /// When a client's backend is connected: when the client is accepted (accept), or when it has sent its first
    /// byte (first-byte) [default: accept]
    #[arg(long, value_name = "WHEN")]
    backend_connect: Option<ConnectOn>,
    /// Time within which a backend must be reached, all attempts together [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    backend_connect_timeout: Option<Duration>,
    /// Connect to each backend this often, to see whether it can be reached [default: off]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    backend_check: Option<Duration>,
    /// Let /readyz say 503 while no backend of the listener is up; checks them every 2s unless --backend-check says
    /// otherwise [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    ready_needs_backend: Option<bool>,
    /// Resolve the names of backends again this often [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    backend_resolve: Option<Duration>,
    /// Time after which a pair is closed of which one side has ended and the other is silent [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    half_close_timeout: Option<Duration>,
    /// Tell backends who their client is with the PROXY protocol, v1 or v2 [default: off]
    #[arg(long, value_name = "VERSION")]
    send_proxy: Option<ProxyVersion>,
}

/// The names of these options, which a listener may have of its own.
pub(super) const NAMES: [&str; 9] = [
    "backend-connections",
    "backend-total",
    "backend-connect",
    "backend-connect-timeout",
    "backend-check",
    "ready-needs-backend",
    "backend-resolve",
    "half-close-timeout",
    "send-proxy",
];

impl GateOptions {
    /// These options, and the others' where these say nothing.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            backend_connections: self.backend_connections.or(other.backend_connections),
            backend_total: self.backend_total.or(other.backend_total),
            backend_connect: self.backend_connect.or(other.backend_connect),
            backend_connect_timeout: self.backend_connect_timeout.or(other.backend_connect_timeout),
            backend_check: self.backend_check.or(other.backend_check),
            ready_needs_backend: self.ready_needs_backend.or(other.ready_needs_backend),
            backend_resolve: self.backend_resolve.or(other.backend_resolve),
            half_close_timeout: self.half_close_timeout.or(other.half_close_timeout),
            send_proxy: self.send_proxy.or(other.send_proxy),
        }
    }

    /// A gate with what was given.
    pub(super) fn applied_to(&self, mut gate: ProxyBuilder) -> ProxyBuilder {
        let places = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(Limits::CONNECTIONS_MAX);
        if let Some(n) = self.backend_connections {
            gate = gate.connections(places(n));
        }
        if let Some(n) = self.backend_total {
            gate = gate.total(places(n));
        }
        if let Some(on) = self.backend_connect {
            gate = gate.connect_on(on);
        }
        if let Some(time) = self.backend_connect_timeout {
            gate = gate.connect_timeout(time);
        }
        if let Some(time) = self.backend_check.filter(|time| !time.is_zero()) {
            gate = gate.check_every(time);
        }
        if let Some(needs) = self.ready_needs_backend {
            gate = gate.ready_needs_backend(needs);
        }
        if let Some(time) = self.backend_resolve {
            gate = gate.resolve_every(time);
        }
        if let Some(time) = self.half_close_timeout {
            gate = gate.half_close_timeout(time);
        }
        match self.send_proxy {
            Some(version) => gate.send_proxy(version),
            None => gate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_may_have_each_of_them_of_its_own() {
        let command = GateOptions::augment_args(clap::Command::new("gate"));
        let names: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
        assert_eq!(names, NAMES);
    }
}
