//! One listener: its service, its socket while that is open, its own limits, and the errors of its accept calls.

use super::close::last_words::LastWords;
use super::in_force::OwnLimits;
use super::queue::cost::TurnCost;
use super::queue::room::NewcomerRoom;
use crate::clock::Nanos;
use crate::contain::contain;
use crate::current::Current;
use crate::limits::Limits;
use crate::metrics::handshakes::HandshakeCounts;
use crate::metrics::web::WebCounts;
use crate::reason::AcceptError;
use crate::service::http::AccessLog;
use crate::service::http::wire::is_lone_request;
use crate::service::{Network, Protocol, Service, Words};
use crate::transport::address::{Address, ClientAddress};
use crate::transport::listen::ListenSocket;
use crate::transport::tls::Setup;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The name that a service says; one that panics over it is called `unnamed`.
pub(crate) fn name_of(ask: impl FnOnce() -> String) -> String {
    contain(ask).unwrap_or_else(|_| "unnamed".to_owned())
}

pub(crate) struct Listener {
    pub(crate) url: String,
    pub(crate) address: Address,
    pub(crate) service: Arc<dyn Service>,
    /// What the service is called in metrics: asked once, so that no scrape runs the service's own code.
    pub(crate) name: String,
    /// Its place among all listeners, datagram listeners included, as they were given.
    pub(crate) position: usize,
    /// The limits that it has of its own.
    pub(crate) own: OwnLimits,
    /// Its newcomers that wait for a worker.
    pub(crate) newcomers: NewcomerRoom,
    /// How long a turn of its service takes.
    pub(crate) cost: TurnCost,
    /// Whether the service's sessions have words for an overload; asked once for each text.
    answers_overload: AtomicBool,
    /// The text for a client that is not served.
    pub(crate) words: Current<Words>,
    /// What is counted of HTTP, where its clients speak it.
    pub(crate) web: Option<Arc<WebCounts>>,
    /// Where its HTTP requests are logged.
    pub(crate) access_log: Option<AccessLog>,
    protocol: Protocol,
    /// Its connections speak TLS.
    pub(crate) tls: Option<ListenerTls>,
    /// The balancers whose PROXY headers are believed; without any, connections begin with their clients' own bytes.
    balancers: Box<[Network]>,
    accept_errors: [AtomicU64; AcceptError::COUNT],
    /// Another process listens on the socket.
    handed_over: AtomicBool,
    /// When it was closed, while the server goes on, by the server's clock; 0 while it is open.
    closed_at: AtomicU64,
    /// It is closed, and its last connections have had their time: for turns, which look at it.
    ending: AtomicBool,
    /// Open until the server drains; locked by the acceptor to take it, by the leader to accept, and by scrapes.
    socket: Mutex<Option<ListenSocket>>,
}

/// The TLS of a listener.
pub(crate) struct ListenerTls {
    pub(crate) setup: Setup,
    pub(crate) counts: HandshakeCounts,
    /// How long a turn of a handshake takes.
    pub(crate) cost: TurnCost,
}

/// The text for clients that are not served, of the service if nobody says another one, and whether sessions of the service
/// say it themselves. A panic in the author's code is as good as no answer.
fn words_of(service: &dyn Service, words: Option<&[u8]>) -> (Words, bool) {
    let words = match words {
        Some(words) => Words::new(words),
        None => contain(|| Words::new(service.busy_reply())).unwrap_or_default(),
    };
    let told = words.say(Duration::from_secs(1));
    let answers_overload = contain(|| service.answers_overload(&told)).unwrap_or(false);
    (words, answers_overload)
}

impl Listener {
    pub(crate) fn new(
        socket: ListenSocket,
        address: Address,
        service: Arc<dyn Service>,
        position: usize,
        words: Option<Arc<[u8]>>,
    ) -> Self {
        let name = name_of(|| service.name().to_owned());
        let protocol = contain(|| service.protocol()).unwrap_or_default();
        let (words, answers_overload) = words_of(&*service, words.as_deref());
        Self {
            url: address.url(protocol.scheme(false)),
            address,
            service,
            name,
            position,
            own: OwnLimits::default(),
            newcomers: NewcomerRoom::new(0),
            cost: TurnCost::unknown(),
            answers_overload: answers_overload.into(),
            words: Current::new(words),
            web: None,
            access_log: None,
            protocol,
            tls: None,
            balancers: Box::default(),
            accept_errors: Default::default(),
            handed_over: AtomicBool::new(false),
            closed_at: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            socket: Mutex::new(Some(socket)),
        }
    }

