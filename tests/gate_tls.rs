//! The gate with clients that speak TLS: over `https://` with a place for each request, over `tls://` with a pair each.
#![cfg(feature = "tls")]

#[path = "support/certificate.rs"]
mod certificate;
mod support;

use certificate::Certificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use support::{PATIENCE, Program, Site, eventually, head};
use tidegate::metrics::backends::BackendsSnapshot;
use tidegate::reason::{CloseReason, DropReason};
use tidegate::service::HttpGateConfig;
use tidegate::{ConnectOn, Limits, Listen, Server, Tls, proxy, websocket};

type Talk = StreamOwned<ClientConnection, TcpStream>;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// A gate whose clients speak TLS.
struct Gate {
    site: Site,
    certificate: Certificate,
}

impl Gate {
    fn of(backend: &TcpListener, limits: Limits, places: usize, http: bool) -> Self {
        Self::before(&backend.local_addr().unwrap().to_string(), limits, places, http)
    }

    fn before(backend: &str, limits: Limits, places: usize, http: bool) -> Self {
        let certificate = Certificate::new(&["localhost"], 4000);
        let tls = Tls::pem(&certificate.pem, &certificate.key).unwrap();
        let gate = proxy([backend]).unwrap().connections(places);
        let gate = if http { gate.http(HttpGateConfig::default()) } else { gate };
        let listen = Listen::new("127.0.0.1:0", gate.build().unwrap()).unwrap().tls(tls);
        Self { site: Site::listening(Server::builder().limits(limits).listener(listen)), certificate }
    }

    fn client(&self) -> Talk {
        self.client_of(&rustls::version::TLS13)
    }

    fn client_of(&self, version: &'static SupportedProtocolVersion) -> Talk {
        self.talk(version, TcpStream::connect(self.site.address).unwrap())
    }

    /// A client with a small receive buffer: what it does not read piles up at the gate.
    fn narrow(&self, version: &'static SupportedProtocolVersion) -> Talk {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.connect(&self.site.address.into()).unwrap();
        self.talk(version, socket.into())
    }

    fn talk(&self, version: &'static SupportedProtocolVersion, tcp: TcpStream) -> Talk {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp)
    }

    fn seen(&self) -> BackendsSnapshot {
        self.site.counts().backends.expect("it is a gate")
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&BackendsSnapshot) -> bool) {
        eventually(what, || holds(&self.seen()).then_some(()));
    }
}

fn backend() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[track_caller]
fn accept(backend: &TcpListener) -> TcpStream {
    let (peer, _) = backend.accept().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.set_write_timeout(Some(PATIENCE)).unwrap();
    peer
}

/// Bytes that do not repeat soon.
fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn length(head: &str) -> usize {
    let line = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    line.map_or(0, |length| length.parse().unwrap())
}

#[track_caller]
fn body(from: &mut impl Read, head: &str) -> Vec<u8> {
    let mut body = vec![0; length(head)];
    from.read_exact(&mut body).unwrap();
    body
}

/// A backend that answers each request with its body, or with `large` bytes to GET, until the gate ends its connections.
fn echoing(backend: TcpListener, large: usize) -> std::thread::JoinHandle<()> {
    let large = Arc::new(noise(large));
    std::thread::spawn(move || {
        for peer in backend.incoming().take_while(Result::is_ok).flatten() {
            let large = large.clone();
            std::thread::spawn(move || {
                let mut peer = peer;
                loop {
                    let mut byte = [0];
                    if !matches!(peer.peek(&mut byte), Ok(1)) {
                        return;
                    }
                    let asked = head(&mut peer);
                    assert!(asked.contains("X-Forwarded-Proto: https\r\n"), "{asked}");
                    let mut answer = body(&mut peer, &asked);
                    if asked.starts_with("GET ") {
                        answer.clone_from(&large);
                    }
                    let said = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
                    if peer.write_all(said.as_bytes()).and_then(|()| peer.write_all(&answer)).is_err() {
                        return;
                    }
                }
            });
        }
    })
}

