//! Neither a silent client, nor one that sends half a request, nor one that never reads its replies holds a worker.

mod support;

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Client, End, Gate, PATIENCE, Site, eventually, figure};
use tidegate::metrics::snapshot::ListenerSnapshot;
use tidegate::reason::CloseReason;
use tidegate::service::hello;
use tidegate::{Echo, Limits, Peer, Received, Service, Session, Stream, Turn, handler, lines};

const MIB: usize = 1 << 20;

fn one_worker() -> Limits {
    Limits::default().workers(1).queue(64)
}

/// Answers each byte that comes with this many.
#[derive(Clone, Copy)]
struct Generous(usize);

impl Service for Generous {
    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(*self)
    }
}

impl Session for Generous {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        let (input, output) = stream.split();
        loop {
            match input.receive()? {
                Received::Data(data) => {
                    let total = self.0 * data.len();
                    for at in (0..total).step_by(64 * 1024) {
                        output.send(&[b'x'; 64 * 1024][..(total - at).min(64 * 1024)])?;
                    }
                }
                Received::Nothing => return Ok(Turn::Park),
                Received::End => return Ok(Turn::Close),
            }
        }
    }
}

/// Connects clients one after the other, so that none is refused.
fn clients(site: &Site, count: u64) -> Vec<Client> {
    let before = site.counts().idle;
    (1..=count)
        .map(|n| {
            let client = Client::narrow(site.address);
            site.until("it was served and is idle", |now| now.idle == before + n);
            client
        })
        .collect()
}

#[test]
fn silent_clients_hold_no_worker_and_end_in_good_order() {
    let limits = one_worker().idle_timeout(Duration::from_millis(1500));
    let site = Site::serve(limits, Echo);
    let mut silent = clients(&site, 200);
    site.client().say("hello").hear("hello");
    site.until("no worker is held", |now| (now.active, now.idle) == (0, 200));
    for client in &mut silent {
        assert_eq!(client.end(), End::Fin);
    }
    site.until_closed(CloseReason::IdleTimeout, 200);
    figure("200 silent clients and one worker: a newcomer was served, 200 of 200 ended with FIN");
    site.end();
}

#[test]
fn half_a_request_holds_no_worker_and_has_a_deadline() {
    let limits = one_worker().read_timeout(Duration::from_millis(1500));
    let site = Site::serve(limits, hello());
    let mut halves = clients(&site, 100);
    let turns = site.counts().turns[0];
    for client in &mut halves {
        client.say("wor");
    }
    site.until("all halves were read", |now| now.turns[0] == turns + 100 && now.idle == 100);
    site.client().say("world\n").hear("hello world\n");
    // One that goes on in time is answered.
    halves[0].say("ld\n").hear("hello world\n");
    for client in &mut halves[1..] {
        assert_eq!(client.end(), End::Fin);
    }
    site.until_closed(CloseReason::ReadTimeout, 99);
    figure(
        "100 halves and one worker: another is answered meanwhile, 99 ended by read_timeout, the one that went on answered",
    );
    site.end();
}

#[test]
fn a_request_that_trickles_has_a_total_deadline() {
    let limits = one_worker().read_timeout(Duration::from_millis(600));
    let site = Site::serve(limits, hello());
    let trickle = site.client();
    let mut stream = trickle.stream();
    let began = Instant::now();
    eventually("it is ended though it goes on", || {
        let ended = stream.write_all(b"x").is_err();
        site.client().say("me\n").hear("hello me\n");
        ended.then_some(())
    });
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
    figure(format!("ended after {:.1?} (read-timeout 600 ms)", began.elapsed()));
    assert_eq!(site.closed(CloseReason::ReadTimeout), 1);
    site.end();
}

