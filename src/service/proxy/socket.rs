//! A connection to a backend, and its TLS if it speaks any.
//!
//! Between two turns the TLS of a connection keeps the state of rustls and, in the memory that all connections share for what
//! was not taken, the bytes of a record that has come in part and the records that the backend has not taken.

use super::address::{BackendAddress, TlsTarget};
use super::backends::Unreached;
use crate::reason::BackendFailure;
use crate::service::pool::Buffer;
use crate::service::secured::SecuredTurn;
use crate::service::{Decrypted, Fault, Pool, SocketTls, TlsBuffers};
use crate::transport::socket::{self, reset_on_close};
use crate::transport::tls::{Advance, Broken, Engine};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

thread_local! {
    /// The buffers for TLS with backends, apart from those for TLS with clients: a turn may need both.
    static BUFFERS: Cell<TlsBuffers> = Cell::default();
}

/// The memory that all connections share for what was not taken, and how much of it may be in use.
pub(crate) type Store<'s> = (&'s Arc<Pool>, usize);

/// A connection to a backend. When it is dropped, a backend that speaks TLS is told that this was the end.
#[derive(Debug)]
pub(crate) struct BackendSocket {
    socket: OwnedFd,
    tls: Option<Box<TlsLine>>,
    is_tcp: bool,
}

/// The TLS of one connection.
#[derive(Debug)]
struct TlsLine {
    engine: Engine,
    to: Arc<TlsTarget>,
    /// Records that came and were not used yet.
    left: Option<Box<Buffer>>,
    /// Records that the backend has not taken.
    unsent: Option<Box<Buffer>>,
}

impl AsFd for BackendSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl BackendSocket {
    /// What TLS adds to a connection at most, in bytes, beside what the shared memory counts.
    pub(crate) const TLS_BYTES: usize = size_of::<TlsLine>() + Engine::BYTES;

    /// A connection without TLS.
    pub(crate) fn plain(socket: OwnedFd, is_tcp: bool) -> Self {
        Self { socket, tls: None, is_tcp }
    }

    /// A connection whose handshake begins.
    pub(crate) fn secured(socket: OwnedFd, to: &Arc<TlsTarget>) -> Result<Self, Unreached> {
        let is_tcp = to.socket.is_tcp();
        let engine = to.setup.engine(&to.name).map_err(unreached)?;
        let tls = TlsLine { engine, to: to.clone(), left: None, unsent: None };
        Ok(Self { socket, tls: Some(Box::new(tls)), is_tcp })
    }

    pub(crate) fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    /// Takes the handshake as far as the backend's input goes. Returns whether it is over.
    pub(crate) fn shake(&mut self, store: Store<'_>) -> Result<bool, Unreached> {
        match &mut self.tls {
            Some(tls) => tls.shake(self.socket.as_fd(), store),
            None => Ok(true),
        }
    }

    /// Sends without waiting: how many bytes were taken.
    pub(crate) fn send(&mut self, data: &[u8], store: Store<'_>) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.send(self.socket.as_fd(), data, store),
            None => socket::send(&self.socket, data),
        }
    }

    /// Sends what was taken and not sent.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.flush(self.socket.as_fd()),
            None => Ok(()),
        }
    }

    /// Whether some of what was taken was not sent.
    pub(crate) fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.unsent.is_some())
    }

    /// Receives without waiting. After a hangup, `thorough` has it read until the kernel has nothing.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        thorough: bool,
        store: Store<'_>,
    ) -> io::Result<Decrypted> {
        if let Some(tls) = &mut self.tls {
            return tls.receive(self.socket.as_fd(), buffer, thorough, store);
        }
        Ok(match socket::receive(&self.socket, buffer)? {
            None => Decrypted::Nothing,
            Some(0) => Decrypted::End,
            Some(bytes) => Decrypted::Bytes { bytes, drained: bytes < buffer.len() && self.is_tcp },
        })
    }

    /// Lends the socket and its TLS to a relay for one turn. The relay itself keeps what the backend does not take.
    pub(crate) fn lend<R>(
        &mut self,
        store: Store<'_>,
        turn: impl FnOnce(BorrowedFd<'_>, Option<&dyn SocketTls>) -> R,
    ) -> io::Result<R> {
        let socket = self.socket.as_fd();
        let Some(tls) = &mut self.tls else { return Ok(turn(socket, None)) };
        let mut buffers = tls.take_up();
        let secured = RefCell::new(SecuredTurn::new(&mut tls.engine, &mut buffers, !self.is_tcp));
        let turned = turn(socket, Some(&secured));
        tls.put_down(buffers, store).map(|()| turned)
    }

    /// Whether the connection speaks what this address wants, which may have changed since the connection was made, and holds
    /// nothing that was not read.
    pub(crate) fn fits(&self, address: &BackendAddress) -> bool {
        match (&self.tls, address.tls()) {
            (None, None) => true,
            (Some(tls), Some(wanted)) => {
                let holds = tls.left.is_some() || tls.engine.has_more();
                !holds && Arc::ptr_eq(&tls.to.setup, &wanted.setup) && tls.to.name == wanted.name
            }
            _ => false,
        }
    }

    /// Whether the backend has closed the connection, or has sent something that was not read.
    pub(crate) fn has_news(&self) -> bool {
        socket::has_news(&self.socket)
    }

    /// Makes the end of this connection a reset.
    pub(crate) fn abort(&mut self) {
        self.tls = None;
        reset_on_close(&self.socket);
    }
}

