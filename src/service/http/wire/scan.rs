//! Where a head ends: looks at each byte once, however the head comes in.

use super::seek::seek;
use super::{Refused, is_token};
use std::ops::Range;

/// Which kind of message is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageKind {
    Request,
    Response,
}

/// Finds the end of a head. Feed it the message from its start each time more has come: it goes on where
/// it stopped, so a client that sends a byte at a time makes no work beyond that.
///
/// It refuses what can be refused early: a TLS handshake at its first byte, another protocol at its first
/// line, a bare LF or a folded header at its line.
#[derive(Clone, Debug)]
pub struct Scanner {
    kind: MessageKind,
    /// Where the head begins: behind the one empty line that may stand before it.
    start: usize,
    /// Where the present line begins.
    line: usize,
    scanned: usize,
    /// The method was looked at.
    begun: bool,
}

impl Scanner {
    /// For requests.
    pub const fn requests() -> Self {
        Self::new(MessageKind::Request)
    }

    /// For responses.
    pub const fn responses() -> Self {
        Self::new(MessageKind::Response)
    }

    const fn new(kind: MessageKind) -> Self {
        Self { kind, start: 0, line: 0, scanned: 0, begun: false }
    }

    /// Where the head is, if it is whole. A head longer than `max_head` bytes is refused.
    ///
    /// An empty line before a request is skipped (RFC 9112, 2.2): old clients send one behind a body.
    pub fn find(&mut self, bytes: &[u8], max_head: usize) -> Result<Option<Range<usize>>, Refused> {
        self.begin(bytes)?;
        while let Some(at) = seek(b'\n', &bytes[self.scanned..]) {
            let end = self.scanned + at + 1;
            self.check_room(end, max_head)?;
            if end - self.line < 2 || bytes[end - 2] != b'\r' {
                return Err(Refused::BareLf);
            }
            let (line, empty) = (self.line, end - self.line == 2);
            (self.scanned, self.line) = (end, end);
            match (line == self.start, empty) {
                (true, true) => {
                    if self.kind == MessageKind::Response || line > 0 {
                        return Err(Refused::FirstLine);
                    }
                    self.start = end;
                    self.begin(bytes)?;
                }
                (false, true) => return Ok(Some(self.start..end)),
                (true, false) => self.check_first(&bytes[line..end - 2])?,
                (false, false) if matches!(bytes[line], b' ' | b'\t') => return Err(Refused::Fold),
                (false, false) => {}
            }
        }
        self.scanned = bytes.len();
        self.check_room(bytes.len(), max_head)?;
        Ok(None)
    }

    /// Whether nothing of a head has come yet.
    pub fn is_fresh(&self) -> bool {
        self.scanned == self.start
    }

    fn check_room(&self, end: usize, max_head: usize) -> Result<(), Refused> {
        if end - self.start > max_head { Err(Refused::HeadTooLong) } else { Ok(()) }
    }

    /// Looks at the first word, so that another protocol is known at once and not when a line ends.
    fn begin(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        if self.begun {
            return Ok(());
        }
        let word = &bytes[self.start.min(bytes.len())..];
        if self.kind == MessageKind::Request && self.start == 0 && word.first() == Some(&b'\r') {
            // An empty line, or what the scan refuses.
            return Ok(());
        }
        let known: &[u8] = b"HTTP/1.";
        for (at, &byte) in word.iter().take(known.len()).enumerate() {
            match self.kind {
                MessageKind::Request if byte == b'\n' || byte == b' ' && at > 0 => break,
                MessageKind::Request if is_token(byte) => {}
                MessageKind::Request if byte == 0x16 && at == 0 => return Err(Refused::Tls),
                MessageKind::Response if byte == known[at] => {}
                _ => return Err(Refused::FirstLine),
            }
        }
        self.begun = word.len() >= known.len() || word.contains(&b' ');
        Ok(())
    }

    fn check_first(&self, line: &[u8]) -> Result<(), Refused> {
        // Nearly every request.
        if self.kind == MessageKind::Response || line.ends_with(b" HTTP/1.1") {
            return Ok(());
        }
        let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
        match version {
            b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
            b"HTTP/2.0" if line == b"PRI * HTTP/2.0" => Err(Refused::Http2),
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                Err(Refused::Version)
            }
            _ => Err(Refused::FirstLine),
        }
    }
}
