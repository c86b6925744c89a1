//! What the system gives: the only place where unsafe code may stand, each use with the reason why
//! it is sound.
#![allow(unsafe_code)]

#[cfg(feature = "cli")]
mod handed;
mod mapping;
#[cfg(feature = "cli")]
mod orders;

#[cfg(feature = "cli")]
pub(crate) use handed::take_descriptors;
pub(crate) use mapping::{Mapping, whole_pages};
#[cfg(feature = "cli")]
pub(crate) use orders::{hold, wait_for};

use rustix::process::{Resource, getrlimit, setrlimit};
use std::net::{IpAddr, SocketAddr};
#[cfg(not(target_os = "linux"))]
use std::os::fd::BorrowedFd;

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

/// The most datagrams that one call takes from the kernel or gives to it.
pub(crate) const DATAGRAMS_AT_ONCE: usize = 32;

/// A datagram that was taken; its bytes are where the caller's room was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) len: usize,
    /// Who sent it.
    pub(crate) peer: SocketAddr,
    /// The address it was sent to, where the socket was told to say so.
    pub(crate) local: Option<IpAddr>,
    /// It was longer than the room for it.
    pub(crate) truncated: bool,
}

impl Taken {
    /// A place for one.
    pub(crate) const NONE: Self = Self {
        len: 0,
        peer: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
        local: None,
        truncated: false,
    };
}

/// A datagram to be given to the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) to: SocketAddr,
    /// The address it leaves from; `None`: the kernel chooses.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(crate) from: Option<IpAddr>,
}

#[cfg(target_os = "linux")]
pub(crate) use batches::{receive_datagrams, report_local_address, send_datagrams};

/// Several datagrams with one call: neither the standard library nor rustix has `recvmmsg`.
#[cfg(target_os = "linux")]
mod batches {
    use super::{DATAGRAMS_AT_ONCE, Given, Taken};
    use std::io;
    use std::mem::{MaybeUninit, zeroed};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
    use std::os::fd::{AsRawFd, BorrowedFd};
    use std::ptr::null_mut;

    type Name = MaybeUninit<libc::sockaddr_storage>;

    /// Room for one control message with an address, aligned for its header.
    #[repr(align(8))]
    #[derive(Clone, Copy)]
    struct Control([MaybeUninit<u8>; 64]);

