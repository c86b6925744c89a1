//! The gate with backends that speak TLS: over `https://` with a place for each request, over `tls://` with a pair each. The
//! backends are nginx, OpenSSL, tidegate itself, and this file.
#![cfg(feature = "tls")]

#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/configuration.rs"]
mod configuration;
#[path = "support/nginx.rs"]
mod nginx;
mod support;
#[path = "support/tls_gate.rs"]
mod tls_gate;

use configuration::{Configuration, admin, reload};
use nginx::Nginx;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Stdio;
use std::time::Duration;
use support::{Ending, Program, Site, command, finish, throughout};
use tidegate::metrics::snapshot::Phase;
use tidegate::service::{HttpGateConfig, ProxyVersion};
use tidegate::{Echo, Limits, Listen, Server, http, websocket};
use tls_gate::{GET, Gate, Peer, Trust, VERSIONS, accept, answer, ask, end, listener, noise, reset, to};

/// What a backend of nginx says about the connection on which it was asked.
const FACTS: &str = "location / { return 200 \"$ssl_server_name $ssl_protocol $ssl_session_reused. \
                     $connection_requests $http_host\\n\"; } keepalive_requests 5;";

#[test]
fn an_https_backend_is_asked_by_name_and_its_connections_are_used_again() {
    let trust = Trust::new(&["localhost"]);
    for protocols in ["TLSv1.2", "TLSv1.3"] {
        let nginx = Nginx::inside_tls(
            &trust.files,
            &format!("ssl_protocols {protocols}; ssl_session_cache shared:a:1m; {FACTS}"),
        );
        let gate = Gate::http(([127, 0, 0, 1], nginx.port).into(), &trust);
        let said: Vec<_> = (0..12).map(|_| ask(&gate)).collect();
        let expected: Vec<_> = (0..12)
            .map(|n| {
                // nginx closes a connection after five requests, and the next one resumes its session.
                let resumed = if n < 5 { "." } else { "r" };
                (200, format!("localhost {protocols} {resumed}. {} h\n", n % 5 + 1))
            })
            .collect();
        assert_eq!(said, expected);
        let seen = gate.seen();
        assert_eq!((seen.backends[0].connected, seen.in_use), (3, 0));
    }
}

#[test]
fn many_clients_share_a_few_connections_to_an_https_backend() {
    let trust = Trust::new(&["localhost"]);
    let nginx = Nginx::inside_tls(&trust.files, "location / { return 200 \"ok\"; }");
    let gate = Gate::http(([127, 0, 0, 1], nginx.port).into(), &trust);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = gate.client();
                for _ in 0..30 {
                    client.write_all(GET).unwrap();
                    let (head, body) = answer(&mut client);
                    assert!(head.starts_with("HTTP/1.1 200 ") && body == b"ok", "{head}");
                }
            });
        }
    });
    let seen = gate.seen();
    assert_eq!(seen.backends[0].answers[2], 480);
    assert!(seen.backends[0].connected <= 4, "{} connections", seen.backends[0].connected);
    assert_eq!(seen.in_use, 0);
}

/// A server of tidegate inside TLS.
fn secure(trust: &Trust, service: impl tidegate::Service) -> Site {
    let listen = Listen::new("127.0.0.1:0", service).unwrap().tls(trust.tls());
    Site::listening(Server::builder().listener(listen))
}

#[test]
fn eight_megabytes_pass_both_ways_through_https_whole() {
    let trust = Trust::new(&["localhost"]);
    let listen = Listen::new("127.0.0.1:0", http::echo()).unwrap().tls(trust.tls());
    // It has the whole answer at once, and may keep it for as long as the gate does not read it.
    let limits = Limits::default().max_body(16 << 20).input_total(64 << 20);
    let limits = limits.output_per_connection(16 << 20).output_total(64 << 20);
    let backend = Site::listening(Server::builder().limits(limits).listener(listen));
    let gate = Gate::http(backend.address, &trust);
    let sent = noise(8_000_000);
    let mut client = gate.client();
    for _ in 0..2 {
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", sent.len());
        client.write_all(head.as_bytes()).unwrap();
        std::thread::scope(|scope| {
            let mut up = client.try_clone().unwrap();
            let sent = &sent;
            scope.spawn(move || up.write_all(sent).unwrap());
            let (head, body) = answer(&mut client);
            assert!(head.starts_with("HTTP/1.1 200 ") && body == *sent, "{head}");
        });
    }
    assert_eq!(gate.seen().backends[0].connected, 1);
}

