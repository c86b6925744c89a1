//! Listeners that open and close at SIGHUP: all of what the file says or nothing, no client is lost, and what is counted adds
//! up throughout.
#![cfg(target_os = "linux")]

#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/configuration.rs"]
mod configuration;
mod support;

use certificate::Certificate;
use configuration::{Configuration, address, admin, conserved, listen, listener, reload, status};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use support::{Client, End, Folder, PATIENCE, Running, command, eventually, path, run};

const ECHO: &str = "echo=tcp://127.0.0.1:0";
const HELLO: &str = "hello=tcp://127.0.0.1:0";

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn a_listener_opens_closes_and_opens_again_and_keeps_its_counts() {
    let file = Configuration::new("relisten", &listen(&[ECHO]));
    let server = file.program().without_echo().start();
    let table = "[[listener]]\nlisten = \"hello=tcp://127.0.0.1:0\"\nmax-connections = 2\nbusy-reply = \"later\\n\"\n";
    file.write(&[&listen(&[ECHO]), table].concat());
    let said = reload(&server);
    assert!(said.ends_with("read again: hello=tcp://127.0.0.1:0 opens"), "{said}");
    let hello = address(&server, 1);
    let mut standing = Client::connect(hello);
    standing.say("you\n").hear("hello you\n");
    assert!(reload(&server).ends_with("nothing has changed"));

    file.write(&listen(&[ECHO]));
    let said = reload(&server);
    assert!(said.ends_with("read again: hello=tcp://127.0.0.1:0 closes"), "{said}");
    assert!(is_refused(hello), "newcomers are refused when the log says that it is closed");
    standing.say("there\n").hear("hello there\n");
    eventually("its turn is over", || (listener(&server, 1)["idle"] == 1).then_some(()));
    let closed = listener(&server, 1);
    assert_eq!(
        (&closed["listening"], &closed["idle"], &closed["accepted"]),
        (&false.into(), &1.into(), &1.into())
    );
    assert_eq!(closed["backlog"], Value::Null);
    let page = admin(&server, "/status");
    assert!(page.text().contains("closed"));
    let metrics = admin(&server, "/metrics");
    let counted = format!("tidegate_connections_accepted_total{{listener=\"tcp://{hello}\"}} 1\n");
    assert!(metrics.text().contains(&counted), "{}", metrics.text());

    file.write(&[&listen(&[ECHO]), table].concat());
    let said = reload(&server);
    assert!(said.ends_with("read again: hello=tcp://127.0.0.1:0 opens"), "{said}");
    assert_eq!(address(&server, 1), hello, "it is where it was");
    let mut again = Client::connect(hello);
    again.say("again\n").hear("hello again\n");
    standing.say("still\n").hear("hello still\n");
    let open = listener(&server, 1);
    assert_eq!((&open["listening"], &open["accepted"]), (&true.into(), &2.into()));
    assert_eq!(status(&server)["listeners"].as_array().unwrap().len(), 2);
    let (words, end) = Client::connect(hello).rest();
    assert_eq!((words.as_slice(), end), (&b"later\n"[..], End::Fin), "what is its own is in force");
    conserved(&status(&server));
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_listener_that_cannot_be_opened_is_named_and_nothing_changes() {
    let file = Configuration::new("busy", &format!("idle-timeout = \"1h\"\n{}", listen(&[ECHO])));
    let server = file.program().without_echo().arg("--listeners-ceiling", 3).start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap();
    let echo = address(&server, 0);
    let busy = format!("hello=tcp://{busy}");
    let elsewhere = format!("hello=tcp://{echo}");
    for (listeners, why) in [
        (vec![ECHO, HELLO, &busy], "the address is in use: end what listens there"),
        (vec![ECHO, &elsewhere], "the address is in use: end what listens there"),
        (vec![&elsewhere], "is where another one was since the start: it opens at a restart"),
        (vec![ECHO, HELLO, HELLO, HELLO], "more than 3: until a restart there can be 3 at most"),
    ] {
        file.write(&format!("idle-timeout = \"2h\"\n{}", listen(&listeners)));
        let said = reload(&server);
        assert!(
            said.contains("ERROR") && said.contains("nothing has changed: ") && said.contains(why),
            "{said}"
        );
        let status = status(&server);
        assert_eq!(status["listeners"].as_array().unwrap().len(), 1, "{listeners:?}");
        assert_eq!(status["limits"]["idle-timeout"], "3600s", "{listeners:?}");
        server.client().say("x").hear("x");
    }
    drop(taken);
    file.write(&listen(&[ECHO, HELLO, &busy]));
    let said = reload(&server);
    assert!(
        said.contains("hello=tcp://127.0.0.1:0 opens, ") && said.contains(&format!("{busy} opens")),
        "{said}"
    );
    file.write(&listen(&[ECHO, &busy, "time=tcp://127.0.0.1:0"]));
    assert!(reload(&server).contains("more than 3"), "a closed one keeps its seat");
    Client::connect(address(&server, 2)).say("x\n").hear("hello x\n");
}

/// The load generator goes on at one listener while another opens and closes: no client is lost at either, whoever has
/// connected has its reply, and every reading of the counts adds up.
#[test]
fn no_client_is_lost_while_a_listener_opens_and_closes_ten_times_under_load() {
    let file = Configuration::new("relisten-load", &listen(&[ECHO]));
    let server = file.program().without_echo().arg("--queue", 1000).start();
    let mut stress = command(path());
    let target = format!("tcp://{}", server.address());
    stress.args(["stress", &target, "-c", "20", "-r", "300", "-d", "6s", "--reuse", "5", "--warmup", "0s"]);
    stress.args(["--output", "json"]);
    let mut load = Running::of(stress.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    file.write(&listen(&[ECHO, HELLO]));
    reload(&server);
    let hello = address(&server, 1);
    let (over, served) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    visit(hello, &served);
                }
            });
        }
        for round in 0..10 {
            let before = served.load(Ordering::Relaxed);
            let until = Instant::now() + PATIENCE;
            while served.load(Ordering::Relaxed) < before + 20 {
                assert!(Instant::now() < until, "nobody is served in round {round}");
                conserved(&status(&server));
            }
            let mut standing = Client::connect(hello);
            standing.say("half");
            file.write(&listen(&[ECHO]));
            assert!(reload(&server).ends_with("closes"));
            conserved(&status(&server));
            standing.say(" a line\n").hear("hello half a line\n");
            file.write(&listen(&[ECHO, HELLO]));
            assert!(reload(&server).ends_with("opens"));
            conserved(&status(&server));
        }
        over.store(true, Ordering::Relaxed);
    });
    // On a busy machine the generator falls behind by itself.
    load.ended_well();
    let seen = status(&server);
    conserved(&seen);
    assert!(seen["listeners"][1]["accepted"].as_u64().unwrap() >= 200, "{}", seen["listeners"][1]);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

