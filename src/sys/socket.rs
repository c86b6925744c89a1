//! What the kernel tells of a connected socket.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes given to the kernel for a client that has not acknowledged them (`SIOCOUTQ`); 0 where that cannot be
/// told.
pub(crate) fn unacknowledged(socket: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, since `socket` is borrowed; the kernel writes one int to `bytes`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}
