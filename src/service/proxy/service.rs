//! The public face of the gate: its builder, and the service that the builder makes.

use super::address::{BackendAddress, BackendName, BackendNameError};
use super::gate::{ConnectOn, Gate, Settings};
use super::http::{HttpGate, HttpGateConfig, HttpGateSession, keep_house};
use super::resolve::Lookups;
use super::session::GateSession;
use super::tend::{self, LookAgain};
use crate::limits::Limits;
use crate::metrics::backends::BackendsSnapshot;
use crate::service::http::BUSY;
use crate::service::{Peer, Protocol, Service, Session};
use crate::transport::address::Address;
use crate::transport::proxy_header::ProxyVersion;
use crate::transport::tls::{BackendTls, ToBackends};
use crossbeam_channel::Sender;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Begins to describe a gate: a service that passes each connection on, unchanged, to one of these backends, and opens
/// no more connections to a backend than its limit allows.
///
/// Write a backend as `host:port`, `unix:/path`, or `unix:@name`. When no backend has a free place, the client waits for
/// one and holds no worker meanwhile. It waits under the rules for newcomers that wait for a worker: `queue` limits how
/// many wait, `queue_timeout` how long, and `queue_order` and `fair` decide who is next. A client that is refused gets
/// the busy reply.
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

/// How often backends are checked when readiness depends on them and nothing else sets an interval.
const READY_CHECK: Duration = Duration::from_secs(2);