#[test]
fn eight_megabytes_pass_both_ways_at_once_through_tls_and_a_slow_reader_is_felt() {
    let trust = Trust::new(&["localhost"]);
    let sent = noise(8_000_000);
    for version in VERSIONS {
        let (backend, at) = listener();
        let gate = Gate::stream(at, &trust);
        let config = trust.server(version);
        let mut client = gate.client();
        std::thread::scope(|scope| {
            // The backend sends all, and then reads all.
            scope.spawn(|| {
                let mut peer = accept(&backend, &config);
                peer.write_all(&sent).unwrap();
                peer.flush().unwrap();
                let mut heard = vec![0; sent.len()];
                peer.read_exact(&mut heard).unwrap();
                assert!(heard == sent);
                end(&mut peer);
                assert_eq!(peer.read(&mut [0]).unwrap(), 0);
            });
            let mut up = client.try_clone().unwrap();
            let sent = &sent;
            let up = scope.spawn(move || up.write_all(sent).unwrap());
            let mut heard = vec![0; sent.len()];
            // It is not read at first.
            let kept = || gate.site.stats().pending_output_bytes;
            throughout(Duration::from_millis(100), "little is kept", || kept() < 512 * 1024);
            client.read_exact(&mut heard).unwrap();
            assert!(heard == *sent);
            up.join().unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        });
        gate.until("its place is given back", |seen| seen.in_use == 0);
    }
}

#[test]
fn a_half_close_is_passed_on_in_both_directions() {
    let trust = Trust::new(&["localhost"]);
    for version in VERSIONS {
        let (backend, at) = listener();
        let (gate, config) = (Gate::stream(at, &trust), trust.server(version));
        // The client ends first.
        let mut client = gate.client();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut peer = accept(&backend, &config);
        let mut heard = String::new();
        peer.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "question");
        peer.write_all(b"answer").unwrap();
        end(&mut peer);
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(said, "answer");
        // The backend speaks first, and ends first.
        let mut client = gate.client();
        let mut peer = accept(&backend, &config);
        peer.write_all(b"welcome").unwrap();
        end(&mut peer);
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(said, "welcome");
        client.write_all(b"thanks").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        peer.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "thanks");
        gate.until("all places are given back", |seen| seen.in_use == 0);
    }
}

/// A stream that ends without `close_notify` may have been cut by somebody on the way.
#[test]
fn a_stream_that_is_cut_short_on_one_side_does_not_end_as_a_whole_one_on_the_other() {
    let trust = Trust::new(&["localhost"]);
    for version in VERSIONS {
        let (backend, at) = listener();
        let (gate, config) = (Gate::stream(at, &trust), trust.server(version));
        let pair = || {
            let mut client = gate.client();
            client.write_all(b"!").unwrap();
            let mut peer = accept(&backend, &config);
            peer.read_exact(&mut [0]).unwrap();
            peer.write_all(b"half a mess").unwrap();
            client.read_exact(&mut [0; 11]).unwrap();
            (client, peer)
        };
        let (mut client, peer) = pair();
        peer.sock.shutdown(Shutdown::Both).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let (mut client, peer) = pair();
        reset(&peer.sock);
        drop(peer);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let (client, mut peer) = pair();
        reset(&client);
        drop(client);
        let ended = peer.read(&mut [0]);
        assert!(ended.is_err(), "the backend is told no end: {ended:?}");
        gate.until("all places are given back", |seen| seen.in_use == 0);
    }
}

#[test]
fn tls_on_both_sides_of_a_gate_passes_words_and_ends() {
    let trust = Trust::new(&["localhost"]);
    let backend = secure(&trust, Echo);
    let gate = to(backend.address).tls(trust.choices()).build().unwrap();
    let listen = Listen::new("127.0.0.1:0", gate).unwrap().tls(trust.tls());
    let gate = Gate { site: Site::listening(Server::builder().listener(listen)) };
    let mut openssl = command("openssl");
    openssl.args(["s_client", "-quiet", "-verify_return_error", "-servername", "localhost", "-CAfile"]);
    openssl.arg(trust.file()).args(["-connect", &gate.site.address.to_string()]);
    openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = openssl.spawn().unwrap();
    let (mut words, heard) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let running = Ending(child);
    words.write_all(b"through two handshakes\n").unwrap();
    let mut said = String::new();
    BufReader::new(heard).read_line(&mut said).unwrap();
    assert_eq!(said, "through two handshakes\n");
    drop(running);
    gate.until("its place is given back", |seen| seen.in_use == 0);
}