#[test]
fn clients_that_never_read_hold_no_worker_and_have_a_deadline() {
    let limits = one_worker()
        .write_timeout(Duration::from_millis(1500))
        .output_per_connection(16 * MIB)
        .output_total(256 * MIB);
    let site = Site::serve(limits, Generous(8 * MIB));
    let mut deaf = clients(&site, 10);
    let turns = site.counts().turns[0];
    for client in &mut deaf {
        client.say("x");
    }
    site.until("all are parked with their replies", |now| now.turns[0] == turns + 10 && now.idle == 10);
    let kept = site.stats().pending_output_bytes;
    assert!(kept > 0);
    let mut reader = site.client();
    reader.say("x");
    let mut reply = vec![0; 8 * MIB];
    reader.stream().read_exact(&mut reply).expect("a whole reply");
    site.until_closed(CloseReason::WriteTimeout, 10);
    assert_eq!(site.stats().pending_output_bytes, 0);
    for client in &mut deaf {
        assert_eq!(client.rest().1, End::Reset);
    }
    figure(format!(
        "10 that never read, {} MiB kept for them, then 0; a reader beside them had its 8 MiB",
        kept >> 20
    ));
    site.end();
}

#[test]
fn a_reader_that_comes_back_late_gets_every_byte() {
    let limits = one_worker().output_per_connection(16 * MIB).write_timeout(PATIENCE);
    let site = Site::serve(limits, Generous(12 * MIB));
    let mut late = Client::narrow(site.address);
    late.say("x").finish();
    eventually("its reply is kept", || (site.stats().pending_output_bytes > 0).then_some(()));
    site.until("it holds no worker", |now| now.active == 0);
    let (reply, end) = late.rest();
    assert_eq!((reply.len(), end), (12 * MIB, End::Fin));
    site.until_closed(CloseReason::Client, 1);
    site.end();
}

