//! System calls that safe libraries do not offer. This is the only file of the crate with unsafe code, and each use says
//! why it is sound.
#![allow(unsafe_code)]

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises this process's soft limit of open descriptors to its hard limit; gives the limit in force.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    limit.current = Some(hard);
    if soft < hard && setrlimit(Resource::Nofile, limit).is_ok() { hard } else { soft }
}

/// How many local ports the kernel gives to outgoing connections, for each pair of addresses.
/// From `ip_local_port_range`; its default where that cannot be read.
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
pub(crate) fn bind_address_no_port(socket: &impl std::os::fd::AsRawFd) -> Result<(), Errno> {
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
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}
