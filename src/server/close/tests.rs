//! Every ending, on connections whose other end the test holds: a pair of sockets, without network and without threads.

use super::shedding::{Shedding, shed, shelve};
use super::*;
use crate::admit::Admission;
use crate::admit::turns::standing::INTERVAL;
use crate::limits::Limits;
use crate::reason::{DatagramDrop, TurnShed};
use crate::server::close::linger::Lingering;
use crate::server::counts::KEEPER_ROW;
use crate::server::datagram::socket::DatagramSocket;
use crate::server::extras::Extras;
use crate::server::listener::Listener;
use crate::server::listeners::Listeners;
use crate::server::poll::poller::Source;
use crate::server::poll::threads::Threads;
use crate::server::queue::connection::Registered;
use crate::server::queue::line::Claim;
use crate::server::shared::Shared;
#[cfg(feature = "tls")]
use crate::service::TlsSide;
use crate::service::{Stream, Turn};
use crate::sys::Taken;
use crossbeam_channel::Receiver;
use mio::{Poll, Token, Waker};
use rustix::net::sockopt::socket_linger;
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Says in a list why its connection ended, and when it was dropped.
struct Listening(Arc<Mutex<Vec<String>>>);

impl Session for Listening {
    fn turn(&mut self, _: &mut Stream<'_>) -> std::io::Result<Turn> {
        Ok(Turn::Close)
    }

    fn finish(&mut self, reason: CloseReason) {
        self.0.lock().unwrap().push(reason.to_string());
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("dropped".to_owned());
    }
}

/// The parts that an ending needs, and room for one connection.
struct House {
    clock: Clock,
    table: Table,
    line: Line,
    poller: Poller,
    crew: ThreadCrew,
    counts: Counts,
    farewells: Farewells,
    lingers: Lingers,
    lingering: Receiver<Lingering>,
    late_closes: LateCloses,
    admission: Arc<Admission>,
    told: Arc<Mutex<Vec<String>>>,
    /// The server's end of the last connection once more, by which is seen whether its close is a reset.
    copy: RefCell<Option<ClientSocket>>,
    _keeper: Poll,
}

impl House {
    fn new() -> Self {
        let limits = Limits::default().max_connections(1);
        let (poller, leader) = Poller::new().unwrap();
        let keeper = Poll::new().unwrap();
        let waker = Waker::new(keeper.registry(), Token(0)).unwrap();
        let (lingers, lingering) = Lingers::new(&limits);
        Self {
            clock: Clock::start(),
            table: Table::new(1),
            line: Line::new(4, 1),
            poller,
            crew: ThreadCrew::new(1, Threads::new(1, leader, waker)),
            counts: Counts::new(1, 1),
            farewells: Farewells::new(),
            lingers,
            lingering,
            late_closes: LateCloses::new(2),
            admission: Admission::new(&limits, std::slice::from_ref(&limits), |_, _| {}),
            told: Arc::default(),
            copy: RefCell::default(),
            _keeper: keeper,
        }
    }