#[test]
fn an_echo_that_is_not_read_stops_reading_and_loses_nothing() {
    let site = Site::serve(one_worker().write_timeout(PATIENCE), Echo);
    let client = Client::narrow(site.address);
    let sent: Vec<u8> = (0..16 * MIB).map(|n| (n / 7) as u8).collect();
    std::thread::scope(|scope| {
        let mut writer = client.stream();
        let all = &sent;
        scope.spawn(move || {
            writer.write_all(all).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        eventually("the server keeps what is not read", || {
            (site.stats().pending_output_bytes > 0).then_some(())
        });
        let most = Limits::default().turn_bytes as u64 + 64 * 1024;
        assert!(site.stats().pending_output_bytes <= most, "it reads on though nothing is taken");
        let mut received = Vec::new();
        client.stream().read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} of {} bytes, or wrong ones", received.len(), sent.len());
    });
    site.end();
}

#[test]
fn a_reply_past_the_limit_ends_that_connection_alone() {
    let limits = one_worker().output_per_connection(256 * 1024);
    let site = Site::serve(limits, Generous(32 * MIB));
    let mut others = clients(&site, 3);
    let mut deaf = Client::narrow(site.address);
    deaf.say("x");
    site.until_closed(CloseReason::OutputLimit, 1);
    assert_eq!(deaf.rest().1, End::Reset);
    assert_eq!(site.stats().pending_output_bytes, 0);
    assert_eq!(site.counts().idle, 3);
    for client in &mut others {
        client.finish();
        assert_eq!(client.end(), End::Fin);
    }
    site.end();
}

#[test]
fn replies_for_all_have_a_limit_and_those_within_it_are_whole() {
    let reply = 8 * MIB;
    let limits = one_worker().output_per_connection(reply).output_total(16 * MIB).write_timeout(PATIENCE);
    let site = Site::serve(limits, Generous(reply));
    let mut deaf = clients(&site, 12);
    let turns = |now: &ListenerSnapshot| now.turns.iter().sum::<u64>();
    let before = turns(&site.counts());
    for client in &mut deaf {
        client.say("x");
        let pending = site.stats().pending_output_bytes;
        assert!(pending <= 16 * MIB as u64, "{pending} bytes are kept");
    }
    site.until("each is parked or ended", |now| {
        turns(now) == before + 12 && now.active == 0 && now.queued == 0
    });
    site.until("some were too many", |now| now.closed[CloseReason::OutputLimit as usize] > 0);
    let (mut whole, mut cut) = (0, 0);
    for client in &mut deaf {
        let _ = client.finish_quietly();
        match client.rest() {
            (said, End::Fin) if said.len() == reply => whole += 1,
            (_, End::Reset) => cut += 1,
            (said, End::Fin) => panic!("an end in good order after {} of {reply} bytes", said.len()),
        }
    }
    let ended = site.closed(CloseReason::OutputLimit);
    assert_eq!((whole, cut), (12 - ended, ended));
    assert!(whole >= 2, "two at least fit");
    figure(format!("of 12 replies of 8 MiB with an output-total of 16 MiB: {whole} whole, {cut} reset"));
    site.end();
}

/// Says part of a line, and waits until the server has read it or has no room for it.
fn say_half(site: &Site, client: &mut Client, half: &str) {
    let before = site.until("earlier turns are counted", |now| now.active == 0 && now.queued == 0);
    let limit = CloseReason::InputLimit as usize;
    client.say(half);
    site.until("it is read, or there is no room for it", |now| {
        now.received_bytes == before.received_bytes + half.len() as u64
            || now.closed[limit] > before.closed[limit]
    });
    site.until("it is parked or ended", |now| now.active == 0 && now.queued == 0);
}

#[test]
fn half_read_lines_have_a_limit_together_and_those_within_it_are_answered() {
    let limits = one_worker().input_total(MIB).read_timeout(PATIENCE);
    let site = Site::serve(limits, hello());
    let mut halves = clients(&site, 40);
    let half = "h".repeat(40 * 1024);
    for client in &mut halves {
        say_half(&site, client, &half);
        let pending = site.stats().pending_input_bytes;
        assert!(pending <= MIB as u64, "{pending} bytes are held");
    }
    assert!(site.stats().pending_input_bytes > MIB as u64 * 7 / 8, "the limit is used");
    let (mut answered, mut ended) = (0, 0);
    for client in &mut halves {
        client.mutter("!\n");
        let mut reply = vec![0; half.len() + "hello !\n".len()];
        match client.heard(&mut reply) {
            true => {
                assert_eq!(reply, format!("hello {half}!\n").as_bytes());
                answered += 1;
            }
            false => ended += 1,
        }
    }
    assert_eq!((answered + ended, site.closed(CloseReason::InputLimit)), (40, ended));
    assert!(answered >= 15, "a mebibyte holds more than {answered} of them");
    figure(format!(
        "of 40 half lines of 40 KiB with an input-total of 1 MiB: {answered} answered, {ended} ended"
    ));
    eventually("nothing is held", || (site.stats().pending_input_bytes == 0).then_some(()));
    // There is room again, and one that leaves in the middle gives its own back.
    let mut next = site.client();
    say_half(&site, &mut next, &half);
    assert!(site.stats().pending_input_bytes >= half.len() as u64);
    next.finish();
    assert_eq!(next.rest(), (format!("hello {half}").into_bytes(), End::Fin));
    eventually("nothing is held", || (site.stats().pending_input_bytes == 0).then_some(()));
    site.end();
}

#[test]
fn half_read_lines_of_one_source_leave_room_for_those_of_others() {
    let limits = one_worker().input_total(MIB).read_timeout(PATIENCE);
    let site = Site::serve(limits, hello());
    let greedy_half = "g".repeat(60 * 1024);
    let mut greedy: Vec<Client> = Vec::new();
    let fill = |greedy: &mut Vec<Client>| {
        for _ in 0..2 {
            let mut client = Client::from("127.0.0.2", site.address);
            say_half(&site, &mut client, &greedy_half);
            greedy.push(client);
        }
    };
    while greedy.len() < 30 {
        fill(&mut greedy);
    }
    for polite in 0..50 {
        fill(&mut greedy);
        // Its line comes in two packets.
        let mut client = site.client();
        say_half(&site, &mut client, &"p".repeat(200 * polite));
        fill(&mut greedy);
        client.say("!\n").hear(format!("hello {}!\n", "p".repeat(200 * polite)));
        let pending = site.stats().pending_input_bytes;
        assert!(pending <= MIB as u64, "{pending} bytes are held");
    }
    // Those whose beginnings were given up end when they go on.
    let mut answered = 0;
    for client in &mut greedy {
        client.mutter("\n");
        answered += u64::from(client.heard(&mut vec![0; greedy_half.len() + 7]));
    }
    assert_eq!(site.closed(CloseReason::InputLimit), greedy.len() as u64 - answered);
    assert!(answered <= 17, "{answered} of the greedy source's lines fit");
    site.end();
}

#[test]
fn a_reply_before_the_close_is_delivered_however_late_it_is_read() {
    // The kernel takes it all; the server closes, and its polite close ends long before the client reads.
    let limits = one_worker().linger_timeout(Duration::from_millis(100));
    let reply = 2 * MIB;
    let service = handler(move |stream| {
        let mut request = [0];
        stream.read_exact(&mut request)?;
        stream.write_all(&vec![b'y'; reply])
    });
    let site = Site::serve(limits.output_per_connection(4 * MIB), service);
    let mut late = Client::narrow(site.address);
    late.say("x");
    site.until_closed(CloseReason::Server, 1);
    eventually("the polite close is over", || (site.stats().lingering == 0).then_some(()));
    let (said, end) = late.rest();
    assert_eq!((said.len(), end), (reply, End::Fin));
    site.end();
}

#[test]
fn replies_that_one_source_does_not_read_leave_room_for_those_of_others() {
    let limits = Limits::default().output_per_connection(16 * MIB).output_total(32 * MIB);
    let reply = vec![b'r'; 16 * MIB];
    // More than the kernel takes of it has to be kept.
    let site = Site::serve(limits, lines("large", move |line, out| out.send(&reply[..line.len() * 1024])));
    let ask = |source: &str, kib: usize| {
        let mut client = Client::narrow_from(Some(source), site.address);
        client.say([&vec![b'x'; kib][..], b"\n"].concat());
        client
    };
    let mut greedy: Vec<Client> = Vec::new();
    for n in 1.. {
        greedy.push(ask("127.0.0.2", 8_000));
        let before = site.closed(CloseReason::OutputLimit);
        site.until("it has its turn", |now| now.turns.iter().sum::<u64>() >= n);
        if before > 0 || site.closed(CloseReason::OutputLimit) > 0 {
            break;
        }
        assert!(n < 100, "the limit is never reached");
    }
    // Each of another source, and slow: its reply is kept, and it comes whole. However little the kernel takes, there is room
    // for all of these beside one of the greedy source, which holds more than each of them while it has two.
    let mut polite: Vec<Client> = (3..6).map(|n| ask(&format!("127.0.0.{n}"), 6_000)).collect();
    for client in &mut polite {
        let mut heard = vec![0; 6_000 * 1024];
        assert!(client.heard(&mut heard), "its reply was cut");
    }
    assert!(site.closed(CloseReason::OutputLimit) >= 1, "the greedy gave way");
    drop((greedy, polite));
    site.end();
}

#[test]
fn a_blocking_handler_is_held_no_longer_than_its_timeouts() {
    let limits = Limits::default()
        .workers(2)
        .read_timeout(Duration::from_millis(500))
        .write_timeout(Duration::from_millis(500));
    let service = handler(|stream| {
        let mut request = [0];
        stream.read_exact(&mut request)?;
        stream.write_all(&vec![b'y'; 32 * MIB])
    });
    let site = Site::serve(limits, service);
    let mut silent = site.client();
    let mut deaf = site.client();
    deaf.say("x");
    assert_eq!(silent.end(), End::Fin);
    site.until_closed(CloseReason::ReadTimeout, 1);
    site.until_closed(CloseReason::WriteTimeout, 1);
    assert_eq!(deaf.rest().1, End::Reset);
    let mut served = site.client();
    served.say("x");
    assert_eq!(served.rest().0.len(), 32 * MIB);
    site.end();
}

/// Asks somebody slow whether a client may come in.
struct Suspicious {
    asked: AtomicUsize,
    gate: Arc<Gate>,
}

impl Service for Suspicious {
    fn verify(&self, _peer: &Peer) -> bool {
        if self.asked.fetch_add(1, Ordering::SeqCst) == 0 {
            self.gate.pass();
        }
        true
    }

    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Generous(1))
    }
}

