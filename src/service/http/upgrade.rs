//! A protocol that takes a connection over from HTTP.

use super::caller::Caller;
use crate::reason::CloseReason;
use crate::service::{Input, Output, Turn};
use std::io;
use std::time::Duration;

/// Another protocol that continues on a connection after `101 Switching Protocols`.
pub(in crate::service) trait Upgraded: Send {
    /// A turn. It may come earlier than the one before has asked for. In the first turn, `first` is what the client has sent after its request. It may be changed where it is.
    fn turn(
        &mut self,
        first: &mut [u8],
        input: &mut Input<'_>,
        output: &mut Output<'_>,
        caller: Caller<'_>,
    ) -> io::Result<Turn>;

    /// With a time: what the client asks in the next turn cannot be served, and it may come again after this time.
    fn overloaded(&mut self, wait: Option<Duration>);

    /// The connection has ended.
    fn finish(&mut self, reason: CloseReason);
}
