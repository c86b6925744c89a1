//! Options that have no effect because no listener uses them.
//!
//! A person who asks for a certificate to be checked, or for a limit at a gate, believes to be protected. If there is no
//! such gate, the program does not start, and says why. An option that only tunes something gives a warning.

use super::file::LISTENER;
use super::plan::PlannedListener;
use super::sources::{OptionSources, values};
use super::tls_options::inside;
use super::{gate_options, limit_options, tls_options};
use crate::limits::TABLE;
use tidegate_units::url::Scheme;

/// What an option needs to have an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Gate,
    StreamGate,
    HttpGate,
    TlsGate,
    Tls,
    Connections,
    Datagrams,
    Web,
    WebSocket,
    Clock,
    Work,
    SocketFile,
    Admin,
}

/// The options that need something.
const NEEDS: [(&str, Need); 36] = [
    ("backend-connections", Need::Gate),
    ("backend-total", Need::Gate),
    ("backend-connect", Need::StreamGate),
    ("backend-connect-timeout", Need::Gate),
    ("backend-check", Need::Gate),
    ("ready-needs-backend", Need::Gate),
    ("backend-resolve", Need::Gate),
    ("half-close-timeout", Need::StreamGate),
    ("backend-timeout", Need::HttpGate),
    ("backend-idle", Need::HttpGate),
    ("backend-check-path", Need::HttpGate),
    ("buffer-request", Need::HttpGate),
    ("backend-fair", Need::HttpGate),
    ("priority-path", Need::HttpGate),
    ("trust-forwarded", Need::HttpGate),
    ("backend-tls-name", Need::TlsGate),
    ("backend-cacert", Need::TlsGate),
    ("backend-insecure", Need::TlsGate),
    ("send-proxy", Need::Gate),
    ("accept-proxy", Need::Connections),
    ("tls-cert", Need::Tls),
    ("tls-key", Need::Tls),
    ("tls-min-version", Need::Tls),
    ("ws-origin", Need::WebSocket),
    ("push-every", Need::Clock),
    ("work", Need::Work),
    ("socket-mode", Need::SocketFile),
    ("admin-host", Need::Admin),
    ("admin-control", Need::Admin),
    ("access-log", Need::Web),
    ("datagram-source-rate", Need::Datagrams),
    ("max-datagram", Need::Datagrams),
    ("max-head", Need::Web),
    ("max-headers", Need::Web),
    ("max-message", Need::WebSocket),
    ("ws-ping", Need::WebSocket),
];

impl Need {
    fn of(option: &str) -> Option<Self> {
        NEEDS.iter().find(|(name, _)| *name == option).map(|(_, need)| *need)
    }

    /// Whether a listener is what is needed.
    fn is_met_by(self, listener: &PlannedListener) -> bool {
        let (scheme, gate) = (listener.scheme, listener.is_gate());
        let plain = inside(scheme).unwrap_or(scheme);
        let socket = !gate && matches!(plain, Scheme::Ws | Scheme::WsUnix);
        match self {
            Need::Gate => gate,
            Need::StreamGate => gate && !listener.is_http_gate(),
            Need::HttpGate => listener.is_http_gate(),
            Need::TlsGate => listener.speaks_tls_with_backends(),
            Need::Tls => inside(scheme).is_some(),
            Need::Connections => scheme != Scheme::Udp,
            Need::Datagrams => scheme == Scheme::Udp,
            Need::Web => scheme.has_path(),
            Need::WebSocket => socket,
            Need::Clock => socket && listener.service == "time",
            Need::Work => listener.service == "work",
            Need::SocketFile => listener.address.unix().is_some_and(|name| name.as_path().is_some()),
            Need::Admin => false,
        }
    }

    /// Why there is no effect.
    fn unmet(self) -> &'static str {
        match self {
            Need::Gate => "no listener is a gate (proxy:BACKEND=URL)",
            Need::StreamGate => {
                "no listener is a gate for connections (proxy:BACKEND at tcp://, tls:// or unix:)"
            }
            Need::HttpGate => "no listener is a gate for HTTP (proxy:BACKEND at http:// or https://)",
            Need::TlsGate => {
                "no gate speaks TLS with its backends (write tls:// or https:// before a backend)"
            }
            Need::Tls => "no listener speaks TLS (tls://, https:// or wss://)",
            Need::Connections => "all listeners take datagrams (udp://)",
            Need::Datagrams => "no listener takes datagrams (udp://)",
            Need::Web => "no listener speaks HTTP or WebSocket",
            Need::WebSocket => "no listener has a service for WebSockets (ws:// or wss://)",
            Need::Clock => "no listener has the service time for WebSockets (time=ws://)",
            Need::Work => "no listener has the service work",
            Need::SocketFile => "no listener is at a Unix socket with a path",
            Need::Admin => "there is no admin endpoint (admin is off)",
        }
    }
}

/// What has no effect.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ineffective {
    /// Why this is refused.
    pub(super) refused: Option<String>,
    /// What is said of the others.
    pub(super) warnings: Vec<String>,
}

