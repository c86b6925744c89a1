//! The relay between real sockets, driven by the edges of a real epoll as the server drives it.

use super::lent::{Lent, PIECE_BYTES};
use super::pipes::Pipes;
use super::relay::{Ended, PairProgress, PairSide, Patience, Relay, Sockets};
use crate::service::{Pool, SocketEvent, SocketEvents};
use crate::sys::Clock;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::net::sockopt::set_socket_linger;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// What is sent: a block that no power of two divides, over and over.
fn block() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let step = move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..1_000_003).map(step).collect()
}

/// A socket of either family.
#[derive(Debug)]
enum Far {
    Tcp(TcpStream),
    Unix(UnixStream),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Tcp,
    Unix,
}

/// What an end of a connection looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
}

impl Far {
    /// A connected pair, the near one for the relay.
    fn pair(family: Family, narrow: bool) -> (OwnedFd, Far) {
        let (near, far): (OwnedFd, Far) = match family {
            Family::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let domain = socket2::Domain::IPV4;
                let far = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
                if narrow {
                    far.set_recv_buffer_size(4096).unwrap();
                    far.set_send_buffer_size(4096).unwrap();
                }
                far.connect(&listener.local_addr().unwrap().into()).unwrap();
                let near = listener.accept().unwrap().0;
                near.set_nodelay(true).unwrap();
                (near.into(), Far::Tcp(far.into()))
            }
            Family::Unix => {
                let (near, far) = UnixStream::pair().unwrap();
                (near.into(), Far::Unix(far))
            }
        };
        if narrow {
            socket2::SockRef::from(&near).set_send_buffer_size(4096).unwrap();
        }
        (near, far.patient())
    }

    fn patient(self) -> Self {
        let time = Some(PATIENCE);
        match &self {
            Far::Tcp(tcp) => {
                tcp.set_nodelay(true).unwrap();
                tcp.set_read_timeout(time).and(tcp.set_write_timeout(time)).unwrap();
            }
            Far::Unix(unix) => unix.set_read_timeout(time).and(unix.set_write_timeout(time)).unwrap(),
        }
        self
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Far::Tcp(tcp) => tcp.as_fd(),
            Far::Unix(unix) => unix.as_fd(),
        }
    }

    fn finish(&self) {
        match self {
            Far::Tcp(tcp) => tcp.shutdown(Shutdown::Write).unwrap(),
            Far::Unix(unix) => unix.shutdown(Shutdown::Write).unwrap(),
        }
    }

    fn reset(self) {
        set_socket_linger(self.fd(), Some(Duration::ZERO)).unwrap();
    }

    fn say(&self, words: &[u8]) {
        match self {
            Far::Tcp(tcp) => { tcp }.write_all(words).expect("it is taken"),
            Far::Unix(unix) => { unix }.write_all(words).expect("it is taken"),
        }
    }

    fn read(&self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Far::Tcp(tcp) => { tcp }.read(into),
            Far::Unix(unix) => { unix }.read(into),
        }
    }

    fn hear(&self, words: &[u8]) {
        let mut heard = vec![0; words.len()];
        let mut at = 0;
        while at < heard.len() {
            let read = self.read(&mut heard[at..]).expect("it is said");
            assert_ne!(read, 0, "the end, after {at} bytes");
            at += read;
        }
        assert_eq!(heard, words);
    }

    /// The end, and what came before it.
    fn end(&self) -> (Vec<u8>, End) {
        let (mut all, mut piece) = (Vec::new(), [0; 64 * 1024]);
        loop {
            match self.read(&mut piece) {
                Ok(0) => return (all, End::Fin),
                Ok(read) => all.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return (all, End::Reset),
                Err(error) => panic!("neither words nor an end: {error}"),
            }
        }
    }

    /// Sends so many bytes of the block, in pieces of these sizes in turn.
    fn send_block(&self, block: &[u8], bytes: usize, pieces: &[usize]) {
        let mut at = 0;
        for piece in pieces.iter().cycle() {
            if at == bytes {
                return;
            }
            let start = at % block.len();
            let end = block.len().min(start + piece).min(start + bytes - at);
            self.say(&block[start..end]);
            at += end - start;
        }
    }

    /// Receives so many bytes of the block and compares them; then comes the end.
    fn receive_block(&self, block: &[u8], bytes: usize) {
        let mut piece = vec![0; 256 * 1024];
        let mut at = 0;
        loop {
            let read = self.read(&mut piece).expect("the block comes");
            if read == 0 {
                break;
            }
            let (mut from, start) = (0, at);
            while from < read {
                let offset = (start + from) % block.len();
                let len = (block.len() - offset).min(read - from);
                assert!(piece[from..from + len] == block[offset..offset + len], "changed near byte {at}");
                from += len;
            }
            at += read;
        }
        assert_eq!(at, bytes);
    }
}

