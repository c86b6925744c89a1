//! Descriptors held in reserve, so that the endpoint answers while the process has none left.

use rustix::io::{dup2, fcntl_dupfd_cloexec};
use std::os::fd::{AsFd, OwnedFd};

/// Descriptors that are held to be given up one by one.
#[derive(Debug)]
pub(super) struct Reserve {
    model: OwnedFd,
    spares: Vec<OwnedFd>,
    target: usize,
}

impl Reserve {
    /// Takes `target` descriptors, each a duplicate of `model`.
    pub(super) fn new(model: impl AsFd, target: usize) -> std::io::Result<Self> {
        let mut reserve =
            Self { model: fcntl_dupfd_cloexec(model, 0)?, spares: Vec::with_capacity(target), target };
        reserve.refill();
        Ok(reserve)
    }

    /// Gives up one descriptor; whether there was one.
    pub(super) fn give_up(&mut self) -> bool {
        self.spares.pop().is_some()
    }

    /// Closes a connection. While the reserve is short its descriptor becomes a spare in the same
    /// step, so that no other thread can take it in between.
    pub(super) fn close(&mut self, connection: OwnedFd) {
        let mut connection = connection;
        if self.spares.len() < self.target && dup2(&self.model, &mut connection).is_ok() {
            // What was made by dup2 is inherited by programs that are started, which is unwanted.
            let _ = rustix::io::fcntl_setfd(&connection, rustix::io::FdFlags::CLOEXEC);
            self.spares.push(connection);
        }
    }

    /// Takes what is missing, as far as it can be had.
    pub(super) fn refill(&mut self) {
        while self.spares.len() < self.target {
            match fcntl_dupfd_cloexec(&self.model, 0) {
                Ok(spare) => self.spares.push(spare),
                Err(_) => return,
            }
        }
    }
}
