//! What a hostile world does to the real program, one thing in each test, and everything that held meanwhile: how long clients
//! that behave waited, threads, memory, descriptors, conservation, the exit code. docs/reliability.md shows it.
#![cfg(target_os = "linux")]

mod support;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use socket2::{Domain, SockFilter, Socket, Type};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use support::{Client, End, Ordeal, Program, Scrape, command, eventually, finish};

/// Long enough for some hundred requests of clients that behave.
const A_WHILE: Duration = Duration::from_secs(2);

const ECHO: &str = "echo on tcp";

fn crowd(at: SocketAddr, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::connect(at)).collect()
}

fn each_mutters(clients: &mut [Client], words: impl AsRef<[u8]>) {
    for client in clients {
        client.mutter(&words);
    }
}

/// Connects again and again in four threads, each from an address of its own, and does something with each connection; how
/// often that was in all. Each thread does it so often at most.
fn storm(at: SocketAddr, most: usize, act: impl Fn(Client) + Sync) -> usize {
    let began = Instant::now();
    let one = |source: &str| {
        let mut count = 0;
        while began.elapsed() < A_WHILE && count < most {
            if let Ok(client) = Client::try_from(source, at) {
                act(client);
                count += 1;
            }
        }
        count
    };
    let count = std::thread::scope(|scope| {
        let sources = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"];
        let threads = sources.map(|source| scope.spawn(move || one(source)));
        threads.into_iter().map(|thread| thread.join().expect("it goes on")).sum()
    });
    rest(began);
    count
}

/// Holds what was done for the rest of a while.
fn rest(began: Instant) {
    std::thread::sleep(A_WHILE.saturating_sub(began.elapsed()));
}

/// A number of the metrics.
fn sum(ordeal: &Ordeal, metric: &str, label: &str) -> u64 {
    Scrape::of(&ordeal.server).sum(metric, &[label])
}

#[test]
fn a_flood_of_connections_that_stay_is_refused_past_the_limit() {
    let ordeal = Ordeal::of(Program::new().arg("--max-connections", 300).arg("--refusal-rate", "all"), ECHO);
    let at = ordeal.server.address();
    let came = ordeal.beside(|| {
        let held = Mutex::new(Vec::new());
        storm(at, usize::MAX, |client| {
            let mut held = held.lock().unwrap();
            // Twice as many as may be open stay; then they begin anew.
            if held.len() == 600 {
                held.clear();
            }
            held.push(client);
        })
    });
    let refused = sum(&ordeal, "tidegate_connections_dropped_total", "reason=\"max_connections\"");
    assert!(refused > 100, "{refused} of {came} refused");
    ordeal.end(&format!(
        "{came} connections by four threads in {A_WHILE:?}, 300 may be open, {refused} refused for it"
    ));
}

#[test]
fn clients_that_connect_and_leave_cost_others_nothing() {
    let ordeal = Ordeal::of(Program::new(), ECHO);
    let at = ordeal.server.address();
    // Who ends a connection has its port blocked for a minute, and all tests share some 28,000 ports: a quick machine used up all of them.
    let came = ordeal.beside(|| storm(at, 2_000, drop));
    ordeal.end(&format!("{came} connections by four threads within {A_WHILE:?}"));
}

#[test]
fn handshakes_without_their_last_step_hold_nothing_of_the_server() {
    let ordeal = Ordeal::of(Program::new(), ECHO).with_newcomers();
    let at = ordeal.server.address();
    let accepted = || sum(&ordeal, "tidegate_connections_accepted_total", "");
    let (half, before) = ordeal.beside(|| {
        let began = Instant::now();
        let before = ordeal.open_files();
        // The system of these clients sees no answer to their SYN, so it never sends the last step.
        let half: Vec<Socket> = (0..1_000)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).expect("a filter that drops all");
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&at.into());
                socket
            })
            .collect();
        let most = eventually("the kernel holds half handshakes", || {
            let open = half_open(at);
            (open > 10).then_some(open)
        });
        // None of these has become a connection; one of those that behave may come or go.
        assert!(ordeal.open_files() <= before + 10, "{} descriptors, {before} before", ordeal.open_files());
        rest(began);
        drop(half);
        (most, accepted())
    });
    eventually("the kernel has given them up", || (half_open(at) == 0).then_some(()));
    ordeal.end(&format!("1,000 SYNs without the last step ({half} of them half-open in the kernel at once), {before} connections accepted meanwhile"));
}