/// What pairs share.
#[derive(Clone, Debug)]
struct Stock {
    pipes: Arc<Pipes>,
    pool: Arc<Pool>,
    pool_most: usize,
    /// Pairs that have had to keep something.
    keepers: Arc<AtomicUsize>,
}

impl Stock {
    fn of(pipes: usize, keep: usize) -> Self {
        Self { pipes: Pipes::new(pipes), pool: Arc::default(), pool_most: keep, keepers: Arc::default() }
    }
}

impl Default for Stock {
    fn default() -> Self {
        Self::of(4, 1 << 20)
    }
}

/// What a relay's thread says at the end.
#[derive(Debug)]
struct Report {
    /// `None`: it was silent for too long.
    ended: Option<Ended>,
    to_backend: u64,
    to_client: u64,
    turns: usize,
    kept_most: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Which socket had an event, as the server may say.
    Exactly,
    /// Nothing.
    Nothing,
}

struct Pair {
    client: Far,
    backend: Far,
    relay: JoinHandle<Report>,
}

/// One relay and its thread.
struct Driver {
    client: OwnedFd,
    backend: OwnedFd,
    families: (Family, Family),
    stock: Stock,
    told: Told,
    patience: Patience,
    turn_bytes: usize,
}

fn patience(time: Duration) -> Patience {
    Patience { idle: time, half_closed: time }
}

impl Driver {
    fn events(&self, poll: &mut Poll, timeout: Duration) -> SocketEvents {
        let mut found = mio::Events::with_capacity(8);
        poll.poll(&mut found, Some(timeout)).unwrap();
        if self.told == Told::Nothing {
            return SocketEvents::UNKNOWN;
        }
        let mut events = SocketEvents { client: SocketEvent::Nothing, other: SocketEvent::Nothing };
        for event in found.iter() {
            let which = if event.token() == Token(0) { &mut events.client } else { &mut events.other };
            let hangup = event.is_read_closed() || event.is_error();
            *which = if hangup { SocketEvent::Hangup } else { SocketEvent::Ready };
        }
        events
    }

    fn run(self) -> Report {
        let mut poll = Poll::new().unwrap();
        for (token, socket) in [&self.client, &self.backend].into_iter().enumerate() {
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(token), both).unwrap();
        }
        let clock = Clock::start();
        let sockets = Sockets {
            client: self.client.as_fd(),
            client_tls: None,
            backend: self.backend.as_fd(),
            backend_tls: None,
            client_is_tcp: self.families.0 == Family::Tcp,
            backend_is_tcp: self.families.1 == Family::Tcp,
        };
        let mut relay = Relay::new(clock.now());
        let mut buffer = vec![0; PIECE_BYTES];
        let mut report = Report { ended: None, to_backend: 0, to_client: 0, turns: 0, kept_most: 0 };
        let mut events = self.events(&mut poll, Duration::ZERO);
        loop {
            let Stock { pipes, pool, pool_most, .. } = &self.stock;
            let mut lent =
                Lent { buffer: &mut buffer, pipes, pool, pool_most: *pool_most, turn_bytes: self.turn_bytes };
            let turned = relay.turn(sockets, events, &mut lent, clock.now());
            report.turns += 1;
            report.to_backend += turned.to_backend;
            report.to_client += turned.to_client;
            if report.kept_most == 0 && relay.kept_bytes() > 0 {
                self.stock.keepers.fetch_add(1, Relaxed);
            }
            report.kept_most = report.kept_most.max(relay.kept_bytes());
            let wait = match turned.progress {
                PairProgress::Ended(ended) => {
                    report.ended = Some(ended);
                    break;
                }
                PairProgress::More => Duration::ZERO,
                PairProgress::Park => {
                    let left = relay.deadline(self.patience).saturating_sub(clock.now());
                    if left == 0 {
                        break;
                    }
                    Duration::from_nanos(left)
                }
            };
            events = self.events(&mut poll, wait);
        }
        if !matches!(report.ended, Some(Ended::Finished(_))) {
            for socket in [&self.client, &self.backend] {
                set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
            }
        }
        report
    }
}