    fn closer(&self) -> Closer<'_> {
        closer!(self)
    }

    /// A connection whose turn has begun, and its client's end.
    fn active(&self) -> (Owned<'_>, UnixStream) {
        let (socket, client) = pair();
        *self.copy.borrow_mut() = Some(ClientSocket::from(socket.as_fd().try_clone_to_owned().unwrap()));
        let permit = self.admission.admit(0, Ipv4Addr::LOCALHOST, Instant::now(), |_| true).unwrap();
        let connection = Connection {
            session: Some(Box::new(Listening(self.told.clone()))),
            ..Connection::new(socket, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into(), permit)
        };
        let slot = self.table.take().expect("there is a slot for every permit");
        let ledger = self.counts.row(KEEPER_ROW).of(0);
        let mut owned = Owned::open(slot, (0, 0), connection, ledger);
        owned.begin_turn();
        (owned, client)
    }

    /// A connection that was idle and is in the hands of the timekeeper.
    fn claimed(&self) -> (Owned<'_>, UnixStream) {
        let (owned, client) = self.active();
        let (slot, id) = (owned.slot, owned.id);
        owned.park(NEVER).unwrap();
        (Owned::claim(slot, id, self.counts.row(KEEPER_ROW)).unwrap(), client)
    }

    /// Checks that nothing is left of the connection, wherever it was counted.
    fn is_empty(&self) {
        let counted = self.counts.read_counts(0);
        assert!(counted.conserved() && counted.open() == 0, "{counted:?}");
        assert_eq!(self.admission.open(), 0, "its place is free");
        let (number, slot) = self.table.take().expect("its slot is free");
        assert!(slot.connection().is_none() && slot.state.generation().is_none());
        self.table.give_back(number);
    }

    /// Whether the close of the last connection is a reset. From here on its client sees the end.
    fn is_reset(&self) -> bool {
        let socket = self.copy.take().expect("there was a connection");
        socket_linger(socket).unwrap() == Some(Duration::ZERO)
    }

    fn closed(&self, reason: CloseReason) -> u64 {
        self.counts.read_counts(0).closed[reason as usize]
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.counts.read_counts(0).dropped[reason as usize]
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

fn pair() -> (ClientSocket, UnixStream) {
    let (ours, client) = UnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    (ClientSocket::from(OwnedFd::from(ours)), client)
}

/// What the client was sent, and that it sees the end behind it.
fn heard(mut client: &UnixStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).expect("the end is there");
    text
}

#[test]
fn an_ending_is_counted_told_and_gives_back_all_it_had() {
    for (reason, polite, reset) in [
        (CloseReason::Client, 0, false),
        (CloseReason::IdleTimeout, 0, false),
        (CloseReason::Server, 1, false),
        (CloseReason::ReadTimeout, 1, false),
        (CloseReason::Overload, 1, false),
        (CloseReason::Handshake, 1, false),
        (CloseReason::WriteTimeout, 0, true),
        (CloseReason::Panic, 0, true),
    ] {
        let house = House::new();
        let (owned, client) = house.active();
        house.closer().close(owned, reason);
        assert_eq!((house.is_reset(), heard(&client).as_str()), (reset, ""), "{reason}");
        assert_eq!((house.closed(reason), house.told()), (1, vec![reason.to_string(), "dropped".to_owned()]));
        assert_eq!(house.lingers.count(), polite, "{reason}: a polite close waits for its client");
        assert!(house.line.is_empty(), "the worker that ends it tells its session");
        house.is_empty();
    }
}

#[test]
fn input_that_was_not_read_is_seen() {
    let house = House::new();
    let (owned, client) = house.active();
    let has_input = || owned.connection().as_ref().is_some_and(|c| house.table.has_input(owned.id.slot, c));
    assert!(!has_input());
    std::io::Write::write_all(&mut &client, b"1").unwrap();
    assert!(has_input());
    house.closer().cut(owned);
}

#[test]
fn a_connection_knows_its_listener_though_its_client_turns_out_to_be_another() {
    let house = House::new();
    let (owned, _client) = house.active();
    owned.slot.set_origin(5, 9);
    assert_eq!((owned.listener(), owned.slot.heap()), (5, 9));
    house.closer().cut(owned);
}

#[test]
fn a_handshake_that_is_late_is_not_waited_for() {
    let house = House::new();
    let (owned, client) = house.active();
    house.closer().abandon(owned);
    assert!(!house.is_reset());
    assert_eq!((heard(&client).as_str(), house.closed(CloseReason::Handshake)), ("", 1));
    assert_eq!(house.lingers.count(), 0);
    house.is_empty();
}