#[test]
fn a_websocket_passes_to_an_https_backend() {
    let trust = Trust::new(&["localhost"]);
    let backend = secure(&trust, websocket::echo());
    let gate = Gate::http(backend.address, &trust);
    let (mut socket, said) = tungstenite::client("ws://localhost/", gate.client()).unwrap();
    assert_eq!(said.status(), 101);
    for size in [1, 1000, 1_000_000] {
        let sent = tungstenite::Message::binary(noise(size));
        socket.send(sent.clone()).unwrap();
        assert!(socket.read().unwrap() == sent, "{size}");
    }
    gate.until("it holds its place", |seen| seen.in_use == 1);
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    gate.until("its place is free", |seen| seen.in_use == 0);
}

#[test]
fn an_answer_that_comes_in_pieces_is_passed_on_as_it_comes() {
    let trust = Trust::new(&["localhost"]);
    for version in VERSIONS {
        let (backend, at) = listener();
        let (gate, config) = (Gate::http(at, &trust), trust.server(version));
        let mut client = gate.client();
        client.write_all(GET).unwrap();
        let mut peer = accept(&backend, &config);
        peer.read_exact(&mut [0; GET.len()]).unwrap();
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
        for byte in b"token" {
            peer.write_all(&[*byte]).unwrap();
            let mut heard = [0; 1];
            let head = if *byte == b't' { 1 } else { 0 };
            if head == 1 {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    client.read_exact(&mut heard).unwrap();
                    head.push(heard[0]);
                }
            }
            client.read_exact(&mut heard).unwrap();
            assert_eq!(heard[0], *byte);
        }
        gate.until("its place is free", |seen| seen.in_use == 0);
    }
}

#[test]
fn a_request_in_flight_is_answered_during_a_drain_and_the_backend_is_told_the_end() {
    let trust = Trust::new(&["localhost"]);
    let (backend, at) = listener();
    let (gate, config) = (Gate::http(at, &trust), trust.server(&rustls::version::TLS13));
    let mut client = gate.client();
    client.write_all(GET).unwrap();
    let mut peer = accept(&backend, &config);
    let mut request = [0; 1000];
    assert!(peer.read(&mut request).unwrap() > 0);
    let site = gate.site;
    site.handle().trigger().drain();
    site.until("it drains", |_| site.stats().phase == Phase::Draining);
    let (ended, report) = std::thread::scope(|scope| {
        let ending = scope.spawn(|| site.end_within(support::PATIENCE));
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        let (head, body) = answer(&mut client);
        assert!(head.contains("Connection: close\r\n") && body == b"ok", "{head}");
        let ended = peer.read(&mut [0]);
        (ended, ending.join().unwrap())
    });
    assert_eq!(ended.unwrap(), 0, "close_notify, and not a cut");
    assert_eq!(report.aborted, 0, "{report:?}");
}

#[test]
fn a_header_of_the_proxy_protocol_goes_before_the_handshake() {
    let trust = Trust::new(&["localhost"]);
    for http in [false, true] {
        let (backend, at) = listener();
        let gate = to(at).send_proxy(ProxyVersion::V1).tls(trust.choices());
        let gate = if http { gate.http(HttpGateConfig::default()) } else { gate };
        let gate = Gate::of(gate, Limits::default().workers(1));
        let mut client = gate.client();
        client.write_all(GET).unwrap();
        let (mut raw, _) = backend.accept().unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            raw.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        let near = client.local_addr().unwrap().port();
        assert!(String::from_utf8(line).unwrap().contains(&format!(" {near} ")));
        let config = trust.server(&rustls::version::TLS13);
        let mut peer = Peer::new(rustls::ServerConnection::new(config).unwrap(), raw);
        let mut heard = [0; 3];
        peer.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"GET");
    }
}

#[test]
fn the_program_reaches_backends_over_tls_as_its_options_say() {
    let trust = Trust::new(&["backend.test"]);
    let nginx = Nginx::inside_tls(&trust.files, &format!("ssl_protocols TLSv1.3; {FACTS}"));
    let echo = secure(&trust, Echo);
    let web = format!("proxy:https://127.0.0.1:{}", nginx.port);
    let stream = format!("proxy:tls://{}", echo.address);
    let gate = Program::new()
        .without_echo()
        .admin()
        .arg("--listen", format!("{web}=http://127.0.0.1:0"))
        .arg("--listen", format!("{stream}=tcp://127.0.0.1:0"))
        .arg("--backend-cacert", trust.file().display())
        .arg("--backend-tls-name", "backend.test")
        .start();
    let url = format!("http://{}/", gate.listening(&format!("{web} on http")));
    let mut curl = command("curl");
    let output = finish(curl.args(["-sS", "--max-time", "20", &url]));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("backend.test TLSv1.3 "), "{said} {output:?}");
    let mut client = TcpStream::connect(gate.listening(&format!("{stream} on tcp"))).unwrap();
    client.write_all(b"there and back").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "there and back");
}

