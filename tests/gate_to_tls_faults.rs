//! The gate with backends whose TLS is not as it should be: certificates for others, handshakes that stop, and servers that
//! speak something else. A request is refused, the reason is counted, and one line in the log says what to do.
#![cfg(feature = "tls")]

#[path = "support/certificate.rs"]
mod certificate;
mod support;
#[path = "support/tls_gate.rs"]
mod tls_gate;

use certificate::Certificate;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{Ending, Program, Site, command, eventually, finish};
use tidegate::reason::{BackendFailure, DropReason};
use tidegate::service::{BackendTls, HttpGateConfig};
use tidegate::{Limits, Listen, Server, http, proxy};
use tls_gate::{GET, Gate, Trust, accept, answer, ask, listener, to};

/// OpenSSL's server, which shows whatever certificate it is given.
struct OpenSsl {
    address: SocketAddr,
    _running: Ending,
}

impl OpenSsl {
    fn showing(certificate: &Certificate) -> Self {
        let files = certificate.files();
        let mut openssl = command("openssl");
        openssl.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-naccept", "50", "-cert"]);
        openssl
            .arg(&files.certificate)
            .arg("-cert_chain")
            .arg(&files.certificate)
            .arg("-key")
            .arg(&files.key);
        let mut child = openssl.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let running = Ending(child);
        let mut lines = said.lines().map(Result::unwrap);
        let address = lines.find_map(|line| line.strip_prefix("ACCEPT ")?.parse().ok());
        // Nobody reads what else it says, and it must not wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        Self { address: address.expect("it says where it is"), _running: running }
    }
}

