//! The options of the gate: how connections are passed on to backends. Each can also be a listener's own.

use crate::limits::Limits;
use crate::service::{ConnectOn, FairBy, HttpGateConfig, Network, ProxyBuilder, ProxyVersion};
use clap::Args;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tidegate_units as units;

/// Options of listeners with the service `proxy:BACKEND[,BACKEND..]`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gate")]
pub(super) struct GateOptions {
    /// Connections that each backend may have at once [default: 100]
    #[arg(long, value_name = "N", value_parser = units::positive)]
    backend_connections: Option<u64>,
    /// Connections that all backends of a listener may have together [default: auto, as many as each may have]
    #[arg(long, value_name = "N", value_parser = or_word("auto", units::positive))]
    backend_total: Option<OrWord<u64>>,
    /// When the gate connects to a backend for a client: when the client is accepted (accept), or when it has sent
    /// its first byte (first-byte) [default: accept]
    #[arg(long, value_name = "WHEN")]
    backend_connect: Option<ConnectOn>,
    /// Time within which a backend must be reached, all attempts together [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = units::wait)]
    backend_connect_timeout: Option<Duration>,
    /// Connect to each backend this often, to see whether it can be reached [default: off]
    #[arg(long, value_name = "TIME", value_parser = or_word("off", units::duration))]
    backend_check: Option<OrWord<Duration>>,
    /// Answer /readyz with 503 while no backend of the listener is up. Backends are then checked every 2s, unless
    /// --backend-check says otherwise [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    ready_needs_backend: Option<bool>,
    /// Resolve the names of backends again this often [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = units::wait)]
    backend_resolve: Option<Duration>,
    /// Time that a client's connection and its backend's stay open after one of the two has ended its half, while the
    /// other sends nothing [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::wait)]
    half_close_timeout: Option<Duration>,
    /// HTTP: time that a backend may be silent before its answer begins, or between two pieces of it [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::wait)]
    backend_timeout: Option<Duration>,
    /// HTTP: time that a connection to a backend is kept open without a request; with 0 none is kept [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    backend_idle: Option<Duration>,
    /// HTTP: path that a check asks for; a backend that does not answer 200 to 399 is set aside. Checks come every 2s
    /// unless --backend-check says otherwise [default: a check only connects]
    #[arg(long, value_name = "PATH", value_parser = or_word("off", check_path))]
    backend_check_path: Option<OrWord<String>>,
    /// HTTP: bytes of a request's body that are collected before it asks for a place [default: 64KiB]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    buffer_request: Option<u64>,
    /// HTTP: what tells clients apart when sources take turns: address, or header:NAME [default: address]
    #[arg(long, value_name = "WHAT")]
    backend_fair: Option<FairBy>,
    /// HTTP: paths, with commas between, whose requests go first: those of health checks, for example. A listener with
    /// more than one place at its backends keeps one of them for such requests [default: none]
    #[arg(long, value_name = "PATH", value_delimiter = ',', value_parser = or_word("off", priority_path))]
    priority_path: Option<Vec<OrWord<String>>>,
    /// HTTP: addresses or networks of balancers, with commas between. Their X-Forwarded-For, -Proto and -Host are
    /// believed and passed on with additions; those of other clients are replaced [default: none]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = or_word("off", parsed::<Network>))]
    trust_forwarded: Option<Vec<OrWord<Network>>>,
    /// TLS: name that a backend's certificate must be for, or host, which is that of the backend [default: host]
    #[arg(long, value_name = "NAME", value_parser = or_word("host", parsed::<String>))]
    backend_tls_name: Option<OrWord<String>>,
    /// TLS: trust the authorities of this file, in PEM, for backends; or system, for those that the system trusts [default: system]
    #[arg(long, value_name = "FILE", value_parser = or_word("system", parsed::<PathBuf>))]
    backend_cacert: Option<OrWord<PathBuf>>,
    /// TLS: DANGEROUS: accept any certificate of a backend, so that anybody on the way can pose as the backend and read
    /// and change everything [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    backend_insecure: Option<bool>,
    /// Tell backends who their client is with the PROXY protocol, v1 or v2 [default: off]
    #[arg(long, value_name = "VERSION", value_parser = or_word("off", parsed::<ProxyVersion>))]
    send_proxy: Option<OrWord<ProxyVersion>>,
    /// Accept connections only from these balancers: addresses or networks, with commas between. Each connection must
    /// begin with a PROXY header, v1 or v2, which names its client. For any service [default: off]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = or_word("off", parsed::<Network>))]
    accept_proxy: Option<Vec<OrWord<Network>>>,
}