/// The handshakes that wait for their last step at an address.
fn half_open(at: SocketAddr) -> usize {
    let port = format!(":{:04X}", at.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 3 && row[1].ends_with(&port) && row[3] == "03").count()
}

#[test]
fn half_closed_clients_are_answered_and_end() {
    let ordeal = Ordeal::of(Program::new().arg("--queue", 1_000), ECHO).with_newcomers();
    let at = ordeal.server.address();
    let answered = ordeal.beside(|| {
        let (began, mut answered) = (Instant::now(), 0);
        while began.elapsed() < A_WHILE {
            let mut clients = crowd(at, 200);
            each_mutters(&mut clients, "last words");
            clients.iter_mut().for_each(|client| {
                client.finish();
            });
            for client in &mut clients {
                assert_eq!(client.rest(), (b"last words".to_vec(), End::Fin));
                answered += 1;
            }
        }
        answered
    });
    ordeal.end(&format!("{answered} half-closed clients, each had its answer and a FIN"));
}

#[test]
fn resets_at_each_stage_leave_nothing_behind() {
    let program = Program::new()
        .service("echo")
        .arg("--listen", "work=tcp://127.0.0.1:0")
        .arg("--listen", "time=tcp://127.0.0.1:0")
        .arg("--workers", 8)
        .arg("--work", "sleep:20ms")
        .arg("--queue", 400);
    let ordeal = Ordeal::of(program, ECHO);
    let server = &ordeal.server;
    let [echo, work, time] = server.addresses()[..] else { panic!("three listeners") };
    let stages: [(&str, &dyn Fn() -> Vec<Client>); 5] = [
        // While the program stands still nobody accepts.
        ("the backlog", &|| {
            server.signal(Signal::STOP);
            let clients = crowd(work, 20);
            server.signal(Signal::CONT);
            clients
        }),
        ("the queue", &|| asking(work, 100)),
        ("a turn", &|| {
            let mut clients = Vec::new();
            eventually("turns are under way", || {
                clients.extend(asking(work, 2));
                (busy(&ordeal) > 0).then_some(())
            });
            clients
        }),
        ("a flush", &|| {
            let clients = deaf(echo, 10);
            eventually("their replies wait", || {
                send(&clients);
                (sum(&ordeal, "tidegate_pending_output_bytes", "") > 0).then_some(())
            });
            clients
        }),
        ("a lingering close", &|| {
            let mut clients = crowd(time, 20);
            each_mutters(&mut clients, "words that nobody reads");
            clients
        }),
    ];
    let mut rounds = 0;
    ordeal.beside(|| {
        let began = Instant::now();
        while began.elapsed() < A_WHILE {
            for (_, stage) in &stages {
                stage().into_iter().filter(|client| !client.was_reset()).for_each(Client::reset);
            }
            rounds += 1;
        }
    });
    let names = stages.map(|(name, _)| name).join(", ");
    ordeal.end(&format!("resets in {names}, {rounds} times each"));
}

/// How many workers are in turns.
fn busy(ordeal: &Ordeal) -> u64 {
    sum(ordeal, "tidegate_workers", "state=\"busy\"")
}

/// Clients that will take no replies, and never wait for the server.
fn deaf(at: SocketAddr, count: usize) -> Vec<Client> {
    let clients: Vec<_> = (0..count).map(|_| Client::narrow(at)).collect();
    clients.iter().for_each(|client| client.stream().set_nonblocking(true).unwrap());
    clients
}

/// Each sends as much as the kernel takes.
fn send(clients: &[Client]) {
    let much = vec![b'x'; 512 << 10];
    for client in clients {
        let _ = client.stream().write(&much);
    }
}

/// Clients that have sent their request.
fn asking(at: SocketAddr, count: usize) -> Vec<Client> {
    let mut clients = crowd(at, count);
    each_mutters(&mut clients, "request");
    clients
}

