//! Source addresses for many short connections. One address has 30,000 ports and each rests for a minute after a
//! close; the loopback net has 16 million addresses.

use anyhow::Result;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Below the range that the kernel gives ports from (32768 and up, unless somebody changed it): one that was bound by
/// number and rests after its close is given to nobody else for a minute, whatever the address, and thousands of
/// connections of the next work may need one each.
const PORT_FIRST: u16 = 2_000;
const PORT_LAST: u16 = 32_000;
/// Addresses used in turn.
const ADDRESSES: u8 = 50;

/// Gives each connection an address and a port of its own, so that the kernel need not look for one.
pub(super) struct Sources {
    /// The third byte of the address: clients at the same time do not meet.
    net: u8,
    host: u8,
    port: u16,
    spread: bool,
}

impl Sources {
    pub(super) fn new(target: SocketAddr, index: usize) -> Self {
        let net = (std::process::id() as usize).wrapping_mul(31).wrapping_add(index) % 250;
        Self {
            net: net as u8,
            host: 1,
            port: PORT_FIRST,
            spread: matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback()),
        }
    }

    /// A non-blocking socket on its way to `target`: it may be connected, or soon be.
    pub(super) fn connect(&mut self, target: SocketAddr) -> Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        if self.spread {
            socket.set_reuse_address(true)?;
            self.bind(&socket)?;
        }
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error.into()),
            _ => Ok(socket),
        }
    }

    fn bind(&mut self, socket: &Socket) -> Result<()> {
        let mut tries = 0;
        loop {
            let ip = Ipv4Addr::new(127, 77, self.net, self.host);
            let bound = socket.bind(&SocketAddr::from((ip, self.port)).into());
            self.advance();
            tries += 1;
            match bound {
                // Somebody listens there on all addresses: the next is free.
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries < 100 => {}
                other => return Ok(other?),
            }
        }
    }

    fn advance(&mut self) {
        self.port += 1;
        if self.port > PORT_LAST {
            self.port = PORT_FIRST;
            self.host = self.host % ADDRESSES + 1;
        }
    }
}
