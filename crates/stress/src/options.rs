//! The options of a run, and the plan that they make.

use super::error::Error;
use super::http::HttpRequest;
use super::numbering::{HEADER, MAX_DATAGRAM};
use super::payload::{MAX_PAYLOAD, Payload};
use super::plan::{Close, MAX_CONNECTIONS, MAX_RATE, MAX_THREADS, Mode, Pace, Plan, Reuse, Think};
use super::schedule::{Profile, Spread};
use super::source::Sources;
use super::target::Target;
use super::threshold::Threshold;
use super::websocket::SocketRequest;
use super::wire::{Framing, Wire};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_protocols::RequestForm;
use tidegate_protocols::tls::{Tls, TlsChoices};
use tidegate_units as units;
use tidegate_units::url::{Scheme, Url};

/// The rate at which a search begins, unless a rate says another.
const FIRST_TRIAL: f64 = 100.0;
/// The highest rate of a probe: it watches, and makes no load worth the name.
const MAX_PROBE: f64 = 10_000.0;
/// The most connections of a probe.
const MAX_PROBE_CONNECTIONS: u64 = 10_000;
/// The payload where none is named, in bytes.
const SIZE: u64 = 64;

/// What a request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Send {
    /// This many bytes of text, which the server is expected to send back.
    Size(u64),
    /// These bytes. If they end with a newline, the reply is a line.
    Data(Vec<u8>),
    /// The bytes of a file.
    File(PathBuf),
    /// The lines of a file in turn, one a request; the reply is a line.
    Lines(PathBuf),
}

/// The stages of an open loop: in each, the rate goes in a straight line to its value. Read from a text like
/// `10s:100,1m:1000,10s:0`.
#[derive(Clone, Debug, PartialEq)]
pub struct Stages {
    list: Vec<(Duration, f64)>,
    text: String,
}

impl FromStr for Stages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let stage = |stage: &str| {
            let (time, rate) = stage.split_once(':')?;
            Some((units::duration(time.trim()).ok()?, units::rate(rate.trim()).ok()?))
        };
        let list: Option<Vec<_>> = text.split(',').map(stage).collect();
        let list = list.ok_or_else(|| {
            format!("`{text}` is not a list of stages: write times and rates, like 10s:100,1m:1000,10s:0")
        })?;
        if list.iter().any(|(_, rate)| *rate > MAX_RATE) {
            return Err(format!("a rate is at most {MAX_RATE}"));
        }
        Ok(Stages { list, text: text.to_owned() })
    }
}

/// What a run is asked to do. Error texts name the options as `tidegate stress` does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The target.
    pub url: Url,
    /// Clients, each with one connection at a time; default 50.
    pub connections: u64,
    /// How long to measure; default 10 s, without an end where `requests` is given.
    pub duration: Option<Duration>,
    /// The number of requests after which the run ends; default none.
    pub requests: Option<u64>,
    /// How long to run before measuring; default 1 s, and 0 with `requests`, `stages` and the modes that hold.
    pub warmup: Option<Duration>,
    /// Open loop: requests a second in all. Without it each client waits for its reply before it sends again.
    pub rate: Option<f64>,
    /// Open loop: a rate that changes over time, in place of `duration`, `requests` and `warmup`.
    pub stages: Option<Stages>,
    /// The condition that a search for the highest rate looks at; default none, no search.
    pub find_max: Option<Threshold>,
    /// How the arrivals of an open loop are spread; default evenly.
    pub spread: Spread,
    /// Time from a request to its whole reply; default 5 s.
    pub timeout: Duration,
    /// Time from the start of a connection to its establishment; default 1 s.
    pub connect_timeout: Duration,
    /// How many requests each connection serves; default all.
    pub reuse: Reuse,
    /// How a connection that is used up is closed; default an orderly end.
    pub close: Close,
    /// What requests carry; default 64 bytes, and nothing over HTTP.
    pub send: Option<Send>,
    /// HTTP: the method of requests; default GET, and POST with a payload.
    pub method: Option<String>,
    /// HTTP and WebSocket: more headers of requests, or of handshakes, each like `Name: value`; default none.
    pub headers: Vec<String>,
    /// What a good reply is or contains; default what the payload asks for (docs/stress.md, "What is a reply").
    pub expect: Option<Vec<u8>>,
    /// What a busy server's reply begins with; over HTTP, what its body contains.
    pub busy: Option<Vec<u8>>,
    /// How TLS is spoken, where the target speaks it.
    pub tls: TlsChoices,
    /// Closed loop: the pause between a reply and the next request; default none.
    pub think: Option<Think>,
    /// What is done with each connection; default requests.
    pub mode: Mode,
    /// Time between two bytes in the slow modes; default 1 s.
    pub drip: Duration,
    /// Requests a second of polite clients beside the load, measured apart; default none.
    pub probe: Option<f64>,
    /// Connections that the probe opens before the run and keeps; default none, and each of its requests connects anew.
    pub probe_connections: Option<u64>,
    /// Local addresses that the probe's connections come from in turn; default those of the load.
    pub probe_source_ip: Option<Sources>,
    /// Local addresses that connections come from in turn; default what the kernel chooses.
    pub source_ip: Option<Sources>,
    /// Load threads; default 1.
    pub threads: u64,
    /// Conditions that the report is judged by; default none.
    pub thresholds: Vec<Threshold>,
    /// Where an HdrHistogram log is written, a line a second; default nowhere.
    pub hlog: Option<PathBuf>,
    /// Where a table is written, a row a second; default nowhere.
    pub csv: Option<PathBuf>,
    /// Where the report is written as a page with plots; default nowhere.
    pub html: Option<PathBuf>,
    /// Whether stderr shows how the run goes on; default not.
    pub progress: bool,
    /// Of all random numbers, so that a run can be repeated; default another each time.
    pub seed: Option<u64>,
}

