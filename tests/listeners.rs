//! Listeners: which clients an address takes, and what a listener has of its own.

mod support;

use rustix::process::Signal;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};
use support::{Client, End, Gate, Held, PATIENCE, Program, run};
use tidegate::{Echo, Limits, Listen, Overload, Server, lines};

/// A port that is free on both families.
fn free_port() -> u16 {
    TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port()
}

fn asks(address: SocketAddr) {
    Client::connect(address).say("x").hear("x");
}

/// Sends a datagram and checks that the answer comes from the address that was asked.
fn asks_by_datagram(address: SocketAddr) {
    let any = if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"x", address).unwrap();
    let mut buffer = [0; 8];
    let (length, from) = socket.recv_from(&mut buffer).expect("it answers");
    assert_eq!((&buffer[..length], from), (&b"x"[..], address));
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port)
}

#[test]
fn a_service_is_told_to_which_listener_a_client_came() {
    let told = || {
        lines("told", |_, reply| reply.send(format!("{}\n", reply.peer().listener()).as_bytes()))
            .verify(|peer| peer.listener().starts_with("tcp://127.0.0.1:"))
    };
    let builder = Server::builder().listen("127.0.0.1:0", told()).unwrap();
    let handle = builder.listen("127.0.0.1:0", told()).unwrap().bind().unwrap().serve().unwrap();
    for listener in handle.stats().listeners {
        let address = listener.listener.strip_prefix("tcp://").unwrap().parse().unwrap();
        Client::connect(address).say("?\n").hear(format!("{}\n", listener.listener));
    }
    assert!(handle.shutdown(PATIENCE).is_clean());
}

#[test]
fn a_wildcard_of_ipv6_takes_clients_of_both_families() {
    let (tcp, udp, admin) = (free_port(), free_port(), free_port());
    let server = Program::new()
        .without_echo()
        .arg("--listen", format!("echo=tcp://[::]:{tcp}"))
        .arg("--listen", format!("echo=udp://[::]:{udp}"))
        .arg("--admin", format!("[::]:{admin}"))
        .drop_first_admin()
        .start();
    for ip in ["127.0.0.1", "127.0.0.7", "::1"] {
        asks(at(ip, tcp));
        asks_by_datagram(at(ip, udp));
        drop(Client::connect(at(ip, admin)));
    }
    drop(server);
}

/// Whatever the order in which they are given.
#[test]
fn both_wildcards_on_one_port_share_the_families() {
    for (first, second) in [("0.0.0.0", "[::]"), ("[::]", "0.0.0.0"), ("[::]", "127.0.0.1")] {
        let port = free_port();
        let mut server = Program::new().without_echo();
        for scheme in ["tcp", "udp"] {
            for host in [first, second] {
                server = server.arg("--listen", format!("echo={scheme}://{host}:{port}"));
            }
        }
        let server = server.start();
        for ip in ["127.0.0.1", "::1"] {
            asks(at(ip, port));
            asks_by_datagram(at(ip, port));
        }
        drop(server);
    }
}

