//! TLS with real clients: rustls as a client in this process, curl and openssl beside it.
#![cfg(feature = "tls")]

#[path = "support/certificate.rs"]
mod certificate;
mod support;

use certificate::{Certificate, Files};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{PATIENCE, Program, Site, eventually, run};
use tidegate::reason::{CloseReason, HandshakeFailure};
use tidegate::{Echo, Limits, Listen, Server, Service, Tls, lines};

type Talk = StreamOwned<ClientConnection, TcpStream>;

/// A server with TLS in this process.
struct Secure {
    site: Site,
    certificate: Certificate,
}

impl Secure {
    fn serve(limits: Limits, service: impl Service) -> Self {
        let certificate = Certificate::new(&["localhost"], 4000);
        let tls = Tls::pem(&certificate.pem, &certificate.key).unwrap().protocols(["http/1.1"]).unwrap();
        let listen = Listen::new("127.0.0.1:0", service).unwrap().tls(tls);
        Self { site: Site::listening(Server::builder().limits(limits).listener(listen)), certificate }
    }

    fn client(&self) -> Talk {
        talk(self.site.address, &self.certificate.pem, "localhost", &[])
    }

    fn tcp(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.site.address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp
    }
}

fn config(pem: &str, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

fn connection(config: ClientConfig, name: &str) -> ClientConnection {
    ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap()
}

/// A client that trusts this certificate and asks for this name.
fn talk(address: SocketAddr, pem: &str, name: &str, protocols: &[&str]) -> Talk {
    let mut config = config(pem, rustls::ALL_VERSIONS);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(connection(config, name), tcp)
}

fn read_line(talk: &mut impl Read) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\n") {
        talk.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    String::from_utf8(line).unwrap()
}

fn hello() -> impl Service {
    lines("hello", |line, reply| reply.send(&[b"hello ", line, b"\n"].concat()))
}

#[test]
fn what_is_sent_through_tls_comes_back_whole_in_both_versions() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let server = Secure::serve(Limits::default().workers(2), Echo);
        let connection = connection(config(&server.certificate.pem, &[version]), "localhost");
        let mut talk = StreamOwned::new(connection, server.tcp());
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for block in sent.chunks(300_000) {
            talk.write_all(block).unwrap();
            let mut came = vec![0; block.len()];
            talk.read_exact(&mut came).unwrap();
            assert!(came == block);
        }
        talk.conn.send_close_notify();
        talk.flush().unwrap();
        // The server says that this was all: an end without that would be an error here.
        assert_eq!(talk.read_to_end(&mut Vec::new()).unwrap(), 0);
        eventually("the connection ends", || (server.site.closed(CloseReason::Client) == 1).then_some(()));
    }
}

/// Each renewal asks the server to renew its keys too: what follows in both directions is under new ones.
#[test]
fn a_client_that_renews_its_keys_is_answered_under_new_ones() {
    let server = Secure::serve(Limits::default().workers(1), Echo);
    let mut talk = server.client();
    for n in 0..20 {
        let sent = vec![n; 40_000];
        talk.write_all(&sent).unwrap();
        let mut came = vec![0; sent.len()];
        talk.read_exact(&mut came).unwrap();
        assert!(came == sent, "after {n} renewals");
        talk.conn.refresh_traffic_keys().unwrap();
    }
    talk.conn.send_close_notify();
    talk.flush().unwrap();
    assert_eq!(talk.read_to_end(&mut Vec::new()).unwrap(), 0);
    eventually("the connection ends", || (server.site.closed(CloseReason::Client) == 1).then_some(()));
}

/// The client says that it will say no more, and is answered whole: more than any socket's buffer holds.
#[test]
fn what_was_asked_before_a_close_notify_is_answered_to_its_end() {
    let much = lines("much", |line, reply| reply.send(&line.repeat(1000)));
    let server = Secure::serve(Limits::default().workers(1).output_per_connection(16 << 20), much);
    let mut talk = server.client();
    let line = vec![b'x'; 9_999];
    talk.write_all(&[&line[..], b"\n"].concat()).unwrap();
    talk.conn.send_close_notify();
    talk.flush().unwrap();
    talk.sock.shutdown(Shutdown::Write).unwrap();
    let mut came = Vec::new();
    talk.read_to_end(&mut came).expect("the answer ends with a close_notify");
    assert_eq!(came.len(), 9_999_000);
    eventually("the connection ends", || (server.site.counts().open() == 0).then_some(()));
}

