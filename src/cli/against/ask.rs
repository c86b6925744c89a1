//! What a running server says of its configuration, over its admin endpoint.

use crate::cli::exit::ExitError;
use crate::cli::limit_options;
use crate::cli::live::relisten::KnownListener;
use crate::cli::sources::OptionSources;
use crate::limits::{Limits, TABLE};
use crate::metrics::snapshot::Ceilings;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tidegate_protocols::http::{Response, ResponseReader};
use tidegate_units::url::Url;

/// The form of the answer that this program reads.
const FORMAT: u64 = 1;
/// How long the endpoint may take to be connected to, and to answer.
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);
/// The longest answer: a configuration file has a quarter of it at most.
const BYTES_MAX: usize = 4 << 20;
/// How a tidegate that does not know the path begins its answer.
const UNKNOWN_PATH: &[u8] = b"not here; there are /metrics";

/// A running server.
#[derive(Debug)]
pub(super) struct RunningServer {
    pub(super) limits: Limits,
    pub(super) ceilings: Ceilings,
    /// How many files it may open.
    pub(super) open_files: usize,
    /// Those that it has and had.
    pub(super) listeners: Vec<KnownListener>,
    pub(super) options: OptionSources,
}

impl RunningServer {
    /// Asks the server whose admin endpoint is here: `HOST:PORT`, or a URL of it.
    pub(super) fn ask(text: &str) -> Result<Self, ExitError> {
        let address = address(text)?;
        let failed = |why: String| ExitError::failed(why);
        let (status, body) = get(address, "/configuration.json").map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => failed(no_tidegate(address, "")),
            io::ErrorKind::ConnectionRefused => failed(format!(
                "nothing listens at {address}: write the address of the server's admin endpoint, which it prints at its \
                 start as `metrics on`"
            )),
            _ => failed(format!("nobody answers at {address}: {error}")),
        })?;
        match status {
            200 if !body.starts_with(b"{") => Err(failed(no_tidegate(address, ""))),
            200 => Self::read(&body).map_err(|why| failed(format!("the server at {address} {why}"))),
            404 if body.starts_with(UNKNOWN_PATH) => Err(failed(format!(
                "the tidegate at {address} is older than this one, and does not say what it was configured with"
            ))),
            _ => Err(failed(no_tidegate(address, &format!(" (it answers {status})")))),
        }
    }

    /// Reads the answer; the error goes on after `the server at ..`.
    fn read(body: &[u8]) -> Result<Self, String> {
        let answer: Value = serde_json::from_slice(body).map_err(|_| "does not answer in JSON".to_owned())?;
        match answer["format"].as_u64() {
            Some(FORMAT) => {}
            Some(format) => {
                return Err(format!(
                    "answers in format {format}, but this program reads format {FORMAT}: use the program that serves"
                ));
            }
            None => return Err("is no tidegate".to_owned()),
        }
        if answer["options"].is_null() {
            return Err(
                "was not configured by the program tidegate, so there are no options to compare with"
                    .to_owned(),
            );
        }
        let options = OptionSources::from_json(&answer["options"]);
        let options = options.ok_or("shows its options in a way that this program cannot read")?;
        let ceiling = |name: &str| answer["ceilings"][name].as_u64().and_then(|n| usize::try_from(n).ok());
        // Of what the server does not say, everything fits.
        let most = |name: &str| ceiling(name).unwrap_or(usize::MAX);
        let mut ceilings = Ceilings::default();
        (ceilings.connections, ceilings.workers) = (most("connections"), most("workers"));
        ceilings.datagrams = ceiling("datagrams").unwrap_or(0);
        ceilings.listeners = most("listeners");
        let open_files = answer["open_files"].as_u64().unwrap_or(u64::MAX);
        let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
        let listeners = answer["listeners"].as_array().map_or(&[][..], Vec::as_slice);
        let listeners = listeners.iter().map(known).collect();
        Ok(Self { limits: limits(&answer["limits"])?, ceilings, open_files, listeners, options })
    }
}