#[test]
fn words_are_said_before_the_end_and_without_words_nothing_lingers() {
    for words in ["later\n", ""] {
        let polite = usize::from(!words.is_empty());
        let house = House::new();
        let (owned, client) = house.active();
        house.closer().close_with(owned, CloseReason::Overload, &LastWords::new(words.into()));
        assert_eq!(house.is_reset(), words.is_empty());
        assert_eq!((heard(&client).as_str(), house.closed(CloseReason::Overload)), (words, 1));
        assert_eq!(house.lingers.count(), polite);
        house.is_empty();

        let house = House::new();
        let (owned, client) = house.active();
        house.closer().shed(owned, DropReason::QueueTimeout, &LastWords::new(words.into()));
        assert_eq!(house.is_reset(), words.is_empty());
        assert_eq!((heard(&client).as_str(), house.dropped(DropReason::QueueTimeout)), (words, 1));
        assert_eq!((house.lingers.count(), house.told().len()), (polite, 2));
        house.is_empty();

        let house = House::new();
        let (socket, client) = pair();
        let ledger = house.counts.row(KEEPER_ROW).of(0);
        house.closer().refuse(socket, ledger, DropReason::QueueFull, &LastWords::new(words.into()));
        assert_eq!((heard(&client).as_str(), house.dropped(DropReason::QueueFull)), (words, 1));
        assert_eq!(house.lingers.count(), polite);
        house.is_empty();
    }
}

#[cfg(feature = "tls")]
#[test]
fn the_last_words_are_said_inside_tls_and_only_where_the_end_is_no_reset() {
    use crate::transport::tls::{Advance, PLAIN_MAX, Records, opened};
    let house = House { table: Table::new(1).with_tls(true), ..House::new() };
    for (reason, words, said) in [
        (CloseReason::Overload, "later\n", Some("later\n")),
        (CloseReason::Server, "", Some("")),
        (CloseReason::WriteTimeout, "later\n", None),
    ] {
        let (owned, mut client) = house.active();
        let (ours, mut theirs) = opened();
        *house.table.side(owned.id.slot).unwrap() = Some(Box::new(TlsSide::opened(ours)));
        let ledger = owned.ledger;
        let count = || ledger.closed(CountedAs::Active, reason);
        let words = &LastWords::new(words.into());
        house.closer().end(owned, Ending::of(reason), reason, words, count);
        assert_eq!(house.is_reset(), said.is_none());
        let (mut bytes, mut records, mut plain) = (Vec::new(), Records::default(), vec![0; 2 * PLAIN_MAX]);
        client.read_to_end(&mut bytes).expect("the end is there");
        records.load(&bytes);
        let (len, advance) = theirs.advance(&mut records, &mut plain, &mut Vec::new()).unwrap();
        let heard = (advance == Advance::Ended).then(|| std::str::from_utf8(&plain[..len]).unwrap());
        assert_eq!(heard, said, "{reason}");
        assert!(said.is_some() || bytes.is_empty());
        house.is_empty();
    }
}

#[test]
fn a_client_that_has_said_all_hears_the_words_and_is_not_waited_for() {
    let is_all: fn(&[u8]) -> bool = |bytes| bytes == b"all";
    for (said, waits) in [("all", 0), ("al", 1), ("", 1)] {
        let house = House::new();
        let (socket, mut client) = pair();
        let ledger = house.counts.row(KEEPER_ROW).of(0);
        client.write_all(said.as_bytes()).unwrap();
        let words = LastWords { text: b"later\n".to_vec(), is_all: Some(is_all) };
        house.closer().refuse(socket, ledger, DropReason::QueueFull, &words);
        assert_eq!((heard(&client).as_str(), house.lingers.count()), ("later\n", waits), "{said}");
        house.is_empty();
    }
}

/// A segment is most of what a refusal costs.
#[test]
#[cfg(target_os = "linux")]
fn the_last_words_and_the_end_come_in_one_segment() {
    let is_all: fn(&[u8]) -> bool = |bytes| bytes == b"all";
    let comes_in_one = |said: &[u8]| {
        let house = House::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = ClientSocket::from(OwnedFd::from(listener.accept().unwrap().0));
        client.write_all(said).unwrap();
        let ledger = house.counts.row(KEEPER_ROW).of(0);
        let segments = |client: &TcpStream| crate::sys::segments_received(client.as_fd()).unwrap();
        let before = segments(&client);
        let words = LastWords { text: b"later\n".to_vec(), is_all: Some(is_all) };
        house.closer().refuse(socket, ledger, DropReason::QueueFull, &words);
        let mut text = String::new();
        client.read_to_string(&mut text).expect("the end is there");
        assert_eq!(text, "later\n");
        segments(&client) - before == 1
    };
    // On a machine that does not get to the end within a fifth of a second, the kernel sends the words before it.
    for said in ["all", ""] {
        assert!((0..10).any(|_| comes_in_one(said.as_bytes())), "{said}");
    }
}

