//! The private way to `tiny_http`: one connection, made before `tiny_http` starts and kept.
//!
//! `tiny_http` listens on a socket without a name in the file system whose queue has one place.
//! The front takes that place and shuts the listener down; only then is it handed over. So
//! `tiny_http` accepts exactly one connection in its life, from the front; its accept thread ends
//! at once, as do the spare threads of its pool, and nobody else can reach it, now or later.

use super::request::AdminRequest;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};
use tiny_http::{Header, Response, StatusCode};

/// How long `tiny_http` may take to hand over a request; it takes microseconds.
const RELAY_TIME_MAX: Duration = Duration::from_millis(500);

/// What a page answers, before it is HTTP.
#[derive(Debug)]
pub(super) struct AdminAnswer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

/// The connection to `tiny_http`.
pub(super) struct PrivateLink {
    // Dropping a `tiny_http::Server` on a socket without a path panics. It owns nothing but two
    // small allocations once its accept thread has ended, so it is left alone.
    server: ManuallyDrop<tiny_http::Server>,
    link: UnixStream,
}

impl PrivateLink {
    /// Starts `tiny_http` behind its private socket.
    pub(super) fn start() -> io::Result<Self> {
        let (listener, link) = private_pair()?;
        // Its threads have no names of their own: they get that of the thread which starts it.
        let start = move || tiny_http::Server::from_listener(listener, None);
        let started = std::thread::Builder::new().name("admin-http".to_owned()).spawn(start)?.join();
        let server =
            started.map_err(|_| io::Error::other("tiny_http panicked"))?.map_err(io::Error::other)?;
        link.set_nonblocking(true)?;
        Ok(Self { server: ManuallyDrop::new(server), link })
    }

    /// Has one request answered by `page`, and gives the whole answer as it is to be sent.
    pub(super) fn answer(
        &mut self,
        request: &AdminRequest,
        page: impl FnOnce(&str) -> AdminAnswer,
    ) -> io::Result<Vec<u8>> {
        let head = format!("{request} HTTP/1.1\r\nHost: tidegate\r\n\r\n");
        // The link is empty between requests, and a head is smaller than any socket's buffer.
        if self.link.write(head.as_bytes())? < head.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let received = self.receive()?;
        let answer = page(received.url());
        let mut out = Vec::with_capacity(answer.body.len() + 512);
        let length = answer.body.len();
        let body = Pump { link: &self.link, body: &answer.body, out: &mut out };
        let mut response = Response::new(StatusCode(answer.status), Vec::new(), body, Some(length), None)
            .with_chunked_threshold(usize::MAX);
        for (name, value) in &answer.headers {
            response.add_header(header(name, value)?);
        }
        response.add_header(header("Server", "tidegate")?);
        received.respond(response)?;
        let expected = if request.head { 0 } else { length };
        self.finish(&mut out, expected)?;
        close_after(&mut out)?;
        Ok(out)
    }

    fn receive(&self) -> io::Result<tiny_http::Request> {
        let deadline = Instant::now() + RELAY_TIME_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // One error is told: the end of the accept thread, which is wanted.
            if let Ok(Some(request)) = self.server.recv_timeout(left) {
                return Ok(request);
            }
        }
    }

    /// Takes the rest of an answer from the link.
    fn finish(&self, out: &mut Vec<u8>, body: usize) -> io::Result<()> {
        drain(&self.link, out)?;
        let head = head_len(out).ok_or(io::ErrorKind::UnexpectedEof)?;
        if out.len() == head + body { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// The body of a response: each time `tiny_http` asks for more of it, what it has written so far
/// is taken from the link. So one thread can do both ends, and an answer of any size fits.
struct Pump<'a> {
    link: &'a UnixStream,
    body: &'a [u8],
    out: &'a mut Vec<u8>,
}

impl Read for Pump<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        drain(self.link, self.out)?;
        self.body.read(buffer)
    }
}