/// What is said of something else that answers there.
fn no_tidegate(address: SocketAddr, how: &str) -> String {
    format!(
        "what answers at {address} is not the admin endpoint of a tidegate{how}: write the address that the server prints \
         at its start as `metrics on`"
    )
}

/// A listener that the server has or had.
fn known(shown: &Value) -> KnownListener {
    let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
    let is_open = shown["listening"].as_bool().unwrap_or(true);
    KnownListener { url: text("listener"), service: text("service"), is_open }
}

/// The limits in force. One that this program does not know is left out, and one that the server does not know has its
/// default.
fn limits(shown: &Value) -> Result<Limits, String> {
    let mut limits = Limits::default();
    for limit in TABLE {
        let Some(text) = shown[limit.name].as_str() else { continue };
        let value = limit_options::parse(limit, text).map_err(|why| {
            format!("has `{}` as {text}, which this program cannot read: {why}", limit.name)
        })?;
        (limit.set)(&mut limits, value);
    }
    Ok(limits)
}

fn address(text: &str) -> Result<SocketAddr, ExitError> {
    let bare = text.strip_prefix("http://").unwrap_or(text);
    let bare = bare.split('/').next().unwrap_or(bare);
    let url = format!("tcp://{bare}").parse::<Url>().map_err(|_| {
        ExitError::usage(format!("--against `{text}` is not HOST:PORT: write one like 127.0.0.1:9464"))
    })?;
    let resolved = url.resolve().map_err(|error| ExitError::failed(format!("--against {text}: {error}")))?;
    Ok(resolved[0])
}

/// Gets a path: the status and the body. An answer that is not HTTP, or is too long or too late, is invalid data.
fn get(address: SocketAddr, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
    let until = Instant::now() + ANSWER;
    stream.set_write_timeout(Some(ANSWER))?;
    // By its address, which every endpoint answers to.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|_| wrong())?;
    let (mut reader, mut body, mut buffer) = (ResponseReader::default(), Vec::new(), [0; 16 << 10]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let response = match stream.read(&mut buffer) {
            Ok(0) if reader.ends_with_the_connection() => Response::Whole(false),
            Ok(0) => Response::Wrong,
            Ok(n) => reader.read(&buffer[..n], &mut |piece| body.extend_from_slice(piece)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Response::More,
            Err(_) => Response::Wrong,
        };
        match response {
            Response::More if left.is_zero() || body.len() > BYTES_MAX => return Err(wrong()),
            Response::More => {}
            Response::Whole(_) => return Ok((reader.status(), body)),
            Response::Wrong => return Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_written_as_the_browser_shows_it() {
        for text in ["127.0.0.1:9464", "http://127.0.0.1:9464", "http://127.0.0.1:9464/status"] {
            assert_eq!(address(text).unwrap(), "127.0.0.1:9464".parse().unwrap(), "{text}");
        }
        for text in ["", "127.0.0.1", "9464", "x:y"] {
            let error = address(text).unwrap_err();
            assert_eq!(error.code, 2, "{error:?}");
        }
    }

    #[test]
    fn an_answer_that_is_not_understood_says_why() {
        let why = |answer: &str| RunningServer::read(answer.as_bytes()).unwrap_err();
        assert_eq!(why("<html>"), "does not answer in JSON");
        assert_eq!(why("{}"), "is no tidegate");
        assert!(why("{\"format\":7}").starts_with("answers in format 7, but this program reads format 1"));
        assert!(why("{\"format\":1,\"options\":null}").starts_with("was not configured by the program"));
        let options = "\"options\":{\"command_line\":{},\"environment\":{},\"file\":null}";
        assert!(
            why(&format!("{{\"format\":1,\"limits\":{{\"queue\":\"x\"}},{options}}}"))
                .contains("`queue` as x")
        );
        let answer = format!("{{\"format\":1,\"limits\":{{\"queue\":\"7\",\"new\":\"3\"}},{options}}}");
        let running = RunningServer::read(answer.as_bytes()).unwrap();
        assert_eq!(running.limits, Limits::default().queue(7));
    }
}
