//! SIGHUP: the configuration is read again and taken over whole or not at all, certificates too, and no client is lost.
#![cfg(target_os = "linux")]

#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/configuration.rs"]
mod configuration;
mod support;

use certificate::Certificate;
use configuration::{Configuration, admin, conserved, metric, reload, status};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Client, End, PATIENCE, Running, command, eventually, finish, path, throughout};

fn successful(server: &Running) -> bool {
    metric(server, "tidegate_config_last_reload_successful") == 1.0
}

#[test]
fn limits_change_and_the_log_the_metrics_and_the_status_say_so() {
    let file = Configuration::new("limits", "idle-timeout = \"1h\"\nmax-line = \"1KiB\"\n");
    let server = file.program().start();
    let started = metric(&server, "tidegate_config_last_reload_success_timestamp_seconds");
    assert!(started > 1e9 && successful(&server));
    let mut client = server.client();
    client.say("x").hear("x");
    file.write("idle-timeout = \"50ms\"\nmax-line = \"2KiB\"\n");
    let said = reload(&server);
    assert!(said.contains("max-line 1KiB -> 2KiB, idle-timeout 3600s -> 50ms"), "{said}");
    assert_eq!(client.end(), End::Fin, "it is idle for too long now");
    let status = status(&server);
    assert_eq!(
        (&status["limits"]["idle-timeout"], &status["limits"]["max-line"]),
        (&"50ms".into(), &"2KiB".into())
    );
    assert_eq!(status["configuration"]["failure"], Value::Null);
    assert!(metric(&server, "tidegate_config_last_reload_success_timestamp_seconds") >= started);
    let said = reload(&server);
    assert!(said.ends_with("nothing has changed"), "{said}");
    server.client().say("x").hear("x");
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_configuration_with_a_mistake_changes_nothing_and_one_line_says_what_is_wrong() {
    let good = "idle-timeout = \"1h\"\n";
    let file = Configuration::new("mistakes", good);
    let server = file.program().start();
    let mut client = server.client();
    for (text, why) in [
        ("idle-timeout = \"2h\"\nmax-line = \n", "line 2: "),
        ("idle-timeout = \"2h\"\nidle_timeout = \"3h\"\n", "`idle_timeout` is not an option"),
        ("idle-timeout = \"2h\"\nmax-line = \"1EB\"\n", "`max-line`: "),
        ("idle-timeout = \"0s\"\n", "idle-timeout is 0s: it must be from 1ms to 30d"),
        (
            "idle-timeout = \"2h\"\nmax-line = \"2MiB\"\n",
            "max-line is 2MiB and output-per-connection is 1MiB",
        ),
        ("idle-timeout = \"2h\"\nbusy-reply = '\\q'\n", "\\q"),
    ] {
        file.write(text);
        let said = reload(&server);
        assert!(
            said.contains("ERROR") && said.contains("nothing has changed: ") && said.contains(why),
            "{said}"
        );
        assert!(!successful(&server), "{text}");
        let status = status(&server);
        assert_eq!(status["limits"]["idle-timeout"], "3600s", "{text}");
        let failure = status["configuration"]["failure"].as_str().unwrap();
        assert!(failure.contains(why) && !failure.contains('\n'), "{failure}");
        let page = admin(&server, "/status");
        assert!(page.text().contains("the last reload failed: "));
        client.say("x").hear("x");
    }
    std::fs::remove_file(&file.0).unwrap();
    let said = reload(&server);
    assert!(said.contains("No such file"), "{said}");
    file.write(good);
    let said = reload(&server);
    assert!(said.ends_with("nothing has changed") && successful(&server), "{said}");
    client.say("x").hear("x");
}

#[test]
fn what_takes_effect_at_a_restart_is_named_and_nothing_changes_with_it() {
    let listen = "listen = \"echo=tcp://127.0.0.1:0\"\n";
    let file = Configuration::new("fixed", &format!("worker-nice = 2\nidle-timeout = \"1h\"\n{listen}"));
    let server = file.program().without_echo().start();
    for (text, names) in [
        (format!("worker-nice = 3\nidle-timeout = \"2h\"\n{listen}"), "`worker-nice` takes"),
        (format!("worker-nice = 2\nidle-timeout = \"2h\"\nwork = \"cpu:2ms\"\n{listen}"), "`work` takes"),
        (
            "worker-nice = 3\nlisten = \"hello=tcp://127.0.0.1:0\"\naccess-log = \"/tmp/x\"\npush-every = \"2s\"\n".to_owned(),
            "`access-log`, `push-every` and `worker-nice` take",
        ),
        (format!("worker-nice = 2\n{listen}log-format = \"json\"\n"), "`log-format` takes"),
    ] {
        file.write(&text);
        let said = reload(&server);
        assert!(said.contains(&format!("nothing has changed: {names} effect at a restart")), "{said}");
        assert_eq!(status(&server)["limits"]["idle-timeout"], "3600s", "{text}");
        assert!(!successful(&server));
    }
    server.client().say("x").hear("x");
}

#[test]
fn listeners_may_stand_in_another_order_and_each_goes_on_as_itself() {
    let table = |service: &str, time: &str| {
        format!("[[listener]]\nlisten = \"{service}=tcp://127.0.0.1:0\"\nidle-timeout = \"{time}\"\n")
    };
    let file = Configuration::new("order", &[table("echo", "1h"), table("hello", "2h")].concat());
    let server = file.program().without_echo().start();
    let mut clients =
        ["echo", "hello"].map(|service| Client::connect(server.listening(&format!("{service} on tcp"))));
    file.write(&[table("hello", "2h"), table("echo", "3h")].concat());
    let said = reload(&server);
    let echo = server.listening("echo on tcp");
    assert!(said.ends_with(&format!("read again: idle-timeout 3600s -> 10800s at tcp://{echo}")), "{said}");
    clients[0].say("x\n").hear("x\n");
    clients[1].say("x\n").hear("hello x\n");
    assert_eq!(status(&server)["listeners"][0]["service"], "echo", "they are shown as they were");
}

/// Gives the order over HTTP, with these fields beside it.
fn ask(server: &Running, line: &str, fields: &str) -> support::Reply {
    Client::connect(server.admin()).ask(format!("{line} HTTP/1.1\r\n{fields}\r\n"))
}

#[test]
fn an_order_over_http_does_what_the_signal_does_where_it_is_taken() {
    let file = Configuration::new("order-over-http", "max-line = \"1KiB\"\n");
    let (deaf, server) = (file.program().start(), file.program().flag("--admin-control").start());
    file.write("max-line = \"2KiB\"\n");
    let limit = |server: &Running| status(server)["limits"]["max-line"].clone();
    let host = "Host: localhost\r\n";
    let (refused, page) = (ask(&deaf, "POST /reload", host), format!("{host}Origin: http://localhost\r\n"));
    assert!(refused.status == 403 && refused.text().contains("--admin-control"), "{}", refused.text());
    for (line, fields, status, allow) in [
        ("POST /reload", page.as_str(), 403, None),
        ("POST /reload", "Host: evil.example\r\n", 421, None),
        ("GET /reload", host, 405, Some("POST")),
        ("PUT /reload?now", host, 405, Some("POST")),
        ("POST /status", host, 405, Some("GET, HEAD")),
    ] {
        let answer = ask(&server, line, fields);
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{line}, {fields}");
    }
    assert_eq!([limit(&deaf), limit(&server)], ["1KiB", "1KiB"]);
    let answer = ask(&server, "POST /reload", host);
    assert_eq!((answer.status, answer.header("location")), (202, Some("/status")));
    eventually("the configuration is in force", || (limit(&server) == "2KiB").then_some(()));
    let read_again = "the configuration was read again: max-line 1KiB -> 2KiB";
    eventually("it is logged", || server.stderr().contains(read_again).then_some(()));
    file.write("max-line = \"9\"\nqueue = x\n");
    let answer = ask(&server, "POST /reload", "Host: localhost\r\nContent-Length: 0\r\n");
    assert_eq!(answer.status, 202, "what comes of it is said elsewhere");
    eventually("it is said that nothing has changed", || {
        status(&server)["configuration"]["failure"]
            .as_str()
            .map(|why| assert!(why.contains("line 2"), "{why}"))
    });
    assert_eq!([limit(&deaf), limit(&server)], ["1KiB", "2KiB"]);
}

#[test]
fn the_command_line_and_the_environment_come_first_at_a_reload_too() {
    let file =
        Configuration::new("first", "idle-timeout = \"1h\"\nread-timeout = \"1h\"\nmax-line = \"1KiB\"\n");
    let program = file.program().arg("--idle-timeout", "7s");
    let server = program.prelude("export TIDEGATE_READ_TIMEOUT=8s").start();
    file.write("idle-timeout = \"2h\"\nread-timeout = \"2h\"\nmax-line = \"2KiB\"\n");
    let said = reload(&server);
    assert!(said.ends_with("read again: max-line 1KiB -> 2KiB"), "{said}");
    let limits = &status(&server)["limits"];
    assert_eq!((&limits["idle-timeout"], &limits["read-timeout"]), (&"7s".into(), &"8s".into()));
}

#[test]
fn a_listener_of_its_own_changes_by_itself() {
    let text = |time: &str| {
        format!(
            "idle-timeout = \"1h\"\nlisten = \"echo=tcp://127.0.0.1:0\"\n\
             [[listener]]\nlisten = \"hello=tcp://127.0.0.1:0\"\nidle-timeout = \"{time}\"\n"
        )
    };
    let file = Configuration::new("own", &text("2h"));
    let server = file.program().without_echo().start();
    let (echo, hello) = (server.addresses()[0], server.addresses()[1]);
    let (mut stays, mut goes) = (Client::connect(echo), Client::connect(hello));
    stays.say("x").hear("x");
    goes.say("you\n").hear("hello you\n");
    file.write(&text("50ms"));
    let said = reload(&server);
    assert!(said.ends_with(&format!("read again: idle-timeout 7200s -> 50ms at tcp://{hello}")), "{said}");
    assert_eq!(goes.end(), End::Fin);
    throughout(Duration::from_millis(150), "the other stays", || {
        stays.say("x").hear("x");
        true
    });
}

/// Orders that come faster than they are followed are one or two, and none is lost: the last file is in force in the end.
#[test]
fn many_orders_at_once_end_with_the_last_file() {
    let file = Configuration::new("many", "max-line = \"1KiB\"\n");
    let server = file.program().start();
    let mut client = server.client();
    for kib in 2..60 {
        file.write(&format!("max-line = \"{kib}KiB\"\n"));
        server.signal(Signal::HUP);
        client.say("x").hear("x");
    }
    eventually("the last file is in force", || {
        (status(&server)["limits"]["max-line"] == "59KiB").then_some(())
    });
    assert!(server.status("Threads") < 60, "{} threads", server.status("Threads"));
}

/// A client that is refused for the only place is told what the file said last.
#[test]
fn refused_clients_are_told_the_new_text() {
    let text = |all: &str, own: &str| {
        format!(
            "max-connections = 1\nqueue = 1\n{all}listen = \"echo=tcp://127.0.0.1:0\"\n\
             [[listener]]\nlisten = \"echo=tcp://127.0.0.1:0\"\n{own}"
        )
    };
    let file = Configuration::new("words", &text("", ""));
    let server = file.program().without_echo().start();
    let (one, two) = (server.addresses()[0], server.addresses()[1]);
    let mut first = Client::connect(one);
    first.say("x").hear("x");
    let told = |address| {
        let (words, end) = Client::connect(address).rest();
        (String::from_utf8(words).unwrap(), end)
    };
    assert_eq!((told(one), told(two)), ((String::new(), End::Reset), (String::new(), End::Reset)));
    file.write(&text("busy-reply = 'later\\n'\n", ""));
    let said = reload(&server);
    assert!(said.ends_with(r#"read again: busy-reply none -> "later\n""#), "{said}");
    assert_eq!((told(one).0, told(two).0), ("later\n".to_owned(), "later\n".to_owned()));
    file.write(&text("busy-reply = 'later\\n'\n", "busy-reply = 'not here'\n"));
    let said = reload(&server);
    assert!(
        said.ends_with(&format!(r#"read again: busy-reply none -> "not here" at tcp://{two}"#)),
        "{said}"
    );
    assert_eq!((told(one).0, told(two).0), ("later\n".to_owned(), "not here".to_owned()));
    file.write(&text("", ""));
    reload(&server);
    assert_eq!((told(one).1, told(two).1), (End::Reset, End::Reset));
    first.say("x").hear("x");
}

#[test]
fn the_log_level_changes_unless_the_command_line_says_one() {
    let file = Configuration::new("level", "log-level = \"warn\"\n");
    let server = file.program().start();
    file.write("log-level = \"info\"\n");
    let said = reload(&server);
    assert!(said.ends_with("read again: log-level warn -> info"), "{said}");
    file.write("log-level = \"loud\"\n");
    let said = reload(&server);
    assert!(said.contains("`log-level`: ") && said.contains("nothing has changed"), "{said}");
    file.write("log-level = \"error\"\nmax-line = \"2KiB\"\n");
    server.signal(Signal::HUP);
    eventually("it is in force", || (status(&server)["limits"]["max-line"] == "2KiB").then_some(()));
    // What the log says of a mistake is of this level; what it says of a change is not.
    file.write("nonsense\n");
    let said = reload(&server);
    assert!(said.contains(" ERROR "), "{said}");
    assert!(!server.stderr().contains("max-line"), "{}", server.stderr());
    let loud = file.program().flag("-v");
    file.write("log-level = \"error\"\n");
    let loud = loud.start();
    file.write("log-level = \"warn\"\n");
    let said = reload(&loud);
    assert!(said.ends_with("nothing has changed"), "{said}");
}

/// The load generator goes on while limits change ten times a second: no client is lost, and every reading of the counts
/// adds up.
#[test]
fn no_client_is_lost_while_the_configuration_is_read_again_and_again() {
    let text = |round: u64| {
        format!(
            "idle-timeout = \"{}s\"\nread-timeout = \"{}s\"\nmax-line = \"{}KiB\"\nbacklog = {}\nworkers = {}\nmax-connections = {}\nqueue-timeout = \"{}s\"\n",
            30 + round % 2 * 1000,
            20 + round % 3 * 1000,
            1 + round % 5,
            1000 + round,
            [4, 64, 2, 17][round as usize % 4],
            5000 + round,
            5 + round % 7,
        )
    };
    let file = Configuration::new("load", &text(0));
    let server = file
        .program()
        .arg("--queue", 1000)
        .arg("--workers-ceiling", 64)
        .arg("--connections-ceiling", 6000)
        .start();
    let mut stress = command(path());
    let target = format!("tcp://{}", server.address());
    stress.args(["stress", &target, "-c", "40", "-r", "1500", "-d", "3s", "--reuse", "7", "--warmup", "0s"]);
    stress.args(["--output", "json"]);
    let mut load = Running::of(stress.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut standing: Vec<Client> = (0..50).map(|_| server.client()).collect();
    for round in 1..=25 {
        file.write(&text(round));
        let said = reload(&server);
        assert!(said.contains(" INFO ") && said.contains("backlog"), "{said}");
        for client in &mut standing {
            client.say("x").hear("x");
        }
        conserved(&status(&server));
        std::thread::sleep(Duration::from_millis(80));
    }
    load.ended_well();
    drop(standing);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

type Talk = StreamOwned<ClientConnection, TcpStream>;

/// A client that takes any of these certificates.
fn talk(address: SocketAddr, trusted: &[&Certificate]) -> Talk {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(CertificateDer::from_pem_slice(certificate.pem.as_bytes()).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(rustls::ALL_VERSIONS);
    let config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp)
}

fn echoes(talk: &mut Talk) -> bool {
    let mut answer = [0; 5];
    talk.write_all(b"hello").and_then(|()| talk.read_exact(&mut answer)).is_ok() && &answer == b"hello"
}

/// The certificate that it was shown.
fn shown(talk: &Talk) -> Vec<u8> {
    talk.conn.peer_certificates().unwrap()[0].to_vec()
}

fn der(certificate: &Certificate) -> Vec<u8> {
    CertificateDer::from_pem_slice(certificate.pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn certificates_change_under_load_and_connections_go_on() {
    let (first, second) = (Certificate::new(&["localhost"], 2090), Certificate::new(&["localhost"], 2091));
    let (files, other) = (first.files(), second.files());
    let text = |files: &certificate::Files| {
        format!(
            "listen = \"echo=tls://127.0.0.1:0\"\ntls-cert = \"{}\"\ntls-key = \"{}\"\n",
            files.certificate.display(),
            files.key.display()
        )
    };
    let file = Configuration::new("certificates", &text(&files));
    let server = file.program().without_echo().start();
    let address = server.listening("echo on tls");
    let mut standing = talk(address, &[&first]);
    assert!(echoes(&mut standing) && shown(&standing) == der(&first));
    let over = AtomicBool::new(false);
    let handshakes = std::thread::scope(|scope| {
        let load: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while !over.load(Ordering::Relaxed) {
                        assert!(echoes(&mut talk(address, &[&first, &second])), "after {count} handshakes");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        // The same files with another certificate in them, and back.
        for certificate in [&second, &first, &second] {
            files.write(certificate);
            let said = reload(&server);
            assert!(said.contains("read again: the certificate of echo=tls://127.0.0.1:0"), "{said}");
            let mut new = talk(address, &[&first, &second]);
            assert!(echoes(&mut new) && shown(&new) == der(certificate));
            assert!(echoes(&mut standing), "a connection goes on");
        }
        // What is broken is not taken over.
        std::fs::write(&files.key, &first.key).unwrap();
        let said = reload(&server);
        assert!(
            said.contains("nothing has changed: ") && said.contains("does not belong to the certificate"),
            "{said}"
        );
        assert!(echoes(&mut talk(address, &[&second])) && !successful(&server));
        // Other files.
        other.write(&first);
        file.write(&text(&other));
        let said = reload(&server);
        assert!(said.contains("the certificate of echo=tls"), "{said}");
        assert!(echoes(&mut talk(address, &[&first])) && successful(&server));
        over.store(true, Ordering::Relaxed);
        load.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>()
    });
    assert!(handshakes > 10, "{handshakes} handshakes");
    assert!(echoes(&mut standing));
    let seen = finish(command("openssl").args(["s_client", "-connect", &address.to_string(), "-showcerts"]));
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    let line = first.pem.lines().nth(2).unwrap();
    assert!(seen.contains(line), "openssl is shown the new one: {seen}");
}
