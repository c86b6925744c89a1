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
    /// How many frames there is a place for.
    places: usize,
    /// What the frames and the places take of the machine, as it is counted in the pool. A short frame takes several times
    /// its bytes.
    cost: usize,
    closing: Option<u16>,
    gone: bool,
}

impl Contents {
    /// How many places there are to be for this number of frames: twice as many when they are all taken, and half as many when
    /// three quarters are free.
    fn places_for(&self, frames: usize) -> usize {
        match frames {
            0 => 0,
            frames if frames > self.places => (2 * self.places).max(PLACES_MIN),
            frames if frames <= self.places / 4 => (self.places / 2).max(PLACES_MIN),
            _ => self.places,
        }
    }

    /// Moves the frames to this number of places.
    fn set_places(&mut self, places: usize) {
        match places {
            0 => self.frames = VecDeque::new(),
            places if places > self.places => self.frames.reserve_exact(places - self.frames.len()),
            places if places < self.places => self.frames.shrink_to(places),
            _ => {}
        }
        self.places = places;
    }
}

/// An outbox that is not empty has at least this many places.
const PLACES_MIN: usize = 4;

/// What this number of places takes.
fn cost_of_places(places: usize) -> usize {
    match places {
        0 => 0,
        places => Pool::block_cost(places * size_of::<Arc<[u8]>>()),
    }
}

/// What a frame takes: its bytes, and the two counts of its `Arc`.
fn cost_of(frame: &Arc<[u8]>) -> usize {
    Pool::block_cost(frame.len() + 2 * size_of::<usize>())
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
        let places = contents.places_for(contents.frames.len() + 1);
        let more = cost_of(&frame) + cost_of_places(places) - cost_of_places(contents.places);
        if contents.cost + more > self.limit || !self.total.charge(more, self.total_limit) {
            return Err(PushError::Full);
        }
        contents.cost += more;
        contents.set_places(places);
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
                let places = contents.places_for(contents.frames.len());
                let less = cost_of(&frame) + cost_of_places(contents.places) - cost_of_places(places);
                contents.set_places(places);
                contents.cost -= less;
                self.total.discharge(less);
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
        self.total.discharge(std::mem::take(&mut contents.cost));
        contents.set_places(0);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::waker;
    use crate::service::websocket::frame::{Opcode, frame_head};
    use proptest::prelude::*;

    const LIMIT: usize = 64 * 1024;

    fn outbox(pool: &Arc<Pool>) -> Arc<Outbox> {
        let (host, seat) = waker::nobody();
        Arc::new(Outbox::new(Waker::new(host, seat), LIMIT, pool.clone(), 3 * LIMIT / 2))
    }

    #[test]
    fn short_messages_are_counted_by_what_they_take() {
        let pool = Arc::new(Pool::default());
        let outbox = outbox(&pool);
        let pusher = outbox.pusher();
        let pushed = (0..LIMIT).take_while(|_| pusher.push("x").is_ok()).count();
        // A block of 16 bytes with its two counts, three of the frame, and a pointer of two words in the queue.
        let (least, most) = (16 + 3 + 16, 16 + 16 + 16 + 2 * 16);
        assert!((LIMIT / 2 / most..LIMIT / least).contains(&pushed), "{pushed} of 3 bytes in {LIMIT}");
        let contents = outbox.contents();
        assert!(pool.used() <= LIMIT && contents.frames.capacity() <= contents.places);
        drop(contents);
        assert_eq!(pusher.push("y"), Err(PushError::Full));
        while let Mail::Frame(_) = outbox.take() {}
        assert_eq!((pool.used(), outbox.contents().frames.capacity()), (0, 0), "an empty one owns nothing");
    }

    proptest! {
        /// Whatever is pushed and taken, all is counted, within both limits, and nothing is counted once all have ended.
        #[test]
        fn what_waits_is_counted_and_no_more(steps in proptest::collection::vec((0..2usize, 0..4_000usize, 0..60usize), 1..60)) {
            let pool = Arc::new(Pool::default());
            let boxes = [outbox(&pool), outbox(&pool)];
            let mut waiting: [VecDeque<usize>; 2] = Default::default();
            for (which, bytes, taken) in steps {
                for _ in 0..40 {
                    if boxes[which].pusher().push(&vec![b'x'; bytes][..]).is_ok() {
                        waiting[which].push_back(bytes);
                    }
                }
                for _ in 0..taken {
                    let got = match boxes[which].take() {
                        Mail::Frame(frame) => Some(frame.len()),
                        _ => None,
                    };
                    let wanted = waiting[which].pop_front().map(|bytes| frame_head(Opcode::Binary, bytes).as_ref().len() + bytes);
                    prop_assert_eq!(got, wanted);
                }
                let costs = [&boxes[0], &boxes[1]].map(|outbox| {
                    let contents = outbox.contents();
                    assert!(contents.frames.capacity() <= contents.places, "no more places than are counted");
                    assert!(contents.places <= PLACES_MIN.max(4 * contents.frames.len()), "few are free");
                    let frames: usize = contents.frames.iter().map(cost_of).sum();
                    assert_eq!(contents.cost, frames + cost_of_places(contents.places));
                    contents.cost
                });
                prop_assert_eq!(pool.used(), costs[0] + costs[1]);
                prop_assert!(costs.iter().all(|&cost| cost <= LIMIT) && pool.used() <= 3 * LIMIT / 2);
            }
            boxes[0].shut();
            let [_, other] = boxes;
            drop(other);
            prop_assert_eq!(pool.used(), 0);
        }
    }
}
