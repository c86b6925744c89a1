//! SIGTERM in every state that a server can be in: it ends within its drain timeout, what it admitted is answered or ended in
//! good order, nothing is cut, and its last line accounts for all of it.

#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/configuration.rs"]
mod configuration;
mod support;

use certificate::Certificate;
use configuration::Configuration;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{
    Client, End, PATIENCE, Program, Running, Scrape, Stop, command, eventually, figure, path,
    raise_open_files,
};

/// The time that admitted work has in these tests.
const DRAIN: &str = "6s";
/// What the exit of a process, and of a busy machine, may add to it.
const EXIT: Duration = Duration::from_secs(3);

/// A server in the state in question, with what its clients do and must see once it has been told to end.
struct Scene {
    server: Running,
    /// How many connections it has admitted that must be in its account; `None` where they come and go meanwhile.
    open: Option<u64>,
    /// Kept until the server has ended.
    beside: Vec<Box<dyn std::any::Any>>,
    then: Box<dyn FnOnce(&Running)>,
}

impl Scene {
    fn new(server: Running, open: impl Into<Option<u64>>, then: impl FnOnce(&Running) + 'static) -> Self {
        Self { server, open: open.into(), beside: Vec::new(), then: Box::new(then) }
    }

    fn beside(mut self, kept: impl std::any::Any) -> Self {
        self.beside.push(Box::new(kept));
        self
    }

    /// Tells it to end.
    #[track_caller]
    fn play(self, state: &str) {
        let Self { server, open, beside, then } = self;
        let began = Instant::now();
        server.signal(Signal::TERM);
        then(&server);
        eventually("it ends", || (!server.is_running()).then_some(()));
        let took = began.elapsed();
        // A program that has taken its place holds its log open.
        drop(beside);
        let (code, log) = server.ended();
        assert_eq!(code, Some(0), "{state}: {log}");
        assert!(took < Duration::from_secs(6) + EXIT, "{state}: after {took:?}");
        let account = Account::of(&log);
        assert_eq!(account.cut, 0, "{state}: {log}");
        if let Some(open) = open {
            assert_eq!(account.drained, open, "{state}: {log}");
        }
        figure(format!("{state}: ended after {took:.1?}, exit code 0, drained {}, cut 0", account.drained));
    }
}

/// What the last line of the log says.
struct Account {
    drained: u64,
    cut: u64,
}

impl Account {
    #[track_caller]
    fn of(log: &str) -> Self {
        let last = log.lines().rfind(|line| !line.is_empty()).unwrap_or_default();
        let number = |after: &str| {
            let rest = last.split_once(after)?.1;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        match (number("drained "), number(", cut ")) {
            (Some(drained), Some(cut)) => Self { drained, cut },
            _ => panic!("the last line is no account: {log}"),
        }
    }
}

fn program() -> Program {
    Program::new().arg("--drain-timeout", DRAIN)
}

fn work(cost: &str, workers: usize) -> Program {
    program().service("work").arg("--work", cost).arg("--workers", workers)
}

/// Clients that were answered once, and wait.
fn idle(at: SocketAddr, count: usize) -> Vec<Client> {
    (0..count)
        .map(|_| {
            let mut client = Client::connect(at);
            client.say("x").hear("x");
            client
        })
        .collect()
}

/// Clients that have asked and not been answered.
fn asking(at: SocketAddr, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(at)).collect();
    for client in &mut clients {
        client.say("please");
    }
    clients
}

/// Each gets its answer, and then the end in good order.
fn answered(clients: Vec<Client>) {
    for mut client in clients {
        assert_eq!(client.rest(), (b"please".to_vec(), End::Fin));
    }
}

fn ended(clients: Vec<Client>) {
    for mut client in clients {
        assert_eq!(client.end(), End::Fin);
    }
}

/// Waits until so many have come in.
#[track_caller]
fn until_admitted(server: &Running, count: u64) {
    eventually("all are admitted", || {
        (Scrape::of(server).sum("tidegate_connections_accepted_total", &[]) >= count).then_some(())
    });
}

