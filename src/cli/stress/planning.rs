//! The plan that the options make, or why they make none.

use super::args::{Arrival, LoadArgs};
use crate::cli::escapes::unescape;
use crate::cli::{exit, units};
use crate::stress::datagram::{HEADER, MAX_DATAGRAM};
use crate::stress::http::HttpRequest;
use crate::stress::payload::{MAX_PAYLOAD, Payload};
use crate::stress::plan::{MAX_CONNECTIONS, MAX_RATE, MAX_THREADS, Mode, Pace, Plan, Reuse, Think};
use crate::stress::schedule::{Profile, Spread};
use crate::stress::source::Sources;
use crate::stress::wire::{Framing, Wire};
use crate::url::{Scheme, Url};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The rate at which a search begins, unless --rate says another.
const FIRST_TRIAL: f64 = 100.0;
/// The highest rate of a probe: it watches, it does not load.
const MAX_PROBE: f64 = 1000.0;

/// Why there is no plan.
#[derive(Debug)]
pub(super) struct ArgsError {
    pub(super) code: u8,
    pub(super) message: String,
}

fn usage(message: impl Into<String>) -> ArgsError {
    ArgsError { code: exit::USAGE, message: message.into() }
}

fn failed(message: impl Into<String>) -> ArgsError {
    ArgsError { code: exit::FAILED, message: message.into() }
}

impl LoadArgs {
    /// The plan that these options make.
    pub(super) fn plan(&self) -> Result<Plan, ArgsError> {
        if self.connections > MAX_CONNECTIONS {
            return Err(usage(format!("--connections: at most {MAX_CONNECTIONS}")));
        }
        let url = self.url.clone().ok_or_else(|| usage("a URL is missing"))?;
        let threads = self.threads.min(self.connections);
        if self.threads > MAX_THREADS as u64 {
            return Err(usage(format!("--threads: at most {MAX_THREADS}")));
        }
        for (option, time) in [("--timeout", self.timeout), ("--connect-timeout", self.connect_timeout)] {
            if time.is_zero() {
                return Err(usage(format!("{option}: it must be longer than 0")));
            }
        }
        self.check_together(&url)?;
        let (duration, warmup) = self.times()?;
        let pace = self.pace(duration, warmup)?;
        let wire = self.wire(&url)?;
        let address = address(&url, self.source_ip.as_ref(), self.connect_timeout)?;
        Ok(Plan {
            url,
            address,
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
            sources: self.source_ip,
            drip: self.drip,
            seed: self.seed.unwrap_or_else(new_seed),
        })
    }

    /// Options that say nothing together.
    fn check_together(&self, url: &Url) -> Result<(), ArgsError> {
        let holds = self.mode.stays();
        let mode = self.mode.as_str();
        if url.scheme == Scheme::Udp && self.mode != Mode::Request {
            return Err(usage(format!("--mode {mode} is about connections, and udp has none")));
        }
        if holds && self.requests.is_some() {
            return Err(usage(format!("--mode {mode} goes on for a time: use -d, not -n")));
        }
        if holds && self.warmup.is_some_and(|warmup| !warmup.is_zero()) {
            return Err(usage(format!("--mode {mode} has no --warmup: what it opens stays")));
        }
        if self.find_max.is_some() && self.mode != Mode::Request {
            return Err(usage("--find-max is about requests: it has no --mode"));
        }
        if let Some(condition) = &self.find_max
            && condition.is_of_probe()
        {
            return Err(usage("--find-max: the condition is about the load, and there is no probe"));
        }
        if self.probe.is_none()
            && let Some(threshold) = self.threshold.iter().find(|t| t.is_of_probe())
        {
            return Err(usage(format!("--threshold {}: there is no --probe", threshold.text())));
        }
        if self.probe.is_some_and(|rate| rate <= 0.0 || rate > MAX_PROBE) {
            return Err(usage(format!("--probe: more than 0 and at most {MAX_PROBE} a second")));
        }
        if holds && self.drip.is_zero() {
            return Err(usage("--drip: it must be longer than 0"));
        }
        if let Some(sources) = &self.source_ip
            && url.host.parse().is_ok_and(|host| !sources.reaches(host))
        {
            return Err(usage("--source-ip and the target are not of one kind: IPv4 or IPv6"));
        }
        Ok(())
    }