/// How a pair is set up.
#[derive(Clone, Debug)]
struct Setup {
    client: Family,
    backend: Family,
    narrow_client: bool,
    narrow_backend: bool,
    told: Told,
    stock: Stock,
    patience: Patience,
    turn_bytes: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            client: Family::Tcp,
            backend: Family::Tcp,
            narrow_client: false,
            narrow_backend: false,
            told: Told::Exactly,
            stock: Stock::default(),
            patience: patience(PATIENCE),
            turn_bytes: 256 * 1024,
        }
    }
}

impl Setup {
    /// Every combination of families and of what is known of events.
    fn all() -> impl Iterator<Item = Setup> {
        let families =
            [Family::Tcp, Family::Unix].map(|client| [Family::Tcp, Family::Unix].map(|b| (client, b)));
        families.into_iter().flatten().flat_map(|(client, backend)| {
            [Told::Exactly, Told::Nothing].map(|told| Setup { client, backend, told, ..Setup::default() })
        })
    }

    fn start(&self) -> Pair {
        let (near_client, client) = Far::pair(self.client, self.narrow_client);
        let (near_backend, backend) = Far::pair(self.backend, self.narrow_backend);
        let driver = Driver {
            client: near_client,
            backend: near_backend,
            families: (self.client, self.backend),
            stock: self.stock.clone(),
            told: self.told,
            patience: self.patience,
            turn_bytes: self.turn_bytes,
        };
        Pair { client, backend, relay: spawn(move || driver.run()) }
    }
}

#[test]
fn words_go_both_ways_and_each_end_is_passed_on() {
    for setup in Setup::all() {
        let Pair { client, backend, relay } = setup.start();
        for round in 0..50_u8 {
            client.say(&[round; 64]);
            backend.hear(&[round; 64]);
            backend.say(&[!round; 100]);
            client.hear(&[!round; 100]);
        }
        client.say(b"and the last");
        client.finish();
        assert_eq!(backend.end(), (b"and the last".to_vec(), End::Fin), "{setup:?}");
        // The other half goes on for as long as it likes.
        for _ in 0..3 {
            backend.say(b"still here");
            client.hear(b"still here");
        }
        drop(backend);
        assert_eq!(client.end(), (Vec::new(), End::Fin), "{setup:?}");
        let report = relay.join().unwrap();
        assert_eq!(report.ended, Some(Ended::Finished(PairSide::Client)), "{setup:?}");
        assert_eq!((report.to_backend, report.to_client), (50 * 64 + 12, 50 * 100 + 30));
        assert_eq!(report.kept_most, 0, "nobody was slow");
    }
}

#[test]
fn a_backend_may_end_first_and_still_listen() {
    for setup in Setup::all() {
        let Pair { client, backend, relay } = setup.start();
        backend.say(b"that is all I say");
        backend.finish();
        assert_eq!(client.end(), (b"that is all I say".to_vec(), End::Fin));
        client.say(b"but listen");
        backend.hear(b"but listen");
        client.finish();
        assert_eq!(backend.end(), (Vec::new(), End::Fin));
        assert_eq!(relay.join().unwrap().ended, Some(Ended::Finished(PairSide::Backend)), "{setup:?}");
    }
}

