//! Turns a snapshot into the text that Prometheus reads.

use super::backends::{BackendSnapshot, BackendsSnapshot};
use super::catalogue::{CATALOGUE, Id, Metric, MetricKind, Presence};
use super::handshakes::{HandshakesSnapshot, OPENED};
use super::histogram::{BUCKETS, HistogramSnapshot};
use super::process::{AgentSnapshot, ProcessReader, ProcessSnapshot};
use super::snapshot::{ListenerSnapshot, Observe, Phase, Snapshot};
use super::web::{CLASSES, WebSnapshot};
use crate::reason::{
    AcceptError, BackendFailure, CloseReason, DatagramDrop, DropReason, HandshakeFailure, RequestFailure,
    SocketHandshake, TurnOutcome, TurnShed, WouldDrop,
};
use prometheus::core::{Collector, Desc};
use prometheus::{Encoder, Registry, TextEncoder, proto};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// The content type of what [`Exporter::render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of one server and of the process it runs in, as text.
#[derive(Debug)]
pub struct Exporter {
    registry: Registry,
}

impl Exporter {
    /// Makes the exporter of what `observe` sees.
    pub fn new(observe: Arc<dyn Observe>) -> io::Result<Self> {
        let registry = Registry::new();
        let collector = ServerCollector::new(observe).map_err(io::Error::other)?;
        registry.register(Box::new(collector)).map_err(io::Error::other)?;
        Ok(Self { registry })
    }

    /// Takes a snapshot and gives it in the text format 0.0.4. It allocates, and costs one pass
    /// over the counters.
    pub fn render(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text).map_err(io::Error::other)?;
        Ok(text)
    }
}

/// The same as a [`Collector`], for a program that has a [`Registry`] of its own.
///
/// ```
/// use tidegate::{Echo, Server, metrics::registry::ServerCollector};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::builder().listen("127.0.0.1:0", Echo)?.bind()?.serve()?;
/// let registry = prometheus::Registry::new();
/// registry.register(Box::new(ServerCollector::new(server.observe())?))?;
/// assert!(registry.gather().iter().any(|family| family.name() == "tidegate_workers_limit"));
/// # Ok(())
/// # }
/// ```
pub struct ServerCollector {
    observe: Arc<dyn Observe>,
    process: ProcessReader,
    descriptions: Vec<Desc>,
}

impl ServerCollector {
    /// Makes the collector of what `observe` sees, and of the process.
    pub fn new(observe: Arc<dyn Observe>) -> prometheus::Result<Self> {
        let describe = |metric: &Metric| {
            let labels = metric.labels.iter().map(|label| label.name.to_owned()).collect();
            Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, HashMap::new())
        };
        Ok(Self {
            observe,
            process: ProcessReader::new(),
            descriptions: CATALOGUE.iter().map(describe).collect::<Result<_, _>>()?,
        })
    }
}

impl Collector for ServerCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        families(&self.observe.snapshot(), &self.process.read())
    }
}

/// Builds every family that has samples.
fn families(server: &Snapshot, process: &ProcessSnapshot) -> Vec<proto::MetricFamily> {
    CATALOGUE
        .iter()
        .filter_map(|metric| {
            let mut samples = Samples { metric, out: Vec::new() };
            collect(metric.id, server, process, &mut samples);
            samples.family()
        })
        .collect()
}

/// The samples of one metric in the making.
struct Samples<'a> {
    metric: &'a Metric,
    out: Vec<proto::Metric>,
}