#[test]
fn requests_in_one_record_are_all_answered_and_one_that_comes_byte_by_byte_is() {
    let server = Secure::serve(Limits::default().workers(1), hello());
    let mut talk = server.client();
    let many: String = (0..400).map(|n| format!("{n}\n")).collect();
    talk.write_all(many.as_bytes()).unwrap();
    for n in 0..400 {
        assert_eq!(read_line(&mut talk), format!("hello {n}\n"));
    }
    let mut record = Vec::new();
    talk.conn.writer().write_all(&many.as_bytes()[..30]).unwrap();
    talk.conn.writer().write_all(b"end\n").unwrap();
    while talk.conn.wants_write() {
        talk.conn.write_tls(&mut record).unwrap();
    }
    talk.sock.set_nodelay(true).unwrap();
    for byte in record {
        talk.sock.write_all(&[byte]).unwrap();
        if byte % 16 == 0 {
            std::thread::yield_now();
        }
    }
    for n in 0..15 {
        if n < 13 {
            let line = read_line(&mut talk);
            assert!(line.starts_with("hello "), "{line}");
        }
    }
}

#[test]
fn a_client_that_stops_reading_is_answered_when_it_reads_again() {
    let server = Secure::serve(Limits::default().workers(1).output_per_connection(8 << 20), hello());
    let mut talk = server.client();
    let line = format!("{}\n", "x".repeat(30_000));
    let sender = std::thread::scope(|scope| {
        for _ in 0..100 {
            talk.write_all(line.as_bytes()).unwrap();
        }
        scope.spawn(|| {}).join().is_ok()
    });
    assert!(sender);
    for _ in 0..100 {
        assert_eq!(read_line(&mut talk).len(), line.len() + 6);
    }
}

#[test]
fn the_service_learns_what_was_agreed_on() {
    let told = lines("told", |_, reply| {
        let tls = reply.peer().tls().expect("it is known after the handshake").clone();
        let protocol = tls.protocol.map(|name| String::from_utf8(name).unwrap());
        let told = format!("{} {:?} {:?} {}\n", tls.version, tls.server_name, protocol, tls.resumed);
        reply.send(told.as_bytes())
    })
    .verify(|peer| peer.tls().is_none() && peer.listener().starts_with("tls://127.0.0.1:"));
    let server = Secure::serve(Limits::default(), told);
    let mut talk = talk(server.site.address, &server.certificate.pem, "localhost", &["h2", "http/1.1"]);
    talk.write_all(b"?\n").unwrap();
    assert_eq!(read_line(&mut talk), "1.3 Some(\"localhost\") Some(\"http/1.1\") false\n");
}

#[test]
fn silent_and_half_sending_clients_hold_no_worker_and_are_ended_in_time() {
    let limits = Limits::default().workers(2).read_timeout(Duration::from_secs(8));
    let server = Secure::serve(limits, hello());
    let silent: Vec<_> = (0..150).map(|_| server.tcp()).collect();
    let half: Vec<_> = (0..150)
        .map(|_| {
            let mut tcp = server.tcp();
            tcp.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).unwrap();
            tcp
        })
        .collect();
    eventually("all are parked", || (server.site.counts().idle == 300).then_some(()));
    let began = Instant::now();
    let mut talk = server.client();
    talk.write_all(b"joe\n").unwrap();
    assert_eq!(read_line(&mut talk), "hello joe\n");
    assert!(began.elapsed() < Duration::from_secs(2), "answered after {:?}", began.elapsed());
    eventually("all are ended", || (server.site.failed(HandshakeFailure::Timeout) == 300).then_some(()));
    assert_eq!(server.site.closed(CloseReason::Handshake), 300);
    drop((silent, half));
}

#[test]
fn a_drain_does_not_wait_for_silent_clients_of_tls() {
    let server = Secure::serve(Limits::default().workers(2), hello());
    let silent: Vec<_> = (0..20).map(|_| server.tcp()).collect();
    eventually("all are parked", || (server.site.counts().idle == 20).then_some(()));
    let report = server.site.end_within(Duration::from_secs(20));
    assert!(report.is_clean() && report.elapsed < Duration::from_secs(5), "{report:?}");
    drop(silent);
}

#[test]
fn http_without_tls_is_told_what_to_do_and_noise_is_not() {
    let server = Secure::serve(Limits::default(), hello());
    for (said, answer) in
        [(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "HTTP/1.1 400 Bad Request\r\n"), (b"\x01\x02\x03", "")]
    {
        let mut tcp = server.tcp();
        tcp.write_all(said).unwrap();
        let mut came = String::new();
        tcp.read_to_string(&mut came).unwrap();
        assert!(came.starts_with(answer) && came.is_empty() == answer.is_empty(), "{came}");
        assert!(answer.is_empty() || came.ends_with("use https:// URLs\n"), "{came}");
    }
    assert_eq!(
        (server.site.failed(HandshakeFailure::NotTls), server.site.closed(CloseReason::Handshake)),
        (2, 2)
    );
}

