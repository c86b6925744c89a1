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
    /// Its client is told when there is no room, so other requests of its own source do not make some.
    is_told: bool,
    /// It is where it can be taken away.
    aside: Option<Deposit>,
}

impl Held {
    /// Nothing yet of this client's.
    pub(super) fn of(peer: &Peer, context: &Context<'_>) -> Self {
        let source = SourceKey::new(peer.address.ip(), context.limits.source_prefix);
        Self { buffer: Buffer::new(context.input_total.pool()), source, is_told: false, aside: None }
    }

    /// Nothing yet of this client's, who is told where there is no room: other requests of its source go on then.
    pub(super) fn of_told(peer: &Peer, context: &Context<'_>) -> Self {
        Self { is_told: true, ..Self::of(peer, context) }
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
            let Some(robbed) = context.input_total.make_room(self.source, full.wanted, !self.is_told) else {
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

    /// Puts it where it can be taken away, until [`take_back`](Self::take_back) in the next turn.
    pub(super) fn set_aside(&mut self, seat: Seat, context: &Context<'_>) -> io::Result<()> {
        let nothing = Buffer::new(context.input_total.pool());
        let buffer = std::mem::replace(&mut self.buffer, nothing);
        let deposit = context.input_total.deposit(buffer, self.source, seat);
        self.aside = Some(deposit.ok_or(Fault::InputLimit)?);
        Ok(())
    }

    /// Takes back what was set aside; an error if it was taken away meanwhile.
    pub(super) fn take_back(&mut self) -> io::Result<()> {
        if let Some(deposit) = self.aside.take() {
            (_, self.buffer) = deposit.redeem().ok_or(Fault::InputLimit)?;
        }
        Ok(())
    }

    /// What was parked, for a turn of its session; an error if it was taken away.
    pub(super) fn resume(deposit: Deposit) -> io::Result<Self> {
        let (source, buffer) = deposit.redeem().ok_or(Fault::InputLimit)?;
        Ok(Self { buffer, source, is_told: false, aside: None })
    }
}