impl Options {
    /// The default options for this target.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            connections: 50,
            duration: None,
            requests: None,
            warmup: None,
            rate: None,
            stages: None,
            find_max: None,
            spread: Spread::Uniform,
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            reuse: Reuse::Forever,
            close: Close::Fin,
            send: None,
            method: None,
            headers: Vec::new(),
            expect: None,
            busy: None,
            tls: TlsChoices::default(),
            think: None,
            mode: Mode::Request,
            drip: Duration::from_secs(1),
            probe: None,
            probe_connections: None,
            probe_source_ip: None,
            source_ip: None,
            threads: 1,
            thresholds: Vec::new(),
            hlog: None,
            csv: None,
            html: None,
            progress: false,
            seed: None,
        }
    }

    /// The plan that these options make.
    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        if self.connections > MAX_CONNECTIONS {
            return Err(Error::usage(format!("--connections: at most {MAX_CONNECTIONS}")));
        }
        let url = self.url.clone();
        let threads = self.threads.min(self.connections);
        if self.threads > MAX_THREADS as u64 {
            return Err(Error::usage(format!("--threads: at most {MAX_THREADS}")));
        }
        for (option, time) in [("--timeout", self.timeout), ("--connect-timeout", self.connect_timeout)] {
            if time.is_zero() {
                return Err(Error::usage(format!("{option}: it must be longer than 0")));
            }
        }
        self.check_together(&url)?;
        let (duration, warmup) = self.times()?;
        let pace = self.pace(duration, warmup)?;
        let wire = self.wire(&url, self.reuse == Reuse::Times(1))?;
        let tls = self.tls(&url)?;
        let target = Target::of(&url, self.source_ip.as_ref(), self.connect_timeout, &wire)?;
        Ok(Plan {
            url,
            target,
            mode: self.mode,
            connections: self.connections as usize,
            threads: threads as usize,
            pace,
            warmup,
            duration,
            requests: self.requests,
            timeout: self.timeout,
            connect_timeout: self.connect_timeout,
            reuse: self.reuse,
            close: self.close,
            wire,
            tls,
            sources: self.source_ip,
            drip: self.drip,
            seed: self.seed.unwrap_or_else(new_seed),
        })
    }

    /// Options that say nothing together.
    fn check_together(&self, url: &Url) -> Result<(), Error> {
        let holds = self.mode.stays();
        let mode = self.mode.as_str();
        if url.scheme == Scheme::Udp && self.mode != Mode::Request {
            return Err(Error::usage(format!("--mode {mode} is about connections, and udp has none")));
        }
        if holds && self.requests.is_some() {
            return Err(Error::usage(format!("--mode {mode} goes on for a time: use -d, not -n")));
        }
        if holds && self.warmup.is_some_and(|warmup| !warmup.is_zero()) {
            return Err(Error::usage(format!("--mode {mode} has no --warmup: what it opens stays")));
        }
        if self.find_max.is_some() && self.mode != Mode::Request {
            return Err(Error::usage("--find-max is about requests: it has no --mode"));
        }
        if let Some(condition) = &self.find_max
            && condition.is_of_probe()
        {
            return Err(Error::usage("--find-max: the condition is about the load, and there is no probe"));
        }
        if self.probe.is_none()
            && let Some(threshold) = self.thresholds.iter().find(|t| t.is_of_probe())
        {
            return Err(Error::usage(format!("--threshold {}: there is no --probe", threshold.text())));
        }
        if url.scheme.inside_tls().is_none()
            && let Some(condition) =
                self.thresholds.iter().chain(&self.find_max).find(|it| it.is_of_handshakes())
        {
            let text = condition.text();
            return Err(Error::usage(format!(
                "{text} is about handshakes of TLS, and there are none at {url}"
            )));
        }
        self.check_probe(url)?;
        if holds && self.drip.is_zero() {
            return Err(Error::usage("--drip: it must be longer than 0"));
        }
        if self.source_ip.is_some() && url.scheme.is_unix() {
            return Err(Error::usage("--source-ip: a Unix socket has no addresses"));
        }
        if let Some(sources) = &self.source_ip
            && url.host.parse().is_ok_and(|host| !sources.reaches(host))
        {
            return Err(Error::usage("--source-ip and the target are not of one kind: IPv4 or IPv6"));
        }
        Ok(())
    }

    fn check_probe(&self, url: &Url) -> Result<(), Error> {
        if self.probe.is_some_and(|rate| rate <= 0.0 || rate > MAX_PROBE) {
            return Err(Error::usage(format!("--probe: more than 0 and at most {MAX_PROBE} a second")));
        }
        if self.probe_connections.is_some_and(|n| n == 0 || n > MAX_PROBE_CONNECTIONS) {
            return Err(Error::usage(format!("--probe-connections: 1 to {MAX_PROBE_CONNECTIONS}")));
        }
        if self.probe.is_none() && (self.probe_connections.is_some() || self.probe_source_ip.is_some()) {
            return Err(Error::usage("--probe-connections and --probe-source-ip: there is no --probe"));
        }
        if self.probe_source_ip.is_some() && url.scheme.is_unix() {
            return Err(Error::usage("--probe-source-ip: a Unix socket has no addresses"));
        }
        Ok(())
    }

    /// The plan of the probe, if there is one, beside the plan of the load.
    pub(crate) fn probe_plan(&self, load: &Plan) -> Result<Option<Plan>, Error> {
        let Some(rate) = self.probe else { return Ok(None) };
        let standing = self.probe_connections.map(|n| n as usize);
        let mut plan = load.probe(rate, standing);
        plan.wire = self.wire(&self.url, standing.is_none())?;
        if let Some(sources) = self.probe_source_ip {
            if !load.target.is_reached_by(&sources) {
                return Err(Error::usage(
                    "--probe-source-ip and the target are not of one kind: IPv4 or IPv6",
                ));
            }
            plan.sources = Some(sources);
        }
        Ok(Some(plan))
    }

    fn times(&self) -> Result<(Option<Duration>, Duration), Error> {
        if let Some(stages) = &self.stages {
            let length: Duration = stages.list.iter().map(|(time, _)| *time).sum();
            if length.is_zero() || stages.list.iter().all(|(_, rate)| *rate == 0.0) {
                return Err(Error::usage("--stages: nothing would ever be sent"));
            }
            if length > units::LONGEST {
                return Err(Error::usage("--stages: a year in all at most"));
            }
            let warmup = self.warmup.unwrap_or_default();
            let Some(measured) = length.checked_sub(warmup).filter(|time| !time.is_zero()) else {
                return Err(Error::usage(
                    "--warmup: it takes all of the --stages, and nothing would be measured",
                ));
            };
            return Ok((Some(measured), warmup));
        }
        let duration = match (self.duration, self.requests) {
            (Some(time), _) if time.is_zero() => {
                return Err(Error::usage("--duration: it must be longer than 0"));
            }
            (Some(time), _) => Some(time),
            (None, Some(_)) => None,
            (None, None) if self.find_max.is_some() => Some(Duration::from_secs(5)),
            (None, None) => Some(Duration::from_secs(10)),
        };
        let counts_all = self.requests.is_some() || !matches!(self.mode, Mode::Request | Mode::ConnectFlood);
        let warmup = match self.warmup {
            Some(time) => time,
            None if counts_all => Duration::ZERO,
            None => Duration::from_secs(1),
        };
        Ok((duration, warmup))
    }

    fn pace(&self, duration: Option<Duration>, warmup: Duration) -> Result<Pace, Error> {
        if self.rate.is_some_and(|rate| rate <= 0.0) {
            return Err(Error::usage("--rate: it must be more than 0"));
        }
        if self.rate.is_some_and(|rate| rate > MAX_RATE) {
            return Err(Error::usage(format!("--rate: at most {MAX_RATE}")));
        }
        let spread = self.spread;
        if let Some(stages) = &self.stages {
            return Ok(Pace::Open {
                profile: Arc::new(Profile::stages(self.rate.unwrap_or(0.0), &stages.list)),
                spread,
                label: format!("stages {}", stages.text),
            });
        }
        let first_trial = self.find_max.as_ref().map(|_| FIRST_TRIAL);
        match self.rate.or(first_trial) {
            Some(rate) => Ok(Pace::constant(rate, spread, warmup, duration)),
            None => Ok(Pace::Closed(self.think.unwrap_or(Think::Fixed(Duration::ZERO)))),
        }
    }

    /// What is sent and how replies are judged. `close`: each connection is for one request.
    fn wire(&self, url: &Url, close: bool) -> Result<Wire, Error> {
        let mut payload = self.payload()?;
        if [&self.expect, &self.busy].into_iter().flatten().any(Vec::is_empty) {
            return Err(Error::usage("--expect and --busy: the text is empty"));
        }
        let text = |text: &Option<Vec<u8>>| text.as_deref().map(Box::from);
        let (expect, busy): (Option<Box<[u8]>>, _) = (text(&self.expect), text(&self.busy));
        let has_body = self.send.is_some();
        let is_ours = matches!(self.send, None | Some(Send::Size(_)));
        let form = RequestForm::of(url, self.method.as_deref(), &self.headers).map_err(Error::usage)?;
        let framing = match (url.scheme.inside_tls().unwrap_or(url.scheme), &expect) {
            (Scheme::Http | Scheme::HttpUnix, _) => {
                let body = has_body.then_some(&payload);
                let requests = HttpRequest::new(url, &form, body, close);
                // The requests have its bytes.
                payload = Payload::whole(Vec::new());
                Framing::Http(requests)
            }
            (Scheme::Ws | Scheme::WsUnix, _) => {
                let requests = SocketRequest::new(url, &form, &payload);
                payload = Payload::whole(Vec::new());
                Framing::Socket(requests)
            }
            (Scheme::Udp, _) if payload.largest() > MAX_DATAGRAM => {
                return Err(Error::usage(format!("a datagram has at most {MAX_DATAGRAM} bytes")));
            }
            (Scheme::Udp, expect) => {
                Framing::Datagram { numbered: is_ours && expect.is_none() && payload.largest() >= HEADER }
            }
            (Scheme::Tcp | Scheme::Unix, _) if payload.is_lines() || payload.largest() == 0 => Framing::Line,
            (Scheme::Tcp | Scheme::Unix, Some(expect)) => Framing::Exact(expect.clone()),
            (Scheme::Tcp | Scheme::Unix, None) => Framing::Echo,
            _ => {
                let known = "tcp, tls, udp, http, https, ws, wss, unix, http+unix and ws+unix";
                return Err(Error::usage(format!("{url}: the stress client speaks {known}")));
            }
        };
        Ok(Wire { framing, payload, expect, busy })
    }

    /// What is between requests and sockets.
    fn tls(&self, url: &Url) -> Result<Option<Arc<Tls>>, Error> {
        if url.scheme.inside_tls().is_some() {
            let protocol = url.scheme.has_path().then_some("http/1.1");
            return Tls::new(&self.tls, &url.host, protocol)
                .map(|tls| Some(Arc::new(tls)))
                .map_err(Error::failed);
        }
        if !self.tls.is_default() {
            return Err(Error::usage(format!(
                "--cacert, --insecure, --tls-name and --tls-resume are about TLS, and this is {url}"
            )));
        }
        Ok(None)
    }

    fn payload(&self) -> Result<Payload, Error> {
        match self.send.as_ref().unwrap_or(&Send::Size(SIZE)) {
            Send::Data(bytes) => Ok(Payload::whole(bytes.clone())),
            Send::File(path) => Payload::file(path).map_err(Error::failed),
            Send::Lines(path) => Payload::lines(path).map_err(Error::failed),
            Send::Size(size) if *size > MAX_PAYLOAD => {
                Err(Error::usage(format!("--size: at most {MAX_PAYLOAD} bytes")))
            }
            Send::Size(size) => Ok(Payload::sized(*size as usize)),
        }
    }
}

/// A seed that differs from run to run.
fn new_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Kept under 2^53, so that every JSON reader takes it whole.
    std::hash::RandomState::new().build_hasher().finish() >> 11
}
