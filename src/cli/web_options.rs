//! The options of listeners that speak HTTP or WebSocket. Each can also be a listener's own.

use crate::service::websocket::WebSockets;
use clap::Args;
use std::time::Duration;
use tidegate_units as units;
use tidegate_units::url::{Scheme, Url};

/// How often the service `time` speaks over WebSockets.
const PUSH_EVERY: Duration = Duration::from_secs(1);

/// Options of listeners at `http://` and `ws://`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Web")]
pub(super) struct WebOptions {
    /// Origin whose pages may open a WebSocket, like https://example.org; may be repeated; others are answered 403
    /// [default: pages from everywhere may]
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    ws_origin: Vec<String>,
    /// How often the service time speaks to the clients of its WebSockets [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = units::wait)]
    push_every: Option<Duration>,
}

/// The names of these options, which a listener may have of its own.
pub(super) const NAMES: [&str; 2] = ["ws-origin", "push-every"];

impl WebOptions {
    /// These options, and the others' where these say nothing.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            ws_origin: if self.ws_origin.is_empty() { other.ws_origin } else { self.ws_origin },
            push_every: self.push_every.or(other.push_every),
        }
    }

    /// The names of the options that are others there.
    pub(super) fn differing(&self, other: &Self) -> Vec<&'static str> {
        let differs = [self.ws_origin != other.ws_origin, self.push_every != other.push_every];
        NAMES.into_iter().zip(differs).filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    pub(super) fn push_every(&self) -> Duration {
        self.push_every.unwrap_or(PUSH_EVERY)
    }

    /// WebSockets for the pages that may have them.
    pub(super) fn guarding(&self, sockets: WebSockets) -> WebSockets {
        self.ws_origin.iter().fold(sockets, |sockets, origin| sockets.origin(origin))
    }
}

/// Reads an origin as browsers send it: a scheme, a host, and a port unless it is the scheme's own.
fn origin(text: &str) -> Result<String, String> {
    let url: Url = text.parse().map_err(|_| wrong(text))?;
    let after_host = text.split_once("://").is_none_or(|(_, rest)| rest.contains(['/', '?', '#', '@']));
    match url.scheme {
        Scheme::Http | Scheme::Https if !after_host => {}
        _ => return Err(wrong(text)),
    }
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.to_ascii_lowercase() };
    let port = match Some(url.port) == url.scheme.default_port() {
        true => String::new(),
        false => format!(":{}", url.port),
    };
    Ok(format!("{}://{host}{port}", url.scheme.as_str()))
}

fn wrong(text: &str) -> String {
    format!("`{text}` is not an origin: write one like https://example.org or http://127.0.0.1:8080")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_may_have_each_of_them_of_its_own() {
        let command = WebOptions::augment_args(clap::Command::new("web"));
        let names: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
        assert_eq!(names, NAMES);
    }

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for (text, expected) in [
            ("https://example.org", "https://example.org"),
            ("HTTPS://Example.Org:443", "https://example.org"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://h:80", "http://h"),
        ] {
            assert_eq!(origin(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "*",
            "null",
            "example.org",
            "https://example.org/",
            "https://h?x",
            "ws://h",
            "tcp://h:1",
            "https://a@h",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
