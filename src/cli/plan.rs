//! Turns the options into a plan of the server: limits, listeners with their services, and the admin endpoint.

use super::access_options::AccessPlan;
use super::args::ServeArgs;
use super::exit::ExitError;
use super::limit_options::LimitOptions;
use super::live::handed::Handed;
use super::tls_options::{self, TlsOptions, TlsProblem};
use super::web_options::WebOptions;
use crate::AccessLog;
use crate::limits::Limits;
use crate::server::{BoundServer, Builder, LimitChange, Listen, ListenOffer, Server};
use crate::service::{
    BackendTls, Cost, DatagramService, Echo, HttpGateConfig, Network, Proxy, ProxyBuilder, Service, Time,
    Work, hello, hello_datagrams, http, proxy, websocket,
};
use crate::transport::tls::Setup;
use crate::{Address, UnixName};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;
use tidegate_units::unescape;
use tidegate_units::url::{Scheme, Url};

const DEFAULT_ADMIN: &str = "127.0.0.1:9464";
const DEFAULT_LISTEN: &str = "echo=tcp://127.0.0.1:5000";

/// What the options come to.
pub(super) struct Plan {
    pub(super) limits: Limits,
    pub(super) listeners: Vec<PlannedListener>,
    pub(super) busy_reply: Option<Vec<u8>>,
    /// Where the admin endpoint is, unless it is off.
    pub(super) admin: Option<SocketAddr>,
    /// The host names that it answers for.
    pub(super) admin_hosts: Vec<String>,
    /// Whether the configuration is read again at its order.
    pub(super) admin_control: bool,
    /// Where balancers are told how much more it can take, if they are.
    pub(super) agent: Option<SocketAddr>,
    /// Where HTTP requests are logged.
    pub(super) access: Option<AccessPlan>,
    /// What a request of the work service costs.
    pub(super) work: Cost,
    /// The limit of open files allows fewer connections than the default.
    pub(super) lowered: bool,
    /// What a person should know of the options, a line each.
    pub(super) warnings: Vec<String>,
}

/// One listener and its service.
pub(super) struct PlannedListener {
    /// What it was configured as.
    pub(super) text: String,
    /// Which table of the configuration file it is in, from 1; 0 of one that is above them.
    pub(super) table: usize,
    /// Where it listened until it was closed, by its real address; nothing of one that is open.
    pub(super) closed_at: Option<Address>,
    /// The name of the service.
    pub(super) service: String,
    /// Its protocol.
    pub(super) scheme: Scheme,
    pub(super) address: Address,
    /// The mode of the file of its Unix socket, if it is said.
    pub(super) socket_mode: Option<u32>,
    offer: ListenOffer,
    /// The gate that it offers, if it is one.
    proxy: Option<Arc<Proxy>>,
    /// The balancers whose PROXY headers are believed.
    pub(super) balancers: Vec<Network>,
    /// What is set of a gate.
    pub(super) gate: Vec<(&'static str, String)>,
    /// The backends of a gate.
    backends: Vec<String>,
    /// What is set of HTTP and of WebSockets.
    web: WebOptions,
    /// The limits that it has of its own.
    pub(super) own: LimitOptions,
    /// What is told here to a client that is refused.
    pub(super) busy_reply: Option<Vec<u8>>,
    /// Its certificates, if it speaks TLS.
    pub(super) tls: Option<Setup>,
}

/// What a listener is to offer: a gate is made once its backends are resolved.
enum Wanted {
    Offer(ListenOffer),
    Gate(Box<ProxyBuilder>),
}

/// A listener as its words say it, before its names are looked up and its files are read.
struct Parsed {
    service: String,
    url: Url,
    wanted: Wanted,
    text: String,
    table: usize,
    web: WebOptions,
    own: LimitOptions,
    busy_reply: Option<Vec<u8>>,
    balancers: Vec<Network>,
    tls: TlsOptions,
    socket_mode: Option<u32>,
}

impl Parsed {
    fn resolved(self) -> Result<PlannedListener, ExitError> {
        let Self { service, url, wanted, text, table, web, own, busy_reply, balancers, tls, socket_mode } =
            self;
        let failed = |why: String| ExitError::failed(format!("listener `{text}`: {why}"));
        let tls = tls.setup(url.scheme).map_err(|problem| tls_problem(&text, problem))?;
        let address = address(&text, &url)?;
        let (mut gate_table, mut backends) = (Vec::new(), Vec::new());
        let (offer, proxy) = match wanted {
            Wanted::Offer(offer) => (offer, None),
            Wanted::Gate(gate) => {
                (gate_table, backends) = (gate.table(), gate.backends());
                let proxy = Arc::new(gate.build().map_err(|why| failed(why.to_string()))?);
                (ListenOffer::Stream(proxy.clone()), Some(proxy))
            }
        };
        let scheme = url.scheme;
        Ok(PlannedListener {
            text,
            table,
            closed_at: None,
            service,
            scheme,
            address,
            socket_mode,
            offer,
            proxy,
            balancers,
            gate: gate_table,
            backends,
            web,
            own,
            busy_reply,
            tls,
        })
    }
}

impl PlannedListener {
    /// Where it listens, by its real address.
    pub(super) fn url(&self, address: &Address) -> String {
        address.url(over_tcp(self.scheme).as_str())
    }