impl Ineffective {
    /// What the sources say in vain where these are the listeners; those of the file are among them with `of_file`.
    pub(super) fn find(sources: &OptionSources, listeners: &[PlannedListener], has_admin: bool) -> Self {
        let mut found = Self::default();
        let unmet = |name: &str| {
            let need = Need::of(name)?;
            let met =
                if need == Need::Admin { has_admin } else { listeners.iter().any(|one| need.is_met_by(one)) };
            (!met).then_some(need.unmet())
        };
        for (name, values) in &sources.command_line {
            found.note(name, values, || unmet(name), &format!("--{name}"), true);
        }
        // An environment is inherited: what it says may be for another program.
        for (name, values) in &sources.environment {
            found.note(name, values, || unmet(name), &super::config::variable(name), false);
        }
        let Some(file) = &sources.file else { return found };
        // So may be a file whose listeners are not those of this program.
        let elsewhere = [&sources.command_line, &sources.environment];
        let is_for_this = !elsewhere.into_iter().flatten().any(|(name, _)| name == "listen");
        for (name, value) in file {
            if let Ok(values) = values(value) {
                found.note(name, &values, || unmet(name), &format!("`{name}`"), is_for_this);
            }
        }
        if is_for_this {
            found.note_tables(file, listeners);
        }
        found
    }

    /// What the tables of listeners say, each of its own.
    fn note_tables(&mut self, file: &toml::Table, listeners: &[PlannedListener]) {
        let tables = file.get(LISTENER).and_then(toml::Value::as_array);
        for (index, table) in tables.into_iter().flatten().enumerate() {
            // The first of all are those above the tables.
            let own: Vec<_> = listeners.iter().filter(|listener| listener.table == index + 1).collect();
            let (Some(table), Some(first)) = (table.as_table(), own.first()) else { continue };
            for (name, value) in table {
                let unmet = || {
                    let need = Need::of(name)?;
                    (!own.iter().any(|listener| need.is_met_by(listener))).then_some(need.unmet())
                };
                if let Ok(values) = values(value) {
                    let place = format!("listener `{}`: `{name}`", first.text);
                    self.note(name, &values, unmet, &place, true);
                }
            }
        }
    }

    fn note(
        &mut self,
        name: &str,
        values: &[String],
        unmet: impl Fn() -> Option<&'static str>,
        place: &str,
        may_refuse: bool,
    ) {
        // An option that says that something is off, or as it is anyway, is right.
        let off = ["off", "auto", "system", "false", "0", "0s"];
        let is_off = values.iter().all(|value| off.contains(&value.as_str()) || is_default(name, value));
        let Some(why) = unmet().filter(|_| !is_off) else { return };
        let said = format!("{place} has no effect: {why}");
        if may_refuse && protects(name) {
            self.refused.get_or_insert(said);
        } else {
            self.warnings.push(said);
        }
    }
}

/// Whether a limit has this value by itself.
fn is_default(name: &str, value: &str) -> bool {
    let limit = TABLE.iter().find(|limit| limit.name == name);
    limit.is_some_and(|limit| limit_options::parse(limit, value) == Ok(limit.default))
}

/// Whether somebody who believes that an option is in force believes to be protected by it.
fn protects(name: &str) -> bool {
    gate_options::NAMES.contains(&name) || tls_options::NAMES.contains(&name) || name == "ws-origin"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::ServeArgs;
    use crate::cli::config;
    use crate::cli::web_options;

    #[test]
    fn each_is_an_option_and_no_option_of_a_gate_of_tls_or_of_the_web_is_left_out() {
        let known: Vec<_> = config::option_names();
        assert!(NEEDS.iter().all(|(name, _)| known.iter().any(|known| known == name)));
        let groups = gate_options::NAMES.iter().chain(&tls_options::NAMES).chain(&web_options::NAMES);
        assert!(groups.into_iter().all(|name| Need::of(name).is_some()));
    }

    #[test]
    fn where_it_is_said_decides_whether_it_is_refused() {
        let args = ServeArgs { listen: vec!["echo=tcp://127.0.0.1:1001".to_owned()], ..ServeArgs::default() };
        let listeners = crate::cli::plan::Plan::on(&args, 100_000).unwrap().listeners;
        let said = |name: &str| vec![(name.to_owned(), vec!["x".to_owned()])];
        let find = |sources: OptionSources| Ineffective::find(&sources, &listeners, true);
        for name in ["backend-cacert", "backend-connections", "tls-cert", "ws-origin"] {
            let found = find(OptionSources { command_line: said(name), ..OptionSources::default() });
            assert!(found.refused.unwrap().starts_with(&format!("--{name} has no effect: no ")));
            let found = find(OptionSources { environment: said(name), ..OptionSources::default() });
            assert_eq!((found.refused, found.warnings.len()), (None, 1));
            let file = toml::Table::from_iter([(name.to_owned(), "x".into())]);
            let mut sources = OptionSources { file: Some(file), ..OptionSources::default() };
            assert!(find(sources.clone()).refused.is_some());
            sources.command_line = said("listen");
            assert!(find(sources).refused.is_none(), "it may be for the listeners of the file");
        }
        let found = find(OptionSources { command_line: said("max-datagram"), ..OptionSources::default() });
        assert_eq!(found.warnings, ["--max-datagram has no effect: no listener takes datagrams (udp://)"]);
        let off = vec![("backend-insecure".to_owned(), vec!["false".to_owned()])];
        assert_eq!(
            find(OptionSources { command_line: off, ..OptionSources::default() }),
            Ineffective::default()
        );
    }
}