    fn times(&self) -> Result<(Option<Duration>, Duration), ArgsError> {
        if let Some(stages) = &self.stages {
            let length: Duration = stages.list.iter().map(|(time, _)| *time).sum();
            if length.is_zero() || stages.list.iter().all(|(_, rate)| *rate == 0.0) {
                return Err(usage("--stages: nothing would ever be sent"));
            }
            if length > units::LONGEST {
                return Err(usage("--stages: a year in all at most"));
            }
            return Ok((Some(length), Duration::ZERO));
        }
        let duration = match (self.duration, self.requests) {
            (Some(time), _) if time.is_zero() => {
                return Err(usage("--duration: it must be longer than 0"));
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

    fn pace(&self, duration: Option<Duration>, warmup: Duration) -> Result<Pace, ArgsError> {
        if self.rate.is_some_and(|rate| rate <= 0.0) {
            return Err(usage("--rate: it must be more than 0"));
        }
        if self.rate.is_some_and(|rate| rate > MAX_RATE) {
            return Err(usage(format!("--rate: at most {MAX_RATE}")));
        }
        let spread = match self.arrival {
            Arrival::Uniform => Spread::Uniform,
            Arrival::Poisson => Spread::Poisson,
        };
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

    fn wire(&self, url: &Url) -> Result<Wire, ArgsError> {
        let mut payload = self.payload()?;
        let text = |text: &Option<String>| match text {
            Some(text) if text.is_empty() => Err(usage("--expect and --busy: the text is empty")),
            Some(text) => Ok(Some(unescape(text).map_err(usage)?.into_boxed_slice())),
            None => Ok(None),
        };
        let (expect, busy) = (text(&self.expect)?, text(&self.busy)?);
        let has_body =
            self.data.is_some() || self.size.is_some() || self.data_file.is_some() || self.lines.is_some();
        let is_ours = self.data.is_none() && self.data_file.is_none() && self.lines.is_none();
        let framing = match (url.scheme, &expect) {
            (Scheme::Http, _) => {
                let body = has_body.then_some(&payload);
                let close = self.reuse == Reuse::Times(1);
                let requests = HttpRequest::new(&authority(url), &url.path, body, close);
                // The requests have its bytes.
                payload = Payload::whole(Vec::new());
                Framing::Http(requests)
            }
            (Scheme::Udp, _) if payload.largest() > MAX_DATAGRAM => {
                return Err(usage(format!("a datagram has at most {MAX_DATAGRAM} bytes")));
            }
            (Scheme::Udp, expect) => {
                Framing::Datagram { numbered: is_ours && expect.is_none() && payload.largest() >= HEADER }
            }
            (Scheme::Tcp, _) if payload.is_lines() || payload.largest() == 0 => Framing::Line,
            (Scheme::Tcp, Some(expect)) => Framing::Exact(expect.clone()),
            (Scheme::Tcp, None) => Framing::Echo,
        };
        Ok(Wire { framing, payload, expect, busy })
    }

    fn payload(&self) -> Result<Payload, ArgsError> {
        if let Some(text) = &self.data {
            return unescape(text).map(Payload::whole).map_err(usage);
        }
        if let Some(path) = &self.data_file {
            return Payload::file(path).map_err(failed);
        }
        if let Some(path) = &self.lines {
            return Payload::lines(path).map_err(failed);
        }
        match self.size.unwrap_or(64) {
            size if size > MAX_PAYLOAD => Err(usage(format!("--size: at most {MAX_PAYLOAD} bytes"))),
            size => Ok(Payload::sized(size as usize)),
        }
    }
}

/// Host and port as the `Host` header gives them.
fn authority(url: &Url) -> String {
    let Url { host, port, .. } = url;
    match (host.contains(':'), port) {
        (true, 80) => format!("[{host}]"),
        (true, port) => format!("[{host}]:{port}"),
        (false, 80) => host.clone(),
        (false, port) => format!("{host}:{port}"),
    }
}

/// The first address of the host that answers, of those that the sources reach; with one address there is nothing to
/// try.
fn address(url: &Url, sources: Option<&Sources>, timeout: Duration) -> Result<SocketAddr, ArgsError> {
    if url.port == 0 {
        return Err(usage(format!("{url}: port 0 is no target")));
    }
    let mut addresses = url.resolve().map_err(|error| failed(error.to_string()))?;
    addresses.retain(|address| sources.is_none_or(|sources| sources.reaches(address.ip())));
    let (last, others) = match addresses.split_last() {
        Some((last, others)) if url.scheme != Scheme::Udp => (last, others),
        Some((last, others)) => (others.first().unwrap_or(last), &[][..]),
        None => return Err(failed(format!("{} has no address of the kind of --source-ip", url.host))),
    };
    let answers = |a: &&SocketAddr| std::net::TcpStream::connect_timeout(a, timeout).is_ok();
    Ok(*others.iter().find(answers).unwrap_or(last))
}

/// A seed that differs from run to run.
fn new_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Kept under 2^53, so that every JSON reader takes it whole.
    std::hash::RandomState::new().build_hasher().finish() >> 11
}
