//! Receives and sends several datagrams with one system call.

use std::net::{IpAddr, SocketAddr};
#[cfg(not(target_os = "linux"))]
use std::os::fd::BorrowedFd;

/// The most datagrams that one call takes from the kernel or gives to it.
pub(crate) const DATAGRAMS_AT_ONCE: usize = 32;

/// A datagram that was taken; its bytes are where the caller's room was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) len: usize,
    /// Its sender.
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
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux has a call that says it"))]
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
