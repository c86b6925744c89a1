//! The options of `tidegate stress`.

use super::form::{ReportForm, noise};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;
use std::time::Duration;
use tidegate_stress::{Close, Error, Mode, Options, Reuse, Send, Sources, Spread, Stages, Think, Threshold};
use tidegate_units as units;
use tidegate_units::unescape;
use tidegate_units::url::Url;

/// Whether a run shows how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ProgressWhen {
    /// A bar on a terminal, a line every ten seconds elsewhere.
    Auto,
    /// Not at all.
    Off,
}

/// Options of `tidegate stress`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct StressArgs {
    #[command(subcommand)]
    pub(super) kept: Option<super::kept::KeptCommand>,
    #[command(flatten)]
    pub(super) load: LoadArgs,
}

const LOAD: &str = "Load";
const CONNECTIONS: &str = "Connections";
const REQUESTS: &str = "Requests and replies";
const TLS: &str = "TLS";
const PROBE: &str = "Probe";
const JUDGEMENT: &str = "Judgement";
const OUTPUT: &str = "Output";

/// Options of a run.
#[derive(Debug, clap::Args)]
pub(super) struct LoadArgs {
    /// The target: tcp://host:port, udp://host:port, http://host[:port][/path], ws://host[:port][/path],
    /// unix:///path/of/the/socket or http+unix:///path/of/the/socket[:/path]; inside TLS: tls://host:port,
    /// https://host[:port][/path] or wss://host[:port][/path].
    #[arg(required = true)]
    pub(super) url: Option<Url>,

    /// Number of clients. Each has one connection at a time.
    #[arg(short, long, value_name = "N", default_value = "50", value_parser = units::positive, help_heading = LOAD)]
    pub(super) connections: u64,

    /// Time to measure [default: 10s; with -n, until the requests are made].
    #[arg(short, long, value_name = "TIME", value_parser = units::duration, help_heading = LOAD)]
    pub(super) duration: Option<Duration>,

    /// Make this many requests, then end.
    #[arg(short = 'n', long, value_name = "N", value_parser = units::positive, help_heading = LOAD)]
    pub(super) requests: Option<u64>,