#[test]
fn a_cut_waits_for_nobody() {
    let house = House::new();
    let (owned, client) = house.active();
    house.closer().cut(owned);
    assert!(house.is_reset());
    assert_eq!((heard(&client).as_str(), house.closed(CloseReason::Shutdown)), ("", 1));
    assert_eq!((house.lingers.count(), house.told().len()), (0, 2));
    house.is_empty();
}

#[test]
fn a_session_that_ends_without_a_worker_is_told_later_and_keeps_its_place_until_then() {
    let house = House::new();
    let (owned, client) = house.claimed();
    house.closer().close(owned, CloseReason::IdleTimeout);
    assert!(!house.is_reset());
    assert_eq!((heard(&client).as_str(), house.closed(CloseReason::IdleTimeout)), ("", 1));
    assert_eq!((house.told().len(), house.admission.open(), house.farewells.pending()), (0, 1, 1));
    let entry = house.line.pop().expect("a worker is asked for");
    assert_eq!((entry.job, house.line.pop()), (Job::Farewell, None));
    let (farewell, more) = house.farewells.take().unwrap();
    assert!(!more);
    house.closer().say_farewell(farewell);
    assert_eq!(house.told(), [CloseReason::IdleTimeout.to_string(), "dropped".to_owned()]);
    assert_eq!(house.farewells.pending(), 0);
    house.is_empty();
}

#[test]
fn a_polite_close_that_lingers_keeps_its_socket_until_its_deadline() {
    let house = House::new();
    let (owned, client) = house.active();
    {
        let mut guard = owned.connection();
        let connection = guard.as_mut().unwrap();
        house.poller.add(connection.socket.as_fd(), Source::Connection(owned.id)).unwrap();
        connection.registered = Registered::Readable;
    }
    let before = house.clock.now();
    house.closer().close(owned, CloseReason::Server);
    let lingering = house.lingering.try_recv().expect("it lingers");
    let limits = Limits::default();
    assert!(lingering.deadline >= before + crate::clock::nanos(limits.linger_timeout));
    assert_eq!(lingering.left, limits.linger_bytes);
    assert_eq!(heard(&client), "", "its own half is closed");
    let again = house.poller.add(lingering.socket.as_fd(), Source::Listener(0));
    assert!(again.is_ok(), "the poller does not know it any more");
    drop(lingering);
    assert_eq!(house.lingers.count(), 0);
}

#[test]
fn a_client_that_has_ended_or_says_too_much_is_not_waited_for() {
    let limits = Limits::default();
    let (lingers, lingering) = Lingers::new(&limits);
    let (socket, client) = pair();
    drop(client);
    assert!(!lingers.linger(socket, 0, None, |_| unreachable!("it has ended")));
    let (socket, client) = pair();
    let mut flood = vec![0; 4096];
    while std::io::Write::write(&mut &client, &flood).is_ok() {}
    flood.clear();
    let all = crate::transport::socket::unread(&socket);
    assert!(all > 4096);
    let (lingers_less, _) = Lingers::new(&limits.clone().linger_bytes(all));
    assert!(!lingers_less.linger(socket, 0, None, |_| unreachable!("it has said too much")));
    let error = (&client).read(&mut [0; 1]).map_err(|error| error.kind());
    assert!(matches!(error, Ok(0) | Err(ErrorKind::ConnectionReset)), "{error:?}");
    assert!(lingering.is_empty() && lingers.count() == 0);

    let (socket, client) = pair();
    std::io::Write::write_all(&mut &client, b"12345").unwrap();
    let mut unregistered = false;
    assert!(lingers.linger(socket, 7, None, |_| unregistered = true));
    let lingering = lingering.try_recv().unwrap();
    assert_eq!((lingering.left, unregistered, lingers.count()), (limits.linger_bytes - 5, true, 1));
    assert_eq!(lingering.deadline, 7 + crate::clock::nanos(limits.linger_timeout));
    let copy = lingering.socket.as_fd().try_clone_to_owned().unwrap();
    lingering.give_up();
    assert_eq!((lingers.count(), socket_linger(copy).unwrap()), (0, Some(Duration::ZERO)), "it has all");
}

