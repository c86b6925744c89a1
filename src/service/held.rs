//! Input that a session holds from one turn to the next, counted in `input_total`.

use super::holdings::Deposit;
use super::pool::Buffer;
use super::{Context, Fault, Peer, Seat};
use crate::admit::sources::SourceKey;
use std::io;

/// Bytes that a client has sent and nobody has answered: the beginning of a request, or requests
/// that another turn will answer.
#[derive(Debug)]
pub(super) struct Held {
    buffer: Buffer,
    /// Who sent it: see [`holdings`](super::holdings).
    source: SourceKey,
}

impl Held {
    /// Nothing yet of this client's.
    pub(super) fn of(peer: &Peer, context: &Context<'_>) -> Self {
        let source = SourceKey::new(peer.address.ip(), context.limits.source_prefix);
        Self { buffer: Buffer::new(context.input_total.pool()), source }
    }

    /// The bytes that are not answered.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.bytes()
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The first `n` of them are answered.
    pub(super) fn answered(&mut self, n: usize) {
        self.buffer.consume(n);
    }

    /// Adds bytes, if there is room or the source that holds most can make some. A request has at
    /// most `most` bytes.
    pub(super) fn extend(&mut self, data: &[u8], most: usize, context: &Context<'_>) -> io::Result<()> {
        while let Err(full) = self.buffer.extend(data, most, context.limits.input_total) {
            let Some(robbed) = context.input_total.make_room(self.source, full.wanted) else {
                return Err(Fault::InputLimit.into());
            };
            // It has a turn, in which it ends.
            context.host.wake(robbed);
        }
        Ok(())
    }

    /// Puts it where it can be taken away, until the next turn of its connection, which is this one.
    pub(super) fn park(self, seat: Seat, context: &Context<'_>) -> io::Result<Deposit> {
        let deposit = context.input_total.deposit(self.buffer, self.source, seat);
        deposit.ok_or_else(|| Fault::InputLimit.into())
    }

    /// What was parked, for a turn of its session; an error if it was taken away.
    pub(super) fn resume(deposit: Deposit) -> io::Result<Self> {
        let (source, buffer) = deposit.redeem().ok_or(Fault::InputLimit)?;
        Ok(Self { buffer, source })
    }
}
