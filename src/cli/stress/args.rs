//! The options of `tidegate stress`.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;
use std::time::Duration;
use tidegate_stress::{
    Close, Error, Mode, Options, Reuse, Send, Sources, Spread, Stages, Think, Threshold, share,
};
use tidegate_units as units;
use tidegate_units::unescape;
use tidegate_units::url::Url;

/// The form of the report on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people: one screen.
    Text,
    /// For programs: docs/stress.md describes it.
    Json,
}

/// Whether a run shows how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ProgressWhen {
    /// A bar on a terminal, a line every ten seconds elsewhere; on stderr.
    Auto,
    /// Not at all.
    Off,
}

/// Options of `tidegate stress`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(in crate::cli) struct StressArgs {
    #[command(subcommand)]
    pub(super) kept: Option<super::kept::Kept>,
    #[command(flatten)]
    pub(super) load: LoadArgs,
}

/// Options of a run.
#[derive(Debug, clap::Args)]
pub(super) struct LoadArgs {
    /// The target: tcp://host:port, udp://host:port or http://host[:port][/path].
    #[arg(required = true)]
    pub(super) url: Option<Url>,

    /// Clients, each with one connection at a time.
    #[arg(short, long, value_name = "N", default_value = "50", value_parser = units::positive)]
    pub(super) connections: u64,

    /// How long to measure [default: 10s, without end where -n is given].
    #[arg(short, long, value_name = "TIME", value_parser = units::duration)]
    pub(super) duration: Option<Duration>,

    /// Make this many requests, then end.
    #[arg(short = 'n', long, value_name = "N", value_parser = units::positive)]
    pub(super) requests: Option<u64>,

    /// Run this long before measuring [default: 1s; 0s with -n, --stages and the modes that hold].
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(super) warmup: Option<Duration>,

    /// Open loop: requests a second in all, whatever the server does. Without it each client waits for its
    /// reply before it sends again.
    #[arg(short, long, value_name = "N", value_parser = units::rate)]
    pub(super) rate: Option<f64>,

    /// Open loop: in each of these times the rate goes in a straight line to its value, from --rate or 0,
    /// like 10s:100,1m:1000,10s:0.
    #[arg(long, value_name = "TIME:RATE,...", conflicts_with_all = ["duration", "requests", "warmup"])]
    pub(super) stages: Option<Stages>,

    /// Look for the highest rate at which this threshold holds, in trials of --duration [default: 5s].
    #[arg(long, value_name = "THRESHOLD", conflicts_with_all = ["stages", "requests", "think", "baseline"])]
    pub(super) find_max: Option<Threshold>,

    /// How an open loop's arrivals are spread.
    #[arg(long, default_value = "uniform", value_name = "HOW", value_parser = spreads())]
    pub(super) arrival: Spread,

    /// From a request to its whole reply.
    #[arg(short, long, value_name = "TIME", default_value = "5s", value_parser = units::duration)]
    pub(super) timeout: Duration,

    /// From the start of a connection to its establishment.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    pub(super) connect_timeout: Duration,

    /// Requests on each connection: forever, a number, or never (one).
    #[arg(long, value_name = "HOW", default_value = "forever")]
    pub(super) reuse: Reuse,

    /// How a connection that is used up is closed.
    #[arg(long, default_value = "fin", value_name = "HOW", value_parser = closes())]
    pub(super) close: Close,

    /// Send this text (with \n, \r, \t, \0, \\ and \xHH); if it ends with \n, a line is the reply.
    #[arg(long, value_name = "TEXT", group = "payload")]
    pub(super) data: Option<String>,

    /// Send this many bytes, and expect them back.
    #[arg(long, value_name = "BYTES", group = "payload", value_parser = units::size)]
    pub(super) size: Option<u64>,

    /// Send the bytes of this file.
    #[arg(long, value_name = "FILE", group = "payload")]
    pub(super) data_file: Option<PathBuf>,

    /// Send the lines of this file in turn, one a request; a line is the reply.
    #[arg(long, value_name = "FILE", group = "payload")]
    pub(super) lines: Option<PathBuf>,

    /// What a good reply is: tcp, these bytes, or a line with this text where lines are sent; udp, a datagram
    /// with it; http, a body with it.
    #[arg(long, value_name = "TEXT")]
    pub(super) expect: Option<String>,

    /// What a busy server's reply begins with; http, what its body contains (503 and 429 are busy anyway).
    #[arg(long, value_name = "TEXT")]
    pub(super) busy: Option<String>,

    /// Closed loop: the pause between a reply and the next request, like 50ms, or exp:50ms at random around it.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["rate", "stages"])]
    pub(super) think: Option<Think>,

    /// What is done with each connection.
    #[arg(long, default_value = "request", value_name = "MODE", value_parser = modes())]
    pub(super) mode: Mode,

    /// slow-send and slow-read: the time between two bytes.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    pub(super) drip: Duration,

    /// Beside the load, make this many requests a second as a polite client that connects anew for each, and
    /// measure them apart.
    #[arg(long, value_name = "RATE", conflicts_with_all = ["requests", "find_max"],
          value_parser = units::rate)]
    pub(super) probe: Option<f64>,

    /// Connect from these local addresses in turn, like 127.0.1.0/24: each has ports of its own.
    #[arg(long, value_name = "CIDR")]
    pub(super) source_ip: Option<Sources>,

    /// Load threads.
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::positive)]
    pub(super) threads: u64,

    /// The form of the report on stdout.
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORM")]
    pub(super) output: Output,

    /// Write an HdrHistogram log, a line a second.
    #[arg(long, value_name = "FILE")]
    pub(super) hlog: Option<PathBuf>,

    /// Write the report as a page with plots.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,

    /// Write a table, a row a second.
    #[arg(long, value_name = "FILE")]
    pub(super) csv: Option<PathBuf>,

    /// Whether to show on stderr how the run goes on.
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    pub(super) progress: ProgressWhen,

    /// Exit with 99 unless this holds, like p99<50ms, error_rate<0.1% or probe.p99<20ms; may be repeated.
    #[arg(long, value_name = "CONDITION")]
    pub(super) threshold: Vec<Threshold>,

    /// Compare with this report of an earlier run (-o json), and exit with 99 if anything is worse.
    #[arg(long, value_name = "FILE")]
    pub(super) baseline: Option<PathBuf>,

    /// What differs by no more than this is the same.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = noise)]
    pub(super) noise: f64,

    /// Exit with 3 if the run is not valid: the generator was the limit.
    #[arg(long)]
    pub(super) strict: bool,

    /// Of the random numbers, so that a run can be repeated [default: another each time].
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
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
        options.expect = bytes(&self.expect)?;
        options.busy = bytes(&self.busy)?;
        options.think = self.think;
        options.mode = self.mode;
        options.drip = self.drip;
        options.probe = self.probe;
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

/// A share, like 5%.
pub(super) fn noise(text: &str) -> Result<f64, String> {
    share(text).ok_or_else(|| format!("`{text}` is not a share: write it like 5% or 0.05"))
}