    /// Descriptors that its service may have open beside those of its clients.
    pub(super) fn descriptors(&self) -> usize {
        self.offer.descriptors()
    }

    /// Where its backends are now, if it is a gate.
    pub(super) fn backend_addresses(&self) -> Vec<Address> {
        self.proxy.as_ref().map_or_else(Vec::new, |proxy| proxy.addresses())
    }

    /// Whether it is one listener with other settings, at most: it is where the other one is, and offers the same.
    pub(super) fn is_the_same_as(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.address == other.address && self.kind() == other.kind()
    }

    /// The name of what it offers: all gates have one.
    pub(super) fn kind(&self) -> &str {
        if self.is_gate() { "proxy" } else { &self.service }
    }

    pub(super) fn is_gate(&self) -> bool {
        self.proxy.is_some()
    }

    /// Whether it is a gate whose backends speak TLS.
    pub(super) fn speaks_tls_with_backends(&self) -> bool {
        self.gate.iter().any(|(name, _)| *name == "backend-tls-name")
    }

    /// Whether it is a gate that reads HTTP.
    pub(super) fn is_http_gate(&self) -> bool {
        self.is_gate() && matches!(self.scheme, Scheme::Http | Scheme::Https | Scheme::HttpUnix)
    }

    /// Bytes that its service may take beside what its connections take.
    pub(super) fn memory(&self, limits: &Limits) -> usize {
        self.offer.memory(limits)
    }

    /// Whether it is a gate that accepts any certificate of a backend.
    pub(super) fn is_credulous(&self) -> bool {
        self.gate.iter().any(|(name, value)| *name == "backend-insecure" && value == "true")
    }

    /// The options that are others in `new` and take effect at a restart.
    pub(super) fn fixed(&self, new: &Self) -> Vec<&'static str> {
        let mut fixed = Vec::new();
        let mut look = |name, differs: bool| fixed.extend(differs.then_some(name));
        look("socket-mode", self.is_open() && self.socket_mode != new.socket_mode);
        look("accept-proxy", self.balancers != new.balancers);
        self.web.differing(&new.web).into_iter().for_each(|name| look(name, true));
        #[cfg(feature = "tls")]
        if let (Some(old), Some(new)) = (&self.tls, &new.tls) {
            look("tls-min-version", !old.speaks_like(new));
        }
        fixed
    }

    /// Whether clients are shown other certificates by `new`.
    pub(super) fn shows_others_than(&self, new: &Self) -> bool {
        #[cfg(feature = "tls")]
        if let (Some(old), Some(new)) = (&self.tls, &new.tls) {
            return !old.shows_the_same(new);
        }
        let _ = new;
        false
    }

