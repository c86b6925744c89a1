//! Pipes by which the kernel moves bytes from socket to socket without copying them: a bounded pool, from which
//! a stream in bulk borrows one.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Bytes that a pipe is made for. Each buffer of a socket takes one of its places, however short, so a pipe has
/// room for more buffers than its bytes need.
pub(super) const PIPE_BYTES: usize = 256 * 1024;

/// Pipes that are kept open while nobody uses them.
#[cfg(target_os = "linux")]
const KEPT: usize = 64;

/// The pool. Each open pipe is two descriptors.
#[derive(Debug)]
pub(crate) struct Pipes {
    open: AtomicUsize,
    most: usize,
    #[cfg(target_os = "linux")]
    idle: std::sync::Mutex<Vec<linux::Ends>>,
}

impl Pipes {
    /// A pool of at most this many pipes.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            most,
            #[cfg(target_os = "linux")]
            idle: std::sync::Mutex::default(),
        })
    }

    /// How many pipes are open, in use or not.
    #[cfg(test)]
    pub(crate) fn open(&self) -> usize {
        self.open.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Descriptors that the pool can hold.
    #[cfg(test)]
    pub(crate) fn descriptors(&self) -> usize {
        self.most * 2
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::Pipe;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Pipe;

#[cfg(target_os = "linux")]
mod linux {
    use super::{KEPT, PIPE_BYTES, Pipes};
    use rustix::io::{Errno, Result};
    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
    use std::os::fd::{BorrowedFd, OwnedFd};
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, MutexGuard, PoisonError};

    #[derive(Debug)]
    pub(super) struct Ends {
        read: OwnedFd,
        write: OwnedFd,
    }

    impl Ends {
        fn open() -> Result<Self> {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            // A smaller pipe is slower, not wrong: a user may have used up what it is allowed.
            let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
            Ok(Self { read, write })
        }
    }

    /// A pipe that one direction of a pair uses; it goes back into the pool, if it is empty.
    #[derive(Debug)]
    pub(in super::super) struct Pipe {
        ends: Option<Ends>,
        content: usize,
        pipes: Arc<Pipes>,
    }

    impl Pipes {
        fn idle(&self) -> MutexGuard<'_, Vec<Ends>> {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Borrows a pipe; none when all are in use or the process has no descriptors.
        pub(in super::super) fn take(self: &Arc<Self>) -> Option<Pipe> {
            let pipe = |ends| Pipe { ends: Some(ends), content: 0, pipes: self.clone() };
            if let Some(ends) = self.idle().pop() {
                return Some(pipe(ends));
            }
            let grow = |open| (open < self.most).then_some(open + 1);
            self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).ok()?;
            match Ends::open() {
                Ok(ends) => Some(pipe(ends)),
                Err(_) => {
                    self.open.fetch_sub(1, Ordering::Relaxed);
                    None
                }
            }
        }
    }

    impl Pipe {
        /// Bytes in it.
        pub(in super::super) fn content(&self) -> usize {
            self.content
        }

        /// Moves bytes from a socket that does not block into the pipe, at most [`PIPE_BYTES`]; 0 is the end.
        /// Only into an empty pipe, so that `AGAIN` means that the socket has none.
        pub(in super::super) fn fill(&mut self, from: BorrowedFd<'_>) -> Result<usize> {
            debug_assert_eq!(self.content, 0);
            let Some(ends) = &self.ends else { return Err(Errno::INVAL) };
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            let moved = splice(from, None, &ends.write, None, PIPE_BYTES, flags)?;
            self.content = moved;
            Ok(moved)
        }

        /// Moves bytes from the pipe to a socket.
        pub(in super::super) fn empty(&mut self, to: BorrowedFd<'_>) -> Result<usize> {
            let Some(ends) = &self.ends else { return Err(Errno::INVAL) };
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            let moved = splice(&ends.read, None, to, None, self.content, flags)?;
            self.content -= moved.min(self.content);
            Ok(moved)
        }
    }

    impl Drop for Pipe {
        fn drop(&mut self) {
            let Some(ends) = self.ends.take() else { return };
            if self.content == 0 {
                let mut idle = self.pipes.idle();
                if idle.len() < KEPT {
                    return idle.push(ends);
                }
            }
            drop(ends);
            self.pipes.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Elsewhere bytes are copied.
#[cfg(not(target_os = "linux"))]
mod other {
    use super::Pipes;
    use rustix::io::Result;
    use std::convert::Infallible;
    use std::os::fd::BorrowedFd;
    use std::sync::Arc;

    #[derive(Debug)]
    pub(in super::super) struct Pipe(Infallible);

    impl Pipes {
        pub(in super::super) fn take(self: &Arc<Self>) -> Option<Pipe> {
            None
        }
    }

    impl Pipe {
        pub(in super::super) fn content(&self) -> usize {
            match self.0 {}
        }

        pub(in super::super) fn fill(&mut self, _from: BorrowedFd<'_>) -> Result<usize> {
            match self.0 {}
        }

        pub(in super::super) fn empty(&mut self, _to: BorrowedFd<'_>) -> Result<usize> {
            match self.0 {}
        }
    }
}
