//! A request that waits for its answer: what of it is to be sent, and what of its body is still to come.

use super::answer::Asked;
use crate::admit::turns::accounts::SourceId;
use crate::clock::Nanos;
use crate::service::held::Held;
use crate::service::http::AccessEntry;
use crate::service::http::wire::{BodyReader, LAST_CHUNK, Piece, Refused, chunk_head};
use crate::service::proxy::backends::BackendId;
use crate::service::{Context, Fault};
use crate::transport::socket::send;
use std::io;
use std::os::fd::AsFd;

/// A request, written anew for its backend.
#[derive(Debug)]
pub(super) struct Pending {
    /// All of it that has come; after its body began to stream, what the backend has not taken.
    bytes: Held,
    /// How much of that the backend has taken.
    sent: usize,
    upload: Option<Upload>,
    pub(super) asked: Asked,
    /// Sending it twice does what sending it once does (RFC 9110, 9.2.2).
    idempotent: bool,
    /// All of it is still here.
    whole: bool,
    /// It was sent again.
    pub(super) repeated: bool,
    /// The client waits for `100 Continue`.
    pub(super) expects_continue: bool,
    /// The source that takes turns with others.
    pub(super) source: SourceId,
    /// It goes before all others that wait.
    pub(super) priority: bool,
    /// Backends that could not be reached for it.
    pub(super) tried: Vec<BackendId>,
    /// When all that is waited for of it before a place is asked for had come.
    pub(super) since: Nanos,
    /// For the access log, if there is one.
    pub(super) entry: Option<Box<AccessEntry>>,
    /// When a backend must be reached; 0 before one was asked for.
    pub(super) deadline: Nanos,
}

/// The rest of a body that is passed on as it comes.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) reader: BodyReader,
    pub(super) chunked: bool,
}

/// Why the rest of a body is not passed on.
#[derive(Debug)]
pub(super) enum UploadFault {
    /// It cannot be read.
    Refused(Refused),
    NoRoom,
}

impl Pending {
    pub(super) fn new(
        bytes: Held,
        upload: Option<Upload>,
        asked: Asked,
        idempotent: bool,
        source: SourceId,
    ) -> Self {
        Self {
            bytes,
            sent: 0,
            upload,
            asked,
            idempotent,
            whole: true,
            repeated: false,
            expects_continue: false,
            source,
            priority: false,
            tried: Vec::new(),
            since: 0,
            entry: None,
            deadline: 0,
        }
    }

    /// What is said of its answer in the access log.
    pub(super) fn answered(&mut self, status: u16, body: u64) {
        if let Some(entry) = &mut self.entry {
            (entry.status, entry.sent) = (status, body);
        }
    }

    /// Whether all of the request has come from the client.
    pub(super) fn has_come(&self) -> bool {
        self.upload.is_none()
    }

    /// Whether the backend has taken all that has come.
    pub(super) fn is_taken(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Gives the backend what it takes; how many bytes.
    pub(super) fn push(&mut self, backend: impl AsFd) -> io::Result<usize> {
        let before = self.sent;
        while !self.is_taken() {
            match send(&backend, &self.bytes.bytes()[self.sent..])? {
                0 => break,
                n => self.sent += n,
            }
        }
        Ok(self.sent - before)
    }

    /// Whether it may be sent to another connection, now that nobody answers on this one.
    pub(super) fn can_be_repeated(&self) -> bool {
        self.whole && !self.repeated && (self.idempotent || self.sent == 0)
    }

    /// It is to be sent from its start.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Takes a piece of the body from the client, when all that came before was taken; how many bytes of the input.
    pub(super) fn feed(&mut self, data: &[u8], context: &Context<'_>) -> Result<usize, UploadFault> {
        debug_assert!(self.is_taken());
        self.bytes.answered(self.sent);
        self.sent = 0;
        self.whole = false;
        let Some(upload) = &mut self.upload else { return Ok(0) };
        let mut used = 0;
        loop {
            let (n, piece) = upload.reader.next(&data[used..]).map_err(UploadFault::Refused)?;
            used += n;
            let added = match piece {
                Piece::Data(piece) => add(&mut self.bytes, piece, upload.chunked, context),
                Piece::More => return Ok(used),
                Piece::End => {
                    let end = if upload.chunked { LAST_CHUNK } else { b"" };
                    self.upload = None;
                    let ended = self.bytes.extend(end, end.len(), context);
                    return ended.map(|()| used).map_err(|_| UploadFault::NoRoom);
                }
            };
            added.map_err(|_| UploadFault::NoRoom)?;
        }
    }

    /// Bytes that follow the request on its connection: another protocol's.
    pub(super) fn follow(&mut self, bytes: &[u8], context: &Context<'_>) -> io::Result<()> {
        self.whole = false;
        self.bytes.extend(bytes, self.bytes.len() + bytes.len(), context)
    }
}

/// Adds a piece of a body in its framing.
pub(super) fn add(bytes: &mut Held, piece: &[u8], chunked: bool, context: &Context<'_>) -> Result<(), Fault> {
    // The frame of a chunk is 20 bytes at most.
    let most = bytes.len() + piece.len() + 20;
    let mut add = |part: &[u8]| bytes.extend(part, most, context).map_err(|_| Fault::InputLimit);
    if !chunked {
        return add(piece);
    }
    add(chunk_head(piece.len()).as_ref())?;
    add(piece)?;
    add(b"\r\n")
}
