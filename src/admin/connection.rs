//! One connection to the admin endpoint: read one request, send one answer, close politely.

use super::limits::Rules;
use super::request::{self, AdminRequest, Rejected};
use mio::net::TcpStream;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many bytes are read and thrown away after an answer before the connection is cut.
const LINGER_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
enum VisitState {
    /// The head so far.
    Reading(Vec<u8>),
    /// The request is whole and its answer is being made.
    Asked(AdminRequest),
    /// The answer, and how much of it the kernel has taken.
    Writing(Arc<[u8]>, usize),
    /// The answer is sent; what still comes is thrown away until the client closes.
    Lingering(usize),
    /// It is over, with nothing left to say.
    Done,
    /// It is over, and what is not sent is thrown away.
    Cut,
}

/// One connection.
#[derive(Debug)]
pub(super) struct AdminConnection {
    pub(super) stream: TcpStream,
    progress: VisitState,
    /// When it was accepted, and from its whole request on when that came.
    since: Instant,
    /// When the head must be whole, then when all must be over.
    deadline: Instant,
    end: Instant,
    /// Order of arrival.
    pub(super) number: u64,
}

impl AdminConnection {
    pub(super) fn new(stream: TcpStream, number: u64, now: Instant, rules: &Rules) -> Self {
        Self {
            stream,
            progress: VisitState::Reading(Vec::new()),
            since: now,
            deadline: now + rules.limits.head_time,
            end: now + rules.limits.total_time,
            number,
        }
    }

    /// Goes as far as it can without waiting.
    pub(super) fn advance(&mut self, now: Instant, rules: &Rules) {
        loop {
            let step = match &mut self.progress {
                VisitState::Reading(head) => match read_head(&mut self.stream, head, rules) {
                    Ok(None) => return,
                    Ok(Some(Ok(request))) => {
                        self.deadline = self.end;
                        self.since = now;
                        VisitState::Asked(request)
                    }
                    Ok(Some(Err(refusal))) => {
                        self.deadline = self.end;
                        VisitState::Writing(refusal.response(false).into(), 0)
                    }
                    Err(_) => VisitState::Done,
                },
                VisitState::Asked(_) | VisitState::Done | VisitState::Cut => return,
                VisitState::Writing(answer, sent) => match write(&mut self.stream, answer, sent) {
                    Ok(false) => return,
                    Ok(true) => {
                        self.deadline = self.end.min(now + rules.limits.linger_time);
                        match self.stream.shutdown(Shutdown::Write) {
                            Ok(()) => VisitState::Lingering(0),
                            Err(_) => VisitState::Done,
                        }
                    }
                    Err(_) => VisitState::Done,
                },
                VisitState::Lingering(bytes) => match discard(&mut self.stream, bytes) {
                    Ok(false) => return,
                    Ok(true) | Err(_) => VisitState::Done,
                },
            };
            self.progress = step;
        }
    }

    /// The request that waits for its answer.
    pub(super) fn asked(&self) -> Option<&AdminRequest> {
        match &self.progress {
            VisitState::Asked(request) => Some(request),
            _ => None,
        }
    }

    /// Gives the answer.
    pub(super) fn answer(&mut self, answer: Arc<[u8]>) {
        // Without it the end of an answer could wait for the client's acknowledgement.
        let _ = self.stream.set_nodelay(true);
        self.progress = VisitState::Writing(answer, 0);
    }

    /// Acts on a deadline that has passed.
    pub(super) fn expire(&mut self, now: Instant, rules: &Rules) {
        if now < self.deadline {
            return;
        }
        // What came in time counts, whether or not it was looked at in time.
        self.advance(now, rules);
        if now < self.deadline || self.asked().is_some() {
            return;
        }
        // A client that began a request is told why it ends; one that said nothing is not.
        let began = matches!(&self.progress, VisitState::Reading(head) if !head.is_empty());
        if began && now < self.end {
            self.deadline = self.end;
            self.progress = VisitState::Writing(Rejected::TooSlow.response(false).into(), 0);
            self.advance(now, rules);
        } else if matches!(self.progress, VisitState::Lingering(_)) {
            self.progress = VisitState::Done;
        } else {
            self.progress = VisitState::Cut;
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.progress, VisitState::Done | VisitState::Cut)
    }

    /// Until when nobody may take its place: while its request can be expected to be on its way, and while its answer
    /// can be expected to be taken. `crowded` says that many wait for a place, and then neither is for long.
    pub(super) fn protected_until(&self, crowded: bool) -> Option<Instant> {
        let time = match &self.progress {
            VisitState::Done | VisitState::Cut | VisitState::Lingering(_) => return None,
            VisitState::Reading(_) if crowded => Duration::from_millis(5),
            VisitState::Reading(_) => Duration::from_millis(100),
            VisitState::Asked(_) | VisitState::Writing(..) if crowded => Duration::from_millis(50),
            VisitState::Asked(_) | VisitState::Writing(..) => Duration::from_millis(250),
        };
        Some(self.since + time)
    }

    /// The order in which connections go when there is no room: those already answered, then those without a whole
    /// request, then those that do not take their answer; the oldest of each first.
    pub(super) fn eviction_order(&self) -> (u8, u64) {
        let class = match &self.progress {
            VisitState::Done | VisitState::Cut => 0,
            VisitState::Lingering(_) => 1,
            VisitState::Reading(_) => 2,
            VisitState::Writing(..) => 3,
            VisitState::Asked(_) => 4,
        };
        (class, self.number)
    }

    /// Whether nothing is lost when it is closed: then it ends with FIN, else with RST, which leaves
    /// nothing of it in the kernel.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.progress, VisitState::Done | VisitState::Lingering(_))
    }
}

type Head = Option<Result<AdminRequest, Rejected>>;

/// Reads until the head is whole, refused, or no more has come.
fn read_head(stream: &mut TcpStream, head: &mut Vec<u8>, rules: &Rules) -> io::Result<Head> {
    let mut buffer = [0; 2048];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                head.extend_from_slice(&buffer[..n]);
                // A head that is over the limit is refused by then, so this stays bounded.
                if let Some(parsed) = request::parse(head, rules) {
                    return Ok(Some(parsed));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends what the kernel takes; whether all is sent.
fn write(stream: &mut TcpStream, answer: &[u8], sent: &mut usize) -> io::Result<bool> {
    while *sent < answer.len() {
        match stream.write(&answer[*sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => *sent += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Throws away what comes; whether the client has closed.
fn discard(stream: &mut TcpStream, bytes: &mut usize) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(n) => {
                *bytes += n;
                if *bytes > LINGER_BYTES_MAX {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