#[test]
fn resets_within_a_drain_do_not_hold_it() {
    let program = Program::new()
        .service("echo")
        .arg("--listen", "work=tcp://127.0.0.1:0")
        .arg("--workers", 4)
        .arg("--work", "sleep:500ms");
    let ordeal = Ordeal::of(program, ECHO);
    let [_, work] = ordeal.server.addresses()[..] else { panic!("two listeners") };
    ordeal.beside(|| std::thread::sleep(A_WHILE));
    let clients = asking(work, 40);
    eventually("they wait and are served", || (busy(&ordeal) == 4).then_some(()));
    let what = "40 clients with a request of 500 ms each and 4 workers, which reset once it drains";
    let took = ordeal.end_amid(0, what, || clients.into_iter().for_each(Client::reset));
    // To serve them all would take 5 s.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn readers_that_stop_are_ended_and_hold_no_worker() {
    let ordeal =
        Ordeal::of(Program::new().arg("--write-timeout", "1s").arg("--workers", 4), ECHO).with_newcomers();
    let at = ordeal.server.address();
    ordeal.beside(|| {
        let readers = deaf(at, 100);
        let ended = || sum(&ordeal, "tidegate_connections_closed_total", "reason=\"write_timeout\"");
        eventually("all of them are ended", || {
            send(&readers);
            (ended() == 100).then_some(())
        });
    });
    ordeal.end("100 clients that send and read nothing, 4 workers, each ended by the write-timeout of 1 s");
}

#[test]
fn lines_without_an_end_are_ended_at_their_limit() {
    let program =
        Program::new().service("echo").arg("--listen", "hello=tcp://127.0.0.1:0").arg("--max-line", "16KiB");
    let ordeal = Ordeal::of(program, ECHO).with_newcomers();
    let [_, lines] = ordeal.server.addresses()[..] else { panic!("two listeners") };
    let came = ordeal.beside(|| {
        let (began, mut came) = (Instant::now(), 0);
        while began.elapsed() < A_WHILE {
            let mut clients = crowd(lines, 50);
            each_mutters(&mut clients, vec![b'x'; 64 << 10]);
            came += clients.len();
            for mut client in clients {
                client.rest();
            }
        }
        came
    });
    let ended = sum(&ordeal, "tidegate_connections_closed_total", "reason=\"protocol\"");
    assert_eq!(ended, came as u64);
    ordeal.end(&format!("{came} lines of 64 KiB without an end, the limit is 16 KiB, each ended for it"));
}

#[test]
fn descriptors_that_are_gone_and_come_back_cost_nobody_his_connection() {
    let ordeal = Ordeal::of(Program::new(), ECHO);
    let (at, pid) = (ordeal.server.address(), ordeal.server.rustix_pid());
    let most = getrlimit(Resource::Nofile).maximum.expect("it has one");
    let limit = |current| {
        let limit = Rlimit { current: Some(current), maximum: Some(most) };
        prlimit(Some(pid), Resource::Nofile, limit).expect("it can be changed");
    };
    let rounds = ordeal.beside(|| {
        let (began, mut rounds) = (Instant::now(), 0);
        while began.elapsed() < A_WHILE {
            limit(ordeal.open_files() as u64);
            let try_one = |_| Client::try_connect(at, Duration::from_millis(50)).ok();
            drop((0..100).filter_map(try_one).collect::<Vec<_>>());
            limit(most);
            // One that comes in the very moment may be refused as those before it.
            eventually("newcomers are served again", || {
                Client::connect(at).mutter("x").heard(&mut [0]).then_some(())
            });
            rounds += 1;
        }
        rounds
    });
    ordeal.end(&format!("{rounds} times no descriptor left while 100 clients come, each time served again"));
}

#[test]
fn an_end_of_address_space_while_it_serves_ends_no_client_that_behaves() {
    let program = Program::new()
        .service("echo")
        .arg("--listen", "hello=tcp://127.0.0.1:0")
        .arg("--input-total", "256MiB");
    let ordeal = Ordeal::of(program, ECHO);
    let [_, lines] = ordeal.server.addresses()[..] else { panic!("two listeners") };
    let most = ordeal.server.status("VmSize") * 1024 + (20 << 20);
    let limit = Rlimit { current: Some(most), maximum: None };
    prlimit(Some(ordeal.server.rustix_pid()), Resource::As, limit).expect("it can be lowered");
    let left = ordeal.beside(|| {
        let began = Instant::now();
        let mut halves = crowd(lines, 2_000);
        for _ in 0..4 {
            each_mutters(&mut halves, [b'x'; 10_000]);
        }
        rest(began);
        let left = sum(&ordeal, "tidegate_connections", "");
        halves.clear();
        left
    });
    ordeal.end(&format!(
        "20 MiB of address space more than at the start for 2,000 half lines of 40 kB; {left} connections were left"
    ));
}

#[test]
fn five_seconds_of_standing_still_end_nobody() {
    let ordeal = Ordeal::of(Program::new().arg("--idle-timeout", "3s").arg("--read-timeout", "3s"), ECHO);
    ordeal.beside(|| {
        std::thread::sleep(A_WHILE);
        ordeal.server.signal(Signal::STOP);
        std::thread::sleep(Duration::from_secs(5));
        ordeal.server.signal(Signal::CONT);
        std::thread::sleep(A_WHILE);
    });
    ordeal.end("SIGSTOP for 5 s (idle-timeout 3 s), 2 s before and after it");
}

