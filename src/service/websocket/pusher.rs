//! Sending from any thread: pushed messages wait in an outbox until the session's next turn.

use super::message::Prepared;
use crate::service::Waker;
use crate::service::pool::Pool;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a message was not pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The client has not read the messages that were pushed before, and no more may be kept for it
    /// (`output_per_connection`) or for all clients (`output_total`).
    #[error("the client does not take its messages")]
    Full,
    /// The connection has ended.
    #[error("the connection has ended")]
    Gone,
}

/// Sends to one socket from any thread. A clone sends to the same socket. A pusher may outlive its socket.
#[derive(Clone, Debug)]
pub struct Pusher(Arc<Outbox>);

impl Pusher {
    /// Sends a message after those that were pushed before, without waiting. A [`Prepared`] message that is pushed to
    /// many sockets is in memory once.
    pub fn push(&self, message: impl Into<Prepared>) -> Result<(), PushError> {
        self.0.put(message.into().0)
    }

    /// Ends the connection with this close code once what was pushed is sent.
    pub fn close(&self, code: u16) {
        self.0.contents().closing.get_or_insert(code);
        self.0.waker.wake();
    }
}

/// What was pushed and not sent.
#[derive(Debug)]
pub(super) struct Outbox {
    contents: Mutex<Contents>,
    waker: Waker,
    limit: usize,
    total: Arc<Pool>,
    total_limit: usize,
}

#[derive(Debug, Default)]
struct Contents {
    frames: VecDeque<Arc<[u8]>>,
    /// Bytes of the frames.
    bytes: usize,
    closing: Option<u16>,
    gone: bool,
}

/// What a turn takes from an outbox.
pub(super) enum Mail {
    Frame(Arc<[u8]>),
    Close(u16),
    Nothing,
}

impl Outbox {
    pub(super) fn new(waker: Waker, limit: usize, total: Arc<Pool>, total_limit: usize) -> Self {
        Self { contents: Mutex::default(), waker, limit, total, total_limit }
    }

    pub(super) fn pusher(self: &Arc<Self>) -> Pusher {
        Pusher(self.clone())
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, frame: Arc<[u8]>) -> Result<(), PushError> {
        let mut contents = self.contents();
        if contents.gone || contents.closing.is_some() {
            return Err(PushError::Gone);
        }
        if contents.bytes + frame.len() > self.limit {
            return Err(PushError::Full);
        }
        if !self.total.charge(frame.len(), self.total_limit) {
            return Err(PushError::Full);
        }
        contents.bytes += frame.len();
        contents.frames.push_back(frame);
        let first = contents.frames.len() == 1;
        drop(contents);
        // The thread that put in the first message has woken the session, whose turn takes all of them.
        if first {
            self.waker.wake();
        }
        Ok(())
    }

    pub(super) fn take(&self) -> Mail {
        let mut contents = self.contents();
        match contents.frames.pop_front() {
            Some(frame) => {
                contents.bytes -= frame.len();
                self.total.discharge(frame.len());
                if contents.frames.is_empty() {
                    // An empty outbox owns no memory.
                    contents.frames = VecDeque::new();
                }
                Mail::Frame(frame)
            }
            None => contents.closing.take().map_or(Mail::Nothing, |code| {
                contents.gone = true;
                Mail::Close(code)
            }),
        }
    }

    /// The connection has ended: no more messages are taken, and none is kept.
    pub(super) fn shut(&self) {
        let mut contents = self.contents();
        contents.gone = true;
        self.total.discharge(contents.bytes);
        contents.bytes = 0;
        contents.frames = VecDeque::new();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shut();
    }
}
