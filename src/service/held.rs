//! Input that a session keeps from one turn to the next, counted in `input_total`.

use super::holdings::Deposit;
use super::pool::Buffer;
use super::{Context, Fault, Peer, Seat};
use crate::admit::sources::SourceKey;
use std::io;

/// Bytes of a client that are not answered yet: the beginning of a request, or requests that another turn will
/// answer.
#[derive(Debug)]
pub(super) struct Held {
    buffer: Buffer,
    /// The source that sent it: see [`holdings`](super::holdings).
    source: SourceKey,
    /// The service tells its client when there is no room, so other requests of the same source are not given up for
    /// this one.
    is_told: bool,
    /// The place in the table from which it can be given up for another source.
    aside: Option<Deposit>,
}

impl Held {
    /// Empty, for this client.
    pub(super) fn of(peer: &Peer, context: &Context<'_>) -> Self {
        let source = SourceKey::new(peer.address.source(), context.limits.source_prefix);
        Self { buffer: Buffer::new(context.input_total.pool()), source, is_told: false, aside: None }
    }

    /// Empty, for a client that the service tells when there is no room. Then no other request of the same source is
    /// given up for it.
    pub(super) fn of_told(peer: &Peer, context: &Context<'_>) -> Self {
        Self { is_told: true, ..Self::of(peer, context) }
    }

    /// The bytes that are not answered yet.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.bytes()
    }

    /// The same, to be changed where they are.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Removes the first `n` bytes: they are answered.
    pub(super) fn answered(&mut self, n: usize) {
        self.buffer.consume(n);
    }

    /// Adds bytes if there is room, or if another source that holds more can give some up. A request has at most
    /// `most` bytes.
    pub(super) fn extend(&mut self, data: &[u8], most: usize, context: &Context<'_>) -> io::Result<()> {
        while let Err(full) = self.buffer.extend(data, most, context.limits.input_total) {
            let Some(robbed) = context.input_total.make_room(self.source, full.wanted, !self.is_told) else {
                return Err(Fault::InputLimit.into());
            };
            // The connection whose input is given up ends in its next turn.
            context.host.wake(robbed);
        }
        Ok(())
    }

    /// Puts the input into the table, where it can be given up for another source, until the next turn of the
    /// connection that has this turn.
    pub(super) fn park(self, seat: Seat, context: &Context<'_>) -> io::Result<Deposit> {
        let deposit = context.input_total.deposit(self.buffer, self.source, seat);
        deposit.ok_or_else(|| Fault::InputLimit.into())
    }

    /// Puts the input into the table, where it can be given up for another source, until
    /// [`take_back`](Self::take_back) in the next turn.
    pub(super) fn set_aside(&mut self, seat: Seat, context: &Context<'_>) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let nothing = Buffer::new(context.input_total.pool());
        let buffer = std::mem::replace(&mut self.buffer, nothing);
        let deposit = context.input_total.deposit(buffer, self.source, seat);
        self.aside = Some(deposit.ok_or(Fault::InputLimit)?);
        Ok(())
    }

    /// Takes the input back from the table; an error if it was given up meanwhile.
    pub(super) fn take_back(&mut self) -> io::Result<()> {
        if let Some(deposit) = self.aside.take() {
            (_, self.buffer) = deposit.redeem().ok_or(Fault::InputLimit)?;
        }
        Ok(())
    }

    /// Takes parked input back for a turn of its session; an error if it was given up meanwhile.
    pub(super) fn resume(deposit: Deposit) -> io::Result<Self> {
        let (source, buffer) = deposit.redeem().ok_or(Fault::InputLimit)?;
        Ok(Self { buffer, source, is_told: false, aside: None })
    }
}
