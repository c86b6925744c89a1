//! Clients that abuse TLS, few and many: whatever they do or leave undone, somebody who behaves is answered at once.
#![cfg(feature = "tls")]

#[path = "support/certificate.rs"]
mod certificate;
mod support;

use certificate::Certificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{PATIENCE, Site, Stop, eventually, figure, raise_open_files, with_processors};
use tidegate::reason::HandshakeFailure;
use tidegate::{Limits, Listen, Server, Tls, lines};

type Talk = StreamOwned<ClientConnection, TcpStream>;

/// How soon somebody who behaves is answered, with the connection and the handshake. A program that was not optimised
/// computes its side and the client's slowly.
const AT_ONCE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 150 } else { 50 });

/// A server with two workers that greets each line, and a client's side of TLS.
struct Secure {
    site: Site,
    config: Arc<ClientConfig>,
}

impl Secure {
    fn serve() -> Self {
        raise_open_files();
        let certificate = Certificate::new(&["localhost"], 4000);
        let tls = Tls::pem(&certificate.pem, &certificate.key).unwrap();
        let hello = lines("hello", |line, reply| reply.send(&[b"hello ", line, b"\n"].concat()));
        // Long enough that nobody is ended while somebody else is timed.
        let limits = Limits::default().workers(2).read_timeout(Duration::from_secs(60));
        // All may wait: who is refused where handshakes come faster than they are made is another promise.
        let limits = limits.queue(2 * CROWDS[1]).queue_timeout(3 * PATIENCE);
        let listen = Listen::new("127.0.0.1:0", hello).unwrap().tls(tls);
        let site = Site::listening(Server::builder().limits(limits).listener(listen));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Self { site, config: Arc::new(config) }
    }

