//! One client of a scene: its socket, and how far its request has come.

use super::answer::{self, Answer, Reading};
use super::plan::Wire;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Instant;

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing; the place can be given to a newcomer.
    Free,
    /// It has failed and will come back.
    Away,
    /// Its connection stands and asks nothing.
    Idle,
    /// It waits for a reply.
    Waiting,
}

/// What a client talks through.
pub(super) enum Socket {
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

/// One client.
pub(super) struct Client {
    pub(super) group: usize,
    /// Which of its group.
    pub(super) index: usize,
    pub(super) state: State,
    /// Another one with each state, so that the timers of an earlier state are known.
    pub(super) ticket: u32,
    pub(super) socket: Option<Socket>,
    pub(super) sent: usize,
    pub(super) received: usize,
    /// What came of an HTTP answer.
    answer: Vec<u8>,
    /// Bytes of the request that may be sent by now.
    pub(super) released: usize,
    /// When the request was begun, and in which stage.
    pub(super) asked: Instant,
    pub(super) stage: usize,
    /// When it asks next, by its own clock.
    pub(super) next: Instant,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    Waiting,
    Replied,
    Reset,
    Closed,
    /// An answer of HTTP came that is no reply.
    Refused(Answer),
}

impl Client {
    pub(super) fn new(group: usize, index: usize, now: Instant) -> Self {
        Self {
            group,
            index,
            state: State::Free,
            ticket: 0,
            socket: None,
            sent: 0,
            received: 0,
            answer: Vec::new(),
            released: 0,
            asked: now,
            stage: 0,
            next: now,
        }
    }

    /// Enters a state; timers set before are of no meaning from now on.
    pub(super) fn enter(&mut self, state: State) {
        self.state = state;
        self.ticket = self.ticket.wrapping_add(1);
    }

    /// Begins a request; `released` of its bytes may be sent at once.
    pub(super) fn begin(&mut self, asked: Instant, stage: usize, released: usize) {
        (self.sent, self.received, self.asked, self.stage) = (0, 0, asked, stage);
        self.released = released;
        self.answer.clear();
        self.enter(State::Waiting);
    }

    /// Sends what may be sent and receives what there is.
    pub(super) fn progress(&mut self, wire: Wire, request: &[u8], buffer: &mut [u8]) -> Advance {
        match &mut self.socket {
            None => Advance::Waiting,
            Some(Socket::Stream(stream)) if wire == Wire::Http => {
                http_progress(stream, request, &mut self.sent, &mut self.answer, buffer)
            }
            Some(Socket::Stream(stream)) => {
                stream_progress(stream, request, self.released, (&mut self.sent, &mut self.received), buffer)
            }
            Some(Socket::Datagrams(socket)) => {
                let whole = numbered(request, self.ticket);
                if self.sent < whole.len() && self.released == whole.len() {
                    // What the kernel does not take is lost on the way, as any datagram may be.
                    let _ = socket.send(&whole);
                    self.sent = whole.len();
                }
                datagram_progress(socket, &whole, buffer)
            }
        }
    }
}

/// The request with a number at its beginning, so that a late reply is known for one.
fn numbered(request: &[u8], number: u32) -> Vec<u8> {
    let mut whole = request.to_vec();
    let digits = format!("{number:08x}");
    let length = digits.len().min(whole.len());
    whole[..length].copy_from_slice(&digits.as_bytes()[..length]);
    whole
}

fn not_now(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

/// Sends what the kernel takes.
fn send(stream: &mut TcpStream, bytes: &[u8], sent: &mut usize) -> std::io::Result<()> {
    while *sent < bytes.len() {
        match stream.write(&bytes[*sent..]) {
            Ok(n) => *sent += n,
            Err(error) if not_now(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn http_progress(
    stream: &mut TcpStream,
    request: &[u8],
    sent: &mut usize,
    answer: &mut Vec<u8>,
    buffer: &mut [u8],
) -> Advance {
    // A server that refuses without reading may have closed already; its answer can still be read.
    let taken = send(stream, request, sent);
    loop {
        let ended = match stream.read(buffer) {
            Ok(n) => {
                answer.extend_from_slice(&buffer[..n]);
                n == 0
            }
            Err(error) if not_now(&error) && taken.is_ok() => return Advance::Waiting,
            Err(_) => return Advance::Reset,
        };
        match answer::read(answer, ended) {
            Reading::More => {}
            Reading::Whole(Answer { status: 200, .. }) => return Advance::Replied,
            Reading::Whole(answer) => return Advance::Refused(answer),
            Reading::Broken => return Advance::Closed,
        }
    }
}

fn stream_progress(
    stream: &mut TcpStream,
    request: &[u8],
    released: usize,
    (sent, received): (&mut usize, &mut usize),
    buffer: &mut [u8],
) -> Advance {
    if send(stream, &request[..released], sent).is_err() {
        return Advance::Reset;
    }
    while *received < request.len() {
        let wanted = buffer.len().min(request.len() - *received);
        match stream.read(&mut buffer[..wanted]) {
            Ok(0) => return Advance::Closed,
            Ok(n) => *received += n,
            Err(error) if not_now(&error) => return Advance::Waiting,
            Err(_) => return Advance::Reset,
        }
    }
    Advance::Replied
}

fn datagram_progress(socket: &UdpSocket, whole: &[u8], buffer: &mut [u8]) -> Advance {
    loop {
        match socket.recv(buffer) {
            Ok(n) if buffer[..n] == *whole => return Advance::Replied,
            // A late reply to an earlier request.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Advance::Waiting,
            Err(_) => return Advance::Reset,
        }
    }
}

/// Whether the connection of an idle client still stands; what comes unasked is thrown away.
pub(super) fn stands(socket: &mut Socket, buffer: &mut [u8]) -> bool {
    loop {
        let read = match socket {
            Socket::Stream(stream) => stream.read(buffer),
            Socket::Datagrams(socket) => socket.recv(buffer).map(|n| n.max(1)),
        };
        match read {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => {
                return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
                    || matches!(socket, Socket::Datagrams(_));
            }
        }
    }
}

/// What the clients of a group send.
pub(super) fn request(wire: Wire, size: usize, flood: bool, stays: bool) -> Vec<u8> {
    match (wire, flood) {
        (Wire::Http, _) => {
            let connection = if stays { "" } else { "Connection: close\r\n" };
            format!("GET / HTTP/1.1\r\nHost: scene\r\n{connection}\r\n").into_bytes()
        }
        (Wire::Lines, true) => vec![b'\n'; size],
        (Wire::Lines, false) => {
            let mut line = crate::load::request(size);
            line[size - 1] = b'\n';
            line
        }
        _ => crate::load::request(size),
    }
}