#[test]
fn bytes_are_the_same_whatever_pieces_they_come_in() {
    let block = block();
    const BYTES: usize = 3 << 20;
    for (index, setup) in Setup::all().enumerate() {
        let pieces =
            [[1, 3, 1447].as_slice(), &[65_536, 1], &[64, 200_000], &[16_384, 16_385, 4096]][index % 4];
        let bytes = if pieces[0] == 1 { BYTES / 16 } else { BYTES };
        let Pair { client, backend, relay } = setup.start();
        std::thread::scope(|scope| {
            for (from, to) in [(&client, &backend), (&backend, &client)] {
                scope.spawn(|| {
                    from.send_block(&block, bytes, pieces);
                    from.finish();
                });
                scope.spawn(|| to.receive_block(&block, bytes));
            }
        });
        let report = relay.join().unwrap();
        assert!(matches!(report.ended, Some(Ended::Finished(_))), "{setup:?}: {report:?}");
        assert_eq!((report.to_backend, report.to_client), (bytes as u64, bytes as u64));
        assert_eq!(setup.stock.pool.used(), 0);
    }
}

#[test]
fn a_gigabyte_passes_unchanged_by_way_of_pipes_and_without() {
    let block = block();
    const BYTES: usize = 1 << 30;
    for (pipes, told) in [(4, Told::Exactly), (0, Told::Nothing)] {
        let setup = Setup { stock: Stock::of(pipes, 1 << 20), told, ..Setup::default() };
        let Pair { client, backend, relay } = setup.start();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                backend.send_block(&block, BYTES, &[1 << 20]);
                backend.finish();
            });
            client.receive_block(&block, BYTES);
            client.finish();
        });
        let report = relay.join().unwrap();
        assert_eq!(report.ended, Some(Ended::Finished(PairSide::Backend)));
        assert_eq!(report.to_client, BYTES as u64);
        assert_eq!(setup.stock.pipes.open(), pipes.min(1), "one pipe served all of it, and is kept");
    }
}