fn nobody_is_there() -> Scene {
    Scene::new(program().start(), 0, move |_| ())
}

fn idle_clients() -> Scene {
    let server = program().start();
    let clients = idle(server.address(), 50);
    Scene::new(server, 50, move |_| ended(clients))
}

fn queueing() -> Scene {
    let server = work("sleep:50ms", 2).admin().start();
    let clients = asking(server.address(), 40);
    until_admitted(&server, 40);
    Scene::new(server, 40, move |_| answered(clients))
}

/// One has the worker, two wait, and those that come then are refused.
fn full() -> Scene {
    let server = work("sleep:700ms", 1).arg("--queue", 2).arg("--busy-reply", "busy\n").admin().start();
    let mut admitted = asking(server.address(), 1);
    eventually("it has the worker", || {
        (Scrape::of(&server).sum("tidegate_connections_active", &[]) == 1).then_some(())
    });
    admitted.extend(asking(server.address(), 2));
    until_admitted(&server, 3);
    let refused = eventually("one is refused", || {
        let mut client = Client::connect(server.address());
        client.mutter("please");
        let mut said = [0; 5];
        // One more has a place where the first turn is over.
        if client.heard(&mut said) && &said == b"busy\n" {
            return Some(client);
        }
        None
    });
    Scene::new(server, None, move |_| answered(admitted)).beside(refused)
}

