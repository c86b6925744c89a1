//! The host names that the endpoint answers to.
//!
//! A page that a browser has loaded from anywhere may make its own name lead to this address (DNS rebinding) and then
//! read what is served here as if it were its own. Its requests say its name in `Host`: so a name must be known. An
//! address needs no check, since a page cannot be named by one that is not its own.

use std::net::{IpAddr, Ipv6Addr};

/// The names that are known beside addresses and `localhost`.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    /// Adds a name; `*` stands for all.
    pub(super) fn add(&mut self, name: &str) {
        self.names.push(plain(name));
    }

    /// Whether a request for this host, with or without a port, may be answered.
    pub(super) fn allow(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else {
            return false;
        };
        let name = plain(name);
        is_address(&name)
            || name == "localhost"
            || self.names.iter().any(|known| known == "*" || *known == name)
    }
}

/// In lower case, without the dot that ends an absolute name.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The host without `:port`; nothing if that is no port.
fn without_port(host: &str) -> Option<&str> {
    let end_of_host = if host.starts_with('[') {
        host.find(']')? + 1
    } else if host.matches(':').count() > 1 {
        // An IPv6 address that lacks its brackets.
        host.len()
    } else {
        host.find(':').unwrap_or(host.len())
    };
    let (name, port) = host.split_at(end_of_host);
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(name)
}

fn is_address(name: &str) -> bool {
    let Some(inner) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return name.parse::<IpAddr>().is_ok();
    };
    // A zone names an interface of the client's machine.
    let address = inner.split_once('%').map_or(inner, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_known_names_are_answered_and_no_other() {
        let mut hosts = Hosts::default();
        hosts.add("Gate.Example.");
        for host in [
            "127.0.0.1",
            "127.0.0.1:9464",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:9464",
            "::1",
            "[fe80::1%25eth0]:9464",
            "localhost",
            "LocalHost:9464",
            "localhost.",
            "gate.example",
            "GATE.example:9464",
            "gate.example.:1",
        ] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9464",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1:evil.example",
            "[::1].evil.example",
            "[evil.example]",
            "[::1",
            "xgate.example",
            "gate.example.evil.example",
            "1.2.3",
            "localhost:x",
            "127.0.0.1:123456",
            "",
        ] {
            assert!(!hosts.allow(host), "{host}");
        }
        hosts.add("*");
        assert!(hosts.allow("evil.example"));
    }
}
