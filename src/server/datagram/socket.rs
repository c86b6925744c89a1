//! Datagrams: sockets in the same epoll, the same queue and the same workers as connections.
//!
//! ```text
//!  kernel                 tidegate
//!  [receive buffer] -> event -> [queue: "receive"] -> worker: a batch -+-> cheap: answered at once,
//!                                                                      |   replies leave as a batch
//!                                                                      +-> slow: [queue: datagrams]
//!                                                                             -> a worker for each
//! ```
//!
//! Why no thread that only receives: handing each datagram to another thread is a switch that costs
//! as much as the whole answer of a cheap service. So the worker that polls receives, and what it
//! receives from a cheap service it answers itself; a service whose turns are slow (measured, see
//! [`TurnCost`](crate::server::queue::cost::TurnCost)) gets a worker for each datagram, through the queue and within its bounds. While all
//! workers are in turns the timekeeper receives, so that what does not fit is dropped here, by our rules
//! and counted, and not only in the kernel's buffer.

use super::batch::Batch;
use super::rates::DatagramRates;
use super::slots::Mailbox;
use crate::clock::Nanos;
use crate::limits::Limits;
use crate::metrics::stats::Ledger;
use crate::reason::DatagramDrop;
use crate::server::listener::name_of;
use crate::server::listeners::Listeners;
use crate::server::poll::poller::{Poller, Source};
use crate::server::queue::cost::TurnCost;
use crate::server::queue::line::{Entry, Job, Line};
use crate::service::DatagramService;
use crate::sys::{Given, receive_datagrams, send_datagrams};
use crate::transport::listen::{heed_datagrams, ignore_datagrams};
use crate::transport::socket::receive;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// Ports below 1024 of services that answer whatever comes, or that are known to be abused as reflectors, and memcached's;
/// and 0, to which nothing can be sent. No client of ours has such a port: systems give theirs from 1024 on.
const REFUSED_PORTS: [u16; 26] = [
    0, 7, 11, 13, 17, 19, 37, // echo, systat, daytime, quote of the day, chargen, time
    53, 69, 111, 123, 137, 138, // DNS, TFTP, portmap, NTP, NetBIOS
    161, 177, 389, 427, 464, 500, // SNMP, XDMCP, CLDAP, SLP, kpasswd, IKE
    517, 518, 520, 521, 623, 750,    // talk, RIP, IPMI, Kerberos
    11_211, // memcached
];

/// Batches that are still taken of what the kernel holds when a server ends: as many datagrams
/// as a receive buffer of 1 MiB has room for.
const LAST_BATCHES: u32 = 64;

/// Datagrams that were never received and are counted when a socket closes: more than any buffer holds.
const UNREAD_MOST: usize = 100_000;

/// How long a worker waits for room in the send buffer before it gives replies up.
const SEND_WAIT: Duration = Duration::from_millis(10);

/// The column in the ledgers of the datagram listener of this number. Those of connections are counted from the first, these
/// from the last.
pub(crate) fn column_of(number: usize, columns: usize) -> usize {
    columns - 1 - number
}

/// One datagram listener.
pub(crate) struct DatagramSocket {
    pub(crate) url: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) service: Arc<dyn DatagramService>,
    /// What the service is called in metrics.
    pub(crate) name: String,
    /// Its place among all listeners, as they were given.
    pub(crate) position: usize,
    /// Its column in the ledgers.
    pub(crate) column: usize,
    pub(crate) cost: TurnCost,
    socket: RwLock<Option<UdpSocket>>,
    /// Another process has the socket too, and goes on with it after this one.
    is_shared: AtomicBool,
    /// When it was closed, while the server goes on, by the server's clock; 0 while it is open.
    closed_at: AtomicU64,
    /// An entry that says "receive" is in the queue.
    scheduled: AtomicBool,
    /// Since when.
    scheduled_at: AtomicU64,
    /// The kernel failed to give datagrams: ask again without an event.
    retry: AtomicBool,
    /// Batches and waiting datagrams that somebody works at.
    pending: AtomicUsize,
    /// Batches that may still be taken; counted down while it drains.
    batches_left: AtomicU32,
    /// What the kernel had dropped of sockets that are closed.
    dropped_in_kernel: AtomicU64,
    /// Datagrams that nobody came to receive before the socket was closed, and replies that were made after it.
    too_late: AtomicU64,
    /// What had been dropped at the last summary.
    seen: [AtomicU64; DatagramDrop::COUNT],
}