/// More than it can do, on connections that stay and on new ones, so that it refuses and sheds.
fn overloaded() -> Scene {
    let server = work("sleep:20ms", 2)
        .arg("--queue", 16)
        .arg("--queue-target", "20ms")
        .arg("--busy-reply", "busy\n")
        .admin()
        .start();
    let target = format!("tcp://{}", server.address());
    let stress = |reuse: &str| {
        let mut stress = command(path());
        stress.args(["stress", &target, "-c", "60", "-r", "600", "-d", "20s", "-t", "1s", "--reuse", reuse]);
        support::Ending(stress.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let load = [stress("never"), stress("always")];
    eventually("it refuses and sheds", || {
        let seen = Scrape::of(&server);
        let refused = seen.sum("tidegate_connections_dropped_total", &[]);
        (refused > 50).then_some(())
    });
    Scene::new(server, None, move |_| ()).beside(load)
}

/// It cannot accept: the system gives it no descriptor. Those that it has are served to the end.
fn without_descriptors() -> Scene {
    let server = program().start();
    let clients = idle(server.address(), 20);
    let used = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as u64;
    let limit = Rlimit { current: Some(used), maximum: Some(used) };
    prlimit(Some(server.rustix_pid()), Resource::Nofile, limit).expect("a child's limit can be lowered");
    let crowd: Vec<_> = (0..100)
        .filter_map(|_| Client::try_connect(server.address(), Duration::from_millis(20)).ok())
        .collect();
    Scene::new(server, None, move |_| ended(clients)).beside(crowd)
}

/// The order comes again within a second, while a request is in work.
fn draining_already() -> Scene {
    let server = work("sleep:800ms", 1).admin().start();
    let clients = asking(server.address(), 1);
    until_admitted(&server, 1);
    server.signal(Signal::TERM);
    Scene::new(server, 1, move |_| answered(clients))
}

/// It reads its configuration anew, again and again, with a request in work.
fn reloading() -> Scene {
    let text = |queue: usize| {
        format!(
            "listen = [\"work=tcp://127.0.0.1:0\"]\nwork = \"sleep:500ms\"\nqueue = {queue}\ndrain-timeout = \"{DRAIN}\"\n"
        )
    };
    let file = Configuration::new("sigterm", &text(100));
    let server = file.program().without_echo().start();
    let clients = asking(server.address(), 3);
    until_admitted(&server, 3);
    for queue in 101..105 {
        file.write(&text(queue));
        server.signal(Signal::HUP);
    }
    Scene::new(server, 3, move |_| answered(clients)).beside(file)
}

/// A new program accepts, this one has its last clients: an idle one, and one whose request is in work.
fn replaced() -> Scene {
    let server = work("sleep:900ms", 4).admin().start();
    let mut clients = asking(server.address(), 2);
    clients[1].hear("please");
    server.signal(Signal::USR2);
    let line = eventually("the new program serves", || {
        let said = server.stderr();
        said.lines().find(|line| line.contains("the new program serves")).map(str::to_owned)
    });
    let number = line.rsplit_once("pid=").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
    let new = Successor(Pid::from_raw(number).unwrap());
    clients[1].say("please");
    Scene::new(server, None, move |_| {
        let mut waiting = clients.pop().unwrap();
        assert_eq!(waiting.rest(), (b"please".to_vec(), End::Fin));
    })
    .beside(new)
}

struct Successor(Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// A gate: one client has the only place at the backend, which works at its request, and three wait for it.
fn waiting_for_a_place() -> Scene {
    let backend = Program::new().service("work").arg("--work", "sleep:900ms").start();
    let service = format!("proxy:{}", backend.address());
    let server = program().service(&service).arg("--backend-connections", 1).admin().start();
    let mut first = Client::connect(server.address());
    first.say("please");
    until_admitted(&server, 1);
    let waiting: Vec<Client> = (0..3).map(|_| Client::connect(server.address())).collect();
    until_admitted(&server, 4);
    Scene::new(server, None, move |_| {
        first.hear("please").finish();
        assert_eq!(first.end(), End::Fin);
        // They have no backend yet, and are told soon.
        for mut client in waiting {
            assert_eq!(client.rest().0, b"");
        }
    })
    .beside(backend)
}

/// A gate whose backends are gone: one refuses, the other does not answer at all.
fn backends_down() -> Scene {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (silent, fillers) = silent_backend();
    let service = format!("proxy:{gone},{}", silent.local_addr().unwrap());
    let server = program().service(&service).arg("--backend-connect-timeout", "2s").admin().start();
    let clients: Vec<Client> = (0..10).map(|_| Client::connect(server.address())).collect();
    until_admitted(&server, 10);
    Scene::new(server, None, move |_| {
        clients.into_iter().for_each(|mut client| assert_eq!(client.rest().0, b""))
    })
    .beside((silent, fillers))
}

/// A listener whose backlog is full: the system answers no more connection.
fn silent_backend() -> (TcpListener, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener: TcpListener = socket.into();
    let at = listener.local_addr().unwrap();
    let connect = |_| TcpStream::connect_timeout(&at, Duration::from_millis(100)).ok();
    let fillers = (0..4).filter_map(connect).collect();
    (listener, fillers)
}

/// A gate for HTTP whose backend works at a request.
fn a_request_at_a_backend() -> Scene {
    let backend = Program::new()
        .without_echo()
        .arg("--listen", "work=http://127.0.0.1:0")
        .arg("--work", "sleep:900ms")
        .start();
    let service = format!("proxy:http://{}", backend.listening("work on http"));
    let server =
        program().without_echo().arg("--listen", format!("{service}=http://127.0.0.1:0")).admin().start();
    let at = server.listening(&format!("{service} on http"));
    let (mut idle, mut asks) = (Client::connect(at), Client::connect(at));
    assert_eq!(idle.get("/").status, 200);
    asks.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the backend is asked", || {
        (Scrape::of(&server).sum("tidegate_gate_places", &[]) > 0).then_some(())
    });
    Scene::new(server, 2, move |_| {
        assert_eq!(asks.reply().status, 200);
        assert_eq!(asks.end(), End::Fin);
        assert_eq!(idle.end(), End::Fin);
    })
    .beside(backend)
}

/// Clients that have sent half of their first message of TLS, and clients that have sent nothing.
fn handshakes_half_done() -> Scene {
    let files = Certificate::new(&["localhost"], 4000).files();
    let server = program()
        .without_echo()
        .arg("--listen", "echo=tls://127.0.0.1:0")
        .arg("--tls-cert", files.certificate.display())
        .arg("--tls-key", files.key.display())
        .arg("--read-timeout", "1s")
        .admin()
        .start();
    let at = server.listening("echo on tls");
    let half: Vec<Client> = (0..40)
        .map(|n| {
            let mut client = Client::connect(at);
            if n % 2 == 0 {
                // A handshake record of 200 bytes, of which 20 come.
                client.say([&[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &[7; 9]].concat());
            }
            client
        })
        .collect();
    until_admitted(&server, 40);
    Scene::new(server, 40, move |_| {
        for mut client in half {
            assert_eq!(client.rest().1, End::Fin);
        }
    })
    .beside(files)
}

/// Each gets a close frame that says why, and answers it.
fn websockets_open() -> Scene {
    let server = program().without_echo().arg("--listen", "echo=ws://127.0.0.1:0").start();
    let url = format!("ws://{}/", server.listening("echo on ws"));
    let sockets: Vec<_> = (0..20)
        .map(|_| {
            let (mut socket, _) = tungstenite::connect(&url).unwrap();
            socket.send("hello".into()).unwrap();
            assert_eq!(socket.read().unwrap().to_text().unwrap(), "hello");
            socket
        })
        .collect();
    Scene::new(server, 20, move |_| {
        for mut socket in sockets {
            let code = match socket.read().unwrap() {
                tungstenite::Message::Close(Some(frame)) => u16::from(frame.code),
                other => panic!("no close frame: {other}"),
            };
            assert_eq!(code, 1001);
            while socket.read().is_ok() {}
        }
    })
}

/// Clients that ask for more than they read: once they read, all that the server has answered comes.
fn slow_readers() -> Scene {
    let server = program()
        .without_echo()
        .arg("--listen", "hello=tcp://127.0.0.1:0")
        .arg("--read-timeout", "1s")
        .start();
    let at = server.listening("hello on tcp");
    let clients: Vec<(Client, usize)> = (0..4)
        .map(|_| {
            let client = Client::narrow(at);
            // Requests, until the server takes no more of them. The last may be half there, and has its own deadline.
            let lines = format!("{}\n", "n".repeat(1000)).repeat(64);
            let mut sent = 0;
            client.stream().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
            while let Ok(n) = client.stream().write(lines.as_bytes()) {
                sent += n;
            }
            (client, sent)
        })
        .collect();
    Scene::new(server, 4, move |_| {
        for (client, sent) in clients {
            let (mut heard, mut buffer) = (0, vec![0; 1 << 16]);
            loop {
                match client.stream().read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => heard += n,
                    // What it had sent and nobody has read ends it with a reset.
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                    Err(error) => panic!("neither an answer nor an end: {error}"),
                }
            }
            assert!(heard > 100_000, "{heard} bytes of answers to {sent} bytes");
        }
    })
}

/// All places of the admin endpoint are taken by clients that say nothing.
fn admin_busy() -> Scene {
    let server = program().admin().start();
    let clients = idle(server.address(), 5);
    let silent: Vec<_> = (0..200)
        .filter_map(|n| {
            let mut client = Client::try_connect(server.admin(), Duration::from_secs(1)).ok()?;
            if n % 2 == 0 {
                client.mutter("GET /metrics HTTP/1.1\r\nHost");
            }
            Some(client)
        })
        .collect();
    Scene::new(server, 5, move |_| ended(clients)).beside(silent)
}

/// Threads that do something again and again, until the server has ended.
struct Flood(std::sync::Arc<AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Flood {
    fn of(threads: usize, again: impl Fn() + Clone + Send + 'static) -> Self {
        let over = std::sync::Arc::new(AtomicBool::new(false));
        let threads = (0..threads).map(|_| {
            let (over, again) = (over.clone(), again.clone());
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    again();
                }
            })
        });
        let threads = threads.collect();
        Self(over, threads)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        drop(Stop(&self.0));
        self.1.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn admin_flooded() -> Scene {
    let server = program().admin().start();
    let clients = idle(server.address(), 5);
    let admin = server.admin();
    let flood = Flood::of(4, move || {
        if let Ok(mut client) = Client::try_connect(admin, Duration::from_millis(50)) {
            client.mutter("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").heard(&mut [0; 64]);
        }
    });
    Scene::new(server, 5, move |_| ended(clients)).beside(flood)
}

fn newcomers_flood() -> Scene {
    let server = program().start();
    let clients = idle(server.address(), 5);
    let at = server.address();
    let flood = Flood::of(4, move || {
        if let Ok(mut client) = Client::try_connect(at, Duration::from_millis(20)) {
            client.mutter("x");
        }
    });
    Scene::new(server, None, move |_| ended(clients)).beside(flood)
}

/// The order comes while the process is stopped, and it goes on.
fn stopped() -> Scene {
    let server = program().start();
    let clients = idle(server.address(), 5);
    server.signal(Signal::STOP);
    Scene::new(server, 5, move |server| {
        server.signal(Signal::CONT);
        ended(clients);
    })
}

fn datagrams_in_work() -> Scene {
    let server = program()
        .without_echo()
        .arg("--listen", "work=udp://127.0.0.1:0")
        .arg("--work", "sleep:50ms")
        .arg("--workers", 2)
        .admin()
        .start();
    let at = server.listening("work on udp");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for n in 0..20_u8 {
        socket.send_to(&[n], at).unwrap();
    }
    eventually("all have come", || {
        (Scrape::of(&server).sum("tidegate_datagrams_received_total", &[]) == 20).then_some(())
    });
    Scene::new(server, 0, move |_| {
        let mut heard: Vec<u8> = (0..20)
            .map(|_| {
                let mut word = [0];
                assert_eq!(socket.recv(&mut word).unwrap(), 1);
                word[0]
            })
            .collect();
        heard.sort_unstable();
        assert_eq!(heard, (0..20).collect::<Vec<u8>>(), "each datagram is answered");
    })
}

/// A state, and how it is brought about.
type State = (&'static str, fn() -> Scene);

const STATES: [State; 20] = [
    ("nobody is there", nobody_is_there),
    ("idle clients", idle_clients),
    ("queueing", queueing),
    ("full", full),
    ("overloaded", overloaded),
    ("without descriptors", without_descriptors),
    ("draining already", draining_already),
    ("reloading", reloading),
    ("replaced", replaced),
    ("waiting for a place at a backend", waiting_for_a_place),
    ("backends down", backends_down),
    ("a request at a backend", a_request_at_a_backend),
    ("handshakes half done", handshakes_half_done),
    ("WebSockets open", websockets_open),
    ("slow readers", slow_readers),
    ("all places of the admin endpoint taken", admin_busy),
    ("the admin endpoint flooded", admin_flooded),
    ("newcomers flood", newcomers_flood),
    ("stopped", stopped),
    ("datagrams in work", datagrams_in_work),
];

#[test]
fn in_every_state_sigterm_ends_it_in_time_and_what_was_admitted_is_answered() {
    raise_open_files();
    let wanted = std::env::var("STATE").ok();
    for (state, arrange) in STATES {
        if wanted.as_ref().is_none_or(|wanted| wanted == state) {
            println!("{state}");
            arrange().play(state);
        }
    }
}

/// Until it takes signals itself the system ends it; from then on it ends by itself. It says that it serves only after that.
#[test]
fn while_it_starts_sigterm_ends_it_too() {
    let (mut by_the_system, mut by_itself) = (0, 0);
    for pause in (0..30).map(|n| Duration::from_millis(n * 2)) {
        let mut child = command(path());
        child.args(["--admin", "127.0.0.1:0", "--listen", "echo=tcp://127.0.0.1:0"]);
        let mut server = Running::of(child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        std::thread::sleep(pause);
        server.signal(Signal::TERM);
        let (began, status) = (Instant::now(), server.exit());
        assert!(began.elapsed() < EXIT, "after {:?}", began.elapsed());
        match status.code() {
            Some(0) => by_itself += 1,
            None => {
                by_the_system += 1;
                assert!(!server.stdout().contains("limits:"), "it served: {status}");
            }
            other => panic!("{other:?} after {pause:?}: {}", server.stderr()),
        }
    }
    figure(format!(
        "of 30 that were starting {by_the_system} were ended by the system and {by_itself} by themselves"
    ));
}