    /// Time to run before measuring. With --stages it is the beginning of the stages [default: 1s; 0s with -n,
    /// --stages and the modes that hold].
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = LOAD)]
    pub(super) warmup: Option<Duration>,

    /// Send this many requests a second in all, whatever the server does (open loop). Without --rate and --stages
    /// each client waits for its reply before it sends again (closed loop).
    #[arg(short, long, value_name = "N", value_parser = units::rate, help_heading = LOAD)]
    pub(super) rate: Option<f64>,

    /// Change the rate over time (open loop). In each stage the rate changes evenly until it has the stage's value; the
    /// first stage begins at --rate or 0. A stage of 0s is a jump. Example: 10s:100,1m:1000,10s:0.
    #[arg(long, value_name = "TIME:RATE,...", conflicts_with_all = ["duration", "requests"], help_heading = LOAD)]
    pub(super) stages: Option<Stages>,

    /// Find the highest rate at which this condition holds, in trials of --duration [default: 5s].
    #[arg(long, value_name = "CONDITION", conflicts_with_all = ["stages", "requests", "think", "baseline"],
          help_heading = LOAD)]
    pub(super) find_max: Option<Threshold>,

    /// How the requests of an open loop are spread over time.
    #[arg(long, default_value = "uniform", value_name = "HOW", value_parser = spreads(), help_heading = LOAD)]
    pub(super) arrival: Spread,

    /// Pause of a closed loop's client between a reply and its next request: a time, or exp:TIME for random pauses
    /// with this mean.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["rate", "stages"], help_heading = LOAD)]
    pub(super) think: Option<Think>,

    /// What each client does with its connection.
    #[arg(long, default_value = "request", value_name = "MODE", value_parser = modes(), help_heading = LOAD)]
    pub(super) mode: Mode,

    /// Time between two bytes in the modes slow-send and slow-read.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration, help_heading = LOAD)]
    pub(super) drip: Duration,

    /// Number of load threads.
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::positive, help_heading = LOAD)]
    pub(super) threads: u64,

    /// Repeat the random numbers of the run that had this seed [default: new ones].
    #[arg(long, value_name = "N", help_heading = LOAD)]
    pub(super) seed: Option<u64>,

    /// Give up a request whose reply is not complete this long after it was sent. In an open loop a reply is useful if it
    /// is complete within this time from the instant at which the request was due.
    #[arg(short, long, value_name = "TIME", default_value = "5s", value_parser = units::duration,
          help_heading = CONNECTIONS)]
    pub(super) timeout: Duration,

    /// Give up a connection that is not established after this time.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration,
          help_heading = CONNECTIONS)]
    pub(super) connect_timeout: Duration,

    /// How many requests a connection is used for: forever, a number, or never (a new connection for each).
    #[arg(long, value_name = "HOW", default_value = "forever", help_heading = CONNECTIONS)]
    pub(super) reuse: Reuse,

    /// How a connection that is not used any more is closed.
    #[arg(long, default_value = "fin", value_name = "HOW", value_parser = closes(), help_heading = CONNECTIONS)]
    pub(super) close: Close,

    /// Connect from these local addresses in turn, for example 127.0.1.0/24. Each address has ports of its own.
    #[arg(long, value_name = "CIDR", help_heading = CONNECTIONS)]
    pub(super) source_ip: Option<Sources>,

    /// Send this text, in which \n, \r, \t, \0, \\ and \xHH stand for their bytes. If it ends with a newline, the
    /// reply is a line; otherwise the reply is the same bytes.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, group = "payload", help_heading = REQUESTS)]
    pub(super) data: Option<String>,

    /// Send this many bytes, and expect the same bytes as the reply [default: 64; with http, nothing].
    #[arg(long, value_name = "BYTES", group = "payload", value_parser = units::size, help_heading = REQUESTS)]
    pub(super) size: Option<u64>,

    /// Send the bytes of this file (- is standard input).
    #[arg(long, value_name = "FILE", group = "payload", help_heading = REQUESTS)]
    pub(super) data_file: Option<PathBuf>,

    /// Send the lines of this file in turn, one a request; the reply is a line. Empty lines are left out.
    #[arg(long, value_name = "FILE", group = "payload", help_heading = REQUESTS)]
    pub(super) lines: Option<PathBuf>,

    /// Method of the requests of http [default: GET; POST with a payload].
    #[arg(short = 'X', long, value_name = "METHOD", help_heading = REQUESTS)]
    pub(super) method: Option<String>,

    /// Send this header, like `Name: value`, with each request of http, and with the handshakes of ws; may be repeated.
    /// One that would be sent anyway, Host for example, is replaced.
    #[arg(short = 'H', long, value_name = "HEADER", help_heading = REQUESTS)]
    pub(super) header: Vec<String>,

    /// Count a reply as good only if it is this text (tcp and unix), or contains it (lines, udp, ws, the body of http).
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = REQUESTS)]
    pub(super) expect: Option<String>,

    /// Count a reply as busy if it begins with this text, or with http if its body contains it (503 and 429 are
    /// always busy).
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = REQUESTS)]
    pub(super) busy: Option<String>,

    /// Trust the authorities of this file, in PEM [default: those that the system trusts].
    #[arg(long, value_name = "FILE", conflicts_with = "insecure", help_heading = TLS)]
    pub(super) cacert: Option<PathBuf>,

    /// Accept any certificate.
    #[arg(short = 'k', long, help_heading = TLS)]
    pub(super) insecure: bool,

    /// Ask for this name, and look for it in the certificate [default: the host of the URL].
    #[arg(long, value_name = "NAME", help_heading = TLS)]
    pub(super) tls_name: Option<String>,

    /// Let a connection resume the session of one before, if the server does. Without this each connection makes a whole
    /// handshake.
    #[arg(long, help_heading = TLS)]
    pub(super) tls_resume: bool,

    /// Beside the load, make this many requests a second, and measure them apart. Each has a new connection, unless
    /// --probe-connections is given.
    #[arg(long, value_name = "RATE", conflicts_with_all = ["requests", "find_max"],
          value_parser = units::rate, help_heading = PROBE)]
    pub(super) probe: Option<f64>,

    /// Open this many connections for the probe before the run, and use them in turn.
    #[arg(long, value_name = "N", requires = "probe", value_parser = units::positive, help_heading = PROBE)]
    pub(super) probe_connections: Option<u64>,

    /// Connect the probe from these local addresses [default: those of --source-ip].
    #[arg(long, value_name = "CIDR", requires = "probe", help_heading = PROBE)]
    pub(super) probe_source_ip: Option<Sources>,

    /// Exit with 99 unless this holds; may be repeated. Examples: p99<50ms, error_rate<0.1%, probe.p99<20ms,
    /// worst_second.rate>900 (useful replies), too_late<1%, handshake.p99<50ms.
    #[arg(long, value_name = "CONDITION", help_heading = JUDGEMENT)]
    pub(super) threshold: Vec<Threshold>,

    /// Exit with 3 if the run is not valid, because the generator was the limit or no request was answered well.
    #[arg(long, help_heading = JUDGEMENT)]
    pub(super) strict: bool,

    /// Compare with this report of an earlier run (-o json), and exit with 99 if anything is worse.
    #[arg(long, value_name = "FILE", help_heading = JUDGEMENT)]
    pub(super) baseline: Option<PathBuf>,

    /// When comparing, treat differences up to this share as noise.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = noise, help_heading = JUDGEMENT)]
    pub(super) noise: f64,

    /// Form of the report on standard output.
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORM", help_heading = OUTPUT)]
    pub(super) output: ReportForm,

    /// Write an HdrHistogram log, a line a second.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(super) hlog: Option<PathBuf>,

    /// Write the report as a page with plots.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(super) html: Option<PathBuf>,

    /// Write a table, a row a second.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(super) csv: Option<PathBuf>,

    /// Whether the run shows its progress on standard error.
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN", help_heading = OUTPUT)]
    pub(super) progress: ProgressWhen,
}