/// The admin endpoint follows the same rule.
#[test]
fn the_admin_endpoint_shares_a_port_with_a_listener_of_the_other_family() {
    for (service, admin, served) in [("0.0.0.0", "[::]", "127.0.0.1"), ("[::]", "0.0.0.0", "::1")] {
        let port = free_port();
        let server = Program::new()
            .without_echo()
            .arg("--listen", format!("echo=tcp://{service}:{port}"))
            .arg("--admin", format!("{admin}:{port}"))
            .drop_first_admin()
            .start();
        asks(at(served, port));
        let other = if served == "::1" { "127.0.0.1" } else { "::1" };
        let mut scrape = Client::connect(at(other, port));
        scrape.say("GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = scrape.rest().0;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        drop(server);
    }
}

#[test]
fn an_ipv4_client_of_an_ipv6_listener_is_known_by_its_ipv4_address() {
    let port = free_port();
    let server = Program::new()
        .without_echo()
        .arg("--listen", format!("hello=tcp://[::]:{port}"))
        .arg("--max-line", 4)
        .flag("-v")
        .start();
    let mut client = Client::connect(at("127.0.0.1", port));
    client.say("too long\n");
    assert_eq!(client.end(), End::Fin);
    let peer = format!("peer={}", client.stream().local_addr().unwrap());
    server.signal(Signal::TERM);
    let (code, stderr) = server.ended();
    assert_eq!(code, Some(0));
    assert!(peer.starts_with("peer=127.0.0.1:") && stderr.contains(&peer), "{peer} is not in {stderr}");
}

/// A file that goes with the test.
struct Config(std::path::PathBuf);

impl Config {
    fn new(text: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("tidegate-listeners-{}-{number}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn arg(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn each_listener_of_a_file_keeps_its_own_time_and_the_flat_key_is_for_the_others() {
    let config = Config::new(
        "idle-timeout = \"1500ms\"\n\
         listen = \"echo=tcp://127.0.0.1:0\"\n\
         [[listener]]\nlisten = \"echo=tcp://127.0.0.1:0\"\nidle-timeout = \"300ms\"\n\
         [[listener]]\nlisten = \"echo=tcp://127.0.0.1:0\"\nidle-timeout = \"60s\"\n",
    );
    let server = Program::new().without_echo().arg("--config", config.arg()).start();
    let [flat, short, long] = server.addresses()[..] else { panic!("{:?}", server.addresses()) };
    let mut patient = Client::connect(long);
    for (address, at_least, at_most) in [(short, 300, 1400), (flat, 1500, 3000)] {
        let began = Instant::now();
        let mut client = Client::connect(address);
        client.say("x").hear("x");
        assert_eq!(client.end(), End::Fin);
        let waited = began.elapsed();
        let bounds = Duration::from_millis(at_least)..Duration::from_millis(at_most);
        assert!(bounds.contains(&waited), "{waited:?} is not within {bounds:?}");
    }
    patient.say("x").hear("x");
}

#[test]
fn where_to_listen_on_the_command_line_replaces_all_of_the_file() {
    let config = Config::new("[[listener]]\nlisten = \"time=tcp://127.0.0.1:0\"\nidle-timeout = \"1s\"\n");
    let server = Program::new().arg("--config", config.arg()).start();
    assert_eq!(server.addresses().len(), 1);
    server.client().say("x").hear("x");
}

#[test]
fn check_shows_what_each_listener_has() {
    let config = Config::new(
        "queue = 20\n[[listener]]\nlisten = \"echo=tcp://127.0.0.1:7001\"\nidle-timeout = \"1s\"\nbacklog = 77\n\
         [[listener]]\nlisten = [\"hello=tcp://127.0.0.1:7002\", \"time=tcp://127.0.0.1:7003\"]\noverload = \"drop-oldest\"\nmax-connections = 30\n",
    );
    let output = run(["check", "--config", config.arg()]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = stdout.split_whitespace().collect();
    let shown = words.join(" ");
    for listener in [
        "echo tcp://127.0.0.1:7001 queue 20 max-connections 10000 backlog 77 overload reject queue-timeout 5s idle-timeout 1s",
        "hello tcp://127.0.0.1:7002 queue 20 max-connections 30 backlog auto overload drop-oldest queue-timeout 5s idle-timeout 60s",
        "time tcp://127.0.0.1:7003 queue 20 max-connections 30 backlog auto overload drop-oldest queue-timeout 5s idle-timeout 60s",
    ] {
        assert!(shown.contains(listener), "`{listener}` is not in {stdout}");
    }
}

#[test]
fn check_shows_what_each_gate_has() {
    let config = Config::new(
        "backend-connections = 7\nsend-proxy = \"v2\"\nready-needs-backend = true\n\
         [[listener]]\nlisten = \"proxy:127.0.0.1:9=tcp://127.0.0.1:7001\"\nbackend-total = 5\nidle-timeout = \"1h\"\n\
         [[listener]]\nlisten = \"proxy:unix:/a,unix:/b=tcp://127.0.0.1:7002\"\nready-needs-backend = false\n",
    );
    let output = run(["check", "--config", config.arg()]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let shown = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for gate in [
        "backend-connections 7 backend-total 5 backend-connect accept backend-connect-timeout 2s backend-check 2s \
         ready-needs-backend true backend-resolve 30s idle-timeout 3600s half-close-timeout 60s send-proxy v2",
        "backend-connections 7 backend-total auto backend-connect accept \
         backend-connect-timeout 2s backend-check off ready-needs-backend false backend-resolve 30s idle-timeout 600s \
         half-close-timeout 60s send-proxy v2",
    ] {
        assert!(shown.contains(gate), "`{gate}` is not in {stdout}");
    }
}

#[test]
fn what_a_listener_cannot_have_of_its_own_is_said_with_its_place() {
    let listen = "[[listener]]\nlisten = \"echo=tcp://127.0.0.1:7\"\n";
    for (text, words) in [
        (format!("{listen}workers = 3"), &["line 3", "`workers`", "same for all listeners"][..]),
        (format!("{listen}{listen}admin = \"off\""), &["line 5", "`admin`", "same for all listeners"]),
        (format!("{listen}wokers = 3"), &["line 3", "`wokers`", "not an option"]),
        (format!("{listen}idle-timeout = 3"), &["line 3", "`idle-timeout`", "unit"]),
        (format!("{listen}idle-timeout = \"0s\""), &["127.0.0.1:7", "idle-timeout is 0s"]),
        (format!("{listen}busy-reply = 'no\\x'"), &["escape"]),
        (format!("{listen}listener = 3"), &["`listener`"]),
        ("[[listener]]\nidle-timeout = \"1s\"".to_owned(), &["line 1", "`listen`"]),
        ("listener = 3".to_owned(), &["[[listener]]"]),
        ("[listener]\nlisten = \"echo=tcp://127.0.0.1:7\"".to_owned(), &["[[listener]]"]),
        (
            "[[listener]]\nlisten = \"time=udp://127.0.0.1:7\"\nidle-timeout = \"1s\"".to_owned(),
            &["datagrams"],
        ),
    ] {
        let config = Config::new(&text);
        let output = run(["check", "--config", config.arg()]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "`{word}` is not said in: {stderr}");
        }
    }
}

/// One worker that is busy, one place that is taken: the next newcomer of each listener is refused in its own way.
#[test]
fn each_listener_refuses_in_its_own_way() {
    let gate = Gate::new();
    let listen = || Listen::new("127.0.0.1:0", Held(gate.clone())).unwrap();
    let handle = Server::builder()
        .limits(Limits::default().max_connections(50).refusal_rate(tidegate::RefusalRate::All))
        .workers(1)
        .queue(1)
        .listener(listen())
        .listener(listen().busy_reply("come back\n"))
        .listener(listen().limits(|limits| limits.overload(Overload::DropOldest)))
        .busy_reply("full\n")
        .bind()
        .unwrap()
        .serve()
        .unwrap();
    let addresses: Vec<_> = handle.addresses().iter().filter_map(|at| at.ip()).collect();
    let [plain, own, drops] = addresses[..] else { panic!() };
    let mut served = Client::connect(plain);
    served.say("a");
    support::eventually("it has the worker", || (handle.stats().workers_busy == 1).then_some(()));
    let mut waits = Client::connect(plain);
    waits.say("b");
    support::eventually("it waits", || (handle.stats().queue_length == 1).then_some(()));
    assert_eq!(Client::connect(plain).rest(), (b"full\n".to_vec(), End::Fin));
    assert_eq!(Client::connect(own).rest(), (b"come back\n".to_vec(), End::Fin));
    let mut newest = Client::connect(drops);
    newest.say("c");
    assert_eq!(waits.rest().0, b"full\n".to_vec(), "the one that waited longest is refused instead");
    gate.open();
    served.hear("a");
    newest.hear("c");
}

#[test]
fn a_limit_that_all_listeners_share_is_an_error_at_one() {
    let listen = Listen::new("127.0.0.1:0", Echo).unwrap().limits(|limits| limits.workers(3));
    let error = Server::builder().listener(listen).bind().unwrap_err().to_string();
    assert_eq!(error, "listener 127.0.0.1:0: workers is the same for all listeners");
}