#[test]
fn a_lingering_client_that_has_not_read_all_when_its_time_is_over_is_not_reset() {
    let (lingers, lingering) = Lingers::new(&Limits::default());
    let (socket, _client) = pair();
    assert!(say_last(&socket, b"later\n") && lingers.linger(socket, 0, None, |_| {}));
    let lingering = lingering.try_recv().unwrap();
    let copy = lingering.socket.as_fd().try_clone_to_owned().unwrap();
    lingering.give_up();
    assert_eq!(socket_linger(copy).unwrap(), None);
}

#[test]
fn a_newcomer_that_never_had_a_turn_is_shed_from_where_it_is_counted() {
    let house = House::new();
    let (mut owned, client) = house.active();
    owned.place = CountedAs::Active;
    owned.requeue(&house.line, Claim::Turn, 1);
    let (id, claim) = house.line.pop().and_then(|entry| entry.turn()).unwrap();
    let (owned, _) = Owned::take(&house.table, id, claim, house.counts.row(KEEPER_ROW)).unwrap();
    house.closer().shed(owned, DropReason::ClientGone, &LastWords::default());
    assert!(house.is_reset());
    assert_eq!((heard(&client).as_str(), house.dropped(DropReason::ClientGone)), ("", 1));
    assert_eq!(house.told().len(), 0, "a worker tells it");
    drop(house.farewells.take());
    house.is_empty();
}

/// A service for sessions that nobody serves.
struct Quiet {
    answers_overload: bool,
    told: Arc<Mutex<Vec<String>>>,
}

impl crate::Service for Quiet {
    fn connect(&self, _: &crate::Peer) -> Box<dyn Session> {
        Box::new(Listening(self.told.clone()))
    }

    fn answers_overload(&self, _: &[u8]) -> bool {
        self.answers_overload
    }

    fn busy_reply(&self) -> &[u8] {
        b"busy\n"
    }
}

fn nothing() -> OwnedFd {
    OwnedFd::from(std::fs::File::open("/dev/null").unwrap())
}

/// A server that was never served, with one listener that nobody can connect to.
fn server(answers_overload: bool) -> crate::server::BoundServer {
    let nothing = nothing();
    let service = Arc::new(Quiet { answers_overload, told: Arc::default() });
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let listener = Listener::new(nothing.into(), address.into(), service, 0, None);
    let limits = Limits::default().max_connections(2).queue(1);
    crate::server::BoundServer::new(
        limits,
        Listeners::new(vec![listener], 0),
        Listeners::new(vec![], 0),
        Extras::default(),
    )
    .unwrap()
}

/// An entry of a connection that waits for a turn with this claim, and its client's end.
fn waiting(shared: &Shared, claim: Claim) -> (Entry, UnixStream) {
    let (socket, client) = pair();
    let connection = Connection::new(
        socket,
        SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into(),
        shared.admission.admit(0, Ipv4Addr::LOCALHOST, Instant::now(), |_| true).unwrap(),
    );
    let owned =
        Owned::open(shared.table.take().unwrap(), (0, 0), connection, shared.counts.row(KEEPER_ROW).of(0));
    match claim {
        Claim::Newcomer => shared.queue_newcomer(owned, 1),
        Claim::Turn => owned.requeue(&shared.line, claim, 1),
    }
    (shared.line.pop().unwrap(), client)
}