#[test]
fn over_https_a_connection_serves_many_requests_and_the_backend_is_told_the_scheme() {
    let listener = backend();
    let gate = Gate::of(&listener, Limits::default().workers(2), 2, true);
    let _server = echoing(listener, 10);
    for version in VERSIONS {
        let mut talk = gate.client_of(version);
        for _ in 0..20 {
            talk.write_all(GET.as_bytes()).unwrap();
            let head = head(&mut talk);
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert_eq!(body(&mut talk, &head), noise(10));
        }
        // Many in one record are answered in order, and one that comes byte by byte is.
        talk.write_all(GET.repeat(50).as_bytes()).unwrap();
        for _ in 0..50 {
            let head = head(&mut talk);
            assert_eq!(body(&mut talk, &head), noise(10));
        }
        for byte in GET.bytes() {
            talk.write_all(&[byte]).unwrap();
        }
        let head = head(&mut talk);
        assert_eq!(body(&mut talk, &head), noise(10));
        talk.conn.send_close_notify();
        talk.flush().unwrap();
        assert_eq!(talk.read(&mut [0]).unwrap(), 0, "the gate says that this was all");
    }
    gate.until("all places are given back", |seen| seen.in_use == 0);
}

#[test]
fn a_long_upload_and_a_long_answer_pass_through_tls_whole() {
    let listener = backend();
    let gate = Gate::of(&listener, Limits::default().workers(2), 2, true);
    let _server = echoing(listener, 8_000_000);
    for version in VERSIONS {
        let mut talk = gate.client_of(version);
        let sent = noise(5_000_000);
        let post = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", sent.len());
        talk.write_all(post.as_bytes()).unwrap();
        talk.write_all(&sent).unwrap();
        let said = head(&mut talk);
        assert!(body(&mut talk, &said) == sent, "the upload");
        talk.write_all(GET.as_bytes()).unwrap();
        let said = head(&mut talk);
        // It is read slowly at first.
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(talk.read(&mut [0]).unwrap(), 1);
        }
        let mut rest = vec![0; length(&said) - 50];
        talk.read_exact(&mut rest).unwrap();
        assert!(rest == noise(8_000_000)[50..], "the download");
    }
}

#[test]
fn slow_readers_over_https_hold_no_worker_and_little_memory() {
    let listener = backend();
    let limits = Limits::default().workers(1);
    let gate = Gate::of(&listener, limits, 40, true);
    let _server = echoing(listener, 12_000_000);
    let mut slow: Vec<Talk> = (0..30)
        .map(|_| {
            let mut talk = gate.narrow(&rustls::version::TLS13);
            talk.write_all(GET.as_bytes()).unwrap();
            head(&mut talk);
            talk
        })
        .collect();
    gate.until("each has a place", |seen| seen.in_use == 30);
    // Another is served by the only worker.
    let mut talk = gate.client();
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi";
    for _ in 0..10 {
        talk.write_all(post.as_bytes()).unwrap();
        let said = head(&mut talk);
        assert_eq!(body(&mut talk, &said), b"hi");
    }
    let kept = gate.site.stats().pending_output_bytes;
    assert!(kept < 30 * 160 * 1024, "{kept} bytes are kept");
    let mut rest = vec![0; 12_000_000];
    slow[7].read_exact(&mut rest).unwrap();
    assert!(rest == noise(12_000_000));
    drop(slow);
    gate.until("all places are given back", |seen| seen.in_use == 0);
}

#[test]
fn a_client_of_tls_that_leaves_frees_its_place_at_once() {
    let listener = backend();
    let gate = Gate::of(&listener, Limits::default().workers(1), 1, true);
    for version in VERSIONS {
        for notify in [true, false] {
            let mut talk = gate.client_of(version);
            talk.write_all(GET.as_bytes()).unwrap();
            let mut called = accept(&listener);
            head(&mut called);
            let mut waits = gate.client_of(version);
            waits.write_all(GET.as_bytes()).unwrap();
            gate.until("it waits", |seen| seen.waiting == 1);
            for mut leaves in [waits, talk] {
                if notify {
                    leaves.conn.send_close_notify();
                    leaves.flush().unwrap();
                }
                drop(leaves);
                gate.until("it has left", |seen| seen.waiting == 0);
            }
            gate.until("its place is free", |seen| seen.in_use == 0);
            let ended = called.read(&mut [0]);
            assert!(
                matches!(&ended, Ok(0))
                    || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
            );
        }
    }
}