impl DatagramSocket {
    pub(crate) fn new(
        socket: UdpSocket,
        address: SocketAddr,
        service: Arc<dyn DatagramService>,
        position: usize,
    ) -> Self {
        let name = name_of(|| service.name().to_owned());
        Self {
            url: format!("udp://{address}").into(),
            address,
            service,
            name,
            position,
            column: position,
            cost: TurnCost::unknown(),
            socket: RwLock::new(Some(socket)),
            is_shared: AtomicBool::new(false),
            closed_at: AtomicU64::new(0),
            scheduled: AtomicBool::new(false),
            scheduled_at: AtomicU64::new(0),
            retry: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
            batches_left: AtomicU32::new(u32::MAX),
            dropped_in_kernel: AtomicU64::new(0),
            too_late: AtomicU64::new(0),
            seen: Default::default(),
        }
    }

    pub(crate) fn socket(&self) -> RwLockReadGuard<'_, Option<UdpSocket>> {
        self.socket.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// It receives nothing before it is started.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program opens and closes listeners"))]
    pub(crate) fn asleep(mut self) -> Self {
        *self.batches_left.get_mut() = 0;
        self
    }

    /// With a socket that another process has too.
    pub(crate) fn shared(mut self, is_shared: bool) -> Self {
        *self.is_shared.get_mut() = is_shared;
        self
    }