#[test]
fn turns_that_never_return_leave_the_other_workers_and_are_reported() {
    let program = Program::new()
        .service("echo")
        .arg("--listen", "work=tcp://127.0.0.1:0")
        .arg("--work", "sleep:60s")
        .arg("--workers", 4)
        .arg("--drain-timeout", "1s");
    let ordeal = Ordeal::of(program, ECHO).with_newcomers();
    let [_, work] = ordeal.server.addresses()[..] else { panic!("two listeners") };
    let stuck = asking(work, 3);
    eventually("three workers are stuck", || (busy(&ordeal) == 3).then_some(()));
    ordeal.beside(|| std::thread::sleep(A_WHILE));
    // Three turns are cut, and that is what the code says.
    ordeal.end_amid(3, "three of four workers in turns of a minute, drain-timeout 1 s", || ());
    drop(stuck);
}

#[test]
fn malformed_http_of_every_kind_is_refused_beside_others() {
    const MALFORMED: [&str; 16] = [
        "\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: h\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n folded: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nbad\x01name: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 2\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ];
    let program = Program::new().service("echo").arg("--listen", "echo=http://127.0.0.1:0");
    let ordeal = Ordeal::of(program, ECHO).with_newcomers();
    let web = ordeal.server.listening("echo on http");
    let refused = ordeal.beside(|| {
        let (began, mut refused) = (Instant::now(), 0);
        let mut polite = Client::connect(web);
        while began.elapsed() < A_WHILE {
            for malformed in MALFORMED {
                let mut client = Client::connect(web);
                let status = client.mutter(malformed).reply().status;
                assert!((400..600).contains(&status), "{status} for {malformed:?}");
                client.rest();
                refused += 1;
            }
            assert_eq!(polite.get("/").status, 200);
        }
        refused
    });
    ordeal.end(&format!(
        "{refused} malformed requests of {} kinds, each answered with 4xx or 5xx and ended",
        MALFORMED.len()
    ));
}

#[test]
fn sources_by_the_thousand_are_limited_one_by_one_over_ipv4() {
    sources("127.0.0.1", |n| format!("127.1.{}.{}", n / 250, n % 250 + 1));
}

#[test]
fn sources_by_the_thousand_are_limited_one_by_one_over_ipv6() {
    const INSIDE: &str = "TIDEGATE_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return sources("[fd00::1]", |n| format!("fd00::{:x}:{:x}", n / 250 + 1, n % 250 + 1));
    }
    // A network of its own, in which a whole range of addresses is this machine.
    let script = "ip link set lo up && echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind && ip -6 route add local fd00::/64 dev lo && exec \"$0\" --exact \
                  sources_by_the_thousand_are_limited_one_by_one_over_ipv6 --nocapture";
    let mut inside = command("unshare");
    inside.args(["--net", "sh", "-c", script]).arg(std::env::current_exe().unwrap()).env(INSIDE, "1");
    let done = finish(&mut inside);
    let said = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    assert!(done.status.success(), "{}{}", said(&done.stdout), said(&done.stderr));
}

/// 3,000 sources, each with two connections of which one may be open.
fn sources(host: &str, source: impl Fn(u32) -> String) {
    let program = Program::new()
        .without_echo()
        .arg("--listen", format!("echo=tcp://{host}:0"))
        .arg("--max-per-source", 2)
        .arg("--source-prefix", "32,128")
        .arg("--refusal-rate", "all");
    let ordeal = Ordeal::of(program, ECHO);
    let at = ordeal.server.address();
    let mut served = 0;
    ordeal.beside(|| {
        let began = Instant::now();
        let mut held = Vec::new();
        for n in 0..3_000 {
            let source = source(n);
            for _ in 0..3 {
                let mut client = Client::from(&source, at);
                served += u32::from(client.mutter("x").heard(&mut [0]));
                held.push(client);
            }
            // The first thousand stay.
            if n >= 1_000 {
                held.truncate(3_000);
            }
        }
        rest(began);
    });
    let refused = sum(&ordeal, "tidegate_connections_dropped_total", "reason=\"per_source\"");
    assert_eq!((served, refused), (6_000, 3_000));
    ordeal.end(&format!(
        "3,000 sources, each three times at once where two may be open: {served} served, {refused} refused"
    ));
}
