//! The options of `tidegate client`.

use std::path::PathBuf;
use std::time::Duration;
use tidegate_units as units;

/// Options of `tidegate client`.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientArgs {
    /// The server: tcp://host:port, udp://host:port or unix:///path/of/the/socket
    pub(super) url: String,
    /// Send the lines of this file, one message each; empty lines are left out [default: standard input]
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub(super) file: Option<PathBuf>,
    /// Send exactly this text as the only message: \n, \r, \t, \0, \\ and \xHH stand for their bytes, and no
    /// newline is added. An empty text sends nothing and only listens; on udp it sends an empty datagram
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) data: Option<String>,
    /// Send each line without a newline at its end, to a server whose replies have none either
    #[arg(long)]
    pub(super) no_newline: bool,
    /// A reply is complete when nothing more has come for this time, or when --think is over. [default: a reply ends
    /// with a newline; 50ms where messages are sent without one]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(super) quiet: Option<Duration>,
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