/// A backend whose certificate nobody should believe who has these choices.
#[track_caller]
fn is_not_believed(backend: &OpenSsl, choices: BackendTls) {
    let web = to(backend.address).tls(choices.clone()).http(HttpGateConfig::default());
    let gate = Gate::of(web, Limits::default().workers(1));
    let (status, said) = ask(&gate);
    assert_eq!((status, &*said), (502, "no backend can be reached\n"));
    assert_eq!(gate.failures(BackendFailure::Tls), 1);
    assert!(gate.seen().backends[0].aside_for.is_some(), "it is set aside");
    // The next is refused at once, and no handshake is made for it.
    assert_eq!(ask(&gate).0, 502);
    assert_eq!(gate.failures(BackendFailure::Tls), 1);
    let stream = Gate::of(to(backend.address).tls(choices), Limits::default().workers(1));
    let mut client = stream.client();
    let ended = client.read(&mut [0]);
    assert!(ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    assert_eq!(stream.failures(BackendFailure::Tls), 1);
    stream.site.until_dropped(DropReason::NoBackend, 1);
}

#[test]
fn a_certificate_that_proves_nothing_is_not_believed() {
    let trust = Trust::new(&["localhost"]);
    let good = OpenSsl::showing(&trust.certificate);
    let gate = to(good.address).tls(trust.choices()).http(HttpGateConfig::default());
    assert_eq!(ask_openssl(&Gate::of(gate, Limits::default().workers(1))), 200);

    // It is for another name.
    let mut other = trust.choices();
    other.name = Some("other.test".to_owned());
    is_not_believed(&good, other);
    // It is for no address.
    let mut address = trust.choices();
    address.name = None;
    is_not_believed(&good, address);
    // The system trusts nobody who signed it.
    let mut system = BackendTls::default();
    system.name = Some("localhost".to_owned());
    is_not_believed(&good, system);
    // Its signer has the same name as one who is trusted.
    is_not_believed(&OpenSsl::showing(&Trust::new(&["localhost"]).certificate), trust.choices());
    // It signed itself.
    let itself = Certificate::new(&["localhost"], 4000);
    is_not_believed(&OpenSsl::showing(&itself), trust.choices());
    // It has expired, and is trusted otherwise.
    let expired = Certificate::new(&["localhost"], 2020);
    let files = expired.files();
    let mut choices = trust.choices();
    choices.authorities = Some(files.certificate.clone());
    is_not_believed(&OpenSsl::showing(&expired), choices.clone());

    // Who wants that can believe everything.
    choices.insecure = true;
    choices.name = Some("other.test".to_owned());
    for backend in [&good, &OpenSsl::showing(&expired), &OpenSsl::showing(&itself)] {
        let gate = to(backend.address).tls(choices.clone()).http(HttpGateConfig::default());
        assert_eq!(ask_openssl(&Gate::of(gate, Limits::default().workers(1))), 200);
    }
}

/// OpenSSL's pages end with the connection.
#[track_caller]
fn ask_openssl(gate: &Gate) -> u16 {
    let mut client = gate.client();
    client.write_all(GET).unwrap();
    let mut head = [0; 12];
    client.read_exact(&mut head).unwrap();
    String::from_utf8_lossy(&head[9..]).parse().unwrap()
}

#[test]
fn the_log_says_once_what_is_wrong_and_the_metrics_count_it_by_reason() {
    let trust = Trust::new(&["other.test"]);
    let backend = OpenSsl::showing(&trust.certificate);
    let service = format!("proxy:https://{}", backend.address);
    let gate = Program::new()
        .without_echo()
        .admin()
        .arg("--listen", format!("{service}=http://127.0.0.1:0"))
        .arg("--backend-cacert", trust.file().display())
        .start();
    let url = format!("http://{}/", gate.listening(&format!("{service} on http")));
    for _ in 0..20 {
        let mut curl = command("curl");
        let output =
            finish(curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", &url]));
        assert_eq!(output.stdout, b"502");
    }
    let metrics = format!("http://{}/metrics", gate.admin());
    let text = String::from_utf8(finish(command("curl").args(["-s", &metrics])).stdout).unwrap();
    let failures = text
        .lines()
        .find(|line| line.starts_with("tidegate_backend_failures_total") && line.contains("reason=\"tls\""));
    let failures = failures.unwrap_or_else(|| panic!("{text}"));
    let failures: u64 = failures.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((1..=4).contains(&failures), "one a second: {failures}");
    let log = gate.stderr();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("a backend is set aside")).collect();
    let [line] = lines[..] else { panic!("one line: {log}") };
    assert!(line.contains("reason=tls") && line.contains("give that name with --backend-tls-name"), "{line}");
    assert!(line.contains(&backend.address.to_string()), "{line}");
}

#[test]
fn a_program_that_believes_everything_says_so_at_the_start() {
    let gate = Program::new()
        .without_echo()
        .arg("--listen", "proxy:tls://127.0.0.1:1=tcp://127.0.0.1:0")
        .flag("--backend-insecure")
        .start();
    eventually("it warns", || {
        gate.stderr().contains("the certificates of backends are not checked").then_some(())
    });
}

#[test]
fn a_backend_that_stops_in_the_middle_of_the_handshake_is_given_up_in_time() {
    let trust = Trust::new(&["localhost"]);
    let (silent, at) = listener();
    let good = trust_site(&trust);
    for http in [true, false] {
        let choose = |backends: Vec<SocketAddr>, time: Duration| {
            let gate = proxy(backends.iter().map(ToString::to_string)).unwrap();
            let gate = gate.connect_timeout(time).tls(trust.choices());
            let gate = if http { gate.http(HttpGateConfig::default()) } else { gate };
            Gate::of(gate, Limits::default().workers(1))
        };
        let alone = choose(vec![at], Duration::from_millis(400));
        let began = Instant::now();
        let mut client = alone.client();
        client.write_all(GET).unwrap();
        if http {
            let (head, body) = answer(&mut client);
            assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
            assert_eq!(body, b"the backend was not reached in time\n");
        } else {
            assert!(client.read(&mut [0]).is_err());
        }
        assert!((Duration::from_millis(400)..Duration::from_secs(10)).contains(&began.elapsed()));
        assert_eq!(alone.failures(BackendFailure::Timeout), 1);
        assert_eq!(alone.seen().no_backend, 1);
        assert_eq!(alone.seen().in_use, 0, "its place is given back");
        let (mut began, _) = silent.accept().unwrap();
        let mut hello = [0; 6];
        began.read_exact(&mut hello).unwrap();
        assert_eq!((hello[0], hello[5]), (22, 1), "the gate has said hello");

        // Another backend serves the client in time, and no worker waits meanwhile.
        let both = choose(vec![at, good.address], Duration::from_secs(4));
        let mut clients: Vec<_> = (0..8).map(|_| both.client()).collect();
        for client in &mut clients {
            client.write_all(GET).unwrap();
        }
        for client in &mut clients {
            let mut said = [0; 12];
            client.read_exact(&mut said).unwrap();
            assert_eq!(&said, b"HTTP/1.1 200", "{http}");
        }
    }
}

/// A server of HTTP inside TLS.
fn trust_site(trust: &Trust) -> Site {
    let listen = Listen::new("127.0.0.1:0", http::hello()).unwrap().tls(trust.tls());
    Site::listening(Server::builder().listener(listen))
}

/// Serves each connection with `serve`, on threads, until the test ends.
fn scripted(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> SocketAddr {
    let (backend, at) = listener();
    std::thread::spawn(move || {
        for peer in backend.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(peer));
        }
    });
    at
}