#[test]
fn each_failure_of_a_handshake_is_counted_by_its_reason() {
    let server = Secure::serve(Limits::default(), hello());
    let other = Certificate::new(&["localhost"], 4000);
    let distrusting = talk(server.site.address, &other.pem, "localhost", &[]).write_all(b"x");
    assert!(distrusting.is_err());
    assert!(
        talk(server.site.address, &server.certificate.pem, "localhost", &["h2"]).write_all(b"x").is_err()
    );
    let mut junk = server.tcp();
    junk.write_all(&[22, 3, 1, 0, 4, 1, 0, 0, 0]).unwrap();
    let mut cut = server.tcp();
    cut.write_all(&[22, 3, 1, 2, 0]).unwrap();
    cut.shutdown(Shutdown::Write).unwrap();
    for failure in [
        HandshakeFailure::Alert,
        HandshakeFailure::Protocol,
        HandshakeFailure::Malformed,
        HandshakeFailure::ClientGone,
    ] {
        eventually(failure.as_str(), || (server.site.failed(failure) == 1).then_some(()));
    }
}

#[test]
fn a_connection_that_is_cut_short_is_not_taken_for_one_that_was_ended() {
    let server = Secure::serve(Limits::default(), hello());
    let mut ended = server.client();
    ended.write_all(b"joe").unwrap();
    ended.conn.send_close_notify();
    ended.flush().unwrap();
    let mut came = String::new();
    ended.read_to_string(&mut came).unwrap();
    assert_eq!(came, "hello joe\n", "a last line without an end");
    let mut cut = server.client();
    cut.write_all(b"joe").unwrap();
    cut.sock.shutdown(Shutdown::Write).unwrap();
    let mut came = [0; 100];
    assert_eq!(cut.read(&mut came).unwrap_or(0), 0, "nobody knows whether that was all: no answer");
    eventually("both have ended", || (server.site.closed(CloseReason::Client) == 2).then_some(()));
}

#[test]
fn certificates_are_read_again_and_a_broken_file_keeps_the_old_ones() {
    let (old, new) = (Certificate::new(&["localhost"], 4000), Certificate::new(&["localhost"], 4000));
    let files: Files = old.files();
    let tls = Tls::files(&files.certificate, &files.key).unwrap();
    let listen = Listen::new("127.0.0.1:0", hello()).unwrap().tls(tls.clone());
    let site = Site::listening(Server::builder().listener(listen));
    let address = site.address;
    let works = |pem: &str| talk(address, pem, "localhost", &[]).write_all(b"x").is_ok();
    let mut standing = talk(address, &old.pem, "localhost", &[]);
    standing.write_all(b"a\n").unwrap();
    assert_eq!(tls.reload(), Ok(false));
    std::fs::write(&files.certificate, &new.pem).unwrap();
    let why = tls.reload().unwrap_err().to_string();
    assert!(why.contains("does not belong to the certificate"), "{why}");
    assert!(works(&old.pem) && !works(&new.pem));
    files.write(&new);
    assert_eq!(tls.reload(), Ok(true));
    assert!(works(&new.pem) && !works(&old.pem));
    standing.write_all(b"b\n").unwrap();
    assert_eq!(
        (read_line(&mut standing), read_line(&mut standing)),
        ("hello a\n".into(), "hello b\n".into())
    );
}

#[test]
fn a_client_is_shown_the_certificate_for_the_name_that_it_asks_for() {
    let first = Certificate::new(&["one.test", "127.0.0.1"], 4000);
    let second = Certificate::new(&["two.test", "127.0.0.1"], 4000);
    let (a, b) = (first.files(), second.files());
    let tls = Tls::files(&a.certificate, &a.key).unwrap().and_files(&b.certificate, &b.key).unwrap();
    let listen = Listen::new("127.0.0.1:0", hello()).unwrap().tls(tls);
    let site = Site::listening(Server::builder().listener(listen));
    for (pem, name, good) in [
        (&first.pem, "one.test", true),
        (&second.pem, "two.test", true),
        (&second.pem, "TWO.test", true),
        (&second.pem, "one.test", false),
        // No name is asked for: an address is none.
        (&first.pem, "127.0.0.1", true),
        (&second.pem, "127.0.0.1", false),
    ] {
        let said = talk(site.address, pem, name, &[]).write_all(b"x");
        assert_eq!(said.is_ok(), good, "{name}: {said:?}");
    }
}

