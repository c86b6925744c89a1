//! What the kernel knows about a connected socket.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes given to the kernel for a client that has not acknowledged them (`SIOCOUTQ`); 0 where that cannot be
/// told.
pub(crate) fn unacknowledged(socket: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, since `socket` is borrowed; the kernel writes one int to `bytes`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// How long ago a freshly accepted connection was established, to the millisecond: what it has waited in the kernel. The
/// server has sent nothing on it, so the time since it last did is the time since the handshake. `None` where the kernel
/// does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn since_handshake(socket: BorrowedFd<'_>) -> Option<std::time::Duration> {
    // Eight bytes, then rto, ato, snd_mss, rcv_mss, unacked, sacked, lost, retrans, fackets, last_data_sent.
    let words =
        super::accept_queue::getsockopt_words::<12>(socket, libc::IPPROTO_TCP, libc::TCP_INFO).ok()?;
    Some(std::time::Duration::from_millis(u64::from(words[11])))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn since_handshake(_socket: BorrowedFd<'_>) -> Option<std::time::Duration> {
    None
}

/// How many segments have come on a connection; `None` where the kernel does not tell.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn segments_received(socket: BorrowedFd<'_>) -> Option<u32> {
    // Behind the words above are total_retrans and others, four numbers of eight bytes each, and segs_out.
    let words =
        super::accept_queue::getsockopt_words::<36>(socket, libc::IPPROTO_TCP, libc::TCP_INFO).ok()?;
    Some(words[35])
}

/// The process and the user of a Unix socket's client when it connected (`SO_PEERCRED`). A process of another namespace
/// has the number 0.
#[cfg(target_os = "linux")]
pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> Option<(u32, u32)> {
    // `struct ucred`: pid, uid, gid.
    let [pid, uid, _] =
        super::accept_queue::getsockopt_words::<3>(socket, libc::SOL_SOCKET, libc::SO_PEERCRED).ok()?;
    Some((pid, uid))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn peer_credentials(_socket: BorrowedFd<'_>) -> Option<(u32, u32)> {
    None
}