/// A client that comes once. While the listener is closed it finds nobody; if it could connect it has its answer.
fn visit(address: SocketAddr, served: &AtomicU32) {
    let Ok(mut client) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) else { return };
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 8];
    let talk = client.write_all(b"x\n").and_then(|()| client.read_exact(&mut answer));
    talk.expect("whoever has connected is served");
    assert_eq!(&answer, b"hello x\n");
    served.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn the_last_clients_of_a_closed_listener_go_on_until_the_drain_timeout_and_then_end() {
    let text = |listeners| format!("drain-timeout = \"2s\"\nwork = \"sleep:3s\"\n{}", listen(listeners));
    let file = Configuration::new("last", &text(&[ECHO, "work=tcp://127.0.0.1:0"]));
    let server = file.program().without_echo().start();
    let work = address(&server, 1);
    let (mut idle, mut at_work) = (Client::connect(work), Client::connect(work));
    eventually("both are there", || (listener(&server, 1)["idle"] == 2).then_some(()));
    file.write(&text(&[ECHO]));
    let closed_at = Instant::now();
    assert!(reload(&server).ends_with("closes"));
    let mut other = server.client();
    at_work.say("x\n");
    assert_eq!(idle.end(), End::Fin);
    let after = closed_at.elapsed();
    assert!(after >= Duration::from_secs(2), "it was ended after {after:?}");
    at_work.hear("x\n");
    assert_eq!(at_work.end(), End::Fin, "it ends when its request is answered");
    eventually("nobody is left there", || (listener(&server, 1)["idle"] == 0).then_some(()));
    assert_eq!(listener(&server, 1)["closed"]["shutdown"], 2);
    other.say("x").hear("x");
    conserved(&status(&server));
}