impl Drop for BackendSocket {
    fn drop(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        if tls.unsent.is_none() {
            let mut last = Vec::new();
            tls.engine.close_notify(&[], &mut last);
            // A backend that takes nothing now is not told.
            let _ = socket::say_last(&self.socket, &last);
        }
    }
}

impl TlsLine {
    /// This thread's buffers, with the records that an earlier turn left.
    fn take_up(&mut self) -> TlsBuffers {
        let mut buffers = BUFFERS.take();
        buffers.out.clear();
        let left = self.left.take();
        // They have come out of such a buffer, so there is room for them.
        let fits = buffers.records.load(left.as_ref().map_or(&[][..], |left| left.bytes()));
        debug_assert!(fits);
        buffers
    }

    /// Keeps the records that a turn has left in this thread's buffers.
    fn put_down(&mut self, buffers: TlsBuffers, store: Store<'_>) -> io::Result<()> {
        let kept = keep(&mut self.left, buffers.records.bytes(), store);
        BUFFERS.set(buffers);
        kept
    }

    fn shake(&mut self, socket: BorrowedFd<'_>, store: Store<'_>) -> Result<bool, Unreached> {
        let mut buffers = self.take_up();
        let shaken = self.go_on(socket, &mut buffers, store);
        let kept = self.put_down(buffers, store);
        let over = shaken?;
        kept.map_err(|_| Unreached::from(BackendFailure::Local))?;
        Ok(over)
    }

    fn go_on(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: &mut TlsBuffers,
        store: Store<'_>,
    ) -> Result<bool, Unreached> {
        let TlsBuffers { records, out } = buffers;
        let reset = |_| Unreached::from(BackendFailure::Reset);
        self.flush(socket).map_err(reset)?;
        loop {
            let advanced = self.engine.advance(records, &mut [], out);
            let given = give(socket, &mut self.unsent, out, store);
            out.clear();
            match advanced.map_err(unreached)?.1 {
                Advance::Opened => return given.map(|()| true).map_err(reset),
                Advance::Ended => return Err(Unreached::tls("it ended the TLS handshake")),
                Advance::NeedsInput | Advance::NoRoom => given.map_err(reset)?,
            }
            let space = records.space();
            if space.is_empty() {
                return Err(Unreached::tls("its TLS handshake is too long"));
            }
            match socket::receive(socket, space) {
                Ok(None) => return Ok(false),
                Ok(Some(0)) => {
                    return Err(Unreached::tls(
                        "it closed the connection in the middle of the TLS handshake",
                    ));
                }
                Ok(Some(bytes)) => records.filled(bytes),
                Err(error) => return Err(reset(error)),
            }
        }
    }

    fn send(&mut self, socket: BorrowedFd<'_>, data: &[u8], store: Store<'_>) -> io::Result<usize> {
        self.flush(socket)?;
        if self.unsent.is_some() {
            return Ok(0);
        }
        let piece = &data[..data.len().min(SecuredTurn::BLOCK)];
        let mut buffers = self.take_up();
        let (unsent, is_unix) = (&mut self.unsent, !self.to.socket.is_tcp());
        let mut turn = SecuredTurn::new(&mut self.engine, &mut buffers, is_unix);
        let sealed = turn.seal(piece, |records| give(socket, unsent, records, store));
        self.put_down(buffers, store)?;
        sealed.map(|()| piece.len())
    }

    fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
        mut thorough: bool,
        store: Store<'_>,
    ) -> io::Result<Decrypted> {
        let mut buffers = self.take_up();
        let is_unix = !self.to.socket.is_tcp();
        let mut turn = SecuredTurn::new(&mut self.engine, &mut buffers, is_unix);
        let taken = turn.take(socket, buffer, &mut thorough);
        // What TLS says by itself: an answer, or the reason why it breaks off.
        let given = give(socket, &mut self.unsent, &buffers.out, store);
        self.put_down(buffers, store)?;
        let taken = taken?;
        given.map(|()| taken)
    }

    fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let Some(unsent) = &mut self.unsent else { return Ok(()) };
        while !unsent.is_empty() {
            match socket::send(socket, unsent.bytes())? {
                0 => return Ok(()),
                sent => unsent.consume(sent),
            }
        }
        self.unsent = None;
        Ok(())
    }
}

/// Sends records, behind those that were not sent before. Keeps those that the backend does not take.
fn give(
    socket: BorrowedFd<'_>,
    unsent: &mut Option<Box<Buffer>>,
    mut records: &[u8],
    store: Store<'_>,
) -> io::Result<()> {
    while unsent.is_none() && !records.is_empty() {
        match socket::send(socket, records)? {
            0 => break,
            sent => records = &records[sent..],
        }
    }
    keep(unsent, records, store)
}

/// Adds bytes to those that are kept.
fn keep(kept: &mut Option<Box<Buffer>>, bytes: &[u8], (pool, most): Store<'_>) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let kept = kept.get_or_insert_with(|| Box::new(Buffer::new(pool)));
    let wanted = kept.len() + bytes.len();
    kept.extend(bytes, wanted, most).map_err(|_| Fault::OutputLimit.into())
}

/// Why a backend was not reached whose TLS broke off.
fn unreached(broken: Broken) -> Unreached {
    Unreached::tls(broken.why)
}
