//! The options of `tidegate client`.

use std::path::PathBuf;
use std::time::Duration;
use tidegate_units as units;

/// Options of `tidegate client`.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientArgs {
    /// The server: tcp://host:port, udp://host:port, http://host[:port][/path], ws://host[:port][/path],
    /// unix:///path/of/the/socket or http+unix:///path/of/the/socket[:/path]; inside TLS: tls://host:port,
    /// https://host[:port][/path] or wss://host[:port][/path]
    pub(super) url: String,
    /// Send the lines of this file, one message each; empty lines are left out [default: standard input]
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub(super) file: Option<PathBuf>,
    /// Send exactly this text as the only message: \n, \r, \t, \0, \\ and \xHH stand for their bytes, and no
    /// newline is added. An empty text sends nothing and only listens; on udp it sends an empty datagram, over http a
    /// request without a body
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) data: Option<String>,
    /// Send each line without a newline at its end, to a server whose replies have none either (tcp, unix and tls;
    /// elsewhere a message is a line without its end)
    #[arg(long)]
    pub(super) no_newline: bool,
    /// A reply is complete when nothing more has come for this time, or when --think is over [default: a reply ends
    /// with a newline; 50ms where messages are sent without one]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(super) quiet: Option<Duration>,
    /// Method of the requests of http [default: POST with the message as the body; GET without a message]
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub(super) method: Option<String>,
    /// Send this header, like `Name: value`, with each request of http, and with the handshake of ws; may be repeated.
    /// One that would be sent anyway, Host for example, is replaced
    #[arg(short = 'H', long, value_name = "HEADER")]
    pub(super) header: Vec<String>,
    /// Trust the authorities of this file, in PEM [default: those that the system trusts]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(super) cacert: Option<PathBuf>,
    /// Accept any certificate
    #[arg(short = 'k', long)]
    pub(super) insecure: bool,
    /// Ask for this name, and look for it in the certificate [default: the host of the URL]
    #[arg(long, value_name = "NAME")]
    pub(super) tls_name: Option<String>,
    /// Time between a reply and the next message
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = units::duration)]
    pub(super) think: Duration,
    /// Give up when connecting, a reply, or the end of the connection takes longer than this
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::duration)]
    pub(super) timeout: Duration,
    /// Do not print the total time (on standard error)
    #[arg(short = 'q', long)]
    pub(super) no_total: bool,
}
