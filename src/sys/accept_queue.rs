//! What Linux tells of a listening socket: its accept queue, and what it dropped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What `TCP_INFO` tells of a listening socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpListenInfo {
    /// Connections in the accept queue.
    pub(crate) unacked: u32,
    /// The accept queue's limit.
    pub(crate) sacked: u32,
}

/// Reads `TCP_INFO`; `None` when the socket does not listen.
pub(crate) fn tcp_listen_info(socket: BorrowedFd<'_>) -> io::Result<Option<TcpListenInfo>> {
    const TCP_LISTEN: u8 = 10;
    // The first eight words of `struct tcp_info`: eight bytes (the first is the state), then rto,
    // ato, snd_mss, rcv_mss, unacked, sacked.
    let words = getsockopt_words::<8>(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    let listens = words[0].to_ne_bytes()[0] == TCP_LISTEN;
    Ok(listens.then(|| TcpListenInfo { unacked: words[6], sacked: words[7] }))
}

/// Reads how many packets a socket has dropped (`SK_MEMINFO_DROPS` of `SO_MEMINFO`).
pub(crate) fn socket_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(getsockopt_words::<9>(socket, libc::SOL_SOCKET, libc::SO_MEMINFO)?[8])
}

/// Reads the first `N` words of a socket option; what the kernel does not fill is 0.
pub(super) fn getsockopt_words<const N: usize>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<[u32; N]> {
    let mut words = [0u32; N];
    let mut len = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the descriptor is open for the life of the borrow; the pointer and the length
    // describe `words`, which outlives the call and whose every bit pattern is valid.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, words.as_mut_ptr().cast(), &mut len) };
    if result == 0 { Ok(words) } else { Err(io::Error::last_os_error()) }
}
