//! The gate as a service: what a person writes, and what it makes.

use super::address::{BackendName, BackendNameError};
use super::gate::{ConnectOn, Gate, Settings};
use super::http::{HttpGate, HttpGateConfig, HttpGateSession, keep_house};
use super::resolve::Lookups;
use super::session::GateSession;
use super::tend;
use crate::metrics::backends::BackendsSnapshot;
use crate::service::http::BUSY;
use crate::service::{Peer, Protocol, Service, Session};
use crate::transport::proxy_header::Version;
use crossbeam_channel::Sender;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Begins to describe a gate: a service that passes each connection on to one of these backends, unchanged, and never lets
/// a backend have more connections than it can bear.
///
/// A backend is written `host:port`, `unix:/path`, or `unix:@name`. A client for whom no backend has a place waits for one,
/// parked, as newcomers wait for a worker: within the server's `queue` and `queue_timeout`, in its order, and told the busy
/// reply when it is turned away.
///
/// ```no_run
/// use tidegate::{Server, proxy};
///
/// let gate = proxy(["127.0.0.1:8000"])?.connections(20).build()?;
/// let handle = Server::builder().listen("0.0.0.0:6000", gate)?.bind()?.serve()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn proxy<B: AsRef<str>>(backends: impl IntoIterator<Item = B>) -> Result<ProxyBuilder, BackendNameError> {
    let names = backends.into_iter().map(|backend| backend.as_ref().parse());
    Ok(ProxyBuilder {
        name: "proxy".to_owned(),
        busy_reply: Box::default(),
        names: names.collect::<Result<_, _>>()?,
        settings: Settings::default(),
        http: None,
    })
}

/// How often backends are checked because readiness depends on them.
const READY_CHECK: Duration = Duration::from_secs(2);

/// A gate that is being described; see [`proxy`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ProxyBuilder {
    name: String,
    busy_reply: Box<[u8]>,
    names: Vec<BackendName>,
    settings: Settings,
    http: Option<HttpGateConfig>,
}

impl ProxyBuilder {
    /// The `service` label of its metrics. Default: `proxy`.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Connections that each backend may have at once. Default: 100.
    pub fn connections(mut self, most: usize) -> Self {
        self.settings.connections = most.max(1);
        self
    }

    /// Connections that all backends may have together. Default: as many as each may have.
    pub fn total(mut self, most: usize) -> Self {
        self.settings.total = Some(most.max(1));
        self
    }

