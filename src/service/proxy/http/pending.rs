//! A request on its way to a backend: the bytes to send, and what is still to come of its body.

use super::answer::Asked;
use crate::admit::turns::accounts::SourceId;
use crate::clock::Nanos;
use crate::service::held::Held;
use crate::service::http::AccessEntry;
use crate::service::http::wire::{BodyReader, LAST_CHUNK, Piece, Refused, chunk_head};
use crate::service::proxy::backends::BackendId;
use crate::service::proxy::socket::{BackendSocket, Store};
use crate::service::{Context, Fault};
use std::io;

/// A request, written anew for its backend.
#[derive(Debug)]
pub(super) struct Pending {
    /// The part of the request that has come. Once the body streams, only what the backend has not taken.
    bytes: Held,
    /// How many of these bytes the backend has taken.
    sent: usize,
    upload: Option<Upload>,
    pub(super) asked: Asked,
    /// Whether sending it twice has the same effect as sending it once (RFC 9110, 9.2.2).
    idempotent: bool,
    /// Whether `bytes` still begins with the start of the request.
    whole: bool,
    /// Whether it was sent a second time, after a used connection was lost.
    pub(super) repeated: bool,
    /// Whether the client waits for `100 Continue`.
    pub(super) expects_continue: bool,
    /// The source that it counts for when sources take turns.
    pub(super) source: SourceId,
    /// The request goes before all others that wait.
    pub(super) priority: bool,
    /// Backends that could not be reached for it.
    pub(super) tried: Vec<BackendId>,
    /// When it was ready to ask for a place.
    pub(super) since: Nanos,
    /// Its line in the access log, if there is a log.
    pub(super) entry: Option<Box<AccessEntry>>,
    /// By when a backend must be reached; 0 until the first attempt.
    pub(super) deadline: Nanos,
}

/// The rest of a body that is streamed: passed on as it comes.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) reader: BodyReader,
    pub(super) chunked: bool,
}

/// Why the rest of a body cannot be passed on.
#[derive(Debug)]
pub(super) enum UploadFault {
    /// The client sent something that is no body.
    Refused(Refused),
    /// There is no memory left for it.
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

    /// What it holds of the request.
    pub(super) fn input(&mut self) -> &mut Held {
        &mut self.bytes
    }

    /// Notes the answer for the access log.
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

    /// Writes as many bytes as the backend takes, and returns how many.
    pub(super) fn push(&mut self, backend: &mut BackendSocket, store: Store<'_>) -> io::Result<usize> {
        let before = self.sent;
        while !self.is_taken() {
            match backend.send(&self.bytes.bytes()[self.sent..], store)? {
                0 => break,
                n => self.sent += n,
            }
        }
        Ok(self.sent - before)
    }

    /// Whether it may be sent once more on another connection, after the first one was lost without an answer.
    pub(super) fn can_be_repeated(&self) -> bool {
        self.whole && !self.repeated && (self.idempotent || self.sent == 0)
    }

    /// Whether it may be sent on a connection that the backend may have closed: if so, it is sent once more.
    pub(super) fn can_be_risked(&self) -> bool {
        self.idempotent && self.has_come() && self.can_be_repeated()
    }

    /// Begins to send it from its start again.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Takes a piece of the body from the client, once the backend has taken all that came before. Returns how many bytes
    /// of `data` belonged to the body.
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

    /// Adds bytes that came after the request, which belong to the protocol that the connection switches to.
    pub(super) fn follow(&mut self, bytes: &[u8], context: &Context<'_>) -> io::Result<()> {
        self.whole = false;
        self.bytes.extend(bytes, self.bytes.len() + bytes.len(), context)
    }
}

/// Adds a piece of a body, in the framing that the backend was told.
pub(super) fn add(bytes: &mut Held, piece: &[u8], chunked: bool, context: &Context<'_>) -> Result<(), Fault> {
    // The framing of a chunk takes at most 20 bytes.
    let most = bytes.len() + piece.len() + 20;
    let mut add = |part: &[u8]| bytes.extend(part, most, context).map_err(|_| Fault::InputLimit);
    if !chunked {
        return add(piece);
    }
    add(chunk_head(piece.len()).as_ref())?;
    add(piece)?;
    add(b"\r\n")
}