/// The names of these options, which a listener may have of its own.
pub(super) const NAMES: [&str; 20] = [
    "backend-connections",
    "backend-total",
    "backend-connect",
    "backend-connect-timeout",
    "backend-check",
    "ready-needs-backend",
    "backend-resolve",
    "half-close-timeout",
    "backend-timeout",
    "backend-idle",
    "backend-check-path",
    "buffer-request",
    "backend-fair",
    "priority-path",
    "trust-forwarded",
    "backend-tls-name",
    "backend-cacert",
    "backend-insecure",
    "send-proxy",
    "accept-proxy",
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
            backend_timeout: self.backend_timeout.or(other.backend_timeout),
            backend_idle: self.backend_idle.or(other.backend_idle),
            backend_check_path: self.backend_check_path.or(other.backend_check_path),
            buffer_request: self.buffer_request.or(other.buffer_request),
            backend_fair: self.backend_fair.or(other.backend_fair),
            priority_path: self.priority_path.or(other.priority_path),
            trust_forwarded: self.trust_forwarded.or(other.trust_forwarded),
            backend_tls_name: self.backend_tls_name.or(other.backend_tls_name),
            backend_cacert: self.backend_cacert.or(other.backend_cacert),
            backend_insecure: self.backend_insecure.or(other.backend_insecure),
            send_proxy: self.send_proxy.or(other.send_proxy),
            accept_proxy: self.accept_proxy.or(other.accept_proxy),
        }
    }

    /// The balancers whose PROXY headers are believed.
    pub(super) fn balancers(&self) -> Vec<Network> {
        of_list(self.accept_proxy.as_deref())
    }

    /// A gate with what was given.
    pub(super) fn applied_to(&self, mut gate: ProxyBuilder) -> ProxyBuilder {
        let places = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(Limits::CONNECTIONS_MAX);
        if let Some(n) = self.backend_connections {
            gate = gate.connections(places(n));
        }
        if let Some(n) = given(&self.backend_total) {
            gate = gate.total(places(n));
        }
        if let Some(on) = self.backend_connect {
            gate = gate.connect_on(on);
        }
        if let Some(time) = self.backend_connect_timeout {
            gate = gate.connect_timeout(time);
        }
        if let Some(time) = given(&self.backend_check).filter(|time| !time.is_zero()) {
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
        if let Some(version) = given(&self.send_proxy) {
            gate = gate.send_proxy(version);
        }
        if let Some(tls) = gate.tls_choices() {
            tls.name = given(&self.backend_tls_name);
            tls.authorities = given(&self.backend_cacert);
            tls.insecure = self.backend_insecure.unwrap_or(false);
        }
        if let Some(http) = gate.http_config() {
            self.set_http(http);
            if http.check_path.is_some() && self.backend_check.is_none() {
                gate = gate.check_every(CHECK_EVERY);
            }
        }
        gate
    }

    /// Sets what was given of HTTP.
    fn set_http(&self, http: &mut HttpGateConfig) {
        if let Some(time) = self.backend_timeout {
            http.backend_timeout = time;
        }
        if let Some(time) = self.backend_idle {
            http.backend_idle = time;
        }
        if let Some(bytes) = self.buffer_request {
            http.buffer_request = usize::try_from(bytes).unwrap_or(usize::MAX).min(Limits::BYTES_MAX);
        }
        if let Some(fair) = &self.backend_fair {
            http.fair = fair.clone();
        }
        if let Some(networks) = &self.trust_forwarded {
            http.trusted = of_list(Some(networks));
        }
        if let Some(paths) = &self.priority_path {
            http.priority_paths = of_list(Some(paths));
        }
        http.check_path = given(&self.backend_check_path);
    }
}

/// The value of an option, or nothing: a word stands for that, so that a listener can have nothing where all others have
/// something.
#[derive(Clone, Copy, Debug)]
struct OrWord<T>(Option<T>);

/// Reads a value or the word for nothing.
fn or_word<T>(
    word: &'static str,
    parse: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<OrWord<T>, String> + Clone {
    move |text| if text == word { Ok(OrWord(None)) } else { parse(text).map(|value| OrWord(Some(value))) }
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|why: T::Err| why.to_string())
}

/// What was given, unless it is nothing.
fn given<T: Clone>(option: &Option<OrWord<T>>) -> Option<T> {
    option.as_ref()?.0.clone()
}

fn of_list<T: Clone>(list: Option<&[OrWord<T>]>) -> Vec<T> {
    list.unwrap_or_default().iter().filter_map(|one| one.0.clone()).collect()
}

/// How often backends are asked for a path, unless it is said.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Reads the path that checks ask for.
fn check_path(text: &str) -> Result<String, String> {
    let visible = text.bytes().all(|byte| matches!(byte, b'!'..=b'~') && byte != b'#');
    if text.starts_with('/') && visible {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is not a path: write one like /healthz"))
}

/// Reads the path of requests that go first.
fn priority_path(text: &str) -> Result<String, String> {
    if text.contains('?') {
        return Err(format!("`{text}` has a query: write the path alone, like /healthz"));
    }
    check_path(text)
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

    #[test]
    fn a_path_that_goes_first_is_a_path_without_a_query() {
        assert_eq!(priority_path("/healthz"), Ok("/healthz".to_owned()));
        for wrong in ["/healthz?full=1", "healthz", "", "/a b", "/#x"] {
            assert!(priority_path(wrong).is_err(), "{wrong}");
        }
    }
}
