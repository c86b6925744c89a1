//! What the system gives: the only place where unsafe code may stand, each use with the reason why
//! it is sound.
#![allow(unsafe_code)]

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to at least `wanted`, as far as the hard one goes, and says
/// what it is then.
pub(crate) fn raise_open_files(wanted: u64) -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    if soft >= wanted {
        return soft;
    }
    let aim = limit.maximum.unwrap_or(u64::MAX).min(wanted);
    limit.current = Some(aim);
    if setrlimit(Resource::Nofile, limit).is_ok() { aim } else { soft }
}

/// Raises this process's soft limit of open descriptors to its hard limit; gives the limit in force.
#[cfg(feature = "cli")]
pub(crate) fn raise_descriptor_limit() -> u64 {
    raise_open_files(u64::MAX)
}

/// How many local ports the kernel gives to outgoing connections, for each pair of addresses.
/// From `ip_local_port_range`; its default where that cannot be read.
#[cfg(feature = "cli")]
pub(crate) fn local_ports() -> u64 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_ascii_whitespace().map(str::parse::<u64>);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => last - first + 1,
        _ => 60_999 - 32_768 + 1,
    }
}

/// Lets `connect` choose the port of a socket that is bound to an address only (`IP_BIND_ADDRESS_NO_PORT`),
/// so that a port is taken for each pair of addresses and not for the source alone.
#[cfg(all(feature = "cli", target_os = "linux"))]
pub(crate) fn bind_address_no_port(socket: &impl std::os::fd::AsRawFd) -> Result<(), rustix::io::Errno> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length describe `on`, which lives through the call; the kernel only reads
    // it. A descriptor that is no socket makes the call fail.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            std::ptr::from_ref(&on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(rustix::io::Errno::from_io_error(&std::io::Error::last_os_error())
            .unwrap_or(rustix::io::Errno::INVAL)),
    }
}

/// What `TCP_INFO` tells of a listening socket.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpListenInfo {
    /// Connections in the accept queue.
    pub(crate) unacked: u32,
    /// The accept queue's limit.
    pub(crate) sacked: u32,
}

/// Reads `TCP_INFO`; `None` when the socket does not listen.
#[cfg(target_os = "linux")]
pub(crate) fn tcp_listen_info(socket: std::os::fd::BorrowedFd<'_>) -> std::io::Result<Option<TcpListenInfo>> {
    const TCP_LISTEN: u8 = 10;
    // The first eight words of `struct tcp_info`: eight bytes (the first is the state), then rto,
    // ato, snd_mss, rcv_mss, unacked, sacked.
    let words = getsockopt_words::<8>(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    let listens = words[0].to_ne_bytes()[0] == TCP_LISTEN;
    Ok(listens.then(|| TcpListenInfo { unacked: words[6], sacked: words[7] }))
}

/// Reads how many packets a socket has dropped (`SK_MEMINFO_DROPS` of `SO_MEMINFO`).
#[cfg(target_os = "linux")]
pub(crate) fn socket_drops(socket: std::os::fd::BorrowedFd<'_>) -> std::io::Result<u32> {
    Ok(getsockopt_words::<9>(socket, libc::SOL_SOCKET, libc::SO_MEMINFO)?[8])
}

/// Reads the first `N` words of a socket option; what the kernel does not fill is 0.
#[cfg(target_os = "linux")]
fn getsockopt_words<const N: usize>(
    socket: std::os::fd::BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
) -> std::io::Result<[u32; N]> {
    use std::os::fd::AsRawFd;
    let mut words = [0u32; N];
    let mut len = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the descriptor is open for the life of the borrow; the pointer and the length
    // describe `words`, which outlives the call and whose every bit pattern is valid.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, words.as_mut_ptr().cast(), &mut len) };
    if result == 0 { Ok(words) } else { Err(std::io::Error::last_os_error()) }
}