    /// What `new` has other than this one of the gate that both are; `url` says where it listens.
    pub(super) fn gate_changes(&self, new: &Self, url: &str) -> Vec<LimitChange> {
        let said = |listener: &Self, name: &str| {
            let found = listener.gate.iter().find(|(known, _)| *known == name);
            found.map_or_else(|| "off".to_owned(), |(_, value)| value.clone())
        };
        // What is set of TLS is there only where the backends speak it.
        let only_new = new.gate.iter().filter(|(name, _)| !self.gate.iter().any(|(known, _)| known == name));
        let names = self.gate.iter().chain(only_new).map(|(name, _)| *name);
        let settings = names.map(|name| (name, said(self, name), said(new, name)));
        let backends = ("backends", self.backends.join(","), new.backends.join(","));
        let other = std::iter::once(backends).chain(settings).filter(|(_, before, after)| before != after);
        let change =
            |(name, before, after)| LimitChange { name, listener: Some(url.to_owned()), before, after };
        other.map(change).collect()
    }

    /// Goes on as `new`, which is the same listener with other settings. Whether its sessions should each have a turn, since
    /// they may be silent for another time now.
    pub(super) fn take_over(&mut self, new: Self) -> bool {
        let mut calls = false;
        if let (Some(old), Some(new)) = (&self.proxy, &new.proxy) {
            calls = old.take_over(new);
        }
        #[cfg(feature = "tls")]
        if let (Some(old), Some(new)) = (&self.tls, &new.tls) {
            old.show_certificates_of(new);
        }
        let serving = std::mem::replace(self, new);
        (self.offer, self.proxy, self.tls) = (serving.offer, serving.proxy, serving.tls);
        calls
    }

    pub(super) fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }

    /// Whether it was closed, and opens again as that one.
    pub(super) fn opens_again_as(&self, other: &Self) -> bool {
        let is_there = self.address == other.address || self.closed_at == Some(other.address);
        !self.is_open() && self.scheme == other.scheme && is_there && self.kind() == other.kind()
    }

    /// It was closed there, and its last clients go on.
    pub(super) fn close(&mut self, address: Address) {
        self.closed_at = Some(address);
        if let Some(proxy) = &self.proxy {
            proxy.rest();
        }
    }

    /// What the server is told of it.
    pub(super) fn listen(&self) -> Listen {
        let listen = Listen::offering(self.address, self.offer.clone());
        let listen = listen.accept_proxy(self.balancers.iter().copied());
        let listen = match self.socket_mode {
            Some(mode) => listen.socket_mode(mode),
            None => listen,
        };
        #[cfg(feature = "tls")]
        let listen = match &self.tls {
            Some(tls) => listen.tls(tls.clone()),
            None => listen,
        };
        let own = self.own.clone();
        let listen = listen.limits(move |limits| own.applied_to(limits));
        match &self.busy_reply {
            Some(words) => listen.busy_reply(words.clone()),
            None => listen,
        }
    }

    /// The limits in force here, beside those of the server.
    pub(super) fn limits(&self, server: &Limits) -> Limits {
        self.own.applied_to(server.clone()).part_of(server)
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.offer.takes_datagrams()
    }
}

impl Plan {
    pub(super) fn new(args: &ServeArgs) -> Result<Self, ExitError> {
        Self::on(args, crate::sys::raise_open_files(u64::MAX) as usize)
    }

