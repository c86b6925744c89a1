//! Clients that behave for as long as a soak lasts: each keeps its connection and asks again and again. Only a program that
//! replaces itself may end a connection, in good order or, if the client was just asking, with a reset.

use crate::certificate::Files;
use crate::replaced::Process;
use crate::support::PATIENCE;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Speech {
    /// A line, and its answer.
    Lines,
    /// The same inside TLS.
    SecretLines,
    /// Bytes that come back from behind a gate.
    Pair,
    /// Requests inside TLS, answered from behind a gate.
    Requests,
    /// Messages inside TLS.
    Messages,
}

/// After this time without an answer a datagram is sent again.
const ANSWER_DUE: Duration = Duration::from_millis(500);

/// What all of them share.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) stop: AtomicBool,
    /// How long each answer took.
    pub(crate) waits: Mutex<Vec<Duration>>,
    /// Connections that had to be made anew because the program was replaced.
    pub(crate) renewed: AtomicU64,
    /// Requests that a gate could not pass on, and said so.
    pub(crate) told: AtomicU64,
    /// Datagrams that were answered, and those of them that were sent again.
    pub(crate) datagrams: AtomicU64,
    pub(crate) resent: AtomicU64,
}

/// How clients know the server.
pub(crate) fn trust(files: &Files) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(config.unwrap().with_root_certificates(roots).with_no_client_auth())
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection.
enum Connection {
    Stream(Box<dyn Stream>),
    Messages(Box<tungstenite::WebSocket<Box<dyn Stream>>>),
}

fn plain(at: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect_timeout(&at, PATIENCE)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// A connection with TLS in it, whose handshake begins when it is used.
pub(crate) fn secret(
    at: SocketAddr,
    trust: &Arc<ClientConfig>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    Ok(StreamOwned::new(ClientConnection::new(trust.clone(), name).unwrap(), plain(at)?))
}

fn connect(speech: Speech, at: SocketAddr, trust: &Arc<ClientConfig>) -> io::Result<Connection> {
    Ok(match speech {
        Speech::Lines | Speech::Pair => Connection::Stream(Box::new(plain(at)?)),
        Speech::SecretLines | Speech::Requests => Connection::Stream(Box::new(secret(at, trust)?)),
        Speech::Messages => {
            let stream: Box<dyn Stream> = Box::new(secret(at, trust)?);
            let opened = tungstenite::client("wss://localhost/", stream);
            Connection::Messages(Box::new(opened.map_err(|error| io::Error::other(error.to_string()))?.0))
        }
    })
}

/// Asks once. Whether the answer is the one that was wanted: a gate may say that it cannot reach its backend now.
fn ask(connection: &mut Connection, speech: Speech) -> io::Result<bool> {
    let stream = match connection {
        Connection::Stream(stream) => stream,
        Connection::Messages(socket) => {
            let other = |error: tungstenite::Error| io::Error::other(error.to_string());
            socket.send("ask".into()).map_err(other)?;
            let answer = socket.read().map_err(other)?;
            if answer.is_close() {
                return Err(io::Error::other(format!("the server ends it: {answer:?}")));
            }
            assert!(answer.is_ping() || answer.to_text().is_ok_and(|text| text == "ask"), "{answer:?}");
            return Ok(true);
        }
    };
    let (words, answer) = match speech {
        Speech::Lines | Speech::SecretLines => ("ask\n", "hello ask\n"),
        _ if speech == Speech::Pair => ("ask\n", "ask\n"),
        _ => ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nask", ""),
    };
    stream.write_all(words.as_bytes())?;
    stream.flush()?;
    if speech != Speech::Requests {
        let mut heard = vec![0; answer.len()];
        stream.read_exact(&mut heard)?;
        assert_eq!(String::from_utf8_lossy(&heard), answer);
        return Ok(true);
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.expect("a length").parse().unwrap()];
    stream.read_exact(&mut body)?;
    let fine = head.starts_with("HTTP/1.1 200 ");
    assert!(if fine { body == b"ask" } else { head.starts_with("HTTP/1.1 50") }, "{head}");
    Ok(fine)
}

/// Goes on until it is told to stop.
pub(crate) fn behave(
    speech: Speech,
    at: SocketAddr,
    trust: &Arc<ClientConfig>,
    process: &Process<'_>,
    kept: &Kept,
) {
    let (mut connection, mut made_by) = renew(speech, at, trust, process);
    while !kept.stop.load(Relaxed) {
        let began = Instant::now();
        match ask(&mut connection, speech) {
            Ok(true) => kept.waits.lock().unwrap().push(began.elapsed()),
            Ok(false) => drop(kept.told.fetch_add(1, Relaxed)),
            Err(error) => {
                let replaced = process.is_being_replaced() || process.number() != made_by;
                assert!(replaced, "{speech:?}: a connection was lost: {error}, after {:?}", began.elapsed());
                kept.renewed.fetch_add(1, Relaxed);
                (connection, made_by) = renew(speech, at, trust, process);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A client of datagrams goes on until it is told to stop. A datagram may be lost, and is sent again until it is answered, whoever
/// answers it then: the program may be replaced meanwhile.
pub(crate) fn behave_over_udp(at: SocketAddr, kept: &Kept) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(at).unwrap();
    socket.set_read_timeout(Some(ANSWER_DUE)).unwrap();
    let mut number = 0_u64;
    while !kept.stop.load(Relaxed) {
        number += 1;
        let (words, began, mut sent) = (number.to_string(), Instant::now(), 0);
        loop {
            sent += 1;
            // Either fails where the system knows that nobody took the last one.
            let _ = socket.send(words.as_bytes());
            if is_echoed(&socket, &words) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "datagram {number} has no answer, sent {sent} times");
        }
        kept.datagrams.fetch_add(1, Relaxed);
        kept.resent.fetch_add(u64::from(sent > 1), Relaxed);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether this comes back in time. Late answers to what was asked before are passed over.
fn is_echoed(socket: &UdpSocket, words: &str) -> bool {
    let (began, mut answer) = (Instant::now(), [0; 64]);
    while began.elapsed() < ANSWER_DUE {
        match socket.recv(&mut answer) {
            Ok(length) if &answer[..length] == words.as_bytes() => return true,
            Ok(_) => {}
            // Nobody listens at the moment, or nothing came in time.
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    false
}

/// Connects and asks until there is an answer: the newest connection may be refused while others attack.
fn renew(
    speech: Speech,
    at: SocketAddr,
    trust: &Arc<ClientConfig>,
    process: &Process<'_>,
) -> (Connection, u64) {
    let began = Instant::now();
    loop {
        let made_by = process.number();
        let first = connect(speech, at, trust).and_then(|mut made| ask(&mut made, speech).map(|_| made));
        match first {
            Ok(connection) => return (connection, made_by),
            Err(error) => assert!(began.elapsed() < PATIENCE, "{speech:?}: nobody gets in: {error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