impl Samples<'_> {
    fn labelled(&self, values: &[&str]) -> proto::Metric {
        debug_assert_eq!(values.len(), self.metric.labels.len(), "{}", self.metric.name);
        let pair = |(label, value): (&super::catalogue::Label, &&str)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name(label.name.to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        proto::Metric::from_label(self.metric.labels.iter().zip(values).map(pair).collect())
    }

    fn add(&mut self, labels: &[&str], value: f64) {
        let mut sample = self.labelled(labels);
        if self.metric.kind == MetricKind::Counter {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            sample.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            sample.set_gauge(gauge);
        }
        self.out.push(sample);
    }

    fn count(&mut self, labels: &[&str], value: u64) {
        self.add(labels, value as f64);
    }

    fn maybe(&mut self, value: Option<u64>) {
        if let Some(value) = value {
            self.count(&[], value);
        }
    }

    fn histogram(&mut self, labels: &[&str], seen: &HistogramSnapshot) {
        let mut sum = 0;
        let buckets = BUCKETS.iter().zip(seen.counts).map(|(&bound, count)| {
            sum += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(sum);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(seen.count());
        histogram.set_sample_sum(seen.sum.as_secs_f64());
        let mut sample = self.labelled(labels);
        sample.set_histogram(histogram);
        self.out.push(sample);
    }

    fn family(self) -> Option<proto::MetricFamily> {
        if self.out.is_empty() {
            return None;
        }
        let mut family = proto::MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(match self.metric.kind {
            MetricKind::Counter => proto::MetricType::COUNTER,
            MetricKind::Gauge => proto::MetricType::GAUGE,
            MetricKind::Histogram => proto::MetricType::HISTOGRAM,
        });
        family.set_metric(self.out);
        Some(family)
    }
}

/// How the names of metrics begin that are the whole process's.
const OF_THE_PROCESS: [&str; 5] =
    ["process_", "tidegate_agent_", "tidegate_config_", "tidegate_log_lines_", "tidegate_access_log_"];

fn collect(id: Id, server: &Snapshot, process: &ProcessSnapshot, out: &mut Samples<'_>) {
    match id {
        Id::BuildInfo => out.count(&[VERSION, REVISION], 1),
        Id::Active => out.count(&[], server.listeners.iter().map(|l| l.active).sum()),
        Id::ConnectionsLimit => out.count(&[], server.connections_limit),
        Id::Workers => {
            let busy = server.workers_busy.min(server.workers_limit);
            out.count(&["busy"], busy);
            out.count(&["idle"], server.workers_limit - busy);
        }
        Id::WorkersLimit => out.count(&[], server.workers_limit),
        Id::WorkerBusy => out.add(&[], server.worker_busy.as_secs_f64()),
        Id::WorkersStuck => out.count(&[], server.workers_stuck),
        Id::HandlerPanics => out.count(&[], server.handler_panics),
        Id::QueueLength => out.count(&[], server.queue_length),
        Id::QueueLimit => out.count(&[], server.queue_limit),
        Id::QueueNewcomers => out.count(&[], server.listeners.iter().map(|l| l.newcomers).sum()),
        Id::QueueStanding => out.count(&[], server.standing.is_some().into()),
        Id::ShelfLength => out.count(&[], server.shelf_length),
        Id::ShelfOldest => out.add(&[], server.shelf_oldest.as_secs_f64()),
        Id::QueueWait => out.histogram(&[], &server.queue_wait),
        Id::PendingInput => out.count(&[], server.pending_input_bytes),
        Id::PendingOutput => out.count(&[], server.pending_output_bytes),
        Id::Lingering => out.count(&[], server.lingering),
        Id::LateCloses => out.count(&[], server.late_closes),
        Id::Draining => {
            let draining = !matches!(server.phase, Phase::Starting | Phase::Serving);
            out.count(&[], draining.into());
        }
        Id::Turns | Id::TurnsShed | Id::TurnDuration | Id::ReceivedBytes | Id::SentBytes => {
            for service in services(server) {
                collect_service(id, &service, out);
            }
        }
        Id::TlsHandshakes | Id::TlsFailures | Id::TlsDuration | Id::TlsBusy | Id::TlsCertificateExpiry => {
            for listener in &server.listeners {
                if let Some(handshakes) = &listener.handshakes {
                    collect_handshakes(id, &listener.listener, handshakes, out);
                }
            }
        }
        Id::WouldDrop => {
            for listener in &server.listeners {
                for &reason in WouldDrop::ALL {
                    let count = listener.would_drop[reason as usize];
                    out.count(&[&listener.listener, reason.as_str()], count);
                }
            }
        }
        Id::DatagramsReceived | Id::DatagramsDropped => {
            for listener in server.listeners.iter().filter(|l| l.datagram) {
                collect_datagrams(id, listener, out);
            }
        }
        _ if OF_THE_PROCESS.iter().any(|family| out.metric.name.starts_with(family)) => {
            collect_process(id, process, out)
        }
        _ if matches!(out.metric.presence, Presence::Http | Presence::OwnHttp) => {
            collect_webs(id, server, out)
        }
        _ if matches!(out.metric.presence, Presence::Gate | Presence::Backend) => {
            collect_gates(id, server, out)
        }
        _ => {
            for listener in server.listeners.iter().filter(|l| !l.datagram) {
                collect_listener(id, listener, out);
            }
        }
    }
}

fn collect_process(id: Id, process: &ProcessSnapshot, out: &mut Samples<'_>) {
    match id {
        Id::ConfigSuccess => out.maybe(process.configuration_taken_over.map(u64::from)),
        Id::ConfigTime => out.maybe(process.configuration_read_at),
        Id::LogLinesDropped => out.count(&[], process.log_lines_dropped),
        Id::AccessLogLinesDropped => out.count(&[], process.access_log_lines_dropped),
        Id::AgentAnswers => {
            for (word, count) in AgentSnapshot::WORDS.iter().zip(process.agent.answers) {
                out.count(&[word], count);
            }
        }
        Id::AgentFree => out.add(&[], f64::from(process.agent.free_percent) / 100.0),
        Id::ProcessCpu => out.add(&[], process.cpu.as_secs_f64()),
        Id::ProcessOpenFds => out.maybe(process.open_fds),
        // No limit is the largest number there is, as other exporters say it.
        Id::ProcessMaxFds => out.count(&[], process.max_fds.unwrap_or(u64::MAX)),
        Id::ProcessVirtual => out.maybe(process.virtual_bytes),
        Id::ProcessVirtualMax => out.count(&[], process.virtual_bytes_max.unwrap_or(u64::MAX)),
        Id::ProcessResident => out.maybe(process.resident_bytes),
        Id::ProcessThreads => out.maybe(process.threads),
        Id::ProcessStart => {
            if let Some(at) = process.start_time {
                out.add(&[], at);
            }
        }
        _ => debug_assert!(false, "{id:?} is not the process's"),
    }
}

fn collect_listener(id: Id, listener: &ListenerSnapshot, out: &mut Samples<'_>) {
    let name = listener.listener.as_str();
    let backlog = listener.backlog;
    match id {
        Id::Accepted => out.count(&[name], listener.accepted),
        Id::Dropped => {
            for &reason in DropReason::ALL {
                out.count(&[name, reason.as_str()], listener.dropped[reason as usize]);
            }
        }
        Id::Closed => {
            for &reason in CloseReason::ALL {
                out.count(&[name, reason.as_str()], listener.closed[reason as usize]);
            }
        }
        Id::Connections => {
            out.count(&[name, "queued"], listener.queued);
            out.count(&[name, "active"], listener.active);
            out.count(&[name, "idle"], listener.idle);
        }
        Id::AcceptErrors => {
            for &error in AcceptError::ALL {
                out.count(&[name, error.as_str()], listener.accept_errors[error as usize]);
            }
        }
        Id::BacklogConnections => backlog.into_iter().for_each(|b| out.count(&[name], b.connections)),
        Id::BacklogLimit => backlog.into_iter().for_each(|b| out.count(&[name], b.limit)),
        Id::BacklogDrops => backlog.into_iter().for_each(|b| out.count(&[name], b.drops)),
        _ => debug_assert!(false, "{id:?} is not a listener's"),
    }
}

fn collect_gates(id: Id, server: &Snapshot, out: &mut Samples<'_>) {
    let gates = server.listeners.iter().filter_map(|l| Some((l.listener.as_str(), l.backends.as_ref()?)));
    for (listener, gate) in gates {
        match out.metric.presence {
            Presence::Gate => collect_gate(id, listener, gate, out),
            _ => gate.backends.iter().for_each(|backend| collect_backend(id, listener, backend, out)),
        }
    }
}

fn collect_gate(id: Id, listener: &str, gate: &BackendsSnapshot, out: &mut Samples<'_>) {
    match id {
        Id::GateWaiting => out.count(&[listener], gate.waiting),
        Id::GateWait => out.histogram(&[listener], &gate.wait),
        Id::GateRefused => {
            for (reason, count) in gate.refused() {
                out.count(&[listener, reason.as_str()], count);
            }
        }
        Id::GatePlaces => out.count(&[listener], gate.in_use),
        Id::GatePlacesLimit => out.count(&[listener], gate.limit),
        _ => debug_assert!(false, "{id:?} is not a gate's"),
    }
}

fn collect_backend(id: Id, listener: &str, backend: &BackendSnapshot, out: &mut Samples<'_>) {
    let labels = [listener, backend.address.as_str()];
    match id {
        Id::BackendUp => out.count(&labels, backend.aside_for.is_none().into()),
        Id::BackendPlaces => out.count(&labels, backend.in_use),
        Id::BackendPlacesLimit => out.count(&labels, backend.limit),
        Id::BackendPlacesTaken => out.count(&labels, backend.taken),
        Id::BackendPlacesGivenBack => out.count(&labels, backend.given_back),
        Id::BackendConnections => out.count(&labels, backend.connected),
        Id::BackendFailures => {
            for &reason in BackendFailure::ALL {
                out.count(&[labels[0], labels[1], reason.as_str()], backend.failures[reason as usize]);
            }
        }
        Id::BackendConnect => out.histogram(&labels, &backend.connect),
        Id::BackendSent => out.count(&labels, backend.to_backend),
        Id::BackendReceived => out.count(&labels, backend.to_client),
        Id::BackendAnswers => {
            for (class, &count) in BackendSnapshot::CLASSES.iter().zip(&backend.answers) {
                out.count(&[labels[0], labels[1], class], count);
            }
        }
        Id::BackendRequestFailures => {
            for &reason in RequestFailure::ALL {
                let count = backend.request_failures[reason as usize];
                out.count(&[labels[0], labels[1], reason.as_str()], count);
            }
        }
        Id::BackendReused => out.count(&labels, backend.reused),
        Id::BackendRepeated => out.count(&labels, backend.repeated),
        _ => debug_assert!(false, "{id:?} is not a backend's"),
    }
}

fn collect_handshakes(id: Id, name: &str, handshakes: &HandshakesSnapshot, out: &mut Samples<'_>) {
    match id {
        Id::TlsHandshakes => {
            for ((version, kind), count) in OPENED.iter().zip(handshakes.opened) {
                out.count(&[name, version, kind], count);
            }
        }
        Id::TlsFailures => {
            for &failure in HandshakeFailure::ALL {
                out.count(&[name, failure.as_str()], handshakes.failed[failure as usize]);
            }
        }
        Id::TlsDuration => out.histogram(&[name], &handshakes.duration),
        Id::TlsBusy => out.add(&[name], handshakes.busy.as_secs_f64()),
        Id::TlsCertificateExpiry => out.count(&[name], handshakes.certificate_expires_at),
        _ => debug_assert!(false, "{id:?} is not of handshakes"),
    }
}

fn collect_webs(id: Id, server: &Snapshot, out: &mut Samples<'_>) {
    let gates_too = out.metric.presence == Presence::Http;
    for listener in server.listeners.iter().filter(|l| gates_too || l.backends.is_none()) {
        if let Some(web) = &listener.web {
            collect_web(id, &listener.listener, web, out);
        }
    }
}

fn collect_web(id: Id, name: &str, web: &WebSnapshot, out: &mut Samples<'_>) {
    match id {
        Id::HttpRequests => {
            for (class, count) in CLASSES.iter().zip(web.requests) {
                out.count(&[name, class], count);
            }
        }
        Id::HttpDuration => out.histogram(&[name], &web.duration),
        Id::HttpRequestBody => out.count(&[name], web.request_body_bytes),
        Id::HttpResponseBody => out.count(&[name], web.response_body_bytes),
        Id::WebSockets => out.count(&[name], web.sockets()),
        Id::SocketHandshakes => {
            for &handshake in SocketHandshake::ALL {
                out.count(&[name, handshake.as_str()], web.handshakes[handshake as usize]);
            }
        }
        Id::SocketMessages => {
            out.count(&[name, "received"], web.messages_received);
            out.count(&[name, "sent"], web.messages_sent);
        }
        Id::SocketCloses => {
            for (code, count) in web.closes_by_code() {
                out.count(&[name, code], count);
            }
        }
        _ => debug_assert!(false, "{id:?} is not of HTTP"),
    }
}

fn collect_datagrams(id: Id, listener: &ListenerSnapshot, out: &mut Samples<'_>) {
    let name = listener.listener.as_str();
    if id == Id::DatagramsReceived {
        out.count(&[name], listener.datagrams_received);
        return;
    }
    for &reason in DatagramDrop::ALL {
        out.count(&[name, reason.as_str()], listener.datagrams_dropped[reason as usize]);
    }
}

fn collect_service(id: Id, service: &ListenerSnapshot, out: &mut Samples<'_>) {
    let name = service.service.as_str();
    match id {
        Id::Turns => {
            for &outcome in TurnOutcome::ALL {
                out.count(&[name, outcome.as_str()], service.turns[outcome as usize]);
            }
        }
        Id::TurnsShed => {
            for &reason in TurnShed::ALL {
                out.count(&[name, reason.as_str()], service.turns_shed[reason as usize]);
            }
        }
        Id::TurnDuration => out.histogram(&[name], &service.turn_duration),
        Id::ReceivedBytes => out.count(&[name], service.received_bytes),
        Id::SentBytes => out.count(&[name], service.sent_bytes),
        _ => debug_assert!(false, "{id:?} is not a service's"),
    }
}

/// Several listeners may share a service: sums what is counted by service, in the order of the
/// first listener of each.
fn services(server: &Snapshot) -> Vec<ListenerSnapshot> {
    let mut sums: Vec<ListenerSnapshot> = Vec::new();
    for listener in &server.listeners {
        let Some(sum) = sums.iter_mut().find(|sum| sum.service == listener.service) else {
            sums.push(listener.clone());
            continue;
        };
        for (sum, n) in sum.turns.iter_mut().zip(listener.turns) {
            *sum += n;
        }
        for (sum, n) in sum.turns_shed.iter_mut().zip(listener.turns_shed) {
            *sum += n;
        }
        sum.turn_duration.merge(&listener.turn_duration);
        sum.received_bytes += listener.received_bytes;
        sum.sent_bytes += listener.sent_bytes;
    }
    sums
}

/// The version of tidegate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, as the build says in `TIDEGATE_REVISION`.
pub const REVISION: &str = match option_env!("TIDEGATE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
