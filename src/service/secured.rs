//! A turn of a connection that speaks TLS: what is received is decrypted, what is sent is encrypted. The session knows
//! nothing of it.

use crate::reason::HandshakeFailure;
use crate::service::fault::Fault;
use crate::transport::socket::receive;
use crate::transport::tls::{Advance, Broken, Engine, PLAIN_MAX, Records};
use std::io;
use std::net::TcpStream;

/// Full reads in a row that may have no bytes for the session in them. A client that sends more of what only keeps the
/// server busy breaks the protocol.
const BARREN_READS_MAX: usize = 16;

/// A worker's buffers for TLS, lent to one turn after the other. They are made when the first client speaks TLS.
#[derive(Debug, Default)]
pub(crate) struct TlsBuffers {
    pub(super) records: Records,
    /// Records on their way to the client.
    pub(super) out: Vec<u8>,
}

impl TlsBuffers {
    /// Bytes of both; touched only as far as data goes.
    pub(crate) const BYTES: usize = Records::BYTES + SecuredTurn::BLOCK + 8 * 1024;
}

/// What the client has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decrypted {
    /// This number of bytes. With `drained` there are no more: an event will tell of them.
    Bytes { bytes: usize, drained: bool },
    /// Nothing now: an event will tell of more.
    Nothing,
    /// It has said that it will say no more.
    End,
}

/// The TLS of one connection in its turn.
#[derive(Debug)]
pub(crate) struct SecuredTurn<'a> {
    engine: &'a mut Engine,
    buffers: &'a mut TlsBuffers,
    /// The kernel has no more.
    emptied: bool,
}

impl<'a> SecuredTurn<'a> {
    /// What is encrypted before it is sent with one call.
    const BLOCK: usize = 4 * PLAIN_MAX;

    /// `buffers` has the records that were left by an earlier turn.
    pub(super) fn new(engine: &'a mut Engine, buffers: &'a mut TlsBuffers) -> Self {
        Self { engine, buffers, emptied: false }
    }

    /// Decrypts what the client has sent, without waiting. After a `hangup` the end is looked for behind it.
    pub(super) fn take(
        &mut self,
        socket: &TcpStream,
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
            match receive(socket, space)? {
                None => {
                    (self.emptied, *hangup) = (true, false);
                    return Ok(Decrypted::Nothing);
                }
                // Somebody between the two may have cut it short.
                Some(0) => return Err(Fault::Truncated.into()),
                Some(n) => {
                    self.emptied = n < space.len();
                    records.filled(n);
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the client sends TLS records with nothing in them"))
    }

    /// The client was waited for: the kernel may have more.
    pub(super) fn waited(&mut self) {
        self.emptied = false;
    }

    /// Encrypts `data` piece by piece, and gives `pass` what is to be sent, behind what must go before it.
    pub(super) fn seal(
        &mut self,
        data: &[u8],
        mut pass: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        for block in data.chunks(Self::BLOCK) {
            for piece in block.chunks(PLAIN_MAX) {
                let TlsBuffers { records, out } = &mut *self.buffers;
                self.engine.seal(piece, records, out).map_err(error)?;
            }
            self.pass_on(&mut pass)?;
        }
        self.pass_on(&mut pass)
    }

    /// Gives `pass` what is to be sent beside the bytes of the session, if there is anything.
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

/// How a turn fails over this.
fn error(broken: Broken) -> io::Error {
    let kind = match broken.failure {
        HandshakeFailure::Alert => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, broken.why)
}
