//! A turn of a connection that speaks TLS. Input is decrypted and output is encrypted; the session sees neither.

use crate::reason::HandshakeFailure;
use crate::service::fault::Fault;
use crate::transport::socket::{receive, receive_unix};
use crate::transport::tls::{Advance, Broken, Engine, PLAIN_MAX, Records};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// How many full reads in a row may hold no bytes for the session. A client that sends more records that only keep
/// the server busy breaks the protocol.
const BARREN_READS_MAX: usize = 16;

/// A worker's buffers for TLS, lent to one turn after the other: those for clients, or those for backends. They are allocated
/// when the first of these speaks TLS.
#[derive(Debug, Default)]
pub(crate) struct TlsBuffers {
    pub(super) records: Records,
    /// Records that are ready to be sent.
    pub(super) out: Vec<u8>,
}

impl TlsBuffers {
    /// The bytes of both buffers. Only what data reaches is touched.
    pub(crate) const BYTES: usize = Records::BYTES + SecuredTurn::BLOCK + 8 * 1024;
}

/// What reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decrypted {
    /// This number of bytes. With `drained` the kernel has no more; an event will announce the next.
    Bytes { bytes: usize, drained: bool },
    /// Nothing now; an event will announce the next bytes.
    Nothing,
    /// The client has sent the end of its input.
    End,
}

/// The TLS of one connection in a turn: with a client, or with a backend.
#[derive(Debug)]
pub(crate) struct SecuredTurn<'a> {
    engine: &'a mut Engine,
    buffers: &'a mut TlsBuffers,
    /// The kernel has no more input.
    emptied: bool,
    /// It is a Unix socket.
    is_unix: bool,
}

impl<'a> SecuredTurn<'a> {
    /// The most bytes that are encrypted before they are sent with one call.
    pub(super) const BLOCK: usize = 4 * PLAIN_MAX;

    /// `buffers` holds the records that an earlier turn left.
    pub(super) fn new(engine: &'a mut Engine, buffers: &'a mut TlsBuffers, is_unix: bool) -> Self {
        Self { engine, buffers, emptied: false, is_unix }
    }

    /// Decrypts what the client has sent, without waiting. After a `hangup` it reads on until it finds the end.
    pub(super) fn take(
        &mut self,
        socket: impl AsFd,
        plain: &mut [u8],
        hangup: &mut bool,
    ) -> io::Result<Decrypted> {
        for _ in 0..BARREN_READS_MAX {
            let TlsBuffers { records, out } = &mut *self.buffers;
            let (bytes, advance) = self.engine.advance(records, plain, out).map_err(error)?;
            if bytes > 0 {
                let drained = advance == Advance::NeedsInput && self.emptied;
                return Ok(Decrypted::Bytes { bytes, drained });
            }
            if advance == Advance::Ended {
                return Ok(Decrypted::End);
            }
            if self.emptied && !*hangup {
                return Ok(Decrypted::Nothing);
            }
            let space = records.space();
            if space.is_empty() {
                break;
            }
            let room = space.len();
            let taken = match self.is_unix {
                false => receive(&socket, space)?.map(|n| (n, false)),
                true => receive_unix(&socket, space)?,
            };
            match taken {
                None => {
                    (self.emptied, *hangup) = (true, false);
                    return Ok(Decrypted::Nothing);
                }
                // Without `close_notify`, somebody on the way may have cut the connection short.
                Some((0, _)) => return Err(Fault::Truncated.into()),
                Some((n, cut)) => {
                    self.emptied = n < room && !cut;
                    records.filled(n);
                }
            }
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the other side sends TLS records with nothing in them",
        ))
    }

    /// Whether bytes of the client were read that the session has not seen.
    pub(super) fn holds_input(&self) -> bool {
        self.engine.has_more() || !self.buffers.records.is_empty()
    }

    /// Tells the client that nothing more will come, after the records that must go first.
    fn end(&mut self, mut pass: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.engine.close_notify(&[], &mut self.buffers.out);
        self.pass_on(&mut pass)
    }

    /// The client was waited for, so the kernel may have more input.
    pub(super) fn waited(&mut self) {
        self.emptied = false;
    }

    /// Encrypts `data` piece by piece, and gives the records to `pass`, after the records that must go first.
    pub(super) fn seal(&mut self, data: &[u8], pass: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.seal_both(&[], data, pass)
    }

    /// The same for `first` (what was collected of small pieces) and `data` behind it, so that few calls send both.
    pub(super) fn seal_both(
        &mut self,
        first: &[u8],
        data: &[u8],
        mut pass: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        debug_assert!(first.len() <= PLAIN_MAX, "it is one record");
        // Together they are at most a block.
        let begin = if first.is_empty() { Self::BLOCK } else { Self::BLOCK - PLAIN_MAX };
        let (beginning, rest) = data.split_at(data.len().min(begin));
        self.encrypt(first)?;
        self.encrypt(beginning)?;
        self.pass_on(&mut pass)?;
        for block in rest.chunks(Self::BLOCK) {
            self.encrypt(block)?;
            self.pass_on(&mut pass)?;
        }
        Ok(())
    }

    fn encrypt(&mut self, block: &[u8]) -> io::Result<()> {
        for piece in block.chunks(PLAIN_MAX) {
            let TlsBuffers { records, out } = &mut *self.buffers;
            self.engine.seal(piece, records, out).map_err(error)?;
        }
        Ok(())
    }

    /// Gives to `pass` the records that do not carry bytes of the session, if there are any.
    fn pass_on(&mut self, pass: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let out = &mut self.buffers.out;
        if out.is_empty() {
            return Ok(());
        }
        let passed = pass(out);
        out.clear();
        passed
    }
}

/// The TLS of a socket, for a session that moves bytes itself: of its client, or of its backend.
pub(crate) trait SocketTls: std::fmt::Debug {
    /// Decrypts what the other side has sent, without waiting. `plain` has room for the bytes of a record. After a `hangup`
    /// it reads on until it finds the end.
    fn take(&self, socket: BorrowedFd<'_>, plain: &mut [u8], hangup: &mut bool) -> io::Result<Decrypted>;

    /// Encrypts `data` and gives the records to `pass`, after the records that must go first.
    fn seal(&self, data: &[u8], pass: &mut PassRecords<'_>) -> io::Result<()>;

    /// Gives the record to `pass` which tells the other side that nothing more will come.
    fn end(&self, pass: &mut PassRecords<'_>) -> io::Result<()>;
}

/// Takes records that are to be sent.
pub(crate) type PassRecords<'p> = dyn FnMut(&[u8]) -> io::Result<()> + 'p;

impl SocketTls for RefCell<SecuredTurn<'_>> {
    fn take(&self, socket: BorrowedFd<'_>, plain: &mut [u8], hangup: &mut bool) -> io::Result<Decrypted> {
        self.borrow_mut().take(socket, plain, hangup)
    }

    fn seal(&self, data: &[u8], pass: &mut PassRecords<'_>) -> io::Result<()> {
        self.borrow_mut().seal(data, pass)
    }

    fn end(&self, pass: &mut PassRecords<'_>) -> io::Result<()> {
        self.borrow_mut().end(pass)
    }
}

/// The error with which a turn fails over this.
fn error(broken: Broken) -> io::Error {
    let kind = match broken.failure {
        HandshakeFailure::Alert => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, broken.why)
}