#[test]
fn the_program_serves_https_to_curl_and_lines_to_openssl() {
    let files = Certificate::new(&["localhost"], 4000).files();
    let (certificate, key) = (files.certificate.to_str().unwrap(), files.key.to_str().unwrap());
    let server = Program::new()
        .without_echo()
        .arg("--listen", "hello=https://127.0.0.1:0")
        .arg("--listen", "hello=tls://127.0.0.1:0")
        .arg("--tls-cert", certificate)
        .arg("--tls-key", key)
        .start();
    let (web, plain) = (server.listening("hello on https"), server.listening("hello on tls"));
    let url = format!("https://localhost:{}/joe", web.port());
    let resolve = format!("localhost:{}:127.0.0.1", web.port());
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "20", "--cacert", certificate, "--resolve", &resolve, &url, &url])
        .output()
        .unwrap();
    let came = String::from_utf8_lossy(&curl.stdout);
    assert_eq!(came.matches("hello joe").count(), 2, "{came} {}", String::from_utf8_lossy(&curl.stderr));
    let shell = format!(
        "(echo joe; sleep 1) | openssl s_client -quiet -no_ign_eof -verify_return_error -CAfile {certificate} \
         -servername localhost -connect {plain} 2>/dev/null"
    );
    let openssl = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&openssl.stdout), "hello joe\n");
}

#[test]
fn check_says_in_one_line_what_is_wrong_with_a_certificate() {
    let (old, other) = (Certificate::new(&["localhost"], 2001), Certificate::new(&["localhost"], 4000));
    let (old, other) = (old.files(), other.files());
    let path = |file: &std::path::PathBuf| file.to_str().unwrap().to_owned();
    let listen = "hello=https://127.0.0.1:0";
    for (args, code, words) in [
        (vec![], 2, "needs a certificate: write --tls-cert FILE --tls-key FILE"),
        (
            vec![("--tls-cert", path(&old.certificate)), ("--tls-key", path(&old.key))],
            1,
            "expired on 2001-01-01",
        ),
        (
            vec![("--tls-cert", path(&other.certificate)), ("--tls-key", path(&old.key))],
            1,
            "does not belong to the certificate",
        ),
        (vec![("--tls-cert", "/nowhere".into()), ("--tls-key", path(&old.key))], 1, "cannot read /nowhere"),
    ] {
        for command in ["check", "serve"] {
            let mut all =
                vec![command.to_owned(), "--listen".into(), listen.into(), "--admin".into(), "off".into()];
            args.iter().for_each(|(name, value)| all.extend([(*name).to_owned(), value.clone()]));
            let output = run(&all);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{said}");
            assert!(said.contains(words) && said.lines().count() == 1, "{said}");
        }
    }
}

#[test]
fn a_balancers_header_comes_before_the_handshake() {
    let certificate = Certificate::new(&["localhost"], 4000);
    let tls = Tls::pem(&certificate.pem, &certificate.key).unwrap();
    let service = lines("who", |_, reply| {
        let address = reply.peer().address;
        reply.send(format!("{address}\n").as_bytes())
    })
    .verify(|peer| peer.address.ip() != Some([192, 0, 2, 66].into()));
    let limits = Limits::default().workers(2).read_timeout(Duration::from_millis(500));
    let balancers = ["127.0.0.1".parse::<tidegate::service::Network>().unwrap()];
    let listen = Listen::new("127.0.0.1:0", service).unwrap().accept_proxy(balancers).tls(tls);
    let site = Site::listening(Server::builder().limits(limits).listener(listen));
    let server = Secure { site, certificate };

    let header = b"PROXY TCP4 192.0.2.1 127.0.0.1 1000 443\r\n";
    let config = Arc::new(config(&server.certificate.pem, rustls::ALL_VERSIONS));
    for split in [0, 10, header.len()] {
        let mut tcp = server.tcp();
        tcp.set_nodelay(true).unwrap();
        for part in [&header[..split], &header[split..]].into_iter().filter(|part| !part.is_empty()) {
            tcp.write_all(part).unwrap();
            eventually("it waits for more", || (server.site.counts().idle == 1).then_some(()));
        }
        let name = ServerName::try_from("localhost").unwrap();
        let mut talk = StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), tcp);
        for _ in 0..2 {
            talk.write_all(b"x\n").unwrap();
            assert_eq!(read_line(&mut talk), "192.0.2.1:1000\n");
        }
        drop(talk);
        eventually("nobody is left", || (server.site.counts().open() == 0).then_some(()));
    }
    // A client that the service does not want costs no handshake.
    let mut unwanted = server.tcp();
    unwanted.write_all(b"PROXY TCP4 192.0.2.66 127.0.0.1 1000 443\r\n").unwrap();
    assert!(unwanted.read(&mut [0; 64]).map_or(true, |n| n == 0), "it is closed without a word");
    // Who is silent after the header has the time of a handshake's first byte; who sends no header none of it.
    let mut silent = server.tcp();
    silent.write_all(header).unwrap();
    let _headless = server.tcp();
    eventually("the headless one is ended", || {
        (server.site.closed(CloseReason::ReadTimeout) == 1).then_some(())
    });
    eventually("the silent one is ended", || (server.site.closed(CloseReason::Handshake) == 1).then_some(()));
    assert_eq!(server.site.failed(HandshakeFailure::Timeout), 1);
}
