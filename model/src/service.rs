//! What the backends of a gate need of the server's `service`.

pub(crate) mod proxy;

use crate::reason::DropReason;

/// Stands for the waker of a session, of which the models have none.
pub(crate) enum Waker {}

impl Waker {
    pub(crate) fn wake_next(&self) {
        match *self {}
    }

    pub(crate) fn turn_away(&self, _reason: DropReason) {
        match *self {}
    }
}