#[test]
fn a_backend_that_breaks_the_handshake_is_set_aside_and_named() {
    let trust = Trust::new(&["localhost"]);
    let hello = |peer: &mut TcpStream| {
        let mut head = [0; 5];
        peer.read_exact(&mut head).unwrap();
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        peer.read_exact(&mut rest).unwrap();
    };
    let plain = scripted(move |mut peer| {
        hello(&mut peer);
        let _ = peer.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        let _ = peer.read(&mut [0]);
    });
    let closes = scripted(move |mut peer| hello(&mut peer));
    let alerts = scripted(move |mut peer| {
        hello(&mut peer);
        let _ = peer.write_all(&[21, 3, 3, 0, 2, 2, 40]);
        let _ = peer.read(&mut [0]);
    });
    let resets = scripted(move |mut peer| {
        hello(&mut peer);
        tls_gate::reset(&peer);
    });
    for (backend, failure) in [
        (plain, BackendFailure::Tls),
        (closes, BackendFailure::Tls),
        (alerts, BackendFailure::Tls),
        (resets, BackendFailure::Reset),
    ] {
        let gate = Gate::http(backend, &trust);
        assert_eq!(ask(&gate).0, 502);
        assert_eq!(gate.failures(failure), 1, "{failure}: {:?}", gate.seen().backends[0].failures);
        assert!(gate.seen().backends[0].aside_for.is_some());
    }
}

#[test]
fn an_answer_that_is_cut_without_a_close_notify_is_not_taken_for_a_whole_one() {
    let trust = Trust::new(&["localhost"]);
    for (notify, whole) in [(true, true), (false, false)] {
        let (backend, at) = listener();
        let gate = Gate::http(at, &trust);
        let mut client = gate.client();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let mut peer = accept(&backend, &trust.server(&rustls::version::TLS13));
        peer.read_exact(&mut [0; 10]).unwrap();
        peer.write_all(b"HTTP/1.0 200 OK\r\n\r\nto the end").unwrap();
        if notify {
            tls_gate::end(&mut peer);
        }
        peer.flush().unwrap();
        peer.sock.shutdown(std::net::Shutdown::Both).unwrap();
        let mut said = Vec::new();
        let ended = client.read_to_end(&mut said);
        let ends = said.ends_with(b"a\r\nto the end\r\n0\r\n\r\n");
        assert_eq!(ends && ended.is_ok(), whole, "{:?} {ended:?}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn a_client_that_leaves_during_the_handshake_gives_its_place_back_at_once() {
    let trust = Trust::new(&["localhost"]);
    let (_silent, at) = listener();
    let gate = to(at).connect_timeout(Duration::from_secs(60)).tls(trust.choices());
    let gate = Gate::of(gate.http(HttpGateConfig::default()), Limits::default().workers(1));
    let mut client = gate.client();
    client.write_all(GET).unwrap();
    gate.until("the handshake waits", |seen| seen.in_use == 1);
    drop(client);
    gate.until("its place is given back", |seen| seen.in_use == 0);
    assert_eq!(gate.failures(BackendFailure::Timeout), 0);
}

#[test]
fn checks_make_the_handshake_and_bring_a_backend_back() {
    let trust = Trust::new(&["localhost"]);
    let wrong = Certificate::new(&["localhost"], 4000);
    for path in [None, Some("/")] {
        let tls = tidegate::Tls::pem(&wrong.pem, &wrong.key).unwrap();
        let files = trust.certificate.files();
        files.write(&wrong);
        drop(tls);
        let tls = tidegate::Tls::files(&files.certificate, &files.key).unwrap();
        let listen = Listen::new("127.0.0.1:0", http::hello()).unwrap().tls(tls.clone());
        let backend = Site::listening(Server::builder().listener(listen));
        let mut config = HttpGateConfig::default();
        config.check_path = path.map(str::to_owned);
        let gate = to(backend.address).check_every(Duration::from_millis(100)).tls(trust.choices());
        let gate = Gate::of(gate.http(config), Limits::default().workers(1));
        // A gate begins its checks with its first client.
        assert_eq!(ask(&gate).0, 502);
        gate.until("the checks fail too", |seen| {
            seen.backends[0].failures[BackendFailure::Tls as usize] >= 2
                && seen.backends[0].aside_for.is_some()
        });
        files.write(&trust.certificate);
        tls.reload().unwrap();
        gate.until("a check finds it well", |seen| seen.backends[0].aside_for.is_none());
        assert_eq!(ask(&gate).0, 200);
        let idle = gate.seen().backends[0].connected;
        gate.until("a backend that is well is checked", |seen| seen.backends[0].connected > idle + 2);
        gate.until("its place is given back", |seen| seen.in_use == 0);
    }
}