    /// Tells the kernel to say of each datagram which address it was sent to.
    pub(crate) fn report_local_address(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
        let on: libc::c_int = 1;
        let (level, option) = if ipv6 {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
        } else {
            (libc::IPPROTO_IP, libc::IP_PKTINFO)
        };
        // SAFETY: the pointer and the length describe `on`, which lives through the call; the kernel
        // only reads it.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(&on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Takes datagrams without waiting, one into each `size` bytes of `room`, at most
    /// [`DATAGRAMS_AT_ONCE`]; says of each what it is in `taken`, and how many there were. None is
    /// an error of kind `WouldBlock`.
    pub(crate) fn receive_datagrams(
        socket: BorrowedFd<'_>,
        room: &mut [u8],
        size: usize,
        taken: &mut [Taken; DATAGRAMS_AT_ONCE],
    ) -> io::Result<usize> {
        let count = (room.len() / size).min(DATAGRAMS_AT_ONCE);
        let mut names = [const { Name::uninit() }; DATAGRAMS_AT_ONCE];
        let mut controls = [Control([MaybeUninit::uninit(); 64]); DATAGRAMS_AT_ONCE];
        // SAFETY: all bits zero is a valid value of these plain structs: null pointers, zero lengths.
        let mut headers: [libc::mmsghdr; DATAGRAMS_AT_ONCE] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut pieces: [libc::iovec; DATAGRAMS_AT_ONCE] = unsafe { zeroed() };
        for (index, piece) in room.chunks_exact_mut(size).take(count).enumerate() {
            pieces[index] = libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: size };
            let header = &mut headers[index].msg_hdr;
            header.msg_name = names[index].as_mut_ptr().cast();
            header.msg_namelen = size_of::<Name>() as libc::socklen_t;
            header.msg_iov = &raw mut pieces[index];
            header.msg_iovlen = 1;
            header.msg_control = controls[index].0.as_mut_ptr().cast();
            header.msg_controllen = size_of::<Control>() as _;
        }
        // SAFETY: the first `count` headers point to names, pieces and controls of the lengths they
        // say, which live in this frame or in `room`, borrowed mutably, and are used by nobody else
        // during the call. No timeout is given.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for index in 0..received {
            let header = &headers[index];
            // SAFETY: the kernel has filled this entry: its name is an address of `msg_namelen`
            // bytes, and its control messages, in our buffer still, end at `msg_controllen`.
            let (peer, local) = unsafe { (read_name(&names[index]), read_local(&header.msg_hdr)) };
            taken[index] = Taken {
                len: header.msg_len as usize,
                peer,
                local,
                truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            };
        }
        Ok(received)
    }

    /// Gives the kernel datagrams without waiting; how many of them it took, from the first on. An
    /// error is about the first. At most [`DATAGRAMS_AT_ONCE`] are looked at.
    pub(crate) fn send_datagrams(socket: BorrowedFd<'_>, given: &[Given<'_>]) -> io::Result<usize> {
        let count = given.len().min(DATAGRAMS_AT_ONCE);
        let mut names = [const { Name::uninit() }; DATAGRAMS_AT_ONCE];
        let mut controls = [Control([MaybeUninit::uninit(); 64]); DATAGRAMS_AT_ONCE];
        // SAFETY: all bits zero is a valid value of these plain structs: null pointers, zero lengths.
        let mut headers: [libc::mmsghdr; DATAGRAMS_AT_ONCE] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut pieces: [libc::iovec; DATAGRAMS_AT_ONCE] = unsafe { zeroed() };
        for (index, one) in given.iter().take(count).enumerate() {
            // The kernel does not write to what it sends.
            pieces[index] =
                libc::iovec { iov_base: one.data.as_ptr().cast_mut().cast(), iov_len: one.data.len() };
            let header = &mut headers[index].msg_hdr;
            header.msg_namelen = write_name(&mut names[index], one.to);
            header.msg_name = names[index].as_mut_ptr().cast();
            header.msg_iov = &raw mut pieces[index];
            header.msg_iovlen = 1;
            if let Some(from) = one.from {
                header.msg_control = controls[index].0.as_mut_ptr().cast();
                header.msg_controllen = size_of::<Control>() as _;
                // SAFETY: the header's control buffer is this frame's, of the length it says.
                unsafe { write_local(header, from, one.to) };
            }
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the first `count` headers point to names, pieces and controls of the lengths they
        // say, which live in this frame or are borrowed through the call; the kernel reads them.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as libc::c_uint, flags as _)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// The address in a name.
    ///
    /// # Safety
    /// The kernel must have written an address of its own family there.
    unsafe fn read_name(name: &Name) -> SocketAddr {
        // SAFETY: a written address begins with its family, and the storage is large enough and
        // aligned for each kind.
        unsafe {
            if i32::from(name.as_ptr().cast::<libc::sockaddr>().read().sa_family) == libc::AF_INET6 {
                let v6 = name.as_ptr().cast::<libc::sockaddr_in6>().read();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                SocketAddrV6::new(ip, port, u32::from_be(v6.sin6_flowinfo), v6.sin6_scope_id).into()
            } else {
                let v4 = name.as_ptr().cast::<libc::sockaddr_in>().read();
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into()
            }
        }
    }

    fn write_name(name: &mut Name, address: SocketAddr) -> libc::socklen_t {
        match address {
            SocketAddr::V4(address) => {
                // SAFETY: all bits zero is a valid address; the storage is large enough and aligned.
                let mut v4: libc::sockaddr_in = unsafe { zeroed() };
                v4.sin_family = libc::AF_INET as _;
                v4.sin_port = address.port().to_be();
                v4.sin_addr.s_addr = u32::from(*address.ip()).to_be();
                // SAFETY: as above.
                unsafe { name.as_mut_ptr().cast::<libc::sockaddr_in>().write(v4) };
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(address) => {
                // SAFETY: all bits zero is a valid address; the storage is large enough and aligned.
                let mut v6: libc::sockaddr_in6 = unsafe { zeroed() };
                v6.sin6_family = libc::AF_INET6 as _;
                v6.sin6_port = address.port().to_be();
                v6.sin6_addr.s6_addr = address.ip().octets();
                v6.sin6_scope_id = address.scope_id();
                // SAFETY: as above.
                unsafe { name.as_mut_ptr().cast::<libc::sockaddr_in6>().write(v6) };
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }

    /// The address that a datagram was sent to, if the kernel says it.
    ///
    /// # Safety
    /// The header's control buffer must hold what the kernel wrote, up to `msg_controllen`.
    unsafe fn read_local(header: &libc::msghdr) -> Option<IpAddr> {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR stay within `msg_controllen`; the kernel writes whole
        // messages, whose payload is the struct of its level and type.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while let Some(head) = message.as_ref() {
                match (head.cmsg_level, head.cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().read_unaligned();
                        // Not the destination: for a broadcast that is no address of ours.
                        return Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info = libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>().read_unaligned();
                        let to = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                        return (!to.is_multicast()).then_some(to.into());
                    }
                    _ => message = libc::CMSG_NXTHDR(header, message),
                }
            }
        }
        None
    }

    /// Says which address a datagram leaves from.
    ///
    /// # Safety
    /// The header must own a control buffer of at least 64 bytes, aligned to 8.
    unsafe fn write_local(header: &mut libc::msghdr, from: IpAddr, to: SocketAddr) {
        // SAFETY: a message with either struct takes at most CMSG_SPACE(20) = 40 bytes, which fit; the
        // first message of a buffer of that size is never null.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(header);
            let len = match from {
                IpAddr::V4(ip) => {
                    let mut info: libc::in_pktinfo = zeroed();
                    info.ipi_spec_dst.s_addr = u32::from(ip).to_be();
                    (*message).cmsg_level = libc::IPPROTO_IP;
                    (*message).cmsg_type = libc::IP_PKTINFO;
                    libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().write_unaligned(info);
                    size_of::<libc::in_pktinfo>()
                }
                IpAddr::V6(ip) => {
                    let mut info: libc::in6_pktinfo = zeroed();
                    info.ipi6_addr.s6_addr = ip.octets();
                    // A link-local address means nothing without its link.
                    if let (SocketAddr::V6(to), true) = (to, ip.is_unicast_link_local()) {
                        info.ipi6_ifindex = to.scope_id() as _;
                    }
                    (*message).cmsg_level = libc::IPPROTO_IPV6;
                    (*message).cmsg_type = libc::IPV6_PKTINFO;
                    libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>().write_unaligned(info);
                    size_of::<libc::in6_pktinfo>()
                }
            };
            (*message).cmsg_len = libc::CMSG_LEN(len as libc::c_uint) as _;
            header.msg_controllen = libc::CMSG_SPACE(len as libc::c_uint) as _;
        }
    }
}