    /// Reads what passes as HTTP, and holds a place at a backend for each request and not for each connection. Then
    /// connections to backends are kept and used again, clients are told 503 when there is no place in time, and
    /// [`connect_on`](Self::connect_on) means nothing.
    ///
    /// ```no_run
    /// use tidegate::service::HttpGateConfig;
    /// use tidegate::{Server, proxy};
    ///
    /// let gate = proxy(["127.0.0.1:8000"])?.connections(8).http(HttpGateConfig::default()).build()?;
    /// let handle = Server::builder().listen("0.0.0.0:80", gate)?.bind()?.serve()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn http(mut self, config: HttpGateConfig) -> Self {
        self.http = Some(config);
        self
    }

    /// The settings of HTTP, where it is read.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program changes one after the other"))]
    pub(crate) fn http_config(&mut self) -> Option<&mut HttpGateConfig> {
        self.http.as_mut()
    }

    /// When the backend is connected. Default: [`ConnectOn::Accept`].
    pub fn connect_on(mut self, on: ConnectOn) -> Self {
        self.settings.connect_on = on;
        self
    }

    /// Time within which a backend must be reached, the attempts at all of them together. While another can be tried, one has
    /// half of what is left. Default: 2 s.
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.settings.connect_timeout = time;
        self
    }

    /// Time after which a pair is closed on which no byte went either way. Default: 10 min.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.settings.idle_timeout = time;
        self
    }

    /// The same after one side has ended. Default: 60 s.
    pub fn half_close_timeout(mut self, time: Duration) -> Self {
        self.settings.half_close_timeout = time;
        self
    }

    /// Tells backends who their client is, with a header of this version of the PROXY protocol. Default: no header.
    pub fn send_proxy(mut self, version: Version) -> Self {
        self.settings.send_header = Some(version);
        self
    }

    /// Connects to each backend as often as this, to see whether it can be reached; a backend that was set aside comes back
    /// that way and costs no client an attempt. Default: never, and a client tries it when its pause is over.
    pub fn check_every(mut self, time: Duration) -> Self {
        self.settings.check_every = Some(time);
        self
    }

    /// Has `/readyz` say that the server is not ready until a backend was reached, and while none is up. Backends are then
    /// checked every 2 s, unless [`check_every`](Self::check_every) says otherwise: without checks nobody would notice that one is
    /// back, since a balancer sends no clients to a server that is not ready. Default: off.
    pub fn ready_needs_backend(mut self, needs: bool) -> Self {
        self.settings.ready_needs_backend = needs;
        self
    }

    /// How often names of backends are resolved again. Default: every 30 s.
    pub fn resolve_every(mut self, time: Duration) -> Self {
        self.settings.resolve_every = time;
        self
    }

    /// What a client is told that is turned away. Default: nothing, and the refusal is a reset.
    pub fn busy_reply(mut self, words: &[u8]) -> Self {
        self.busy_reply = words.into();
        self
    }

    /// What is set, as the options of the command line name and show it.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program shows it"))]
    pub(crate) fn table(&self) -> Vec<(&'static str, String)> {
        let set = &self.settings;
        let show = crate::limits::show_time;
        let total = set.total.map_or("as many as each may have".to_owned(), |most| most.to_string());
        let mut table = vec![
            ("backend-connections", set.connections.to_string()),
            ("backend-total", total),
            ("backend-connect", set.connect_on.to_string()),
            ("backend-connect-timeout", show(set.connect_timeout)),
            ("backend-check", self.checks().map_or("off".to_owned(), show)),
            ("ready-needs-backend", set.ready_needs_backend.to_string()),
            ("backend-resolve", show(set.resolve_every)),
            ("idle-timeout", show(set.idle_timeout)),
            ("half-close-timeout", show(set.half_close_timeout)),
            ("send-proxy", set.send_header.map_or("off".to_owned(), |version| version.to_string())),
        ];
        if let Some(http) = &self.http {
            // A gate for HTTP reads requests: it has no pairs.
            table.retain(|(name, _)| {
                !matches!(*name, "backend-connect" | "half-close-timeout" | "idle-timeout")
            });
            table.extend(http.table());
        }
        table
    }

    /// How often backends are checked: by themselves they are not, unless readiness depends on them.
    fn checks(&self) -> Option<Duration> {
        let needed = self.settings.ready_needs_backend.then_some(READY_CHECK);
        self.settings.check_every.or(needed)
    }

    /// Resolves the names, within 10 s, and makes the service. Fails for a name without an address, where there is no backend,
    /// and where there are more than 256. Where names or checks want it, a thread tends the backends from the first use of the
    /// service until it is dropped.
    pub fn build(self) -> io::Result<Proxy> {
        let check_every = self.checks();
        let Self { name, mut busy_reply, names, mut settings, http } = self;
        settings.check_every = check_every;
        if names.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a gate needs a backend"));
        }
        settings.checks_ask = http.as_ref().is_some_and(|http| http.check_path.is_some());
        settings.has_priority = http.as_ref().is_some_and(|http| !http.priority_paths.is_empty());
        if http.is_some() && busy_reply.is_empty() {
            busy_reply = BUSY.into();
        }
        let gate = Gate::new(settings, Lookups::resolve(names)?);
        let http = http.map(|config| HttpGate::new(gate.clone(), config));
        Ok(Proxy { name, busy_reply, gate, http, tender: OnceLock::new(), keeper: OnceLock::new() })
    }
}

/// A gate in front of backends, as [`proxy`] describes it.
#[derive(Debug)]
pub struct Proxy {
    name: String,
    busy_reply: Box<[u8]>,
    gate: Arc<Gate>,
    /// What passes is read as HTTP.
    http: Option<Arc<HttpGate>>,
    /// The thread that tends the backends ends when this is dropped.
    tender: OnceLock<Option<Sender<Infallible>>>,
    /// The thread that keeps house for HTTP does, too.
    keeper: OnceLock<Option<Sender<Infallible>>>,
}

impl Proxy {
    /// The gate, tended from now on: a server asks for its clients' sessions, or what is known of the backends.
    fn tended(&self) -> &Arc<Gate> {
        self.tender.get_or_init(|| {
            tend::start(&self.gate).unwrap_or_else(|error| {
                tracing::error!(%error, "the backends are not checked, and their names not resolved again");
                None
            })
        });
        if let Some(http) = &self.http {
            self.keeper.get_or_init(|| {
                let started = keep_house(http);
                if let Err(error) = &started {
                    tracing::error!(%error, "the backends are not checked, and unused connections not closed");
                }
                started.ok()
            });
        }
        &self.gate
    }
}

impl Service for Proxy {
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        let gate = self.tended();
        match &self.http {
            Some(http) => Box::new(HttpGateSession::new(http.clone())),
            None => Box::new(GateSession::new(gate.clone())),
        }
    }

    fn busy_reply(&self) -> &[u8] {
        &self.busy_reply
    }

    fn client_speaks_first(&self) -> bool {
        self.http.is_some() || self.gate.settings.connect_on == ConnectOn::FirstByte
    }

    fn protocol(&self) -> Protocol {
        if self.http.is_some() { Protocol::Http } else { Protocol::Stream }
    }

    fn backends(&self) -> Option<BackendsSnapshot> {
        let mut seen = self.tended().backends.snapshot();
        seen.ready |= !self.gate.settings.ready_needs_backend;
        Some(seen)
    }

    fn descriptors(&self) -> usize {
        self.gate.descriptors()
    }
}
