//! The options of `serve` and `check`. One parser, made from these options, reads the command line, the environment and
//! the configuration file, so each value means the same everywhere.

use super::access_options::AccessOptions;
use super::gate_options::GateOptions;
use super::limit_options::LimitOptions;
use super::sources::OptionSources;
use super::tls_options::TlsOptions;
use super::web_options::WebOptions;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
    // Each line begins with its level as the journal reads it, and has no time, since the journal notes it.
    Journald,
}

/// Which lines are logged: those of a level and of the levels before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl std::fmt::Display for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        })
    }
}

/// Options of `tidegate serve`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = SOURCES)]
pub(super) struct ServeArgs {
    /// TOML file with options: its keys are their names without --
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Service (echo, hello, time, work, or proxy:BACKEND,...) and the URL where it listens (tcp://, udp://,
    /// http:// or ws://, tls://, https:// or wss:// for the same inside TLS, and unix:/PATH, http+unix:/PATH or
    /// ws+unix:/PATH for a Unix socket); may be repeated [default: echo=tcp://127.0.0.1:5000]
    #[arg(long, value_name = "SERVICE=URL", help_heading = "Listening")]
    pub(super) listen: Vec<String>,
    /// Mode of the files of Unix sockets, in octal: a client must be able to write to the file [default: 0660]
    #[arg(long, value_name = "MODE", help_heading = "Listening", value_parser = socket_mode)]
    pub(super) socket_mode: Option<u32>,

    /// The `[[listener]]` tables of the configuration file: each has listeners and what is theirs alone.
    #[arg(skip)]
    pub(super) listeners: Vec<ServeArgs>,
    /// What they were made of, once all sources were read.
    #[arg(skip)]
    pub(super) sources: Option<Arc<OptionSources>>,
    /// Address where /metrics, /livez, /readyz and /status answer, or off [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR", help_heading = "Listening")]
    pub(super) admin: Option<String>,
    /// Host name that requests to the admin endpoint may be for, beside addresses, localhost and the name in --admin; may
    /// be repeated; * stands for all
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Listening")]
    pub(super) admin_host: Vec<String>,
    /// Take POST /reload at the admin endpoint, which does what SIGHUP does, from everybody who reaches it; a request with an
    /// Origin, as a page in a browser sends it, is refused [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Listening")]
    pub(super) admin_control: Option<bool>,
    /// Address where a balancer is told how much more this server can take (up 80%, drain, down), as HAProxy's agent-check
    /// asks for it, or off [default: off]
    #[arg(long, value_name = "ADDR", help_heading = "Listening")]
    pub(super) agent: Option<String>,
    /// Cost of a request of the work service: cpu:1ms computes, sleep:20ms waits [default: cpu:1ms]
    #[arg(long, value_name = "COST", help_heading = "Listening")]
    pub(super) work: Option<crate::service::Cost>,
    #[command(flatten)]
    pub(super) limits: LimitOptions,
    #[command(flatten)]
    pub(super) gate: GateOptions,
    #[command(flatten)]
    pub(super) web: WebOptions,
    #[command(flatten)]
    pub(super) tls: TlsOptions,
    /// Text for a client that is refused, with the escapes \n \r \t \0 \\ \xHH [default: none, the connection is
    /// reset]
    #[arg(long, value_name = "TEXT", help_heading = "Overload", allow_hyphen_values = true)]
    pub(super) busy_reply: Option<String>,
    /// Form of log lines [default: journald if stderr is systemd's journal, otherwise text]
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Output")]
    pub(super) log_format: Option<LogFormat>,
    /// Log lines of this level and of more serious ones; --verbose and --quiet override it [default: info]
    #[arg(long, value_enum, value_name = "LEVEL", help_heading = "Output")]
    pub(super) log_level: Option<LogLevel>,
    #[command(flatten)]
    pub(super) access: AccessOptions,
    /// Log more; give it twice for even more
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = "Output")]
    pub(super) verbose: u8,
    /// Log errors only, and print nothing at the start
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Output")]
    pub(super) quiet: bool,
}

/// Options of `tidegate check`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = SOURCES)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) serve: ServeArgs,
    /// Compare with the server whose admin endpoint is here, and say what a reload would change: exit code 0 if it would change
    /// all of it at once, 4 if something needs a restart
    #[arg(long, value_name = "ADDR")]
    pub(super) against: Option<String>,
}

const SOURCES: &str = "\
Every option but --verbose and --quiet can also be set by an environment variable (--max-line by \
TIDEGATE_MAX_LINE) and by a key in the file that --config names (max-line = \"64KiB\"). The command line comes \
first, then the environment, then the file, then the default. An empty variable is not set.";

/// Reads the mode of a file.
fn socket_mode(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| digits && mode <= 0o777);
    mode.ok_or_else(|| format!("`{text}` is not a mode: write one like 0660, in octal"))
}

impl ServeArgs {
    /// Which lines are logged, by all that was said of it.
    pub(super) fn log_level(&self) -> LogLevel {
        match (self.quiet, self.verbose) {
            (true, _) => LogLevel::Error,
            (_, 0) => self.log_level.unwrap_or(LogLevel::Info),
            (_, 1) => LogLevel::Debug,
            _ => LogLevel::Trace,
        }
    }

    /// What all sources say, for the admin endpoint.
    pub(super) fn sources(&self) -> String {
        self.sources.as_deref().map_or_else(|| OptionSources::default().to_json(), OptionSources::to_json)
    }

    /// These options, and the others' where these say nothing.
    pub(super) fn or(self, other: Self) -> Self {
        // If these options name a listener, the others' listeners are not used.
        let says_where = !self.listen.is_empty() || !self.listeners.is_empty();
        let (listen, listeners) =
            if says_where { (self.listen, self.listeners) } else { (other.listen, other.listeners) };
        Self {
            config: self.config.or(other.config),
            listen,
            listeners,
            sources: self.sources.or(other.sources),
            socket_mode: self.socket_mode.or(other.socket_mode),
            admin: self.admin.or(other.admin),
            admin_host: if self.admin_host.is_empty() { other.admin_host } else { self.admin_host },
            admin_control: self.admin_control.or(other.admin_control),
            agent: self.agent.or(other.agent),
            work: self.work.or(other.work),
            limits: self.limits.or(other.limits),
            gate: self.gate.or(other.gate),
            web: self.web.or(other.web),
            tls: self.tls.or(other.tls),
            busy_reply: self.busy_reply.or(other.busy_reply),
            log_format: self.log_format.or(other.log_format),
            log_level: self.log_level.or(other.log_level),
            access: self.access.or(other.access),
            verbose: self.verbose,
            quiet: self.quiet,
        }
    }
}
