//! A configuration file that a server is told to read again, and what the server says of it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use super::support::{Client, Program, Reply, Running, eventually};
use rustix::process::Signal;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A configuration file, removed in the end.
pub(crate) struct Configuration(pub(crate) PathBuf);

impl Configuration {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let configuration =
            Self(std::env::temp_dir().join(format!("tidegate-reload-{}-{name}.toml", std::process::id())));
        configuration.write(text);
        configuration
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    pub(crate) fn program(&self) -> Program {
        Program::new().admin().arg("--config", self.0.display())
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Has it read its configuration again; what the log says of that.
#[track_caller]
pub(crate) fn reload(server: &Running) -> String {
    let said = |server: &Running| -> Vec<String> {
        let log = server.stderr();
        // The last line may be half there.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole
            .lines()
            .filter(|line| line.contains("the configuration was read again"))
            .map(str::to_owned)
            .collect()
    };
    let before = said(server).len();
    server.signal(Signal::HUP);
    eventually("the log speaks of the reload", || said(server).get(before).cloned())
}

/// What the admin endpoint says.
#[track_caller]
pub(crate) fn admin(server: &Running, path: &str) -> Reply {
    let mut client = Client::connect(server.admin());
    let reply = client.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply
}

pub(crate) fn status(server: &Running) -> Value {
    let reply = admin(server, "/status.json");
    serde_json::from_slice(&reply.body).unwrap()
}

/// The value of a metric without labels.
#[track_caller]
pub(crate) fn metric(server: &Running, name: &str) -> f64 {
    let reply = admin(server, "/metrics");
    let line = reply.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("there is no {name}")).parse().unwrap()
}

#[track_caller]
pub(crate) fn conserved(status: &Value) {
    for listener in status["listeners"].as_array().unwrap() {
        let number = |name: &str| listener[name].as_u64().unwrap();
        let sum = |name: &str| -> u64 {
            listener[name].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
        };
        let there = sum("dropped") + sum("closed") + number("queued") + number("active") + number("idle");
        assert_eq!(number("accepted"), there, "{listener}");
    }
}

/// A configuration with these listeners.
pub(crate) fn listen(listeners: &[&str]) -> String {
    format!("listen = {listeners:?}\n")
}

/// What /status.json says of the listener at this position.
#[track_caller]
pub(crate) fn listener(server: &Running, position: usize) -> Value {
    status(server)["listeners"][position].clone()
}

/// Where the listener at this position listens.
#[track_caller]
pub(crate) fn address(server: &Running, position: usize) -> SocketAddr {
    let listener = listener(server, position);
    let url = listener["listener"].as_str().unwrap();
    url.split_once("://").unwrap().1.parse().unwrap()
}