    fn tcp(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.site.address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    fn talk(&self) -> Talk {
        let name = ServerName::try_from("localhost").unwrap();
        StreamOwned::new(ClientConnection::new(self.config.clone(), name).unwrap(), self.tcp())
    }

    /// A client whose handshake is done.
    fn shaken(&self) -> Talk {
        let mut talk = self.talk();
        while talk.conn.is_handshaking() {
            talk.conn.complete_io(&mut talk.sock).unwrap();
        }
        talk
    }

    /// The first message of a handshake.
    fn hello(&self) -> Vec<u8> {
        let (mut talk, mut bytes) = (self.talk(), Vec::new());
        while talk.conn.wants_write() {
            talk.conn.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Somebody who behaves comes nine times: the median time to an answer is short.
    #[track_caller]
    fn answers_at_once(&self, beside: &str) {
        let mut times: Vec<Duration> = (0..9).map(|_| self.time()).collect();
        times.sort();
        figure(format!("{beside}: a handshake and a reply in {:.1?}, {:.1?} at most", times[4], times[8]));
        assert!(times[4] < AT_ONCE, "{beside}: answered after {times:?}");
    }

    /// From connecting to the reply.
    fn time(&self) -> Duration {
        let began = Instant::now();
        let mut talk = self.talk();
        ask(&mut talk);
        began.elapsed()
    }
}

fn ask(talk: &mut Talk) {
    talk.write_all(b"joe\n").unwrap();
    let mut came = [0; 10];
    talk.read_exact(&mut came).unwrap();
    assert_eq!(&came, b"hello joe\n");
}

/// Whether the server ends this connection, within the time that a test may take.
fn is_ended(mut tcp: &TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match tcp.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

const CROWDS: [usize; 2] = [4, 1000];

#[test]
fn clients_that_never_begin_a_handshake_delay_nobody() {
    for crowd in CROWDS {
        let server = Secure::serve();
        let silent: Vec<_> = (0..crowd).map(|_| server.tcp()).collect();
        eventually("all are parked", || (server.site.counts().idle == crowd as u64).then_some(()));
        server.answers_at_once(&format!("{crowd} silent ones"));
        assert!(server.site.counts().open() >= crowd as u64, "nobody was ended for it");
        drop(silent);
    }
}

#[test]
fn clients_that_stop_within_their_first_message_delay_nobody() {
    for crowd in CROWDS {
        let server = Secure::serve();
        let hello = server.hello();
        let half: Vec<_> = (0..crowd)
            .map(|_| {
                let mut tcp = server.tcp();
                tcp.write_all(&hello[..hello.len() / 2]).unwrap();
                tcp
            })
            .collect();
        eventually("all are parked", || (server.site.counts().idle == crowd as u64).then_some(()));
        server.answers_at_once(&format!("{crowd} with half a first message"));
        assert!(server.site.counts().open() >= crowd as u64, "nobody was ended for it");
        drop(half);
    }
}

#[test]
fn clients_that_fall_silent_after_the_handshake_delay_nobody() {
    for crowd in CROWDS {
        let server = Secure::serve();
        let shaken: Vec<_> = (0..crowd).map(|_| server.shaken()).collect();
        eventually("all are parked", || (server.site.counts().idle == crowd as u64).then_some(()));
        server.answers_at_once(&format!("{crowd} silent after their handshake"));
        drop(shaken);
    }
}

#[test]
fn clients_that_send_their_first_message_a_byte_at_a_time_delay_nobody() {
    for crowd in CROWDS {
        let server = Secure::serve();
        let hello = server.hello();
        let mut slow: Vec<_> = (0..crowd).map(|_| server.tcp()).collect();
        let enough = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for byte in &hello[..hello.len() - 1] {
                    for (n, tcp) in slow.iter_mut().enumerate() {
                        tcp.write_all(&[*byte]).unwrap();
                        // About a thousand bytes a second in all.
                        if n % 4 == 3 {
                            std::thread::sleep(Duration::from_millis(4));
                        }
                    }
                    if enough.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            eventually("bytes have come", || (server.site.counts().idle >= crowd as u64).then_some(()));
            server.answers_at_once(&format!("{crowd} that send a byte at a time"));
            enough.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn noise_and_records_that_are_too_long_are_ended_at_once_and_delay_nobody() {
    let server = Secure::serve();
    // A handshake's record whose message is noise; a record longer than any may be; a message that promises 16 MiB.
    let noise = [&[22, 3, 1, 0, 200][..], &[0xee; 200]].concat();
    let huge = [&[22, 3, 3, 0xff, 0xff][..], &[1; 4096]].concat();
    let endless = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 0x4000 - 4]].concat();
    for crowd in CROWDS {
        for (what, bytes) in [("noise", &noise), ("too long", &huge), ("endless", &endless)] {
            let clients: Vec<_> = (0..crowd)
                .map(|_| {
                    let mut tcp = server.tcp();
                    // The server may have ended it before all is sent.
                    let _ = tcp.write_all(bytes);
                    tcp
                })
                .collect();
            server.answers_at_once(&format!("{crowd} with a first message that is {what}"));
            assert!(clients.iter().all(is_ended), "{what}: all are ended, long before their deadline");
        }
    }
    assert_eq!(server.site.failed(HandshakeFailure::Timeout), 0);
}

#[test]
fn http_without_tls_is_answered_however_many_come_and_delays_nobody() {
    let server = Secure::serve();
    for crowd in CROWDS {
        let clients: Vec<_> = (0..crowd)
            .map(|_| {
                let mut tcp = server.tcp();
                tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                tcp
            })
            .collect();
        server.answers_at_once(&format!("{crowd} without TLS"));
        for mut tcp in clients {
            let mut came = String::new();
            tcp.read_to_string(&mut came).unwrap();
            assert!(came.starts_with("HTTP/1.1 400 ") && came.ends_with("use https:// URLs\n"), "{came}");
        }
    }
    assert_eq!(server.site.failed(HandshakeFailure::NotTls), 1004);
}

#[test]
fn a_client_that_renews_its_keys_without_end_is_ended() {
    let server = Secure::serve();
    for crowd in [4, 100] {
        let mut talks: Vec<_> = (0..crowd).map(|_| server.shaken()).collect();
        let ended = std::thread::scope(|scope| {
            let renewing = scope.spawn(|| talks.iter_mut().filter_map(renew_without_end).count());
            server.answers_at_once(&format!("{crowd} that renew their keys"));
            renewing.join().unwrap()
        });
        assert_eq!(ended, crowd, "each was ended");
    }
}

/// How many times the keys were renewed before the server ended it.
fn renew_without_end(talk: &mut Talk) -> Option<usize> {
    for n in 0..10_000 {
        talk.conn.refresh_traffic_keys().ok()?;
        while talk.conn.wants_write() {
            if talk.conn.write_tls(&mut talk.sock).is_err() {
                return Some(n);
            }
        }
    }
    is_ended(&talk.sock).then_some(10_000)
}

#[test]
fn a_client_that_asks_to_negotiate_anew_is_told_no() {
    let server = Secure::serve();
    let mut openssl = Command::new("openssl");
    openssl.args([
        "s_client",
        "-tls1_2",
        "-legacy_renegotiation",
        "-connect",
        &server.site.address.to_string(),
    ]);
    let piped = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    eventually("it stands", || (server.site.counts().idle == 1).then_some(()));
    // For openssl a line with nothing but R is an order to negotiate anew.
    stdin.write_all(b"R\n").unwrap();
    eventually("the connection has ended", || (server.site.counts().open() == 0).then_some(()));
    server.answers_at_once("one that asked to negotiate anew");
    drop(stdin);
    let said = child.wait_with_output().unwrap();
    let said = [said.stdout, said.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("RENEGOTIATING") && !said.contains("hello"), "{said}");
}

/// How many replies one that has made its handshake gets in a second.
fn replies_in_a_second(talk: &mut Talk, second: u32, begun: &AtomicU64) -> u64 {
    let (began, mut replies) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(1) {
        ask(talk);
        replies += 1;
    }
    let begun = begun.load(Ordering::Relaxed);
    figure(format!("second {second}: {replies} replies beside {begun} handshakes so far"));
    replies
}

#[test]
fn a_flood_of_handshakes_leaves_the_established_their_replies_in_each_second() {
    let server = Secure::serve();
    let hello = server.hello();
    let (enough, begun) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut talk = server.shaken();
    ask(&mut talk);
    std::thread::scope(|scope| {
        let _enough = Stop(&enough);
        // The same first message again and again costs its sender nothing, and the server a key exchange and a signature.
        for _ in 0..2 {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let mut tcp = server.tcp();
                    if tcp.write_all(&hello).is_ok() && tcp.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                        begun.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        with_processors(|| {
            let fewest = (0..3).map(|second| replies_in_a_second(&mut talk, second, &begun)).min().unwrap();
            if fewest >= 100 { Ok(()) } else { Err(format!("only {fewest} replies in a second")) }
        });
        server.answers_at_once("a flood of handshakes");
    });
    assert!(begun.load(Ordering::Relaxed) >= 100, "it was a flood");
}
