//! What lies between the conversation and the server: a socket and, if the URL asks for them, TLS and the opening
//! handshake of a WebSocket.

use super::failure::Failure;
use super::random::random;
use super::socket::{self, Socket, wait};
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use tidegate_protocols::RequestForm;
use tidegate_protocols::tls::{Session, Shaken, Tls, TlsChoices};
use tidegate_protocols::websocket::{Greeting, GreetingReader, Handshake};
use tidegate_units::show_time;
use tidegate_units::url::{Scheme, Url};

/// How the server is reached: again and again, where it ends connections after some requests.
pub(super) struct Dialer {
    url: Url,
    tls: Option<Tls>,
    handshake: Option<Handshake>,
    timeout: Duration,
}

impl Dialer {
    pub(super) fn new(
        url: &Url,
        choices: &TlsChoices,
        form: &RequestForm,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let tls = match url.scheme.inside_tls() {
            None if choices.is_default() => None,
            None => {
                let why = format!("--cacert, --insecure and --tls-name are about TLS, and this is {url}");
                return Err(Failure::Usage(why));
            }
            Some(_) => {
                let protocol = url.scheme.has_path().then_some("http/1.1");
                Some(Tls::new(choices, &url.host, protocol).map_err(Failure::Failed)?)
            }
        };
        let handshake = matches!(url.scheme, Scheme::Ws | Scheme::Wss | Scheme::WsUnix).then(|| {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&random().to_ne_bytes());
            key[8..].copy_from_slice(&random().to_ne_bytes());
            Handshake::new(url, form, key)
        });
        Ok(Self { url: url.clone(), tls, handshake, timeout })
    }

    /// Connects, and makes all handshakes.
    pub(super) fn dial(&self) -> Result<Wire, Failure> {
        let deadline = Instant::now() + self.timeout;
        let socket = socket::connect(&self.url, self.timeout, deadline)?;
        let mut wire = Wire { socket, tls: None, early: Vec::new() };
        if let Some(tls) = &self.tls {
            self.shake(tls, &mut wire, deadline)?;
        }
        if let Some(handshake) = &self.handshake {
            self.greet(handshake, &mut wire, deadline)?;
        }
        Ok(wire)
    }

    fn shake(&self, tls: &Tls, wire: &mut Wire, deadline: Instant) -> Result<(), Failure> {
        let why = || tls.why().unwrap_or_else(|| "TLS failed".to_owned());
        let mut session = tls.begin().ok_or_else(|| self.failed(why()))?;
        loop {
            let shaken = session.shake(tls, &mut wire.socket);
            match shaken {
                Shaken::Done => break,
                Shaken::Waits => {}
                Shaken::Ended => return Err(self.failed("it closed the connection in the TLS handshake")),
                Shaken::Broken(error) => return Err(self.broken("TLS", &error)),
                Shaken::Failed => return Err(self.failed(why())),
            }
            self.wait(wire, session.has_output(), deadline, "TLS")?;
        }
        wire.tls = Some(session);
        Ok(())
    }

    /// Opens the WebSocket.
    fn greet(&self, handshake: &Handshake, wire: &mut Wire, deadline: Instant) -> Result<(), Failure> {
        const NAME: &str = "WebSocket";
        let (mut rest, mut reader, mut buffer) = (handshake.bytes(), GreetingReader::default(), [0; 4096]);
        loop {
            match wire.send(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.broken(NAME, &error)),
            }
            let got = match wire.receive(&mut buffer) {
                Ok(0) => return Err(self.failed("it closed the connection in the WebSocket handshake")),
                Ok(got) => &buffer[..got],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(wire, !rest.is_empty() || wire.has_output(), deadline, NAME)?;
                    continue;
                }
                Err(error) => return Err(self.broken(NAME, &error)),
            };
            match reader.read(handshake, got) {
                Greeting::More => {}
                Greeting::Open(used) => {
                    wire.early = got[used..].to_vec();
                    return Ok(());
                }
                Greeting::Refused => {
                    let status = reader.status();
                    return Err(
                        self.failed(format!("it opens no WebSocket: it answered with status {status}"))
                    );
                }
                Greeting::Wrong => return Err(self.failed("it answers, and not as a WebSocket does")),
            }
        }
    }

    fn wait(&self, wire: &Wire, writes: bool, deadline: Instant, what: &str) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let time = show_time(self.timeout);
            return Err(self.failed(format!("its {what} handshake was not complete within {time}")));
        }
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, writes);
        wait(&mut [PollFd::from_borrowed_fd(wire.as_fd(), events)], Some(left))
            .map_err(|error| self.failed(format!("it cannot be waited for: {error}")))?;
        Ok(())
    }

    fn broken(&self, what: &str, error: &io::Error) -> Failure {
        self.failed(match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                format!("it reset the connection in the {what} handshake (a full tidegate does so)")
            }
            io::ErrorKind::UnexpectedEof => format!("it closed the connection in the {what} handshake"),
            _ => format!("the {what} handshake failed: {error}"),
        })
    }

    fn failed(&self, why: impl std::fmt::Display) -> Failure {
        Failure::Failed(format!("cannot connect to {}: {why}", self.url))
    }
}

/// A connection.
pub(super) struct Wire {
    socket: Socket,
    tls: Option<Box<Session>>,
    /// What came with the end of a handshake.
    early: Vec<u8>,
}

impl Wire {
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends some bytes: how many were taken.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => io::Write::write(&mut self.socket, bytes),
            Some(session) if bytes.is_empty() => session.flush(&mut self.socket).map(|()| 0),
            Some(session) => session.send(&mut self.socket, bytes),
        }
    }

    /// Receives some bytes; 0 is the end.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.early.is_empty() {
            let n = self.early.len().min(buffer.len());
            buffer[..n].copy_from_slice(&self.early[..n]);
            self.early.drain(..n);
            return Ok(n);
        }
        match &mut self.tls {
            None => io::Read::read(&mut self.socket, buffer),
            Some(session) => session.receive(&mut self.socket, buffer),
        }
    }

    /// Whether there are bytes to receive of which the kernel does not know.
    pub(super) fn has_input(&mut self) -> bool {
        !self.early.is_empty() || self.tls.as_mut().is_some_and(|session| session.has_input())
    }

    /// Whether something that was sent waits for room in the kernel.
    pub(super) fn has_output(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.has_output())
    }

    /// Says that nothing more will be sent.
    pub(super) fn end(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => self.socket.end(),
            Some(session) => {
                session.end(&mut self.socket);
                Ok(())
            }
        }
    }

    /// Goes on to the next address of the host; false if there is none.
    pub(super) fn try_next(&mut self) -> bool {
        self.socket.try_next()
    }
}
