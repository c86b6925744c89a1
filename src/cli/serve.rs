//! `tidegate serve`: from options to a running server, and `tidegate check`, which stops before.

use super::args::ServeArgs;
use super::limit_options::LimitOptions;
use super::{config, exit, fail, log};
use crate::admin::{Admin, AdminHandle};
use crate::limits::Limits;
use crate::metrics::snapshot::Observe;
use crate::server::{BoundServer, BuildError, Server};
use crate::service::{Cost, DatagramService, Echo, Service, Time, Work, hello, hello_datagrams, http};
use crate::url::{Scheme, Url};
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tidegate_units::unescape;

const DEFAULT_ADMIN: &str = "127.0.0.1:9464";
const DEFAULT_LISTEN: &str = "echo=tcp://127.0.0.1:5000";

/// What the options come to.
struct Plan {
    limits: Limits,
    listeners: Vec<(String, SocketAddr, Offer)>,
    busy_reply: Option<Vec<u8>>,
    /// Where the admin endpoint is, unless it is off.
    admin: Option<SocketAddr>,
    /// The limit of open files allows fewer connections than the default.
    lowered: bool,
}

/// What a listener offers.
enum Offer {
    Stream(Arc<dyn Service>),
    Http(Arc<dyn Service>),
    Datagrams(Arc<dyn DatagramService>),
}

impl Offer {
    fn scheme(&self) -> Scheme {
        match self {
            Offer::Stream(_) => Scheme::Tcp,
            Offer::Http(_) => Scheme::Http,
            Offer::Datagrams(_) => Scheme::Udp,
        }
    }
}

/// Serves until a signal ends it.
pub(super) fn run(args: ServeArgs) -> ExitCode {
    let args = match config::merge(args) {
        Ok(args) => args,
        Err(why) => return fail(exit::USAGE, why),
    };
    log::start(&args);
    let plan = match Plan::new(&args) {
        Ok(plan) => plan,
        Err(why) => return fail(exit::USAGE, why),
    };
    match plan.bind().and_then(|(plan, bound)| serve(&args, &plan, bound)) {
        Ok(code) => ExitCode::from(code),
        Err(error @ BuildError::Limits(_)) => fail(exit::USAGE, error),
        Err(error) => fail(exit::FAILED, error),
    }
}

/// Checks the options and prints the effective limits.
pub(super) fn check(args: ServeArgs) -> ExitCode {
    let checked = config::merge(args).and_then(|args| Plan::new(&args));
    match checked {
        Ok(plan) => match plan.check() {
            Ok(()) => print(&plan.describe()),
            Err(error @ BuildError::Limits(_)) => fail(exit::USAGE, error),
            Err(error) => fail(exit::FAILED, error),
        },
        Err(why) => fail(exit::USAGE, why),
    }
}

/// Prints a text to stdout; a reader that went away is no failure, a full disk is.
pub(super) fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(exit::FAILED, format_args!("cannot write to stdout: {error}"))
        }
        _ => ExitCode::from(exit::OK),
    }
}

impl Plan {
    fn new(args: &ServeArgs) -> Result<Self, String> {
        let mut limits = args.limits.limits();
        let listen: Vec<String> = match args.listen.as_slice() {
            [] => vec![DEFAULT_LISTEN.to_owned()],
            given => given.iter().flat_map(|text| split_listeners(text)).collect(),
        };
        let lowered = fit_descriptors(&mut limits, &args.limits, listen.len());
        let work = args.work.unwrap_or(Cost::Cpu(Duration::from_millis(1)));
        let mut listeners = Vec::new();
        for text in listen {
            listeners.push(listener(&text, work)?);
        }
        let busy_reply = args.busy_reply.as_deref().map(unescape).transpose()?;
        let admin = admin_address(args.admin.as_deref().unwrap_or(DEFAULT_ADMIN))?;
        Ok(Self { limits, listeners, busy_reply, admin, lowered })
    }

    /// What [`bind`](Self::bind) would find wrong with the limits.
    fn check(&self) -> Result<(), BuildError> {
        self.limits.check()?;
        crate::server::check_descriptors(&self.limits, self.listeners.len())
    }

    fn bind(self) -> Result<(Self, BoundServer), BuildError> {
        let mut builder = Server::builder().limits(self.limits.clone());
        for (_, address, service) in &self.listeners {
            builder = match service {
                Offer::Stream(service) | Offer::Http(service) => {
                    builder.listen_shared(*address, service.clone())
                }
                Offer::Datagrams(service) => builder.listen_datagrams_shared(*address, service.clone()),
            };
        }
        if let Some(words) = &self.busy_reply {
            builder = builder.busy_reply(words.clone());
        }
        let bound = builder.bind()?;
        Ok((self, bound))
    }

    /// The effective limits, for people.
    fn describe(&self) -> String {
        use std::fmt::Write;
        let mut out = String::new();
        for row in self.limits.table() {
            let _ = writeln!(out, "  {:<22} {:<12} {}", row.name, row.value, row.why);
        }
        out
    }

    fn memory_ceiling(&self) -> usize {
        let datagrams = self.listeners.iter().any(|(.., offer)| offer.scheme() == Scheme::Udp);
        let more = if datagrams { self.limits.datagram_memory_ceiling() } else { 0 };
        self.limits.memory_ceiling() + more
    }