/// Elsewhere: one datagram with each call, and the kernel chooses where replies leave from.
#[cfg(not(target_os = "linux"))]
pub(crate) fn receive_datagrams(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
    size: usize,
    taken: &mut [Taken; DATAGRAMS_AT_ONCE],
) -> std::io::Result<usize> {
    use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, recvmsg};
    let mut count = 0;
    for (piece, place) in room.chunks_exact_mut(size).zip(taken) {
        let mut pieces = [std::io::IoSliceMut::new(piece)];
        let mut nothing = RecvAncillaryBuffer::default();
        let received = match recvmsg(socket, &mut pieces, &mut nothing, RecvFlags::DONTWAIT) {
            Ok(received) => received,
            Err(_) if count > 0 => break,
            Err(error) => return Err(error.into()),
        };
        let peer = received.address.and_then(|peer| SocketAddr::try_from(peer).ok());
        let truncated = received.flags.contains(ReturnFlags::TRUNC);
        // A source without an address has port 0 here, which is not answered.
        let peer = peer.unwrap_or(Taken::NONE.peer);
        *place = Taken { len: received.bytes.min(size), peer, local: None, truncated };
        count += 1;
    }
    Ok(count)
}

/// Elsewhere: one datagram.
#[cfg(not(target_os = "linux"))]
pub(crate) fn send_datagrams(socket: BorrowedFd<'_>, given: &[Given<'_>]) -> std::io::Result<usize> {
    use rustix::net::{SendFlags, sendto};
    let Some(one) = given.first() else { return Ok(0) };
    sendto(socket, one.data, SendFlags::DONTWAIT, &one.to)?;
    Ok(1)
}

/// Elsewhere the kernel is not asked.
#[cfg(not(target_os = "linux"))]
pub(crate) fn report_local_address(_socket: BorrowedFd<'_>, _ipv6: bool) -> std::io::Result<()> {
    Ok(())
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

/// A moment in the local time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalTime {
    pub(crate) year: i64,
    /// From 0 for January.
    pub(crate) month: usize,
    pub(crate) day: i32,
    /// From 0 for Sunday.
    pub(crate) weekday: usize,
    pub(crate) hour: i32,
    pub(crate) minute: i32,
    /// 60 in a leap second, where the zone knows of them.
    pub(crate) second: i32,
}