/// The shortest time between two checks of a backend, and between two lookups of its name: with less, the thread that does
/// both would do nothing else.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

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

    /// How many connections each backend may have at once. Default: 100.
    pub fn connections(mut self, most: usize) -> Self {
        self.settings.connections = most.max(1);
        self
    }

    /// How many connections all backends together may have at once. Default: the sum of what each may have.
    pub fn total(mut self, most: usize) -> Self {
        self.settings.total = Some(most.max(1));
        self
    }

    /// Reads the traffic as HTTP, and takes a place at a backend for each request and not for each connection. The gate
    /// then keeps connections to backends open and uses them for further requests. A client whose request gets no place in
    /// time is answered 503. [`connect_on`](Self::connect_on) has no effect.
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

    /// The settings for HTTP, if this is a gate for HTTP.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program changes one after the other"))]
    pub(crate) fn http_config(&mut self) -> Option<&mut HttpGateConfig> {
        self.http.as_mut()
    }

    /// When the gate connects to a backend. Default: [`ConnectOn::Accept`].
    pub fn connect_on(mut self, on: ConnectOn) -> Self {
        self.settings.connect_on = on;
        self
    }

    /// Time that the gate has to reach a backend for a client. All attempts for one client share it: while another backend
    /// is left to try, an attempt may take half of the time that remains. Default: 2 s.
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.settings.connect_timeout = time;
        self
    }

    /// Time without a byte in either direction after which client and backend are disconnected. Default: 10 min.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.settings.idle_timeout = time;
        self
    }

    /// The same time, once one side has closed its sending half. Default: 60 s.
    pub fn half_close_timeout(mut self, time: Duration) -> Self {
        self.settings.half_close_timeout = time;
        self
    }

    /// Sends a PROXY protocol header of this version to the backend first, so that it knows the client's address. Default:
    /// no header.
    pub fn send_proxy(mut self, version: ProxyVersion) -> Self {
        self.settings.send_header = Some(version);
        self
    }

    /// Speaks TLS with the backends. The handshake must be over within [`connect_timeout`](Self::connect_timeout). A backend
    /// that does not prove its name is treated like one that refuses connections (reason `tls`). Default: no TLS.
    ///
    /// ```no_run
    /// use tidegate::service::BackendTls;
    /// use tidegate::{Server, proxy};
    ///
    /// let mut tls = BackendTls::default();
    /// tls.authorities = Some("/etc/site/own-authority.pem".into());
    /// let gate = proxy(["app.internal:8443"])?.tls(tls).build()?;
    /// let handle = Server::builder().listen("127.0.0.1:6000", gate)?.bind()?.serve()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tls(mut self, tls: BackendTls) -> Self {
        self.settings.tls = Some(tls);
        self
    }

    /// What is chosen of TLS, if the backends speak it.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program changes one after the other"))]
    pub(crate) fn tls_choices(&mut self) -> Option<&mut BackendTls> {
        self.settings.tls.as_mut()
    }

    /// How often the gate connects to each backend to check that it can be reached. A backend that was set aside then comes
    /// back through a check. Default: never, so the first client after the backend's pause tries it. At least 10 ms.
    pub fn check_every(mut self, time: Duration) -> Self {
        self.settings.check_every = Some(time.max(LEAST_PAUSE));
        self
    }

    /// Makes `/readyz` say "not ready" until a backend was reached, and while no backend is up. Backends are then checked
    /// every 2 s, unless [`check_every`](Self::check_every) sets another interval. Checks are needed because a balancer
    /// sends no clients to a server that is not ready, so no client could find out that a backend is back. Default: off.
    pub fn ready_needs_backend(mut self, needs: bool) -> Self {
        self.settings.ready_needs_backend = needs;
        self
    }

    /// How often the names of backends are resolved again. Default: every 30 s. At least 10 ms.
    pub fn resolve_every(mut self, time: Duration) -> Self {
        self.settings.resolve_every = time.max(LEAST_PAUSE);
        self
    }

    /// What a refused client is sent before its connection is closed. Default: nothing, and the connection is reset.
    pub fn busy_reply(mut self, words: &[u8]) -> Self {
        self.busy_reply = words.into();
        self
    }

    /// The names of the backends.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program compares them"))]
    pub(crate) fn backends(&self) -> Vec<String> {
        self.names.iter().map(ToString::to_string).collect()
    }

    /// The settings, under the names of the command-line options and written as those are.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program shows it"))]
    pub(crate) fn table(&self) -> Vec<(&'static str, String)> {
        let set = &self.settings;
        let show = crate::limits::show_time;
        let total = set.total.map_or("auto".to_owned(), |most| most.to_string());
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
        if let Some(tls) = &set.tls {
            table.extend([
                ("backend-tls-name", tls.name.clone().unwrap_or_else(|| "host".to_owned())),
                ("backend-cacert", tls.trusted()),
                ("backend-insecure", tls.insecure.to_string()),
            ]);
        }
        if let Some(http) = &self.http {
            // These are limits of a pair of sockets, and a gate for HTTP has none.
            table.retain(|(name, _)| {
                !matches!(*name, "backend-connect" | "half-close-timeout" | "idle-timeout")
            });
            table.extend(http.table());
        }
        table
    }

    /// How often backends are checked; `None` when neither `check_every` nor readiness asks for checks.
    fn checks(&self) -> Option<Duration> {
        let needed = self.settings.ready_needs_backend.then_some(READY_CHECK);
        self.settings.check_every.or(needed)
    }

    /// Resolves the names, for at most 10 s, and makes the service. It is an error if a name has no address, if there is no
    /// backend, if there are more than 256, or if the certificates of [`tls`](Self::tls) cannot be read. If names must be resolved again or backends checked, a thread does so from
    /// the first use of the service until the service is dropped.
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
        if settings.tls.as_ref().is_some_and(|tls| tls.insecure) {
            tracing::warn!(
                gate = name,
                "the certificates of backends are not checked: anybody on the way can pose as a backend"
            );
        }
        let is_http = http.is_some();
        let tls = settings.tls.as_ref().map(|tls| ToBackends::new(tls, is_http, names.len()));
        let tls = tls.transpose().map_err(io::Error::other)?.map(Arc::new);
        settings.http = http.unwrap_or_default();
        let gate = Gate::new(settings, Lookups::resolve(names, tls)?);
        let http = is_http.then(|| HttpGate::new(gate.clone()));
        Ok(Proxy { name, busy_reply, gate, http, tender: OnceLock::new(), keeper: OnceLock::new() })
    }
}