#[test]
fn a_slow_verify_holds_its_own_worker_and_nobody_elses() {
    let gate = Gate::new();
    let service = Suspicious { asked: Default::default(), gate: gate.clone() };
    let site = Site::serve(Limits::default().workers(2), service);
    let mut first = site.client();
    eventually("a worker asks", || (site.stats().workers_busy == 1).then_some(()));
    let began = Instant::now();
    for _ in 0..50 {
        site.client().say("x").hear("x");
    }
    assert!(began.elapsed() < Duration::from_secs(3), "others waited: {:?}", began.elapsed());
    gate.open();
    first.say("x").hear("x");
    site.end();
}

/// An echo whose first session takes long to take its leave.
struct Clinging {
    finished: Arc<AtomicUsize>,
    gate: Arc<Gate>,
}

impl Service for Clinging {
    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Clinging { finished: self.finished.clone(), gate: self.gate.clone() })
    }
}

impl Session for Clinging {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        Echo.turn(stream)
    }

    fn finish(&mut self, reason: CloseReason) {
        assert_eq!(reason, CloseReason::IdleTimeout);
        if self.finished.fetch_add(1, Ordering::SeqCst) == 0 {
            self.gate.pass();
        }
    }
}

#[test]
fn a_slow_finish_holds_its_own_worker_and_nobodys_deadline() {
    let (gate, finished) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let service = Clinging { finished: finished.clone(), gate: gate.clone() };
    let limits = Limits::default().workers(2).idle_timeout(Duration::from_millis(400));
    let site = Site::serve(limits, service);
    let mut first = site.client();
    first.say("x").hear("x");
    assert_eq!(first.end(), End::Fin);
    eventually("a worker is held", || (finished.load(Ordering::SeqCst) == 1).then_some(()));
    let began = Instant::now();
    for _ in 0..3 {
        let mut next = site.client();
        next.say("x").hear("x");
        assert_eq!(next.end(), End::Fin);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "their deadlines waited: {:?}", began.elapsed());
    site.until_closed(CloseReason::IdleTimeout, 4);
    eventually("all were told", || (finished.load(Ordering::SeqCst) == 4).then_some(()));
    assert_eq!(site.stats().workers_busy, 1, "the first one still clings");
    gate.open();
    assert!(site.end().is_clean());
}