    /// Whether another process has the socket too.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared.load(SeqCst)
    }

    /// Another process receives from now on what comes to the socket.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program replaces itself"))]
    pub(crate) fn hand_over(&self) {
        self.is_shared.store(true, SeqCst);
    }

    /// When it was closed, if it was, while the server goes on.
    pub(crate) fn closed_at(&self) -> Option<Nanos> {
        Some(self.closed_at.load(SeqCst)).filter(|&at| at > 0)
    }

    /// Registers the socket with the poller; an event follows for what is there already.
    pub(crate) fn register(&self, poller: &Poller, number: usize) -> io::Result<()> {
        match &*self.socket() {
            Some(socket) => poller.add(socket.as_fd(), Source::Datagrams(number)),
            None => Ok(()),
        }
    }

    /// Puts "receive" into the line, unless it is there; whether it did.
    pub(crate) fn schedule(&self, line: &Line, number: usize, now: Nanos) -> bool {
        if self.batches_left.load(Relaxed) == 0 || self.scheduled.swap(true, SeqCst) {
            return false;
        }
        self.scheduled_at.store(now, Relaxed);
        line.push(Entry { since: now, job: Job::Receive(number as u32) });
        true
    }

    /// The entry left the line: whatever comes from now on needs another.
    pub(crate) fn unschedule(&self) {
        self.scheduled.store(false, SeqCst);
    }

    /// Whether the entry has been in the queue since `then` or longer.
    pub(crate) fn is_scheduled_since(&self, then: Nanos) -> bool {
        self.scheduled.load(SeqCst) && self.scheduled_at.load(Relaxed) <= then
    }

    /// Takes a batch of at most `most` datagrams; how many it has.
    pub(crate) fn receive(&self, batch: &mut Batch, most: usize, ledger: &Ledger) -> usize {
        let guard = self.socket();
        let Some(socket) = &*guard else { return 0 };
        let size = batch.request_size;
        let room = &mut batch.requests[..most * size];
        match receive_datagrams(socket.as_fd(), room, size, &mut batch.taken) {
            Ok(taken) => {
                let bytes: usize = batch.taken[..taken].iter().map(|taken| taken.len).sum();
                ledger.datagrams(taken as u64);
                ledger.bytes(bytes as u64, 0);
                taken
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                // The kernel's memory, or a signal. No event will come for what is there.
                self.retry.store(true, SeqCst);
                tracing::debug!(listener = %self.url, %error, "cannot receive datagrams");
                0
            }
        }
    }

    /// Sends replies; those that cannot be sent are counted.
    pub(crate) fn send(&self, mut replies: &[Given<'_>], ledger: &Ledger) {
        let guard = self.socket();
        let mut waited = false;
        while let (Some(socket), false) = (&*guard, replies.is_empty()) {
            match send_datagrams(socket.as_fd(), replies) {
                Ok(sent) => {
                    let bytes: usize = replies[..sent].iter().map(|reply| reply.data.len()).sum();
                    ledger.bytes(0, bytes as u64);
                    replies = &replies[sent..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !waited => {
                    waited = true;
                    wait_writable(socket);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // About the first of them: no way to its client, say.
                Err(_) => {
                    ledger.datagrams_dropped(DatagramDrop::Unsent, 1);
                    replies = &replies[1..];
                }
            }
        }
        if !replies.is_empty() {
            ledger.datagrams_dropped(DatagramDrop::Unsent, replies.len() as u64);
        }
        if guard.is_none() {
            self.too_late.fetch_add(replies.len() as u64, Relaxed);
        }
    }

    /// Somebody begins to work at a batch or a datagram.
    pub(crate) fn begin(&self) {
        self.pending.fetch_add(1, SeqCst);
    }

    /// And has ended. The last one at a listener that was closed closes its socket.
    pub(crate) fn end(&self) {
        if self.pending.fetch_sub(1, SeqCst) == 1 && self.closed_at().is_some() {
            self.close_if_done();
        }
    }

    /// How many batches may still be taken.
    pub(crate) fn batches_left(&self) -> u32 {
        self.batches_left.load(SeqCst)
    }

    /// A batch was taken when this number was left: while the server drains, it is the last one
    /// if it was not full.
    pub(crate) fn count_last(&self, left: u32, full: bool) {
        let fewer = |now: u32| (now != u32::MAX).then(|| if full { now.saturating_sub(1) } else { 0 });
        if left != u32::MAX {
            // Not where it has opened again meanwhile.
            let _ = self.batches_left.fetch_update(SeqCst, SeqCst, fewer);
        }
    }

    fn is_done(&self) -> bool {
        self.batches_left.load(SeqCst) == 0 && self.pending.load(SeqCst) == 0
    }

    /// What the kernel has dropped because its buffer was full. `SO_MEMINFO` tells at any time what
    /// `SO_RXQ_OVFL` tells with the next datagram that fits, and costs nothing per datagram.
    pub(crate) fn dropped_in_kernel(&self) -> u64 {
        let guard = self.socket();
        self.dropped_in_kernel.load(Relaxed) + guard.as_ref().map_or(0, drops)
    }

    /// Datagrams that were not received before the socket was closed, and replies that were made after it.
    pub(crate) fn too_late(&self) -> u64 {
        self.too_late.load(Relaxed)
    }

    /// What had been dropped for a reason at the last summary; `now` is it from here on.
    pub(crate) fn seen(&self, reason: usize, now: u64) -> u64 {
        self.seen[reason].swap(now, Relaxed)
    }

    /// Takes what the kernel holds, and then no more; whether there is a socket.
    pub(crate) fn take_no_more(&self, line: &Line, number: usize, now: Nanos) -> bool {
        let guard = self.socket();
        let Some(socket) = &*guard else { return false };
        if self.is_shared() {
            // What the kernel holds is for the other process, like what comes.
            self.batches_left.store(0, SeqCst);
        } else {
            ignore_datagrams(socket);
            self.batches_left.store(LAST_BATCHES, SeqCst);
            self.schedule(line, number, now);
        }
        true
    }

    fn close(&self) {
        self.let_go(&mut self.socket.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Closes the socket, whatever was still to be answered.
    pub(crate) fn cut(&self) {
        self.batches_left.store(0, SeqCst);
        self.close();
    }

    /// Closes the socket if everything is answered. While somebody else looks at the socket, it is closed by the timekeeper,
    /// later.
    pub(crate) fn close_if_done(&self) {
        if self.is_done()
            && let Ok(mut socket) = self.socket.try_write()
            && self.is_done()
        {
            self.let_go(&mut socket);
        }
    }

    fn let_go(&self, socket: &mut Option<UdpSocket>) {
        let Some(socket) = socket.take() else { return };
        if !self.is_shared() {
            self.too_late.fetch_add(unread(&socket), Relaxed);
        }
        self.dropped_in_kernel.fetch_add(drops(&socket), Relaxed);
    }
}

/// A listener that closes, or opens again, while the server goes on.
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program opens and closes listeners"))]
impl DatagramSocket {
    /// It takes nothing that comes from `now` on. What it has is answered; then the socket is closed.
    pub(crate) fn close_down(&self, line: &Line, number: usize, now: Nanos) {
        self.closed_at.store(now.max(1), SeqCst);
        self.take_no_more(line, number, now);
    }

    /// Keeps the socket of one that was closed from being closed while the returned guard is there, if it is there still.
    pub(crate) fn keep(&self) -> Option<RwLockReadGuard<'_, Option<UdpSocket>>> {
        Some(self.socket()).filter(|socket| socket.is_some())
    }

    /// It is open again, with this socket.
    pub(crate) fn open_again(&self, socket: UdpSocket) {
        *self.socket.write().unwrap_or_else(PoisonError::into_inner) = Some(socket);
        self.closed_at.store(0, SeqCst);
    }

    /// It is open again, with the socket that it was closed with.
    pub(crate) fn stay_open(&self, kept: RwLockReadGuard<'_, Option<UdpSocket>>) {
        kept.as_ref().into_iter().for_each(heed_datagrams);
        self.closed_at.store(0, SeqCst);
    }

    /// Receives from now on.
    pub(crate) fn start(&self, line: &Line, number: usize, now: Nanos) {
        // A server that has begun to end may have closed it.
        if let Some(_open) = self.keep() {
            self.batches_left.store(u32::MAX, SeqCst);
            self.schedule(line, number, now);
        }
    }
}

#[cfg(target_os = "linux")]
fn drops(socket: &UdpSocket) -> u64 {
    crate::sys::socket_drops(socket.as_fd()).map_or(0, u64::from)
}

#[cfg(not(target_os = "linux"))]
fn drops(_socket: &UdpSocket) -> u64 {
    0
}

/// Datagrams that the kernel still has for a socket. They are thrown away.
fn unread(socket: &UdpSocket) -> u64 {
    let mut byte = [0; 1];
    (0..UNREAD_MOST).take_while(|_| matches!(receive(socket, &mut byte), Ok(Some(_)))).count() as u64
}

fn wait_writable(socket: &UdpSocket) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec::try_from(SEND_WAIT).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
    // Whatever it says, the next attempt to send tells.
    let _ = poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&timeout));
}

/// All datagram listeners of a server.
pub(crate) struct DatagramListeners {
    pub(crate) sockets: Listeners<DatagramSocket>,
    /// The places in which they wait for a worker.
    slots: OnceLock<Mailbox>,
    /// How many there are, and how large each is.
    places: usize,
    size: usize,
    /// What each source may send.
    pub(crate) rates: DatagramRates,
}

impl DatagramListeners {
    pub(crate) fn new(sockets: Listeners<DatagramSocket>, limits: &Limits) -> Self {
        let (places, size) = (Self::places(limits), limits.max_datagram);
        Self { sockets, slots: OnceLock::new(), places, size, rates: DatagramRates::new(limits) }
    }

    /// The places in which datagrams wait for a worker: made when the first one has to.
    pub(crate) fn slots(&self) -> &Mailbox {
        self.slots.get_or_init(|| Mailbox::new(self.places, self.size))
    }

    /// How many may wait or be answered.
    pub(crate) fn capacity(&self) -> usize {
        self.places
    }

    /// Datagrams that wait, and one at each worker.
    fn places(limits: &Limits) -> usize {
        limits.queue + limits.workers_most()
    }

    /// How many entries the queue must have room for.
    pub(crate) fn entries(&self) -> usize {
        self.sockets.room() + self.places
    }

    /// The bytes that datagrams can make a server hold.
    pub(crate) fn memory_ceiling(limits: &Limits) -> usize {
        Self::places(limits) * (limits.max_datagram + Mailbox::SLOT_BYTES)
            + (limits.workers_most() + 1) * Batch::bytes(limits)
            + DatagramRates::BYTES
    }

    /// Whether answering this source could loop or reflect.
    pub(crate) fn refuses(&self, peer: SocketAddr) -> bool {
        // Two listeners of one server could be made to answer each other, too.
        let own =
            |socket: &DatagramSocket| socket.closed_at().is_none() && socket.address.port() == peer.port();
        REFUSED_PORTS.contains(&peer.port()) || self.sockets.iter().any(own)
    }

    /// Tells all sockets to take what the kernel holds, and then no more; whether there are any.
    pub(crate) fn begin_drain(&self, line: &Line, now: Nanos) -> bool {
        let mut any = false;
        for (number, socket) in self.sockets.iter().enumerate() {
            any |= socket.take_no_more(line, number, now);
        }
        any
    }

    /// Closes the sockets that have answered everything; whether all have.
    pub(crate) fn drained(&self) -> bool {
        let mut all = true;
        for socket in self.sockets.iter() {
            socket.close_if_done();
            all &= socket.is_done();
        }
        all
    }

    /// Closes all sockets, whatever was still to be answered.
    pub(crate) fn close(&self) {
        self.sockets.iter().for_each(DatagramSocket::cut);
    }

    /// Asks the kernel again where it failed; whether it failed anywhere.
    pub(crate) fn retry(&self, line: &Line, now: Nanos) -> bool {
        let mut any = false;
        for (number, socket) in self.sockets.iter().enumerate() {
            if socket.retry.load(Relaxed) && socket.retry.swap(false, SeqCst) {
                any |= socket.schedule(line, number, now);
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Echo;

    #[test]
    fn sources_that_would_answer_the_answer_are_refused() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let socket = DatagramSocket::new(socket, address, Arc::new(Echo), 0);
        let datagrams = DatagramListeners::new(Listeners::new(vec![socket], 0), &Limits::default());
        let refused = [&REFUSED_PORTS[..], &[address.port()]].concat();
        assert!([0, 7, 13, 17, 19, 37, 53, 123, 161, 389, 11_211].iter().all(|port| refused.contains(port)));
        for port in (0..=1024).chain([11_211, address.port(), 65_535]) {
            for ip in ["192.0.2.1", "2001:db8::1"] {
                let peer = SocketAddr::new(ip.parse().unwrap(), port);
                assert_eq!(datagrams.refuses(peer), refused.contains(&port), "{peer}");
            }
        }
    }
}