/// A relay whose client does not read, after it has taken all it can take.
fn stalled(setup: &Setup) -> (Pair, usize) {
    let pair = setup.start();
    let socket = pair.backend.fd();
    rustix::io::ioctl_fionbio(socket, true).unwrap();
    let mut sent = 0;
    let mut full = 0;
    // Full twice in a row with a pause between: what is on its way has come to rest.
    while full < 5 {
        match rustix::net::send(socket, &[7; 4096], rustix::net::SendFlags::NOSIGNAL) {
            Ok(n) => (sent, full) = (sent + n, 0),
            Err(_) => {
                full += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    rustix::io::ioctl_fionbio(socket, false).unwrap();
    (pair, sent)
}

fn slow() -> Setup {
    Setup { narrow_client: true, narrow_backend: true, ..Setup::default() }
}

#[test]
fn from_a_slow_reader_the_other_side_feels_it_and_little_is_kept() {
    for pipes in [4, 0] {
        let setup = Setup { stock: Stock::of(pipes, 1 << 20), ..slow() };
        let (Pair { client, backend, relay }, sent) = stalled(&setup);
        assert!(setup.stock.pool.used() <= PIECE_BYTES);
        drop(backend);
        let mut all = Vec::new();
        let mut piece = [0; 1024];
        // Still a slow one.
        while all.len() < sent {
            let read = client.read(&mut piece).unwrap();
            assert_ne!(read, 0, "the end, after {} of {sent} bytes", all.len());
            all.extend_from_slice(&piece[..read]);
        }
        assert!(all.iter().all(|byte| *byte == 7));
        assert_eq!(client.end(), (Vec::new(), End::Fin));
        drop(client);
        let report = relay.join().unwrap();
        assert_eq!(report.to_client, sent as u64);
        assert!((1..=4 * PIECE_BYTES).contains(&report.kept_most), "{report:?}");
        assert_eq!(setup.stock.pool.used(), 0, "what has gone is not held");
    }
}

/// How many of so many slow readers there was no room for.
fn refused(readers: usize, room: usize) -> usize {
    let setup = Setup { stock: Stock::of(0, room), narrow_backend: false, ..slow() };
    let stuck: Vec<_> = (0..readers).map(|_| setup.start()).collect();
    for pair in &stuck {
        // Less than all sockets of a pair hold, or the last of it may be for nobody.
        pair.backend.say(&[7; 200_000]);
    }
    let all =
        || stuck.iter().filter(|pair| pair.relay.is_finished()).count() + setup.stock.keepers.load(Relaxed);
    while all() < readers {
        assert!(setup.stock.pool.used() <= room);
        std::thread::yield_now();
    }
    let mut refused = 0;
    for Pair { client, backend, relay } in stuck {
        drop((client, backend));
        refused += usize::from(relay.join().unwrap().ended == Some(Ended::NoRoom));
    }
    assert_eq!(setup.stock.pool.used(), 0);
    refused
}

#[test]
fn many_slow_readers_keep_less_each() {
    assert_eq!(refused(24, 256 * 1024), 0);
    let refused = refused(16, 16 * 1024);
    assert!((1..16).contains(&refused), "some have room and some have none: {refused}");
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    for told in [Told::Exactly, Told::Nothing] {
        for side in [PairSide::Client, PairSide::Backend] {
            let Pair { client, backend, relay } = Setup { told, ..Setup::default() }.start();
            client.say(b"hello");
            backend.hear(b"hello");
            let (one, other) = if side == PairSide::Client { (client, backend) } else { (backend, client) };
            one.say(b"words before the end");
            one.reset();
            let (words, end) = other.end();
            assert_eq!(end, End::Reset, "{side:?} {told:?}");
            assert!(words.is_empty() || words == b"words before the end");
            assert_eq!(relay.join().unwrap().ended, Some(Ended::Reset(side)));
        }
    }
}

#[test]
fn a_reset_after_a_half_close_is_noticed_without_a_word() {
    for told in [Told::Exactly, Told::Nothing] {
        for side in [PairSide::Client, PairSide::Backend] {
            let Pair { client, backend, relay } = Setup { told, ..Setup::default() }.start();
            let (one, other) = if side == PairSide::Client { (client, backend) } else { (backend, client) };
            one.finish();
            assert_eq!(other.end(), (Vec::new(), End::Fin));
            one.reset();
            assert_eq!(relay.join().unwrap().ended, Some(Ended::Reset(side)), "{told:?}");
            assert!(matches!(rustix::net::sockopt::socket_error(other.fd()), Ok(Err(_))), "{side:?}");
        }
    }
}

#[test]
fn a_reply_reaches_its_client_before_the_reset_of_a_backend_that_did_not_listen() {
    for (family, told) in
        [(Family::Tcp, Told::Exactly), (Family::Tcp, Told::Nothing), (Family::Unix, Told::Exactly)]
    {
        let Pair { client, backend, relay } = Setup { backend: family, told, ..Setup::default() }.start();
        client.say(&[1; 10_000]);
        backend.hear(&[1; 10]);
        backend.say(b"too large");
        // With unread input its close is a reset.
        drop(backend);
        client.hear(b"too large");
        assert_eq!(client.end(), (Vec::new(), End::Reset), "{family:?} {told:?}");
        assert_eq!(relay.join().unwrap().ended, Some(Ended::Reset(PairSide::Backend)));
    }
}

#[test]
fn a_client_that_leaves_is_noticed_while_its_backend_takes_nothing() {
    for told in [Told::Exactly, Told::Nothing] {
        let Pair { client, backend, relay } = Setup { told, ..slow() }.start();
        rustix::io::ioctl_fionbio(client.fd(), true).unwrap();
        while rustix::net::send(client.fd(), &[1; 65_536], rustix::net::SendFlags::NOSIGNAL).is_ok() {}
        client.reset();
        assert_eq!(relay.join().unwrap().ended, Some(Ended::Reset(PairSide::Client)));
        assert_eq!(backend.end().1, End::Reset);
    }
}

#[test]
fn a_silent_pair_ends_in_time_and_words_put_it_off() {
    let times = Patience { idle: Duration::from_millis(400), half_closed: Duration::from_millis(100) };
    let setup = Setup { patience: times, ..Setup::default() };
    let Pair { client, backend, relay } = setup.start();
    let began = std::time::Instant::now();
    std::thread::sleep(Duration::from_millis(250));
    client.say(b"not yet");
    backend.hear(b"not yet");
    assert_eq!(client.end().1, End::Reset);
    assert!(began.elapsed() >= Duration::from_millis(640), "{:?}", began.elapsed());
    assert_eq!(relay.join().unwrap().ended, None);
    let Pair { client, backend, relay } = setup.start();
    client.finish();
    assert_eq!(backend.end().1, End::Fin);
    let began = std::time::Instant::now();
    assert_eq!(client.end().1, End::Reset);
    assert!(began.elapsed() < Duration::from_millis(350), "half of it is open: {:?}", began.elapsed());
    assert_eq!(relay.join().unwrap().ended, None);
}

#[test]
fn a_turn_ends_when_it_has_moved_its_share() {
    let setup = Setup { turn_bytes: 10_000, stock: Stock::of(0, 1 << 20), ..Setup::default() };
    let Pair { client, backend, relay } = setup.start();
    let block = block();
    std::thread::scope(|scope| {
        scope.spawn(|| backend.receive_block(&block, 2_000_000));
        client.send_block(&block, 2_000_000, &[200_000]);
        client.finish();
    });
    drop(backend);
    let report = relay.join().unwrap();
    assert!(report.turns >= 2_000_000 / PIECE_BYTES, "{} turns", report.turns);
}

#[test]
fn pipes_are_bounded_and_given_back() {
    let setup = Setup { stock: Stock::of(1, 1 << 20), ..Setup::default() };
    let block = block();
    const BYTES: usize = 20 << 20;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let Pair { client, backend, relay } = setup.start();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        backend.send_block(&block, BYTES, &[1 << 20]);
                        backend.finish();
                    });
                    client.receive_block(&block, BYTES);
                    client.finish();
                });
                assert_eq!(relay.join().unwrap().to_client, BYTES as u64);
            });
        }
    });
    assert_eq!(setup.stock.pipes.open(), 1);
    assert_eq!(setup.stock.pipes.descriptors(), 2);
    assert!(setup.stock.pipes.take().is_some(), "it was given back");
}