/// A gate in front of backends, as [`proxy`] describes it.
#[derive(Debug)]
pub struct Proxy {
    name: String,
    busy_reply: Box<[u8]>,
    gate: Arc<Gate>,
    /// Present in a gate for HTTP.
    http: Option<Arc<HttpGate>>,
    /// The thread of [`tend`], if there is something for it to do. It ends when the sender is dropped.
    tender: OnceLock<Mutex<Option<Sender<LookAgain>>>>,
    /// The house-keeping thread of the gate for HTTP ends when this sender is dropped.
    keeper: OnceLock<Option<Sender<Infallible>>>,
}

impl Proxy {
    /// The addresses that its backends have now.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program looks whether one is its own"))]
    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.gate.lookups().addresses().iter().map(BackendAddress::to_address).collect()
    }

    /// The gate. The first call starts its threads: only then is it certain that a server uses the gate.
    fn tended(&self) -> &Arc<Gate> {
        self.tender.get_or_init(|| self.start_tender().into());
        if let Some(http) = &self.http {
            self.keeper.get_or_init(|| {
                let started = keep_house(http);
                if let Err(error) = &started {
                    tracing::error!(%error, "no thread for the gate: backends are not checked, unused connections to them stay open");
                }
                started.ok()
            });
        }
        &self.gate
    }

    fn start_tender(&self) -> Option<Sender<LookAgain>> {
        tend::start(&self.gate).unwrap_or_else(|error| {
            tracing::error!(%error, "no thread for the gate: backends are not checked, names are not resolved again");
            None
        })
    }

    /// Goes on with the backends and the settings of another gate of the same protocol, which was built and not used. No
    /// client is dropped for it: those that have a backend keep it. Clients that wait for a place, and pairs, are under the
    /// new settings from their next turn on. Whether pairs may be silent for another time than before, so that each should
    /// have a turn now.
    #[cfg_attr(
        not(feature = "cli"),
        expect(dead_code, reason = "the program does so when it reads its file again")
    )]
    pub(crate) fn take_over(&self, new: &Self) -> bool {
        let before = self.gate.settings.get();
        self.gate.take_over(&new.gate);
        if let Some(http) = &self.http {
            http.settings_changed(&before);
        }
        if let Some(tender) = self.tender.get() {
            let mut tender = tender.lock().unwrap_or_else(PoisonError::into_inner);
            match &*tender {
                // If the channel is full, the thread will look anyway.
                Some(tender) => drop(tender.try_send(LookAgain)),
                None => *tender = self.start_tender(),
            }
        }
        before.patience() != self.gate.settings.get().patience()
    }

    /// Nobody new comes for now: backends are not checked, and their names are not resolved again, until it
    /// [takes over](Self::take_over) settings. Clients that it has go on.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program closes listeners"))]
    pub(crate) fn rest(&self) {
        let settings = Settings::clone(&self.gate.settings.get());
        self.gate.settings.replace(Settings { check_every: None, ready_needs_backend: false, ..settings });
        if let Some(tender) = self.tender.get() {
            tender.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
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
        self.http.is_some() || self.gate.settings.get().connect_on == ConnectOn::FirstByte
    }

    fn protocol(&self) -> Protocol {
        if self.http.is_some() { Protocol::Http } else { Protocol::Stream }
    }

    fn backends(&self) -> Option<BackendsSnapshot> {
        let mut seen = self.tended().backends.snapshot();
        seen.ready |= !self.gate.settings.get().ready_needs_backend;
        Some(seen)
    }

    fn descriptors(&self) -> usize {
        self.gate.descriptors()
    }

    fn memory(&self, limits: &Limits) -> usize {
        let http = self.http.as_ref().map_or(0, |http| http.memory_ceiling());
        self.gate.memory_ceiling(limits) + self.gate.tls_bytes(limits.workers_most()) + http
    }
}