#[test]
fn clients_that_send_thousands_of_requests_at_once_hold_no_worker() {
    let service = lines("slow", |line, reply| {
        std::thread::sleep(Duration::from_millis(1));
        reply.send(line)?;
        reply.send(b"\n")
    });
    let limits = Limits::default().workers(32);
    let workers = limits.workers;
    let site = Site::serve(limits, service);
    let mut established = site.client();
    established.say("first\n").hear("first\n");
    // A minute of work each, and as many of them as there are workers.
    let greedy: Vec<Client> = (0..workers).map(|_| site.client()).collect();
    for client in &greedy {
        client.stream().write_all(&[b'\n'; 64 * 1024]).unwrap();
    }
    site.until("all have turns", |now| now.sent_bytes > 100 && now.open() == workers as u64 + 1);
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        let began = Instant::now();
        site.client().say("new\n").hear("new\n");
        established.say("old\n").hear("old\n");
        assert!(began.elapsed() < Duration::from_secs(1), "others waited for {:?}", began.elapsed());
        longest = longest.max(began.elapsed());
    }
    figure(format!(
        "32 clients with a minute of work each and 32 workers: others waited {longest:.1?} at most"
    ));
    let report = site.end_within(Duration::from_millis(200));
    assert_eq!((report.workers_left, report.aborted), (0, workers as u64), "{report}");
    assert!(report.elapsed < Duration::from_secs(2), "{report}");
}

#[test]
fn work_that_one_client_orders_all_at_once_is_done_in_turns() {
    let cost = tidegate::service::Cost::Sleep(Duration::from_millis(20));
    let site = Site::serve(one_worker(), tidegate::service::Work(cost));
    let greedy = site.client();
    // What a worker reads at once is one request of `work`.
    let all = vec![b'w'; 4 * 64 * 1024];
    greedy.stream().write_all(&all).unwrap();
    let mut heard = vec![0; all.len()];
    greedy.stream().read_exact(&mut heard).unwrap();
    assert!(heard == all, "what comes goes back");
    let counts = site.counts();
    let turns = counts.turns.iter().sum::<u64>();
    assert!(turns >= counts.received_bytes / (64 * 1024), "{turns} turns");
    site.end();
}