#[test]
fn what_is_wrong_with_the_options_is_one_clear_line() {
    for (listener, expected) in [
        (
            "proxy:https://127.0.0.1:1=tcp://127.0.0.1:0",
            "backends of https:// need a listener of http:// or https://",
        ),
        ("proxy:tls://127.0.0.1:1=http://127.0.0.1:0", "write https://"),
        (
            "proxy:tls://127.0.0.1:1,tcp://127.0.0.1:2=tcp://127.0.0.1:0",
            "all backends of a listener speak TLS, or none does",
        ),
        (
            "proxy:127.0.0.1:1,tls://127.0.0.1:2=tcp://127.0.0.1:0",
            "all backends of a listener speak TLS, or none does",
        ),
        ("proxy:tls://unix:/run/x.sock=tcp://127.0.0.1:0", "give one with --backend-tls-name"),
        ("proxy:https://a_b..c:1=http://127.0.0.1:0", "no certificate can be for the name"),
    ] {
        let output = support::run(["check", "--listen", listener]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{listener}: {said}");
    }
    let listener = "proxy:tls://127.0.0.1:1=tcp://127.0.0.1:0";
    let output = support::run(["check", "--listen", listener, "--backend-cacert", "/nowhere/ca.pem"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cannot read /nowhere/ca.pem: "), "{said}");
}

#[test]
fn the_memory_ceiling_counts_tls_with_backends() {
    let memory = |listener: &str| {
        let output = support::run(["check", "--listen", listener, "--backend-connections", "1000"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = said
            .lines()
            .find(|line| line.trim_start().starts_with("memory "))
            .unwrap_or_else(|| panic!("{said}"));
        line.split_whitespace().nth(1).unwrap().trim_end_matches("MiB").parse::<u64>().unwrap()
    };
    let (plain, tls) =
        (memory("proxy:127.0.0.1:1=tcp://127.0.0.1:0"), memory("proxy:tls://127.0.0.1:1=tcp://127.0.0.1:0"));
    assert!((10..40).contains(&(tls - plain)), "{plain} and {tls} MiB: 12 KiB for each of 1,000");
}

/// From the reload on no request goes over a connection without TLS, also not over one that was kept.
#[test]
fn a_gate_is_told_at_sighup_to_speak_tls_with_its_backend() {
    let trust = Trust::new(&["localhost"]);
    let (backend, at) = listener();
    let listen = |scheme: &str| format!("listen = \"proxy:{scheme}://{at}=http://127.0.0.1:0\"\n");
    let file = Configuration::new("to-tls", &listen("http"));
    let server = file.program().without_echo().start();
    let mut client = TcpStream::connect(server.listening(&format!("proxy:http://{at} on http"))).unwrap();
    client.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let served = |peer: &mut dyn Ends| {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            peer.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        peer.flush().unwrap();
    };
    client.write_all(GET).unwrap();
    let (mut plain, _) = backend.accept().unwrap();
    served(&mut plain);
    assert_eq!(answer(&mut client).1, b"ok");
    let trusted = trust.file().display().to_string();
    let tls = format!("backend-tls-name = \"localhost\"\nbackend-cacert = \"{trusted}\"\n");
    file.write(&(tls + &listen("https")));
    let said = reload(&server);
    assert!(said.contains("backend-tls-name off -> localhost at http://"), "{said}");
    client.write_all(GET).unwrap();
    let mut secured = accept(&backend, &trust.server(&rustls::version::TLS13));
    served(&mut secured);
    assert_eq!(answer(&mut client).1, b"ok");
    assert_eq!(plain.read(&mut [0]).unwrap(), 0, "the one without TLS was closed");
    let metrics = admin(&server, "/metrics");
    let series = metrics.text().lines().filter(|line| line.starts_with("tidegate_backend_up{"));
    assert_eq!(series.count(), 1, "it is the same backend");
}

trait Ends: Read + Write {}

impl<T: Read + Write> Ends for T {}