#[test]
fn a_websocket_passes_inside_tls() {
    let backend = Site::serve(Limits::default(), websocket::echo());
    let gate = Gate::before(&backend.address.to_string(), Limits::default().workers(1), 2, true);
    for version in VERSIONS {
        let (mut socket, answer) = tungstenite::client("wss://localhost/", gate.client_of(version)).unwrap();
        assert_eq!(answer.status(), 101);
        for size in [1, 1000, 500_000] {
            let sent = tungstenite::Message::binary(noise(size));
            socket.send(sent.clone()).unwrap();
            assert!(socket.read().unwrap() == sent, "{size}");
        }
        gate.until("it holds its place", |seen| seen.in_use == 1);
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
        gate.until("its place is free", |seen| seen.in_use == 0);
    }
    drop(gate);
    backend.end();
}

#[test]
fn over_tls_words_go_both_ways_and_a_half_close_is_kept() {
    let listener = backend();
    let gate = Gate::of(&listener, Limits::default().workers(1), 2, false);
    for version in VERSIONS {
        // The client ends first.
        let mut talk = gate.client_of(version);
        talk.write_all(b"question").unwrap();
        let mut peer = accept(&listener);
        let mut heard = [0; 8];
        peer.read_exact(&mut heard).unwrap();
        talk.conn.send_close_notify();
        talk.flush().unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "its end is passed on");
        peer.write_all(b"answer").unwrap();
        drop(peer);
        let mut said = String::new();
        talk.read_to_string(&mut said).unwrap();
        assert_eq!(said, "answer");
        // The backend ends first; TLS 1.2 has no half-closed connections.
        if version.version == rustls::ProtocolVersion::TLSv1_3 {
            let mut talk = gate.client_of(version);
            talk.flush().unwrap();
            let mut peer = accept(&listener);
            peer.write_all(b"welcome").unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            let mut said = String::new();
            talk.read_to_string(&mut said).unwrap();
            assert_eq!(said, "welcome");
            talk.write_all(b"thanks").unwrap();
            talk.conn.send_close_notify();
            talk.flush().unwrap();
            let mut heard = String::new();
            peer.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "thanks");
        }
    }
    gate.until("all places are given back", |seen| seen.in_use == 0);
}

/// The last message of the handshake is the gate's with TLS 1.2, and the client's with TLS 1.3.
#[test]
fn a_client_is_through_its_handshake_before_the_gate_connects_for_its_first_byte() {
    let listener = backend();
    let certificate = Certificate::new(&["localhost"], 4000);
    let tls = Tls::pem(&certificate.pem, &certificate.key).unwrap();
    let name = listener.local_addr().unwrap().to_string();
    let service = proxy([name]).unwrap().connect_on(ConnectOn::FirstByte).build().unwrap();
    let listen = Listen::new("127.0.0.1:0", service).unwrap().tls(tls);
    let site = Site::listening(Server::builder().limits(Limits::default().workers(1)).listener(listen));
    let gate = Gate { site, certificate };
    for version in VERSIONS {
        let mut talk = gate.client_of(version);
        while talk.conn.is_handshaking() {
            talk.conn.complete_io(&mut talk.sock).unwrap();
        }
        assert_eq!(gate.seen().in_use, 0);
        talk.write_all(b"first").unwrap();
        let mut peer = accept(&listener);
        let mut heard = [0; 5];
        peer.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"first");
        peer.write_all(b"answer").unwrap();
        let mut said = [0; 6];
        talk.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"answer");
        drop((talk, peer));
        gate.until("its place is free", |seen| seen.in_use == 0);
    }
}

#[test]
fn a_client_that_is_refused_after_its_handshake_is_told_inside_tls_and_one_without_a_reply_is_reset() {
    let listener = backend();
    let limits = Limits::default().workers(1).queue_timeout(Duration::from_secs(1));
    for words in [&b"-ERR busy\r\n"[..], b""] {
        let certificate = Certificate::new(&["localhost"], 4000);
        let tls = Tls::pem(&certificate.pem, &certificate.key).unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let service = proxy([name]).unwrap().connections(1).busy_reply(words).build().unwrap();
        let listen = Listen::new("127.0.0.1:0", service).unwrap().tls(tls);
        let site = Site::listening(Server::builder().limits(limits.clone()).listener(listen));
        let gate = Gate { site, certificate };
        let mut holder = gate.client();
        holder.write_all(b"x").unwrap();
        let _peer = accept(&listener);
        for version in VERSIONS {
            let mut refused = gate.client_of(version);
            refused.write_all(b"PING\r\n").unwrap();
            let mut said = Vec::new();
            match refused.read_to_end(&mut said) {
                Ok(_) => assert!(!words.is_empty() && said == words, "{said:?}"),
                Err(error) => {
                    assert!(
                        words.is_empty() && error.kind() == ErrorKind::ConnectionReset,
                        "{error}, {said:?}"
                    );
                }
            }
        }
        gate.site.until_dropped(DropReason::QueueTimeout, 2);
    }
}

