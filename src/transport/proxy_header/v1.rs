//! Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.

use super::header::{Header, HeaderError, Origin, begins};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const GREETING: &[u8] = b"PROXY ";

/// The longest line with its end: two IPv6 addresses in full.
const LINE_MAX: usize = 107;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    if !begins(bytes, GREETING) {
        return Err(HeaderError::Missing);
    }
    // An end must fit: `\r` at the last place but one. What stands after that decides nothing.
    let head = &bytes[..bytes.len().min(LINE_MAX - 1)];
    let Some(end) = head.iter().position(|byte| *byte == b'\r' || *byte == b'\n') else {
        return if head.len() == LINE_MAX - 1 { Err(HeaderError::LineTooLong) } else { Ok(None) };
    };
    match (head[end], bytes.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) => return Ok(None),
        _ => return Err(HeaderError::Line),
    }
    let line = head.get(GREETING.len()..end).ok_or(HeaderError::Line)?;
    Ok(Some(Header { origin: origin(line)?, len: end + 2 }))
}

/// What the line says behind `PROXY `.
fn origin(line: &[u8]) -> Result<Origin, HeaderError> {
    let line = std::str::from_utf8(line).map_err(|_| HeaderError::Line)?;
    let mut words = line.split(' ');
    let family = words.next().ok_or(HeaderError::Line)?;
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Ok(Origin::Connection);
    }
    let mut word = || words.next().ok_or(HeaderError::Line);
    let (source, destination, source_port, destination_port) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(HeaderError::Line);
    }
    let address = |word: &str| match family {
        "TCP4" => word.parse::<Ipv4Addr>().map(IpAddr::from).map_err(|_| HeaderError::LineAddress),
        "TCP6" => word.parse::<Ipv6Addr>().map(IpAddr::from).map_err(|_| HeaderError::LineAddress),
        _ => Err(HeaderError::Line),
    };
    Ok(Origin::Client {
        source: SocketAddr::new(address(source)?, port(source_port)?),
        destination: SocketAddr::new(address(destination)?, port(destination_port)?),
    })
}

/// A port without signs or leading zeros, which the protocol forbids since they can be read as octal.
fn port(word: &str) -> Result<u16, HeaderError> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word.len() == 1 || !word.starts_with('0'));
    if plain { word.parse().map_err(|_| HeaderError::LinePort) } else { Err(HeaderError::LinePort) }
}

pub(super) fn write(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
    out.extend_from_slice(line.as_bytes());
}

pub(super) fn write_unknown(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PROXY UNKNOWN\r\n");
}
