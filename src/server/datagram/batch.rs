//! Buffers for datagrams that one system call receives, and for their replies, which one call sends.

use crate::limits::Limits;
use crate::sys::{DATAGRAMS_AT_ONCE, Taken};

/// Room for a batch of requests and their replies; made once by each thread that receives, and
/// touched only as far as data goes.
pub(crate) struct Batch {
    pub(crate) requests: Box<[u8]>,
    pub(crate) request_size: usize,
    pub(crate) replies: Box<[u8]>,
    pub(crate) reply_size: usize,
    pub(crate) taken: [Taken; DATAGRAMS_AT_ONCE],
}

impl Batch {
    pub(crate) fn new(limits: &Limits) -> Box<Self> {
        let request_size = limits.max_datagram;
        let reply_size = reply_size(limits);
        Box::new(Self {
            requests: vec![0; request_size * DATAGRAMS_AT_ONCE].into_boxed_slice(),
            request_size,
            replies: vec![0; reply_size * DATAGRAMS_AT_ONCE].into_boxed_slice(),
            reply_size,
            taken: [Taken::NONE; DATAGRAMS_AT_ONCE],
        })
    }

    /// What a datagram says.
    pub(crate) fn request(&self, index: usize) -> &[u8] {
        &self.requests[index * self.request_size..][..self.taken[index].len]
    }

    /// Moves a datagram to a place before it, over one that is not wanted.
    pub(crate) fn keep(&mut self, from: usize, to: usize) {
        if from != to {
            self.taken[to] = self.taken[from];
            let at = from * self.request_size;
            self.requests.copy_within(at..at + self.taken[to].len, to * self.request_size);
        }
    }

    /// Bytes of a batch under these limits.
    pub(crate) fn bytes(limits: &Limits) -> usize {
        (limits.max_datagram + reply_size(limits)) * DATAGRAMS_AT_ONCE + size_of::<Self>()
    }
}

/// Replies may be a little longer than the longest request: for a greeting.
fn reply_size(limits: &Limits) -> usize {
    (limits.max_datagram + 64).min(65_507)
}
