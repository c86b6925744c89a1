//! Version 2: a signature, four bytes that say what follows, two addresses, and fields.

use super::header::{Header, HeaderError, MAX_BYTES, Origin, begins};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and protocol, and two bytes of length.
const FIXED: usize = 16;

const VERSION: u8 = 0x20;
const TCP_IPV4: u8 = 0x11;
const TCP_IPV6: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;

/// The field that holds a checksum over the whole header.
const CRC32C: u8 = 0x03;

/// The speaker: a client by way of the balancer, or the balancer itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderCommand {
    Local = 0,
    Proxy = 1,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    if !begins(bytes, SIGNATURE) {
        return Err(HeaderError::Missing);
    }
    let Some(command) = bytes.get(12).map(|byte| command(*byte)).transpose()? else { return Ok(None) };
    let Some(family) = bytes.get(13).copied() else { return Ok(None) };
    if command == HeaderCommand::Proxy {
        check_family(family)?;
    }
    let Some(length) = bytes.get(14..FIXED) else { return Ok(None) };
    let len = FIXED + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if len > MAX_BYTES {
        return Err(HeaderError::TooLong(len));
    }
    if command == HeaderCommand::Proxy && len - FIXED < addresses_bytes(family) {
        return Err(HeaderError::Addresses);
    }
    let Some(header) = bytes.get(..len) else { return Ok(None) };
    let origin = match command {
        // Whatever a balancer says of itself is to be ignored.
        HeaderCommand::Local => Origin::Connection,
        HeaderCommand::Proxy => origin(header, family)?,
    };
    Ok(Some(Header { origin, len }))
}

fn command(byte: u8) -> Result<HeaderCommand, HeaderError> {
    match (byte & 0xf0, byte & 0x0f) {
        (VERSION, 0) => Ok(HeaderCommand::Local),
        (VERSION, 1) => Ok(HeaderCommand::Proxy),
        (VERSION, command) => Err(HeaderError::Command(command)),
        (version, _) => Err(HeaderError::Version(version >> 4)),
    }
}

/// Families are unspecified, IPv4, IPv6 and Unix; protocols unspecified, stream and datagram.
fn check_family(family: u8) -> Result<(), HeaderError> {
    if family >> 4 <= 3 && family & 0x0f <= 2 { Ok(()) } else { Err(HeaderError::Family(family)) }
}

/// How many bytes of addresses stand before the fields.
fn addresses_bytes(family: u8) -> usize {
    match (family >> 4, family & 0x0f) {
        (1, 1 | 2) => 2 * (4 + 2),
        (2, 1 | 2) => 2 * (16 + 2),
        (3, 1 | 2) => 2 * 108,
        _ => 0,
    }
}

fn origin(header: &[u8], family: u8) -> Result<Origin, HeaderError> {
    let (addresses, fields) = header[FIXED..].split_at(addresses_bytes(family));
    if !addresses.is_empty() {
        check_fields(header, fields)?;
    }
    match family {
        TCP_IPV4 => {
            let ip = |at| Ipv4Addr::from(array::<4>(addresses, at)).into();
            Ok(client(ip(0), ip(4), &addresses[8..]))
        }
        TCP_IPV6 => {
            let ip = |at| Ipv6Addr::from(array::<16>(addresses, at)).into();
            Ok(client(ip(0), ip(16), &addresses[32..]))
        }
        _ => Ok(Origin::Connection),
    }
}

fn client(source: IpAddr, destination: IpAddr, ports: &[u8]) -> Origin {
    let port = |at| u16::from_be_bytes(array::<2>(ports, at));
    Origin::Client {
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

/// Walks the fields, which must fill the header, and verifies a checksum among them.
fn check_fields(header: &[u8], mut fields: &[u8]) -> Result<(), HeaderError> {
    while let [kind, high, low, rest @ ..] = fields {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let value = rest.get(..len).ok_or(HeaderError::Field)?;
        if *kind == CRC32C {
            let at = header.len() - rest.len();
            let said = <[u8; 4]>::try_from(value).map_err(|_| HeaderError::Checksum)?;
            if u32::from_be_bytes(said) != checksum(header, at) {
                return Err(HeaderError::Checksum);
            }
        }
        fields = &rest[len..];
    }
    if fields.is_empty() { Ok(()) } else { Err(HeaderError::Field) }
}

/// The CRC32C of a header whose checksum stands at `at`, with zeros in its place. Bit by bit: it is over at
/// most 536 bytes, once for a connection, and only where a balancer sends one.
pub(super) fn checksum(header: &[u8], at: usize) -> u32 {
    let mut crc = u32::MAX;
    for (index, byte) in header.iter().enumerate() {
        let byte = if (at..at + 4).contains(&index) { 0 } else { *byte };
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Both addresses are of one family.
pub(super) fn write(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let family = if source.is_ipv4() { TCP_IPV4 } else { TCP_IPV6 };
    write_fixed(HeaderCommand::Proxy, family, out);
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    for address in [source, destination] {
        out.extend_from_slice(&address.port().to_be_bytes());
    }
}

pub(super) fn write_without_address(command: HeaderCommand, out: &mut Vec<u8>) {
    write_fixed(command, UNSPECIFIED, out);
}

fn write_fixed(command: HeaderCommand, family: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[VERSION | command as u8, family]);
    out.extend_from_slice(&(addresses_bytes(family) as u16).to_be_bytes());
}
