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

/// Bytes given to the kernel for a client that has not acknowledged them (`SIOCOUTQ`); 0 where that cannot be
/// told.
pub(crate) fn unacknowledged(socket: &std::net::TcpStream) -> usize {
    use std::os::fd::AsRawFd;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, since `socket` is borrowed; the kernel writes one int to `bytes`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}