    /// The plan of a process that may open this many files.
    pub(super) fn on(args: &ServeArgs, open_files: usize) -> Result<Self, ExitError> {
        let work = args.work.unwrap_or(Cost::Cpu(Duration::from_millis(1)));
        let busy_reply = unescaped(args)?;
        let access = args.access.plan().map_err(ExitError::usage)?;
        // What is misspelt comes before what cannot be resolved now and may be later.
        let admin = endpoint_url("admin", args.admin.as_deref().unwrap_or(DEFAULT_ADMIN), "9464")?;
        let agent = endpoint_url("agent", args.agent.as_deref().unwrap_or("off"), "9465")?;
        let default = ServeArgs { listen: vec![DEFAULT_LISTEN.to_owned()], ..ServeArgs::default() };
        let flat = ServeArgs { listen: args.listen.clone(), ..ServeArgs::default() };
        let anywhere = !args.listen.is_empty() || !args.listeners.is_empty();
        let tables = if anywhere { [&[flat], &args.listeners[..]].concat() } else { vec![default] };
        let mut parsed = Vec::new();
        for (position, table) in tables.iter().enumerate() {
            parsed.extend(parsed_table(position, table, args, work)?);
        }
        let resolved = parsed.into_iter().map(Parsed::resolved);
        let listeners = resolved.collect::<Result<Vec<_>, ExitError>>()?;
        let bound_name = admin.iter().map(|url| url.host.clone());
        let admin_hosts = args.admin_host.iter().cloned().chain(bound_name).collect();
        let [admin, agent] = [("admin", admin), ("agent", agent)].map(|(name, url)| {
            let address = url.map(|url| resolve(&url)).transpose();
            address.map_err(|why| ExitError::failed(format!("{name} address: {why}")))
        });
        let (admin, agent) = (admin?, agent?);
        let mut limits = args.limits.applied_to(Limits::default());
        let others = listeners.len() + listeners.iter().map(PlannedListener::descriptors).sum::<usize>();
        let lowered = fit_descriptors(&mut limits, &args.limits, others, open_files);
        let admin_control = args.admin_control.unwrap_or(false);
        Ok(Self {
            limits,
            listeners,
            busy_reply,
            admin,
            admin_hosts,
            admin_control,
            agent,
            access,
            work,
            lowered,
            warnings: Vec::new(),
        })
    }

    /// What [`bind`](Self::bind) would find wrong with the limits.
    pub(super) fn check(&self) -> Result<(), ExitError> {
        self.builder(&mut Handed::default(), None).check()?;
        Ok(crate::server::check_descriptors(&self.limits, self.listeners.len(), self.of_services())?)
    }

    /// The same for a process that may open this many files.
    pub(super) fn check_on(&self, open_files: usize) -> Result<(), ExitError> {
        self.builder(&mut Handed::default(), None).check()?;
        let (listeners, of_services) = (self.listeners.len(), self.of_services());
        Ok(crate::server::check_descriptors_within(&self.limits, listeners, of_services, open_files)?)
    }

    /// The internet addresses on which the process listens for connections.
    pub(super) fn neighbours(&self) -> Vec<SocketAddr> {
        let streams = self.listeners.iter().filter(|listener| listener.has_backlog());
        streams.filter_map(|listener| listener.address.ip()).chain(self.admin).chain(self.agent).collect()
    }

    /// Those on which it listens for datagrams.
    pub(super) fn datagram_addresses(&self) -> Vec<SocketAddr> {
        let datagrams = self.listeners.iter().filter(|listener| !listener.has_backlog());
        datagrams.filter_map(|listener| listener.address.ip()).collect()
    }

    /// Whether a listener takes datagrams.
    pub(super) fn takes_datagrams(&self) -> bool {
        self.listeners.iter().any(|listener| !listener.has_backlog())
    }

    /// Descriptors that services may have open beside those of their clients.
    pub(super) fn of_services(&self) -> usize {
        self.listeners.iter().map(PlannedListener::descriptors).sum()
    }

    /// Binds the addresses, but for the sockets that were handed over.
    pub(super) fn bind(&self, handed: &mut Handed, log: Option<AccessLog>) -> Result<BoundServer, ExitError> {
        Ok(self.builder(handed, log).bind()?)
    }

    fn builder(&self, handed: &mut Handed, log: Option<AccessLog>) -> Builder {
        let mut builder = Server::builder().limits(self.limits.clone());
        if let Some(log) = log {
            builder = builder.access_log(log);
        }
        for listener in &self.listeners {
            let PlannedListener { text, service, address, .. } = listener;
            let listen = listener.listen();
            builder = builder.listener(
                match handed.for_listener(text, service, address, !listener.has_backlog()) {
                    Some((socket, bound)) => listen.socket(socket).bound(bound),
                    None => listen,
                },
            );
        }
        if let Some(words) = &self.busy_reply {
            builder = builder.busy_reply(words.clone());
        }
        self.admin.iter().chain(&self.agent).fold(builder, |builder, &address| builder.beside(address))
    }
}