/// What the C library says is the local time, this number of seconds after 1970; `None` if it cannot say.
pub(crate) fn local_time(second: i64) -> Option<LocalTime> {
    let second = libc::time_t::try_from(second).ok()?;
    let mut tm = std::mem::MaybeUninit::<libc::tm>::uninit();
    // SAFETY: the call reads one number and writes one struct, both of which are ours alone. It reads the
    // environment, which safe code cannot change beside other threads, and locks what threads share.
    let result = unsafe { libc::localtime_r(&raw const second, tm.as_mut_ptr()) };
    if result.is_null() {
        return None;
    }
    // SAFETY: the call succeeded, so it has written the whole struct.
    let tm = unsafe { tm.assume_init() };
    Some(LocalTime {
        year: i64::from(tm.tm_year) + 1900,
        month: usize::try_from(tm.tm_mon).ok()?,
        day: tm.tm_mday,
        weekday: usize::try_from(tm.tm_wday).ok()?,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
    })
}

/// What C's own `ctime` prints, to compare with.
#[cfg(test)]
pub(crate) fn print_by_c(second: i64) -> String {
    unsafe extern "C" {
        fn ctime_r(time: *const libc::time_t, said: *mut libc::c_char) -> *mut libc::c_char;
    }
    let second = second as libc::time_t;
    let mut said = [0u8; 64];
    // SAFETY: the call reads one number and writes at most 26 bytes, ended by a 0, into a buffer of 64.
    let result = unsafe { ctime_r(&raw const second, said.as_mut_ptr().cast()) };
    assert!(!result.is_null(), "C cannot say {second}");
    let end = said.iter().position(|&byte| byte == 0).unwrap_or(said.len());
    String::from_utf8(said[..end].to_vec()).unwrap()
}

/// What the calling thread has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadUsage {
    /// Processor time in nanoseconds.
    pub(crate) processor: u64,
    /// How often it gave up the processor to wait for something.
    pub(crate) waits: u64,
}

/// Reads what the calling thread has used; `None` where the system does not tell of threads.
pub(crate) fn thread_usage() -> Option<ThreadUsage> {
    #[cfg(target_os = "linux")]
    {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: the pointer is to writable memory of the struct's size, which the call fills.
        let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
        if result != 0 {
            return None;
        }
        // SAFETY: the call succeeded, so the kernel has written the whole struct.
        let usage = unsafe { usage.assume_init() };
        let nanos = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
        let processor = nanos(usage.ru_utime) + nanos(usage.ru_stime);
        Some(ThreadUsage { processor, waits: usage.ru_nvcsw as u64 })
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Whether this process is the program, whose allocator serves nobody else.
static SAVES_MEMORY: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Has the C library give free memory back that lies between what is in use. Only in the program: in
/// another process this would be a pass over the whole heap of somebody else.
pub(crate) fn give_memory_back() {
    if SAVES_MEMORY.load(std::sync::atomic::Ordering::Relaxed) {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: the call takes a plain number, and may be made by any thread at any time.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Has the C library use less memory: all threads share two heaps (its default is one for each of
/// the first eight threads per processor, each with pages of its own), and blocks from 48 KiB on come
/// from the kernel, zeroed without being touched, and go back to it when they are freed.
#[cfg(feature = "cli")]
pub(crate) fn save_memory() {
    SAVES_MEMORY.store(true, std::sync::atomic::Ordering::Relaxed);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the calls take plain numbers, and are made before there is a second thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 48 * 1024);
    }
}

/// Runs `catch`, which sets handlers for these signals, and leaves those ignored that this process was started
/// with ignored: `nohup` does that with SIGHUP, and a shell with SIGINT for `cmd &` in a script.
#[cfg(feature = "cli")]
pub(crate) fn keep_ignored<T>(signals: &[rustix::process::Signal], catch: impl FnOnce() -> T) -> T {
    let ignored: Vec<_> = signals.iter().copied().filter(|&signal| is_ignored(signal)).collect();
    let caught = catch();
    ignored.into_iter().for_each(ignore);
    caught
}

#[cfg(feature = "cli")]
fn is_ignored(signal: rustix::process::Signal) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes to `now`, which is as large as it has to be.
    let result = unsafe { libc::sigaction(signal.as_raw(), std::ptr::null(), now.as_mut_ptr()) };
    // SAFETY: all zeros are a valid `sigaction` too, should the call have failed.
    result == 0 && unsafe { now.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Has this signal do nothing.
#[cfg(feature = "cli")]
fn ignore(signal: rustix::process::Signal) {
    // SAFETY: SIG_IGN is no handler, so no code of this process runs on the signal.
    unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) };
}