/// Takes all there is from the link.
fn drain(mut link: &UnixStream, out: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match link.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => out.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn head_len(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// Says that the connection ends with this answer (`tiny_http` does not let a header say it).
fn close_after(answer: &mut Vec<u8>) -> io::Result<()> {
    let status_line = answer.windows(2).position(|w| w == b"\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let at = status_line + 2;
    answer.splice(at..at, *b"Connection: close\r\n");
    Ok(())
}

fn header(name: &str, value: &str) -> io::Result<Header> {
    Header::from_bytes(name, value)
        .map_err(|()| io::Error::new(io::ErrorKind::InvalidInput, "a header is not ASCII"))
}

/// A listener whose only connection ever is the stream beside it.
#[cfg(target_os = "linux")]
fn private_pair() -> io::Result<(UnixListener, UnixStream)> {
    use socket2::{Domain, SockAddr, Socket, Type};
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    // Another process could take the place first, by guessing the name; then it waits on a
    // listener that is thrown away.
    for _ in 0..8 {
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Without a name, the kernel chooses one that is not in the file system.
        listener.bind(&SockAddr::unix("")?)?;
        // The queue of a Unix socket has one place more than its backlog.
        listener.listen(0)?;
        let link = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        link.set_nonblocking(true)?;
        match link.connect(&listener.local_addr()?) {
            Ok(()) => {
                // From here on nobody can connect; what is in the queue is still accepted.
                listener.shutdown(std::net::Shutdown::Both)?;
                return Ok((listener.into(), link.into()));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Elsewhere the socket has a name for a moment, in a directory of our own.
#[cfg(not(target_os = "linux"))]
fn private_pair() -> io::Result<(UnixListener, UnixStream)> {
    use std::os::unix::fs::DirBuilderExt;
    let nonce = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos());
    let dir = std::env::temp_dir().join(format!("tidegate-{}-{nonce:x}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    let path = dir.join("admin");
    let pair = UnixListener::bind(&path).and_then(|listener| Ok((listener, UnixStream::connect(&path)?)));
    // Nothing is left behind, whatever happened.
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_dir(&dir);
    pair
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str) -> AdminRequest {
        AdminRequest { head: false, target: target.to_owned(), reload: false, html: false }
    }

    fn page(body: Vec<u8>) -> impl FnOnce(&str) -> AdminAnswer {
        |_| AdminAnswer { status: 200, headers: vec![("Content-Type", "text/plain".to_owned())], body }
    }

    #[test]
    fn answers_of_any_size_come_whole_and_in_turn() {
        let mut link = PrivateLink::start().unwrap();
        for size in [0, 1, 1023, 1024, 8191, 8192, 8193, 300_000, 5_000_000, 0, 17] {
            let body: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let answer = link.answer(&get("/x"), page(body.clone())).unwrap();
            let head = head_len(&answer).unwrap();
            let text = String::from_utf8_lossy(&answer[..head]).into_owned();
            assert!(text.starts_with("HTTP/1.1 200 OK\r\nConnection: close\r\n"), "{text}");
            assert!(text.contains(&format!("Content-Length: {size}\r\n")), "{text}");
            assert!(answer[head..] == body, "the body of {size} bytes differs");
        }
    }

    #[test]
    fn head_has_no_body_and_the_next_answer_is_right() {
        let mut link = PrivateLink::start().unwrap();
        let head = AdminRequest { head: true, target: "/x".to_owned(), reload: false, html: false };
        let answer = link.answer(&head, page(vec![b'x'; 100])).unwrap();
        assert_eq!(head_len(&answer), Some(answer.len()));
        assert!(String::from_utf8_lossy(&answer).contains("Content-Length: 100\r\n"));
        let seen = |url: &str| AdminAnswer { status: 404, headers: Vec::new(), body: url.into() };
        let answer = link.answer(&get("/seen?by=page"), seen).unwrap();
        assert!(answer.ends_with(b"\r\n\r\n/seen?by=page"));
    }

    #[test]
    fn nobody_else_can_reach_it() {
        let (listener, link) = private_pair().unwrap();
        let address = listener.local_addr().unwrap();
        assert!(UnixStream::connect_addr(&address).is_err());
        assert!(listener.accept().is_ok(), "the one connection is ours");
        assert!(listener.accept().is_err());
        assert!(UnixStream::connect_addr(&address).is_err());
        drop(link);
    }
}