/// The listeners of one table, at this position; the first of all tables is what stands above them.
fn parsed_table(
    position: usize,
    table: &ServeArgs,
    args: &ServeArgs,
    work: Cost,
) -> Result<Vec<Parsed>, ExitError> {
    let busy_reply = unescaped(table)?;
    let mut parsed = Vec::new();
    for text in table.listen.iter().flat_map(|text| split_listeners(text)) {
        let web = table.web.clone().or(args.web.clone());
        let (service, url, mut wanted) = listener(&text, work, &web)?;
        let options = table.gate.clone().or(args.gate.clone());
        // Datagrams have no headers: the option is for the other listeners.
        let balancers = if url.scheme == Scheme::Udp { Vec::new() } else { options.balancers() };
        if let Wanted::Gate(gate) = wanted {
            let gate = options.applied_to(*gate);
            // A pair may be quiet for longer than a client between two requests, unless somebody says how long.
            let said = [&table.limits, &args.limits].iter().any(|limits| limits.names("idle-timeout"));
            let limits = args.limits.applied_to(Limits::default());
            let idle = table.limits.applied_to(limits).idle_timeout;
            wanted = Wanted::Gate(Box::new(if said { gate.idle_timeout(idle) } else { gate }));
        }
        parsed.push(Parsed {
            service,
            url,
            wanted,
            text,
            table: position,
            web,
            own: table.limits.clone(),
            busy_reply: busy_reply.clone(),
            balancers,
            tls: table.tls.clone().or(args.tls.clone()),
            socket_mode: table.socket_mode.or(args.socket_mode),
        });
    }
    Ok(parsed)
}

/// Why a listener cannot speak TLS.
fn tls_problem(listener: &str, problem: TlsProblem) -> ExitError {
    let of_listener = |why: String| format!("listener `{listener}`: {why}");
    match problem {
        TlsProblem::Usage(why) => ExitError::usage(of_listener(why)),
        TlsProblem::Failed(why) => ExitError::failed(of_listener(why)),
    }
}

/// What the options say to a client that is refused.
fn unescaped(args: &ServeArgs) -> Result<Option<Vec<u8>>, ExitError> {
    args.busy_reply.as_deref().map(unescape).transpose().map_err(ExitError::usage)
}

/// Lowers the limits that were not asked for to what the limit of open files allows; true if that
/// is less than the default.
fn fit_descriptors(limits: &mut Limits, asked: &LimitOptions, listeners: usize, open_files: usize) -> bool {
    if asked.names("max-connections") {
        return false;
    }
    // In a small process the reserves are small too: connections are what it is for.
    if !asked.names("fd-reserve") {
        limits.fd_reserve = limits.fd_reserve.min(open_files / 4);
    }
    limits.lingering = limits.lingering.min(open_files / 8);
    let possible = crate::server::connections_within(limits, listeners, open_files);
    if possible >= limits.max_connections {
        return false;
    }
    limits.max_connections = possible.max(1);
    if !asked.names("queue") {
        limits.queue = limits.queue.min(limits.max_connections);
    }
    true
}

/// The listeners of one `--listen`: several may stand in it with commas between them. A comma before the `=` of
/// a listener belongs to its service.
fn split_listeners(text: &str) -> Vec<String> {
    let mut listeners: Vec<String> = Vec::new();
    let mut whole = true;
    for piece in text.split(',') {
        match listeners.last_mut() {
            Some(last) if !whole => {
                last.push(',');
                last.push_str(piece);
            }
            // A comma at the end of a list that was put together by a script.
            Some(_) if piece.trim().is_empty() => continue,
            _ => listeners.push(piece.trim().to_owned()),
        }
        whole = piece.contains('=');
    }
    listeners
}