    /// With limits of its own, on a server with these.
    pub(crate) fn limited(mut self, server: &Limits, own: OwnLimits) -> Self {
        self.web =
            (self.protocol != Protocol::Stream).then(|| Arc::new(WebCounts::new(server.workers_most())));
        self.own = own;
        self
    }

    /// With TLS, if there is a setup of it.
    pub(crate) fn secured(mut self, setup: Option<Setup>) -> Self {
        if let Some(setup) = setup {
            let (counts, cost) = (HandshakeCounts::default(), TurnCost::unknown());
            self.tls = Some(ListenerTls { setup, counts, cost });
            self.url = self.address.url(self.protocol.scheme(true));
        }
        self
    }

    /// The text for a client that is refused and should wait for this long. With TLS there is none: to send it would cost a
    /// handshake.
    pub(crate) fn refusal(&self, wait: Duration) -> LastWords {
        if self.tls.is_some() {
            return LastWords::default();
        }
        let is_all = match self.protocol {
            Protocol::Stream => None,
            Protocol::Http | Protocol::WebSocket => Some(is_lone_request as fn(&[u8]) -> bool),
        };
        // A request behind a balancer's header is not known for one, and is heard out as other protocols are.
        LastWords { text: self.words.get().say(wait).into_owned(), is_all }
    }

    /// The same for a client with or without a handshake that is over.
    pub(crate) fn refusal_where(&self, is_open: bool, wait: Duration) -> LastWords {
        if is_open { LastWords::new(self.words.get().say(wait).into_owned()) } else { self.refusal(wait) }
    }

    /// Whether the service's sessions have words for an overload.
    pub(crate) fn answers_overload(&self) -> bool {
        self.answers_overload.load(Relaxed)
    }

    /// Another text for clients that are not served from now on; `None` for the one of the service.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program reads another text"))]
    pub(crate) fn set_words(&self, words: Option<&[u8]>) {
        let (words, answers_overload) = words_of(&*self.service, words);
        self.words.replace(words);
        self.answers_overload.store(answers_overload, Relaxed);
    }

    /// With a log of its HTTP requests, if there is one.
    pub(crate) fn logging(mut self, log: Option<AccessLog>) -> Self {
        self.access_log = log;
        self
    }

    /// With the balancers whose PROXY headers are believed: those of them that can come here.
    pub(crate) fn accepting_proxy(mut self, mut balancers: Vec<Network>) -> Self {
        balancers.retain(|balancer| balancer.is_unix() == self.address.is_unix());
        self.balancers = balancers.into();
        self
    }

    /// Whether each connection begins with a PROXY header.
    pub(crate) fn expects_header(&self) -> bool {
        !self.balancers.is_empty()
    }

    /// Whether connections from this address are taken: where PROXY headers are expected, those of balancers are.
    pub(crate) fn takes(&self, client: &ClientAddress) -> bool {
        self.balancers.is_empty() || self.balancers.iter().any(|network| network.has(client))
    }

    pub(crate) fn socket(&self) -> MutexGuard<'_, Option<ListenSocket>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process listens on the socket from now on: closing it here refuses nobody.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program replaces itself"))]
    pub(crate) fn hand_over(&self) {
        self.handed_over.store(true, Relaxed);
        if let Some(socket) = &mut *self.socket() {
            socket.leave_file();
        }
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over.load(Relaxed)
    }

    /// It accepts nobody from `now` on.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program opens and closes listeners"))]
    pub(crate) fn close(&self, now: Nanos) {
        self.closed_at.store(now.max(1), SeqCst);
    }

    /// It accepts again, on this socket.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program opens and closes listeners"))]
    pub(crate) fn open_again(&self, socket: ListenSocket) {
        *self.socket() = Some(socket);
        self.ending.store(false, SeqCst);
        self.closed_at.store(0, SeqCst);
    }

    /// When it was closed, if it was, while the server goes on.
    pub(crate) fn closed_at(&self) -> Option<Nanos> {
        Some(self.closed_at.load(Relaxed)).filter(|&at| at > 0)
    }

    /// Its last connections are to end from now on.
    pub(crate) fn end_last(&self) {
        self.ending.store(true, SeqCst);
    }

    /// Whether its last connections are to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Relaxed)
    }

    /// For turns, which look at it.
    pub(crate) fn ending_flag(&self) -> &AtomicBool {
        &self.ending
    }

    pub(crate) fn accept_failed(&self, error: AcceptError) {
        self.accept_errors[error as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn accept_errors(&self) -> [u64; AcceptError::COUNT] {
        self.accept_errors.each_ref().map(|count| count.load(Relaxed))
    }
}