/// One whose turn began when its listener's last clients were to end is told nothing of that later.
#[test]
fn a_client_whose_listener_opens_again_before_it_ended_goes_on_as_before() {
    let text = |listeners: &[&str]| {
        format!("drain-timeout = \"50ms\"\nwork = \"sleep:2s\"\nworkers = 1\n{}", listen(listeners))
    };
    let work = "work=tcp://127.0.0.1:0";
    let file = Configuration::new("comes-back", &text(&[ECHO, work]));
    let server = file.program().without_echo().start();
    let mut clients = [(); 2].map(|()| Client::connect(address(&server, 1)));
    clients[0].say("first\n");
    eventually("its turn has begun", || (listener(&server, 1)["active"] == 1).then_some(()));
    clients[1].say("second\n");
    file.write(&text(&[ECHO]));
    assert!(reload(&server).ends_with("closes"));
    clients[0].hear("first\n");
    assert_eq!(clients[0].end(), End::Fin, "it is to end");
    file.write(&text(&[ECHO, work]));
    assert!(reload(&server).ends_with("opens"));
    clients[1].hear("second\n").say("third\n").hear("third\n");
    conserved(&status(&server));
}

#[test]
fn a_listener_of_any_kind_for_connections_opens_and_closes() {
    let (folder, certificate) = (Folder::new("relisten-kinds"), Certificate::new(&["localhost"], 2090));
    let files = certificate.files();
    let socket = folder.0.join("echo.sock");
    let file = Configuration::new("kinds", &listen(&[ECHO]));
    let server = file.program().without_echo().start();
    let gate = format!("proxy:{}=tcp://127.0.0.1:0", server.address());
    let unix = format!("echo=unix:{}", socket.display());
    let with = format!(
        "{}tls-cert = \"{}\"\ntls-key = \"{}\"\n",
        listen(&[ECHO, "time=http://127.0.0.1:0", "echo=tls://127.0.0.1:0", &gate, &unix]),
        files.certificate.display(),
        files.key.display()
    );
    for round in 0..2 {
        file.write(&with);
        let said = reload(&server);
        assert_eq!(said.matches(" opens").count(), 4, "{said}");
        let mut standing = Client::connect(address(&server, 3));
        standing.say("x").hear("x");
        let mut page = Client::connect(address(&server, 1));
        assert_eq!(page.get("/").status, 200);
        let mut inside = UnixStream::connect(&socket).unwrap();
        inside.write_all(b"x").unwrap();
        let url = format!("tls://localhost:{}", address(&server, 2).port());
        let data = ["client", &url, "--data", "inside", "--cacert", files.certificate.to_str().unwrap()];
        let Output { status: ended, stdout, stderr, .. } = run(data);
        let said = String::from_utf8_lossy(&stdout);
        assert!(ended.success() && said.contains("inside"), "{said}{}", String::from_utf8_lossy(&stderr));
        assert!(status(&server)["listeners"][3]["gate"].is_object());
        file.write(&listen(&[ECHO]));
        let said = reload(&server);
        assert_eq!(said.matches(" closes").count(), 4, "{said}");
        assert!(!socket.exists(), "its file is gone with it");
        for position in 1..4 {
            assert!(is_refused(address(&server, position)), "{position} in round {round}");
        }
        standing.say("y").hear("y");
        let mut answer = [0; 1];
        inside.read_exact(&mut answer).unwrap();
        conserved(&status(&server));
        assert!(status(&server)["listeners"][3]["gate"].is_object(), "a pair is there");
        drop((standing, page, inside));
        eventually("its last client has left", || {
            status(&server)["listeners"][3]["gate"].is_null().then_some(())
        });
        admin(&server, "/readyz");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_check_against_the_server_says_what_opens_and_closes_and_what_cannot() {
    let folder = Folder::new("relisten-against");
    let file = folder.write("tidegate.toml", &listen(&[ECHO, HELLO]));
    let server = configuration::Configuration(file.clone().into());
    let program = server.program().without_echo().arg("--listeners-ceiling", 3);
    let running = program.start();
    let against = |text: &str| {
        let new = folder.write("new.toml", text);
        let checked = run(["check", "--config", &new, "--against", &running.admin().to_string()]);
        (checked.status.code(), String::from_utf8(checked.stdout).unwrap())
    };
    let (code, said) = against(&listen(&[HELLO, ECHO]));
    assert_eq!((code, said.as_str()), (Some(0), "a reload would change nothing\n"), "the order says nothing");
    let (code, said) = against(&listen(&[ECHO, "time=tcp://127.0.0.1:0"]));
    assert_eq!(code, Some(0), "{said}");
    let rows: Vec<_> = said.lines().map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        rows,
        [
            "listen closed -> open at time=tcp://127.0.0.1:0 live",
            "listen open -> closed at hello=tcp://127.0.0.1:0 live",
            "a reload would change this at once",
        ]
    );
    let (code, said) = against(&listen(&[ECHO, HELLO, "time=tcp://127.0.0.1:0", "time=http://127.0.0.1:0"]));
    assert!(code == Some(4) && said.contains("needs a restart") && said.contains("more than 3"), "{said}");
    let (code, said) = against(&listen(&[ECHO, HELLO, "time=udp://127.0.0.1:0"]));
    assert!(code == Some(0) && said.contains("closed -> open at time=udp://127.0.0.1:0"), "{said}");
    let hello = address(&running, 1);
    server.write(&listen(&[ECHO]));
    assert!(reload(&running).ends_with("closes"));
    let again = format!("hello=tcp://{hello}");
    let (code, said) = against(&listen(&[ECHO, &again]));
    assert!(code == Some(0) && said.contains(&format!("closed -> open at {again}")), "{said}");
    let (code, said) = against(&listen(&[ECHO, &format!("echo=tcp://{hello}")]));
    assert!(code == Some(4) && said.contains("is where another one was"), "{said}");
}

/// /status shows what differs from the limits of the server, and follows a reload.
#[test]
fn the_status_shows_the_limits_that_a_listener_has_of_its_own() {
    let own = "queue = 5\nmax-connections = 6\nbacklog = 7\noverload = \"drop-oldest\"\nqueue-timeout = \"8s\"\nidle-timeout = \"9s\"\n";
    let table = |own: &str| format!("[[listener]]\nlisten = {HELLO:?}\n{own}");
    let text = |own: &str| [&listen(&[ECHO]), table(own).as_str()].concat();
    let file = Configuration::new("own", &text(own));
    let server = file.program().without_echo().start();
    let limits = |position: usize| listener(&server, position)["limits"].clone();
    let row = |position: usize| status(&server)["view"]["rows"]["listeners"][position][8].clone();
    let shown = serde_json::json!({
        "queue": "5", "max-connections": "6", "backlog": "7", "overload": "drop-oldest", "queue-timeout": "8s",
        "idle-timeout": "9s",
    });
    assert_eq!((limits(0), limits(1)), (serde_json::json!({}), shown));
    let all =
        "queue 5, overload drop-oldest, max-connections 6, queue-timeout 8s, idle-timeout 9s, backlog 7";
    let sorted = |text: &str| {
        let mut each: Vec<_> = text.split(", ").map(str::to_owned).collect();
        each.sort_unstable();
        each
    };
    assert_eq!((row(0), sorted(row(1).as_str().unwrap())), ("-".into(), sorted(all)));

    // What is now the same as the server's is not shown, and what is another is.
    file.write(&["idle-timeout = \"9s\"\n", &text("idle-timeout = \"9s\"\nmax-connections = 60\n")].concat());
    let said = reload(&server);
    assert!(said.contains("idle-timeout 60s -> 9s"), "{said}");
    assert_eq!(limits(1), serde_json::json!({ "max-connections": "60", "queue": "60" }));
}

/// It is not in the file any more, so nobody could correct what it has.
#[test]
fn what_a_closed_listener_had_of_its_own_is_in_the_way_of_no_lower_limit() {
    let table = format!("[[listener]]\nlisten = {HELLO:?}\nmax-connections = 600\nqueue = 100\n");
    let file = Configuration::new("closed-own", &[&listen(&[ECHO]), table.as_str()].concat());
    let server = file.program().without_echo().start();
    let mut standing = Client::connect(address(&server, 1));
    standing.say("you\n").hear("hello you\n");
    for (connections, queue) in [(500, 50), (400, 40)] {
        let lower = format!("max-connections = {connections}\nqueue = {queue}\n");
        file.write(&[&lower, listen(&[ECHO]).as_str()].concat());
        let said = reload(&server);
        assert!(said.contains(&format!("-> {connections}")), "{said}");
        standing.say("still\n").hear("hello still\n");
    }
    conserved(&status(&server));
}