/// The names of a choice, each with what it means, and the value that a name stands for.
macro_rules! choice {
    ($name:ident, $kind:ty) => {
        fn $name() -> impl TypedValueParser<Value = $kind> {
            let named =
                <$kind>::ALL.iter().map(|value| PossibleValue::new(value.as_str()).help(value.meaning()));
            PossibleValuesParser::new(named).try_map(|name| name.parse::<$kind>())
        }
    };
}

choice!(spreads, Spread);
choice!(closes, Close);
choice!(modes, Mode);

impl LoadArgs {
    /// The same for the load generator.
    pub(super) fn options(&self) -> Result<Options, Error> {
        let url = self.url.clone().ok_or_else(|| Error::Usage("a URL is missing".to_owned()))?;
        let bytes = |text: &Option<String>| text.as_deref().map(unescape).transpose().map_err(Error::Usage);
        let mut options = Options::new(url);
        options.connections = self.connections;
        options.duration = self.duration;
        options.requests = self.requests;
        options.warmup = self.warmup;
        options.rate = self.rate;
        options.stages = self.stages.clone();
        options.find_max = self.find_max.clone();
        options.spread = self.arrival;
        options.timeout = self.timeout;
        options.connect_timeout = self.connect_timeout;
        options.reuse = self.reuse;
        options.close = self.close;
        options.send = match (bytes(&self.data)?, &self.data_file, &self.lines) {
            (Some(data), ..) => Some(Send::Data(data)),
            (_, Some(path), _) => Some(Send::File(path.clone())),
            (.., Some(path)) => Some(Send::Lines(path.clone())),
            _ => self.size.map(Send::Size),
        };
        options.method = self.method.clone();
        options.headers = self.header.clone();
        options.expect = bytes(&self.expect)?;
        options.busy = bytes(&self.busy)?;
        options.tls.authorities = self.cacert.clone();
        options.tls.insecure = self.insecure;
        options.tls.name = self.tls_name.clone();
        options.tls.resume = self.tls_resume;
        options.think = self.think;
        options.mode = self.mode;
        options.drip = self.drip;
        options.probe = self.probe;
        options.probe_connections = self.probe_connections;
        options.probe_source_ip = self.probe_source_ip;
        options.source_ip = self.source_ip;
        options.threads = self.threads;
        options.thresholds = self.threshold.clone();
        options.hlog = self.hlog.clone();
        options.csv = self.csv.clone();
        options.html = self.html.clone();
        options.progress = self.progress == ProgressWhen::Auto;
        options.seed = self.seed;
        Ok(options)
    }
}