/// Reads `SERVICE=URL`.
fn listener(text: &str, work: Cost, web: &WebOptions) -> Result<(String, Url, Wanted), ExitError> {
    let (name, url) = text.split_once('=').ok_or_else(|| {
        ExitError::usage(format!("listener `{text}` is not SERVICE=URL: write echo=tcp://127.0.0.1:5000"))
    })?;
    let wrong = |why: &dyn std::fmt::Display| ExitError::usage(format!("listener `{text}`: {why}"));
    let url: Url = url.parse().map_err(|error| wrong(&error))?;
    if let Some(backends) = name.strip_prefix("proxy:") {
        let gate = gate(backends, url.scheme).map_err(|why| wrong(&why))?;
        return Ok((name.to_owned(), url, Wanted::Gate(Box::new(gate))));
    }
    if url.scheme.has_path() && url.path != "/" {
        return Err(wrong(&"a listener has no path"));
    }
    let offer = match over_tcp(tls_options::inside(url.scheme).unwrap_or(url.scheme)) {
        Scheme::Tcp => stream_service(name, work).map(ListenOffer::Stream),
        Scheme::Udp => datagram_service(name, work).map(ListenOffer::Datagrams),
        Scheme::Http => http_service(name, work).map(ListenOffer::Stream),
        Scheme::Ws => socket_service(name, work, web).map(ListenOffer::Stream),
        _ => {
            return Err(wrong(
                &"a listener is tcp://, udp://, http:// or ws://, tls://, https:// or wss://, or unix:, http+unix: or ws+unix:",
            ));
        }
    };
    let unknown = || {
        if name == "proxy" {
            return wrong(&"the gate needs a backend: write proxy:127.0.0.1:8000");
        }
        wrong(&format_args!("`{name}` is not a service: there are echo, hello, time, work and proxy:BACKEND"))
    };
    Ok((name.to_owned(), url, Wanted::Offer(offer.ok_or_else(unknown)?)))
}

/// A gate before these backends, which are separated by commas; over HTTP with a place for each request.
fn gate(backends: &str, scheme: Scheme) -> Result<ProxyBuilder, String> {
    let is_http = match over_tcp(scheme) {
        Scheme::Tcp | Scheme::Tls => false,
        Scheme::Http | Scheme::Https => true,
        _ => {
            let schemes = "tcp://, tls://, http:// or https://, or on unix: or http+unix:";
            return Err(format!("the gate listens on {schemes}"));
        }
    };
    let (mut names, mut speaks_tls) = (Vec::new(), None);
    for backend in backends.split(',').map(str::trim) {
        let (name, tls) = backend_name(backend, is_http)?;
        if tls.is_some_and(|tls| speaks_tls.is_some_and(|before| before != tls)) {
            return Err("all backends of a listener speak TLS, or none does: use two listeners".to_owned());
        }
        speaks_tls = speaks_tls.or(tls).or(Some(false));
        names.push(name);
    }
    let mut gate = proxy(names).map_err(|error| error.to_string())?;
    if is_http {
        gate = gate.http(HttpGateConfig::default());
    }
    Ok(if speaks_tls == Some(true) { gate.tls(BackendTls::default()) } else { gate })
}

/// A backend without the scheme before it, and whether the scheme says that it speaks TLS. Without a scheme it speaks what the
/// one before it speaks.
fn backend_name(backend: &str, is_http: bool) -> Result<(&str, Option<bool>), String> {
    let Some((scheme, name)) = backend.split_once("://") else { return Ok((backend, None)) };
    let tls = match (scheme, is_http) {
        ("http", true) => false,
        ("https", true) | ("tls", false) => true,
        ("http" | "https", false) => {
            return Err(format!("backends of {scheme}:// need a listener of http:// or https://"));
        }
        ("tls", true) => {
            return Err("backends of tls:// need a listener of tcp:// or tls://: write https://".to_owned());
        }
        // The name says what is wrong with it.
        _ => return Ok((backend, Some(false))),
    };
    Ok((name.trim_end_matches('/'), Some(tls)))
}

