//! A bounded pool of pipes. A direction in bulk borrows one, through which the kernel moves bytes from socket to socket
//! without copying them.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// The size that a pipe is given. The kernel counts a pipe's size in pages, and each buffer of a socket takes a whole
/// page of it, however short the buffer is. So the size is larger than the bytes that a pipe usually holds.
#[cfg(target_os = "linux")]
pub(super) const PIPE_BYTES: usize = 256 * 1024;

/// How many pipes stay open while nobody uses them.
#[cfg(target_os = "linux")]
const KEPT: usize = 64;

/// The pool. Each open pipe is two descriptors.
#[derive(Debug)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux moves bytes through pipes"))]
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

    /// The most descriptors that the pool can hold.
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
            // The kernel refuses when the user's pipes are too large in sum. A smaller pipe works as well, only slower.
            let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
            Ok(Self { read, write })
        }
    }

    /// A borrowed pipe. When it is dropped it goes back into the pool if it is empty, and is closed otherwise.
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

        /// Borrows a pipe; `None` if all are in use or the process has no descriptors left.
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
        /// How many bytes are in it.
        pub(in super::super) fn content(&self) -> usize {
            self.content
        }

        /// Moves at most [`PIPE_BYTES`] from a non-blocking socket into the pipe; 0 is the end of the stream. The pipe must
        /// be empty, so that `AGAIN` can only mean that the socket has no bytes.
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

/// Other systems have no `splice`: there is never a pipe, and bytes are copied.
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