/// A stream that ends without `close_notify` may have been cut by somebody on the way.
#[test]
fn over_tls_a_stream_that_was_cut_short_does_not_end_for_the_backend_as_a_whole_one_does() {
    let listener = backend();
    let gate = Gate::of(&listener, Limits::default().workers(1), 1, false);
    let mut talk = gate.client();
    talk.write_all(b"half a mess").unwrap();
    let mut peer = accept(&listener);
    let mut heard = [0; 11];
    peer.read_exact(&mut heard).unwrap();
    talk.sock.shutdown(Shutdown::Both).unwrap();
    assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    gate.until("its place is free", |seen| seen.in_use == 0);
    // And a reset of the backend is one for the client.
    let mut talk = gate.client();
    talk.write_all(b"word").unwrap();
    let mut peer = accept(&listener);
    peer.read_exact(&mut [0; 4]).unwrap();
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert!(talk.read(&mut [0]).is_err());
    eventually("it is counted", || (gate.site.closed(CloseReason::Reset) == 2).then_some(()));
}

#[test]
fn over_tls_much_passes_both_ways_at_once_and_a_slow_reader_is_felt_by_the_other_side() {
    let listener = backend();
    let gate = Gate::of(&listener, Limits::default().workers(2), 2, false);
    let sent = noise(24_000_000);
    for version in VERSIONS {
        let mut talk = gate.narrow(version);
        talk.write_all(b"!").unwrap();
        let mut peer = accept(&listener);
        peer.read_exact(&mut [0]).unwrap();
        // Nobody reads: each side can send only so much.
        talk.sock.set_nonblocking(true).unwrap();
        peer.set_nonblocking(true).unwrap();
        let mut from_backend = 0;
        loop {
            match peer.write(&sent[from_backend..]) {
                Ok(n) => from_backend += n,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    std::thread::sleep(Duration::from_millis(20));
                    if peer.write(&sent[from_backend..from_backend + 1]).map(|n| from_backend += n).is_err() {
                        break;
                    }
                }
            }
            assert!(from_backend < sent.len(), "the kernel's buffers and 64 KiB hold less");
        }
        let kept = gate.site.stats().pending_output_bytes;
        assert!(kept < 256 * 1024, "{kept} bytes are kept");
        talk.sock.set_nonblocking(false).unwrap();
        peer.set_nonblocking(false).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut peer = &peer;
                peer.write_all(&sent[from_backend..]).unwrap();
            });
            scope.spawn(|| {
                let mut heard = vec![0; 1_000_000];
                let mut peer = &peer;
                peer.read_exact(&mut heard).unwrap();
                assert!(heard == sent[..1_000_000]);
            });
            for piece in sent[..1_000_000].chunks(100_000) {
                talk.write_all(piece).unwrap();
            }
            let mut came = vec![0; sent.len()];
            talk.read_exact(&mut came).unwrap();
            assert!(came == sent);
        });
    }
}

#[test]
fn the_program_serves_https_and_tls_before_a_backend() {
    let listener = backend();
    let port = listener.local_addr().unwrap().port();
    let certificate = Certificate::new(&["localhost"], 4000);
    let files = certificate.files();
    let _server = echoing(listener, 100_000);
    let service = format!("proxy:http://127.0.0.1:{port}");
    let gate = Program::new()
        .without_echo()
        .arg("--listen", format!("{service}=https://127.0.0.1:0"))
        .arg("--listen", format!("proxy:127.0.0.1:{port}=tls://127.0.0.1:0"))
        .arg("--tls-cert", files.certificate.display())
        .arg("--tls-key", files.key.display())
        .start();
    let at = gate.listening(&format!("{service} on https"));
    let url = format!("https://localhost:{}/", at.port());
    let resolve = format!("localhost:{}:127.0.0.1", at.port());
    let mut curl = support::command("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert"]).arg(&files.certificate);
    let output = support::finish(curl.args(["--resolve", &resolve, &url, &url]));
    assert!(output.status.success() && output.stdout.len() == 200_000, "{:?}", output.stderr);
    gate.listening(&format!("proxy:127.0.0.1:{port} on tls"));
}
