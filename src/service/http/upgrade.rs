//! What takes over a connection from HTTP.

use super::caller::Caller;
use crate::reason::CloseReason;
use crate::service::{Input, Output, Turn};
use std::io;

/// Another protocol that goes on with a connection after `101 Switching Protocols`.
pub(in crate::service) trait Upgraded: Send {
    /// A turn. `first` is what the client has sent behind its request, in the first turn only.
    fn turn(
        &mut self,
        first: &[u8],
        input: &mut Input<'_>,
        output: &mut Output<'_>,
        caller: Caller<'_>,
    ) -> io::Result<Turn>;

    /// The connection has ended.
    fn finish(&mut self, reason: CloseReason);
}