#[test]
fn a_newcomer_is_shed_with_the_reason_for_it_and_with_words_if_it_may_still_listen() {
    for (why, reason, words) in [
        (Shedding::Gone, DropReason::ClientGone, ""),
        (Shedding::TooLong, DropReason::QueueTimeout, "busy\n"),
        (Shedding::Displaced, DropReason::QueueFull, "busy\n"),
    ] {
        let server = server(true);
        let shared = server.shared();
        let (entry, client) = waiting(shared, Claim::Newcomer);
        let newcomers = || (shared.line.newcomers().waiting(), shared.listeners[0].newcomers.waiting());
        assert_eq!(newcomers(), (1, 1));
        shed(shared, shared.counts.row(KEEPER_ROW), &entry, why, 2);
        assert_eq!((heard(&client).as_str(), newcomers()), (words, (0, 0)));
        let counted = shared.counts.read_counts(0);
        assert_eq!((counted.dropped[reason as usize], counted.dropped_total()), (1, 1), "{why:?}");
        assert!(counted.conserved() && counted.open() == 0);
        // An entry that outlived its connection sheds nothing.
        shed(shared, shared.counts.row(KEEPER_ROW), &Entry { job: entry_of(&entry), ..entry }, why, 3);
        assert_eq!(shared.counts.read_counts(0).dropped_total(), 1);
    }
}

/// The same job as another claim, which takes no place of a newcomer.
fn entry_of(entry: &Entry) -> Job {
    let (id, _) = entry.turn().unwrap();
    Job::Turn(id, Claim::Turn)
}

#[test]
fn an_established_connection_that_waited_too_long_is_told_by_its_session_or_ends_with_words() {
    for answers in [true, false] {
        let server = server(answers);
        let shared = server.shared();
        let (entry, client) = waiting(shared, Claim::Turn);
        shed(shared, shared.counts.row(KEEPER_ROW), &entry, Shedding::TooLong, 2);
        let counted = shared.counts.read_counts(0);
        assert_eq!(counted.turns_shed[TurnShed::QueueTimeout as usize], 1);
        assert_eq!(counted.closed[CloseReason::Overload as usize], u64::from(!answers));
        let (id, _) = entry.turn().unwrap();
        let next = shared.line.pop().map(|entry| (entry.since, entry.job));
        assert_eq!(next, answers.then_some((2, Job::Overloaded(id))));
        if !answers {
            assert_eq!(heard(&client), "busy\n");
        }
        assert!(counted.conserved() && counted.open() == u64::from(answers));
    }
}

#[test]
fn an_established_connection_whose_client_has_left_ends_as_closed_by_it() {
    let server = server(true);
    let shared = server.shared();
    let (entry, client) = waiting(shared, Claim::Turn);
    shed(shared, shared.counts.row(KEEPER_ROW), &entry, Shedding::Gone, 2);
    let counted = shared.counts.read_counts(0);
    assert_eq!(counted.turns_shed[TurnShed::ClientGone as usize], 1);
    assert_eq!((counted.closed[CloseReason::Client as usize], counted.closed_total()), (1, 1));
    assert_eq!((heard(&client).as_str(), shared.line.pop()), ("", None));
    assert!(counted.conserved() && counted.open() == 0);
}

/// The queue stands, and no processor has rest.
fn press(shared: &Shared) {
    shared.rest.store(false, Relaxed);
    let target = shared.order.standing().target();
    assert!(!shared.order.standing().observe(target + 2, Some(1)));
    assert!(shared.order.standing().observe(target + 2 + INTERVAL, Some(1)) && shared.is_pressed());
}

