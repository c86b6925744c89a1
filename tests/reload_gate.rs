//! SIGHUP at a gate: backends come and go, places and times change, and no client is lost for it.
#![cfg(target_os = "linux")]

#[path = "support/configuration.rs"]
mod configuration;
mod support;

use configuration::{Configuration, conserved, reload, status};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;
use support::{Client, End, PATIENCE, Program, Running, command, eventually, path, throughout};

/// A backend whose connections the test holds in its hands.
struct Backend(TcpListener);

impl Backend {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn name(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    #[track_caller]
    fn accept(&self) -> TcpStream {
        let stream = eventually("the gate connects", || self.0.accept().ok()).0;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Whether nobody has connected.
    fn is_left_alone(&self) -> bool {
        matches!(self.0.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// A configuration of a gate before these backends, with more lines.
fn gate(backends: &[&str], scheme: &str, more: &str) -> String {
    format!("{more}\nlisten = \"proxy:{}={scheme}://127.0.0.1:0\"\n", backends.join(","))
}

/// What is said of the gate, once it is seen that no place is lost.
#[track_caller]
fn seen(server: &Running) -> Value {
    let all = status(server);
    conserved(&all);
    let gate = all["listeners"][0]["gate"].clone();
    let number = |of: &Value, name: &str| of[name].as_u64().unwrap_or_else(|| panic!("{name} in {of}"));
    let whole = |of: &Value| number(of, "taken") == number(of, "given_back") + number(of, "in_use");
    assert!(whole(&gate), "{gate}");
    let mut in_use = 0;
    for backend in gate["backends"].as_array().unwrap() {
        assert!(whole(backend), "{backend}");
        in_use += number(backend, "in_use");
    }
    assert_eq!(in_use, number(&gate, "in_use"), "{gate}");
    gate
}

/// What is said of one backend, if it is known.
fn backend(server: &Running, name: &str) -> Option<Value> {
    let all = seen(server)["backends"].as_array().unwrap().clone();
    all.into_iter().find(|backend| backend["backend"] == name)
}

/// A client and its backend's side of the pair.
#[track_caller]
fn pair(server: &Running, backend: &Backend) -> (Client, TcpStream) {
    let client = server.client();
    (client, backend.accept())
}

#[track_caller]
fn talks((client, peer): &mut (Client, TcpStream)) {
    client.say("ping");
    let mut heard = [0; 4];
    peer.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ping");
    peer.write_all(b"pong").unwrap();
    client.hear("pong");
}

#[test]
fn a_pair_at_a_removed_backend_goes_on_and_no_other_comes_there() {
    let (one, two) = (Backend::new(), Backend::new());
    let file = Configuration::new("gone", &gate(&[&one.name()], "tcp", ""));
    let server = file.program().without_echo().start();
    let mut stays = pair(&server, &one);
    talks(&mut stays);
    file.write(&gate(&[&two.name()], "tcp", ""));
    let said = reload(&server);
    let url = format!("tcp://{}", server.address());
    assert!(
        said.ends_with(&format!("read again: backends {} -> {} at {url}", one.name(), two.name())),
        "{said}"
    );
    for _ in 0..5 {
        let mut next = pair(&server, &two);
        talks(&mut next);
        talks(&mut stays);
    }
    assert!(one.is_left_alone());
    let leaving = backend(&server, &one.name()).expect("it is there while it has a connection");
    assert_eq!(
        (&leaving["leaving"], &leaving["in_use"], &leaving["taken"]),
        (&true.into(), &1.into(), &1.into())
    );
    // Back again: the pair of before is counted there.
    file.write(&gate(&[&one.name()], "tcp", "backend-connections = 2"));
    let said = reload(&server);
    assert!(said.contains("backends") && said.contains("backend-connections 100 -> 2 at"), "{said}");
    let mut back = pair(&server, &one);
    talks(&mut back);
    let waits = server.client();
    eventually("two are all that it may have", || (seen(&server)["waiting"] == 1).then_some(()));
    drop(waits);
    eventually("it has left", || (seen(&server)["waiting"] == 0).then_some(()));
    drop(back);
    file.write(&gate(&[&two.name()], "tcp", "backend-connections = 2"));
    reload(&server);
    talks(&mut stays);
    stays.0.finish();
    assert_eq!(stays.1.read(&mut [0]).unwrap(), 0);
    drop(stays);
    eventually("it is forgotten with its last connection", || {
        backend(&server, &one.name()).is_none().then_some(())
    });
}

#[test]
fn places_are_more_and_fewer_at_once_for_those_that_wait() {
    let one = Backend::new();
    let text = |more: &str| gate(&[&one.name()], "tcp", more);
    let file = Configuration::new("places", &text("backend-connections = 1"));
    let server = file.program().without_echo().start();
    let mut first = pair(&server, &one);
    talks(&mut first);
    let waits = server.client();
    eventually("the second waits", || (seen(&server)["waiting"] == 1).then_some(()));
    assert!(one.is_left_alone());
    file.write(&text("backend-connections = 3"));
    reload(&server);
    let mut second = (waits, one.accept());
    talks(&mut second);
    file.write(&text("backend-connections = 3\nbackend-total = 1"));
    let said = reload(&server);
    assert!(said.contains("backend-total auto -> 1 at"), "{said}");
    assert_eq!(seen(&server)["in_use"], 2, "those that have a place keep it");
    let third = server.client();
    eventually("the third waits", || (seen(&server)["waiting"] == 1).then_some(()));
    drop(first);
    talks(&mut second);
    assert!(one.is_left_alone(), "one is as many as there may be");
    drop(second);
    talks(&mut (third, one.accept()));
}

#[test]
fn a_silent_pair_has_the_new_time_at_once_and_others_go_on() {
    let one = Backend::new();
    let text = |more: &str| gate(&[&one.name()], "tcp", more);
    let file = Configuration::new("silent", &text("idle-timeout = \"1h\"\nhalf-close-timeout = \"1h\""));
    let server = file.program().without_echo().start();
    let (mut silent, mut half) = (pair(&server, &one), pair(&server, &one));
    talks(&mut silent);
    talks(&mut half);
    half.0.finish();
    assert_eq!(half.1.read(&mut [0]).unwrap(), 0);
    file.write(&text("idle-timeout = \"1h\"\nhalf-close-timeout = \"50ms\""));
    let said = reload(&server);
    assert!(said.contains("half-close-timeout 3600s -> 50ms at"), "{said}");
    assert_eq!(half.0.end(), End::Fin, "it is half closed");
    talks(&mut silent);
    file.write(&text("idle-timeout = \"50ms\"\nhalf-close-timeout = \"50ms\""));
    reload(&server);
    assert_eq!(silent.0.end(), End::Fin);
    assert_eq!(seen(&server)["in_use"], 0);
}

/// Checks and another time for names begin at a gate that had nothing of the kind.
#[test]
fn checks_begin_and_end_at_a_reload() {
    let one = Backend::new();
    let name = one.name();
    let file = Configuration::new("checks", &gate(&[&name], "tcp", ""));
    let server = file.program().without_echo().start();
    let mut first = pair(&server, &one);
    talks(&mut first);
    file.write(&gate(&[&name], "tcp", "backend-check = \"10ms\"\nready-needs-backend = true"));
    let said = reload(&server);
    assert!(
        said.contains("backend-check off -> 10ms") && said.contains("ready-needs-backend false -> true"),
        "{said}"
    );
    let checked = one.accept();
    drop((checked, one));
    eventually("a check finds that it is gone", || (backend(&server, &name)?["up"] == false).then_some(()));
    talks(&mut first);
    file.write(&gate(&[&name], "tcp", ""));
    reload(&server);
    let failures = |server: &Running| -> u64 {
        let failures = backend(server, &name).unwrap()["failures"].clone();
        failures.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
    };
    // A check may be under way.
    let before = eventually("the last check is over", || {
        let before = failures(&server);
        std::thread::sleep(Duration::from_millis(100));
        (failures(&server) == before).then_some(before)
    });
    throughout(Duration::from_millis(200), "nobody checks", || failures(&server) == before);
}

/// Answers each request on each of its connections with its name.
fn http_backend() -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = listener.local_addr().unwrap().to_string();
    let word = name.clone();
    let serve = move |mut stream: TcpStream| {
        let mut heard = Vec::new();
        let mut piece = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            heard.extend_from_slice(&piece[..read]);
            while let Some(end) = heard.windows(4).position(|four| four == b"\r\n\r\n") {
                heard.drain(..end + 4);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{word}", word.len());
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        }
    };
    let accepts = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    (name, accepts)
}

/// Connections that a process has with this address, open at both ends.
fn connections_to(server: &Running, name: &str) -> usize {
    let port: u16 = name.rsplit_once(':').unwrap().1.parse().unwrap();
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", server.pid())).unwrap();
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mine = lines.filter(|fields| fields[2].ends_with(&format!(":{port:04X}")) && fields[3] == "01");
    mine.count()
}

#[test]
fn a_gate_for_http_closes_its_spare_connections_to_a_removed_backend() {
    let ((one, _one), (two, _two)) = (http_backend(), http_backend());
    let file = Configuration::new("spares", &gate(&[&one], "http", ""));
    let server = file.program().without_echo().start();
    let address = server.listening(&format!("proxy:{one} on http"));
    let mut client = Client::connect(address);
    let mut asked = || client.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").text().to_owned();
    assert_eq!(asked(), one);
    assert_eq!(connections_to(&server, &one), 1, "a spare one");
    file.write(&gate(&[&two], "http", "backend-timeout = \"7s\"\ntrust-forwarded = \"10.0.0.0/8\""));
    let said = reload(&server);
    for part in ["backends ", "backend-timeout 60s -> 7s at http://", "trust-forwarded off -> 10.0.0.0/8 at"]
    {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(connections_to(&server, &one), 0);
    assert_eq!(asked(), two);
    file.write(&gate(&[&two, &one], "http", "backend-idle = \"0s\""));
    reload(&server);
    let mut both: Vec<_> = (0..4).map(|_| asked()).collect();
    both.sort_unstable();
    both.dedup();
    assert_eq!(both.len(), 2);
    eventually("none is kept", || {
        (connections_to(&server, &one) + connections_to(&server, &two) == 0).then_some(())
    });
}

#[test]
fn a_gate_with_a_mistake_changes_nothing() {
    let (one, two) = (Backend::new(), Backend::new());
    let good = gate(&[&one.name()], "tcp", "idle-timeout = \"1h\"");
    let file = Configuration::new("wrong", &good);
    let server = file.program().without_echo().start();
    let mut first = pair(&server, &one);
    for (text, why) in [
        (gate(&[&two.name(), "nowhere.invalid:80"], "tcp", ""), "cannot resolve nowhere.invalid"),
        (gate(&[&two.name(), "here"], "tcp", ""), "`here` is not a backend"),
        (gate(&[&two.name()], "tcp", "backend-connections = 0"), "`backend-connections`: "),
        (
            gate(&[&two.name()], "tcp", "max-line = \"2MiB\""),
            "max-line is 2MiB and output-per-connection is 1MiB",
        ),
        (
            gate(&[&two.name()], "tcp", "accept-proxy = \"127.0.0.1\""),
            "`accept-proxy` takes effect at a restart",
        ),
    ] {
        file.write(&text);
        let said = reload(&server);
        assert!(said.contains("nothing has changed: ") && said.contains(why), "{said}");
        talks(&mut first);
        let mut next = pair(&server, &one);
        talks(&mut next);
        assert!(two.is_left_alone());
    }
    file.write(&good);
    assert!(reload(&server).ends_with("nothing has changed"));
}

/// The load generator goes through the gate while its backends, their places and its times change again and again, and
/// while pairs stand at backends that come and go: no client is lost, and every reading of the counts adds up.
#[test]
fn no_client_is_lost_while_backends_come_and_go() {
    let servers: Vec<Running> = (0..3).map(|_| Program::new().start()).collect();
    let names: Vec<String> = servers.iter().map(|server| server.address().to_string()).collect();
    let sets: [&[usize]; 5] = [&[0], &[1, 2], &[2, 0], &[1], &[0, 1, 2]];
    let text = |round: usize| {
        let backends: Vec<_> = sets[round % 5].iter().map(|&at| names[at].as_str()).collect();
        let more = format!(
            "backend-connections = {}\nbackend-connect-timeout = \"{}s\"\nidle-timeout = \"{}s\"\n\
             half-close-timeout = \"{}s\"\nbackend-check = \"{}ms\"\nqueue-timeout = \"10s\"",
            100 + round % 7,
            5 + round % 2,
            600 + round % 3,
            60 + round % 2,
            50 + round % 2 * 1000,
        );
        gate(&backends, "tcp", &more)
    };
    let file = Configuration::new("load", &text(0));
    let server = file.program().without_echo().arg("--queue", 1000).start();
    let mut stress = command(path());
    let target = format!("tcp://{}", server.address());
    stress.args(["stress", &target, "-c", "30", "-r", "1000", "-d", "4s", "--reuse", "3", "--warmup", "0s"]);
    stress.args(["--output", "json"]);
    let mut load = Running::of(stress.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut standing: Vec<Client> = Vec::new();
    for round in 1..=30 {
        file.write(&text(round));
        let said = reload(&server);
        assert!(said.contains(" INFO ") && said.contains("backends"), "{said}");
        standing.push(server.client());
        for client in &mut standing {
            client.say("x").hear("x");
        }
        let gate = seen(&server);
        let present = gate["backends"].as_array().unwrap().iter().filter(|one| one["leaving"] == false);
        assert_eq!(present.count(), sets[round % 5].len(), "{gate}");
        std::thread::sleep(Duration::from_millis(60));
    }
    load.ended_well();
    drop(standing);
    eventually("every place is given back", || (seen(&server)["in_use"] == 0).then_some(()));
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}