    /// The limits in one line: threads, places, descriptors, memory.
    fn summary(&self) -> String {
        let limits = &self.limits;
        format!(
            "limits: {} workers, {} may wait, {} connections, {} descriptors, at most {} MiB",
            limits.workers,
            limits.queue,
            limits.max_connections,
            limits.max_connections + limits.lingering + limits.fd_reserve,
            self.memory_ceiling().div_ceil(1 << 20),
        )
    }
}

/// Lowers the limits that were not asked for to what the limit of open files allows; true if that
/// is less than the default.
fn fit_descriptors(limits: &mut Limits, asked: &LimitOptions, listeners: usize) -> bool {
    if asked.names("max-connections") {
        return false;
    }
    let open_files = crate::sys::raise_open_files(u64::MAX) as usize;
    // In a small process the reserves are small too: connections are what it is for.
    if !asked.names("fd-reserve") {
        limits.fd_reserve = limits.fd_reserve.min(open_files / 4);
    }
    limits.lingering = limits.lingering.min(open_files / 8);
    let possible = Server::connections_possible(limits, listeners);
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
fn listener(text: &str, work: Cost) -> Result<(String, SocketAddr, Offer), String> {
    let (name, url) = text
        .split_once('=')
        .ok_or_else(|| format!("listener `{text}` is not SERVICE=URL: write echo=tcp://127.0.0.1:5000"))?;
    let url: Url = url.parse().map_err(|error| format!("listener `{text}`: {error}"))?;
    let offer = match url.scheme {
        Scheme::Tcp => stream_service(name, work).map(Offer::Stream),
        Scheme::Udp => datagram_service(name, work).map(Offer::Datagrams),
        Scheme::Http if url.path != "/" => return Err(format!("listener `{text}`: a listener has no path")),
        Scheme::Http => http_service(name, work).map(Offer::Http),
        _ => return Err(format!("listener `{text}`: a listener is tcp://, udp:// or http://")),
    };
    let unknown = || format!("`{name}` is not a service: there are echo, hello, time and work");
    let offer = offer.ok_or_else(unknown)?;
    let address = url.resolve().map_err(|error| format!("listener `{text}`: {error}"))?[0];
    Ok((name.to_owned(), address, offer))
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

fn datagram_service(name: &str, work: Cost) -> Option<Arc<dyn DatagramService>> {
    Some(match name {
        "echo" => Arc::new(Echo),
        "hello" => Arc::new(hello_datagrams()),
        "time" => Arc::new(Time),
        "work" => Arc::new(Work(work)),
        _ => return None,
    })
}

fn serve(args: &ServeArgs, plan: &Plan, bound: BoundServer) -> Result<u8, BuildError> {
    let addresses = bound.addresses();
    let admin = plan.admin.map(|address| admin(address, bound.observe())).transpose()?;
    // Before the first client is served, so that no signal finds the default: to be killed.
    let trigger = bound.trigger();
    let signals = std::sync::atomic::AtomicUsize::new(0);
    let on_signal = move || match signals.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => trigger.drain(),
        // Ends at once, whatever still runs.
        _ => std::process::exit(i32::from(exit::CUT)),
    };
    ctrlc::set_handler(on_signal).map_err(|error| BuildError::Start {
        what: "the signal handler",
        source: std::io::Error::other(error),
    })?;
    let handle = bound.serve()?;
    if !args.quiet {
        announce(plan, &addresses, admin.as_ref().map(AdminHandle::address));
    }
    let report = handle.wait();
    drop(admin);
    if !args.quiet {
        tracing::info!("{report}");
    }
    Ok(if report.is_clean() { exit::OK } else { exit::CUT })
}

/// Reads an address, or `off`. Of a name with several addresses the first is taken.
fn admin_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    let wrong = |why: &dyn std::fmt::Display| {
        format!("admin address `{text}`: {why}: write one like 127.0.0.1:9464, or off")
    };
    let mut found = text.to_socket_addrs().map_err(|error| wrong(&error))?;
    found.next().map(Some).ok_or_else(|| wrong(&"it has no address"))
}

/// Binds and serves the admin endpoint.
fn admin(address: SocketAddr, observe: Arc<dyn Observe>) -> Result<AdminHandle, BuildError> {
    let bind = |source| BuildError::Bind { address, source };
    let admin = Admin::bind(address, observe).map_err(bind)?;
    admin.serve().map_err(|source| BuildError::Start { what: "the admin endpoint", source })
}

/// One line per listener with its real address, then the limits.
fn announce(plan: &Plan, addresses: &[SocketAddr], admin: Option<SocketAddr>) {
    let mut text = String::new();
    for ((name, _, offer), address) in plan.listeners.iter().zip(addresses) {
        text.push_str(&format!("{name} on {}://{address}\n", offer.scheme().as_str()));
    }
    if let Some(address) = admin {
        text.push_str(&format!("metrics on http://{address}/metrics, status on http://{address}/status\n"));
    }
    text.push_str(&plan.summary());
    text.push('\n');
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The server serves without an audience too.
        tracing::warn!(%error, "cannot write to stdout");
    }
    if plan.lowered {
        tracing::warn!(
            max_connections = plan.limits.max_connections,
            queue = plan.limits.queue,
            "the limit of open files allows fewer connections than the default; raise it with ulimit -n"
        );
    }
}