/// Whether the client's connection is still there.
fn is_open(mut client: &UnixStream) -> bool {
    client.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn under_overload_a_leaver_is_counted_at_once_and_its_socket_is_closed_late() {
    let server = server(true);
    let (shared, row) = (server.shared(), server.shared().counts.row(KEEPER_ROW));
    press(shared);
    let (entry, client) = waiting(shared, Claim::Turn);
    shed(shared, row, &entry, Shedding::Gone, 2);
    let counted = shared.counts.read_counts(0);
    assert_eq!((counted.closed[CloseReason::Client as usize], counted.closed_total()), (1, 1));
    assert!(counted.conserved() && counted.open() == 0);
    assert_eq!((shared.admission.open(), shared.late_closes.len()), (0, 1), "its place is free");
    assert!(is_open(&client));
    // It takes no place from others, and whoever may still listen is not kept waiting.
    let (entry, late) = waiting(shared, Claim::Turn);
    shed(shared, row, &entry, Shedding::TooLong, 2);
    let Job::Overloaded(id) = shared.line.pop().unwrap().job else { panic!("it is told by its session") };
    let (owned, _) = Owned::take(&shared.table, id, Claim::Turn, row).unwrap();
    shared.closer().close(owned, CloseReason::Client);
    let (entry, newcomer) = waiting(shared, Claim::Newcomer);
    shed(shared, row, &entry, Shedding::Displaced, 2);
    assert_eq!((heard(&late).as_str(), heard(&newcomer).as_str()), ("", "busy\n"));
    assert_eq!((shared.late_closes.len(), is_open(&client)), (1, true));
    assert_eq!((shared.late_closes.close(usize::MAX), heard(&client).as_str()), (1, ""));
}

#[test]
fn with_rest_or_in_a_drain_a_leaver_is_closed_at_once() {
    let rests: fn(&Shared) = |shared| shared.rest.store(true, Relaxed);
    let drains: fn(&Shared) = |shared| shared.life.enter(crate::phase::Phase::Draining);
    for calm in [rests, drains] {
        let server = server(true);
        let shared = server.shared();
        press(shared);
        calm(shared);
        assert!(!shared.is_pressed());
        let (entry, client) = waiting(shared, Claim::Turn);
        shed(shared, shared.counts.row(KEEPER_ROW), &entry, Shedding::Gone, 2);
        assert_eq!((heard(&client).as_str(), shared.late_closes.len()), ("", 0));
    }
}

#[test]
fn what_is_shelved_waits_there_and_no_longer_in_the_line() {
    let server = server(true);
    let shared = server.shared();
    let (entry, client) = waiting(shared, Claim::Turn);
    shelve(shared, shared.counts.row(KEEPER_ROW), Some(entry), 2);
    assert_eq!((shared.line.pop(), shared.order.len()), (None, 1));
    let entry = shared.order.drain_one().unwrap();
    shed(shared, shared.counts.row(KEEPER_ROW), &entry, Shedding::Gone, 3);
    assert_eq!((heard(&client).as_str(), shared.order.len()), ("", 0));
}

#[test]
fn a_datagram_that_is_shed_is_counted_by_the_reason_for_it_and_its_place_is_free() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let service = Arc::new(crate::datagrams(|_, _| Ok(())));
    let socket = DatagramSocket::new(nothing().into(), address, service, 0);
    let limits = Limits::default().workers(1).max_connections(1).queue(1);
    let server = crate::server::BoundServer::new(
        limits,
        Listeners::new(Vec::new(), 1),
        Listeners::new(vec![socket], 0),
        Extras::default(),
    )
    .unwrap();
    let (shared, row) = (server.shared(), server.shared().counts.row(KEEPER_ROW));
    for (why, reason) in [
        (Shedding::Displaced, DatagramDrop::QueueFull),
        (Shedding::TooLong, DatagramDrop::QueueTimeout),
        (Shedding::Gone, DatagramDrop::QueueTimeout),
    ] {
        let before = shared.counts.read_counts(0).datagrams_dropped;
        // More than the places there are: each must come back.
        for _ in 0..3 {
            assert!(shared.intake().post(0, &Taken::NONE, b"?", 1));
            let entry = shared.line.pop().unwrap();
            shed(shared, row, &entry, why, 2);
        }
        let after = shared.counts.read_counts(0).datagrams_dropped;
        assert_eq!(after[reason as usize] - before[reason as usize], 3, "{why:?}");
        assert_eq!(after.iter().sum::<u64>() - before.iter().sum::<u64>(), 3);
    }
}