fn stream_service(name: &str, work: Cost) -> Option<Arc<dyn Service>> {
    Some(match name {
        "echo" => Arc::new(Echo),
        "hello" => Arc::new(hello()),
        "time" => Arc::new(Time),
        "work" => Arc::new(Work(work)),
        _ => return None,
    })
}

fn http_service(name: &str, work: Cost) -> Option<Arc<dyn Service>> {
    Some(match name {
        "echo" => Arc::new(http::echo()),
        "hello" => Arc::new(http::hello()),
        "time" => Arc::new(http::time()),
        "work" => Arc::new(http::work(work)),
        _ => return None,
    })
}

fn socket_service(name: &str, work: Cost, web: &WebOptions) -> Option<Arc<dyn Service>> {
    let sockets = match name {
        "echo" => websocket::echo(),
        "hello" => websocket::hello(),
        "time" => websocket::time(web.push_every()),
        "work" => websocket::work(work),
        _ => return None,
    };
    Some(Arc::new(web.guarding(sockets)))
}

fn datagram_service(name: &str, work: Cost) -> Option<Arc<dyn DatagramService>> {
    Some(match name {
        "echo" => Arc::new(Echo),
        "hello" => Arc::new(hello_datagrams()),
        "time" => Arc::new(Time),
        "work" => Arc::new(Work(work)),
        _ => return None,
    })
}

/// Reads an address, or `off`.
fn endpoint_url(name: &str, text: &str, usual_port: &str) -> Result<Option<Url>, ExitError> {
    if text == "off" {
        return Ok(None);
    }
    let url = format!("tcp://{text}").parse::<Url>().map_err(|_| {
        ExitError::usage(format!(
            "{name} address `{text}` is not HOST:PORT: write one like 127.0.0.1:{usual_port}, or off"
        ))
    });
    url.map(Some)
}

/// The scheme of the same protocol over TCP, of a service at a Unix socket.
fn over_tcp(scheme: Scheme) -> Scheme {
    match scheme {
        Scheme::Unix => Scheme::Tcp,
        Scheme::HttpUnix => Scheme::Http,
        Scheme::WsUnix => Scheme::Ws,
        other => other,
    }
}

/// Where a listener is. A path that no socket can have is for a person to change; a name may have an address later.
fn address(text: &str, url: &Url) -> Result<Address, ExitError> {
    let why = |why: &dyn std::fmt::Display| format!("listener `{text}`: {why}");
    let Some(path) = url.socket() else {
        return resolve(url).map(Address::Ip).map_err(|error| ExitError::failed(why(&error)));
    };
    let name = match path.as_os_str().as_bytes() {
        [0, name @ ..] => UnixName::abstract_name(name),
        _ => UnixName::path(path),
    };
    name.map(Address::Unix).map_err(|error| ExitError::usage(why(&error)))
}

/// The first address of a host. A name that has none now may have one when a supervisor tries again.
fn resolve(url: &Url) -> Result<SocketAddr, String> {
    url.resolve().map(|addresses| addresses[0]).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_separates_listeners_and_may_stand_in_a_service() {
        for (text, listeners) in [
            ("echo=tcp://h:1", vec!["echo=tcp://h:1"]),
            ("echo=tcp://h:1,time=udp://h:2", vec!["echo=tcp://h:1", "time=udp://h:2"]),
            ("echo=tcp://h:1, time=udp://h:2,", vec!["echo=tcp://h:1", "time=udp://h:2"]),
            ("proxy:a:1,b:2=tcp://h:1,echo=tcp://h:2", vec!["proxy:a:1,b:2=tcp://h:1", "echo=tcp://h:2"]),
            ("", vec![""]),
            ("nonsense", vec!["nonsense"]),
            ("a,b", vec!["a,b"]),
        ] {
            assert_eq!(split_listeners(text), listeners, "{text}");
        }
    }
}
