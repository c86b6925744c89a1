//! Source addresses for many short connections. One address has 30,000 ports and each rests for a minute after a
//! close; the loopback net has 16 million addresses.

use anyhow::Result;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Below the range that the kernel gives ports from (32768 and up, unless somebody changed it): one that was bound by
/// number and rests after its close is given to nobody else for a minute, whatever the address, and thousands of
/// connections of the next work may need one each.
const PORT_FIRST: u16 = 2_000;
const PORT_LAST: u16 = 32_000;
/// Addresses of one generator of clients.
const ADDRESSES: u32 = 48;
/// Four of them are used in turn, and when their ports are used up the next four are. With one after the other the
/// clients of a flood would come from one source, and in the middle of it from another: a server that lets sources take
/// turns then serves what still waits of the first in turn with the second.
const IN_TURN: u32 = 4;
/// Ports that are tried before a connection is given up.
const TRIES: usize = 100;

/// Gives each connection an address and a port of its own, so that the kernel need not look for one.
pub(crate) struct Sources {
    first: Ipv4Addr,
    /// How many addresses there are, from the first on; none where the kernel chooses address and port.
    addresses: u32,
    /// How many of them are used in turn.
    in_turn: u32,
    address: u32,
    port: u16,
}

impl Sources {
    /// Many addresses; clients with another index have others, so that they do not meet. The kernel chooses where the
    /// target is not on the loopback net.
    pub(crate) fn new(target: SocketAddr, index: usize) -> Self {
        let net = (std::process::id() as usize).wrapping_mul(31).wrapping_add(index) % 250;
        match target.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => {
                let first = Ipv4Addr::new(127, 77, net as u8, 1);
                Self { addresses: ADDRESSES, in_turn: IN_TURN, ..Self::at(first) }
            }
            _ => Self { addresses: 0, ..Self::at(Ipv4Addr::UNSPECIFIED) },
        }
    }

    /// One address, and its ports in turn.
    pub(crate) fn at(first: Ipv4Addr) -> Self {
        Self { first, addresses: 1, in_turn: 1, address: 0, port: PORT_FIRST }
    }

    /// A non-blocking socket on its way to `target`: it may be connected, or soon be.
    pub(crate) fn connect(&mut self, target: SocketAddr) -> Result<Socket> {
        let mut tries = 0;
        loop {
            let socket = self.prepare(target)?;
            match begin(&socket, target) {
                Ok(()) => return Ok(socket),
                // A connection from this address and port still stands, or rests: the next is free.
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable && tries < TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A non-blocking socket with an address and a port, not yet on its way.
    pub(crate) fn prepare(&mut self, target: SocketAddr) -> Result<Socket> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
        if self.addresses > 0 {
            socket.set_reuse_address(true)?;
            self.bind(&socket)?;
        }
        Ok(socket)
    }

    fn bind(&mut self, socket: &Socket) -> Result<()> {
        let mut tries = 0;
        loop {
            let ip = Ipv4Addr::from_bits(self.first.to_bits() + self.address);
            let bound = socket.bind(&SocketAddr::from((ip, self.port)).into());
            self.advance();
            tries += 1;
            match bound {
                // Somebody listens there on all addresses: the next is free.
                Err(error) if error.kind() == ErrorKind::AddrInUse && tries < TRIES => {}
                other => return Ok(other?),
            }
        }
    }

    /// The next address of those in turn; behind the last of them the next port, and behind the last port the next addresses.
    fn advance(&mut self) {
        self.address += 1;
        if !self.address.is_multiple_of(self.in_turn) {
            return;
        }
        self.port += 1;
        if self.port > PORT_LAST {
            self.port = PORT_FIRST;
            self.address %= self.addresses;
        } else {
            self.address -= self.in_turn;
        }
    }
}

/// Sends a prepared socket on its way.
pub(crate) fn begin(socket: &Socket, target: SocketAddr) -> std::io::Result<()> {
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_addresses_are_used_in_turn_with_each_port_and_then_the_next_four() {
        let mut sources = Sources::new((Ipv4Addr::LOCALHOST, 1).into(), 0);
        let mut next = || {
            let now = (sources.address, sources.port);
            sources.advance();
            now
        };
        let ports = u32::from(PORT_LAST - PORT_FIRST + 1);
        for block in 0..ADDRESSES / IN_TURN {
            for port in PORT_FIRST..=PORT_LAST {
                (0..IN_TURN).for_each(|at| assert_eq!(next(), (block * IN_TURN + at, port)));
            }
        }
        assert_eq!(next(), (0, PORT_FIRST), "after {} connections", ports * ADDRESSES);
        let mut one = Sources::at(Ipv4Addr::LOCALHOST);
        (PORT_FIRST..=PORT_LAST).for_each(|port| {
            assert_eq!((one.address, one.port), (0, port));
            one.advance();
        });
        assert_eq!((one.address, one.port), (0, PORT_FIRST));
    }
}