#[test]
fn a_pair_is_small_and_a_quiet_one_owns_nothing_else() {
    assert!(size_of::<Relay>() <= 128, "{} bytes", size_of::<Relay>());
    let setup = Setup::default();
    let Pair { client, backend, relay } = setup.start();
    for _ in 0..3 {
        client.say(&[1; 100_000]);
        backend.hear(&[1; 100_000]);
        backend.say(b"thank you");
        client.hear(b"thank you");
    }
    assert_eq!(setup.stock.pool.used(), 0);
    drop((client, backend));
    relay.join().unwrap();
}

#[test]
fn a_turn_reads_only_from_the_side_that_had_an_event() {
    let ((near_client, client), (near_backend, backend)) =
        (Far::pair(Family::Unix, false), Far::pair(Family::Unix, false));
    let sockets = Sockets {
        client: near_client.as_fd(),
        client_tls: None,
        backend: near_backend.as_fd(),
        backend_tls: None,
        client_is_tcp: false,
        backend_is_tcp: false,
    };
    let Stock { pipes, pool, pool_most, .. } = &Stock::default();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut relay = Relay::new(0);
    let mut turn = |client, other| {
        let mut lent =
            Lent { buffer: &mut buffer, pipes, pool, pool_most: *pool_most, turn_bytes: PIECE_BYTES };
        let turned = relay.turn(sockets, SocketEvents { client, other }, &mut lent, 1);
        assert_eq!(turned.progress, PairProgress::Park);
        (turned.to_backend, turned.to_client)
    };
    client.say(b"up");
    backend.say(b"down");
    use SocketEvent::{Nothing, Ready};
    assert_eq!(turn(Nothing, Nothing), (0, 0));
    assert_eq!(turn(Ready, Nothing), (2, 0));
    backend.hear(b"up");
    assert_eq!(turn(Nothing, Ready), (0, 4));
    client.hear(b"down");
    assert_eq!(turn(Ready, Ready), (0, 0));
}
