//! The header in every piece it can come in, against another implementation, and from hostile clients.

use super::*;
use proptest::prelude::*;
use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader, Tlv};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn client(source: &str, destination: &str) -> Origin {
    Origin::Client { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn whole(bytes: &[u8]) -> Result<Header, HeaderError> {
    parse(bytes).map(|header| header.expect("it is whole"))
}

/// A version 2 header with this command byte, family and payload.
fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [V2, &[command, family], &length, payload].concat()
}

const FOUR: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

#[test]
fn lines_say_who_the_client_is() {
    let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET /";
    let header = whole(line).unwrap();
    assert_eq!(header.origin, client("192.0.2.1:56324", "198.51.100.1:443"));
    assert_eq!(&line[header.len..], b"GET /");
    let longest = b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(whole(longest).unwrap().len, 104);
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 whatever it is\r\n"] {
        assert_eq!(whole(line.as_bytes()), Ok(Header { origin: Origin::Connection, len: line.len() }));
    }
    let unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    assert_eq!((unknown.len(), whole(unknown.as_bytes()).unwrap().len), (107, 107));
}

#[test]
fn lines_that_are_wrong_say_what_is() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(92));
    for (line, why) in [
        ("GET / HTTP/1.1\r\n", HeaderError::Missing),
        ("PROXX TCP4", HeaderError::Missing),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n", HeaderError::Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\r\n", HeaderError::Line),
        ("PROXY \r\n", HeaderError::Line),
        ("PROXY TCP4\r\n", HeaderError::Line),
        ("PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n", HeaderError::Line),
        ("PROXY UNKNOWNS 1.2.3.4 1.2.3.4 1 1\r\n", HeaderError::Line),
        ("PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n", HeaderError::Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n", HeaderError::Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", HeaderError::Line),
        ("PROXY TCP4 ::1 1.2.3.4 1 1\r\n", HeaderError::LineAddress),
        ("PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n", HeaderError::LineAddress),
        ("PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n", HeaderError::LineAddress),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", HeaderError::LineAddress),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n", HeaderError::LinePort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", HeaderError::LinePort),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", HeaderError::LinePort),
        (&long, HeaderError::LineTooLong),
        (&endless, HeaderError::LineTooLong),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(why), "{line}");
    }
}

#[test]
fn binary_headers_say_who_the_client_is() {
    let header = v2(0x21, 0x11, &FOUR);
    assert_eq!(whole(&header), Ok(Header { origin: client("192.0.2.1:56324", "198.51.100.1:443"), len: 28 }));
    let six = [[0; 15].as_slice(), &[1], &[0xfe, 0x80], &[0; 13], &[2], &[0, 1, 0, 2]].concat();
    assert_eq!(whole(&v2(0x21, 0x21, &six)).unwrap().origin, client("[::1]:1", "[fe80::2]:2"));
    // Nobody that a stream could be served under.
    for (command, family, payload) in [
        (0x21, 0x00, 0),
        (0x21, 0x00, 9),
        (0x21, 0x31, 216),
        (0x21, 0x12, 12),
        (0x20, 0x00, 0),
        (0x20, 0xff, 7),
    ] {
        let header = v2(command, family, &vec![0; payload]);
        assert_eq!(whole(&header), Ok(Header { origin: Origin::Connection, len: 16 + payload }));
    }
}

#[test]
fn binary_headers_that_are_wrong_say_what_is() {
    let cut_field = [FOUR.as_slice(), &[4, 0, 2, 0]].concat();
    let half_field = [FOUR.as_slice(), &[4, 0]].concat();
    let short_sum = [FOUR.as_slice(), &[3, 0, 3, 1, 2, 3]].concat();
    let wrong_sum = [FOUR.as_slice(), &[3, 0, 4, 1, 2, 3, 4]].concat();
    for (header, why) in [
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), HeaderError::Missing),
        (v2(0x11, 0x11, &FOUR), HeaderError::Version(1)),
        (v2(0x22, 0x11, &FOUR), HeaderError::Command(2)),
        (v2(0x21, 0x41, &FOUR), HeaderError::Family(0x41)),
        (v2(0x21, 0x13, &FOUR), HeaderError::Family(0x13)),
        (v2(0x21, 0x11, &FOUR[..11]), HeaderError::Addresses),
        (v2(0x21, 0x21, &FOUR), HeaderError::Addresses),
        (v2(0x21, 0x31, &[0; 215]), HeaderError::Addresses),
        (v2(0x21, 0x11, &[0; 521]), HeaderError::TooLong(537)),
        (v2(0x20, 0x00, &[0; 65_535]), HeaderError::TooLong(65_551)),
        (v2(0x21, 0x11, &cut_field), HeaderError::Field),
        (v2(0x21, 0x11, &half_field), HeaderError::Field),
        (v2(0x21, 0x11, &short_sum), HeaderError::Checksum),
        (v2(0x21, 0x11, &wrong_sum), HeaderError::Checksum),
    ] {
        assert_eq!(parse(&header), Err(why), "{header:?}");
        // It is known before the last byte comes, or with it; never by waiting for more.
        let refused = (0..=header.len()).find(|len| parse(&header[..*len]).is_err());
        assert!(refused.is_some_and(|len| len <= MAX_BYTES), "{why:?}");
    }
}

#[test]
fn a_checksum_is_verified_wherever_it_stands() {
    // The check value of CRC32C in every table of checksums.
    assert_eq!(v2::checksum(b"123456789", 9), 0xe306_9283);
    let fields = [&[4, 0, 1, 0xee], [3, 0, 4].as_slice(), &[0; 4], &[0xea, 0, 2, 1, 2]].concat();
    let mut header = v2(0x21, 0x11, &[FOUR.as_slice(), &fields].concat());
    let at = 16 + 12 + 4 + 3;
    let sum = v2::checksum(&header, at);
    header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(whole(&header).unwrap().origin, client("192.0.2.1:56324", "198.51.100.1:443"));
    for index in 16..header.len() {
        let mut other = header.clone();
        other[index] ^= 0x10;
        // A flipped bit is seen, or it made another kind of field of the checksum itself.
        let fields =
            matches!(parse(&other), Err(HeaderError::Checksum | HeaderError::Field)) || index == at - 3;
        assert!(fields, "byte {index}");
    }
}

#[test]
fn a_mixed_pair_of_addresses_is_written_as_ipv6() {
    let mut line = Vec::new();
    ProxyVersion::V1.write("10.0.0.1:1".parse().unwrap(), "[2001:db8::1]:2".parse().unwrap(), &mut line);
    assert_eq!(line, b"PROXY TCP6 ::ffff:10.0.0.1 2001:db8::1 1 2\r\n");
    line.clear();
    ProxyVersion::V1.write("[::ffff:10.0.0.1]:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap(), &mut line);
    assert_eq!(line, b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", "a client of a dual-stack listener");
}

#[test]
fn versions_are_read_and_shown() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        assert_eq!(version.to_string().parse(), Ok(version));
        for write in [ProxyVersion::write_unknown, ProxyVersion::write_local] {
            let mut header = Vec::new();
            write(version, &mut header);
            assert_eq!(whole(&header), Ok(Header { origin: Origin::Connection, len: header.len() }));
        }
    }
    assert!("3".parse::<ProxyVersion>().is_err());
    let mut header = Vec::new();
    ProxyVersion::V2.write_local(&mut header);
    assert_eq!(header, ProxyHeader::with_local().to_owned_v2());
}

/// What the other implementation makes of it.
trait Encode {
    fn to_owned_v2(&self) -> Vec<u8>;
}

impl Encode for ProxyHeader<'_> {
    fn to_owned_v2(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_v2(&mut out).unwrap();
        out
    }
}

fn address() -> impl Strategy<Value = SocketAddr> {
    any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from)
}

fn pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    (address(), address()).prop_map(|(source, destination)| same_family(source, destination))
}

/// The header as it comes in two pieces and then whole: nothing before its last byte, nothing else after it.
fn check_splits(bytes: &[u8], len: usize, origin: Origin) {
    for cut in 0..len {
        assert_eq!(parse(&bytes[..cut]), Ok(None), "after {cut} bytes");
    }
    assert_eq!(parse(bytes), Ok(Some(Header { origin, len })));
}

proptest! {
    #[test]
    fn what_is_written_is_read_under_every_split((source, destination) in pair(), rest: Vec<u8>) {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let mut bytes = Vec::new();
            version.write(source, destination, &mut bytes);
            let len = bytes.len();
            bytes.extend_from_slice(&rest);
            check_splits(&bytes, len, Origin::Client { source, destination });
        }
    }

    #[test]
    fn another_implementation_reads_what_is_written((source, destination) in pair()) {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let mut bytes = Vec::new();
            version.write(source, destination, &mut bytes);
            let (header, len) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
            prop_assert_eq!(len, bytes.len());
            let expected = ProxiedAddress::stream(source, destination);
            prop_assert_eq!(header.proxied_address(), Some(&expected));
        }
    }

    #[test]
    fn what_another_implementation_writes_is_read(
        (source, destination) in pair(),
        kinds in prop::collection::vec((0xe0u8..0xf0, prop::collection::vec(any::<u8>(), 0..40)), 0..6),
    ) {
        let mut header = ProxyHeader::with_address(ProxiedAddress::stream(source, destination));
        let mut lines = Vec::new();
        header.encode_v1(&mut lines).unwrap();
        check_splits(&lines, lines.len(), Origin::Client { source, destination });
        for (kind, value) in &kinds {
            header.append_tlv(Tlv::Custom(*kind, value.as_slice().into()));
        }
        let bytes = header.to_owned_v2();
        check_splits(&bytes, bytes.len(), Origin::Client { source, destination });
    }

    /// Looking at a socket again and again comes to what reading all at once does, and takes the header alone.
    #[test]
    fn what_is_taken_from_a_socket_is_what_is_read_whole(
        start in 0usize..6, noise: Vec<u8>, sizes in prop::collection::vec(1usize..40, 1..20),
    ) {
        let lines = [b"PROXY UNKNOWN\r\n".as_slice(), b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n"];
        let binary = v2(0x21, 0x11, &FOUR);
        let start = [b"".as_slice(), b"PROXY TCP4 1.2.3.4 ", V2, &binary, lines[0], lines[1]][start];
        let bytes = [start, &noise].concat();
        let (near, mut far) = UnixStream::pair().unwrap();
        let (mut rest, mut taken) = (&bytes[..], None);
        for size in sizes.iter().cycle() {
            if rest.is_empty() || taken.is_some() {
                break;
            }
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            far.write_all(piece).unwrap();
            rest = after;
            taken = take(&near).transpose();
        }
        far.write_all(rest).unwrap();
        let left = match (parse(&bytes), taken) {
            (Ok(Some(header)), Some(Ok(origin))) => {
                prop_assert_eq!(header.origin, origin);
                &bytes[header.len..]
            }
            (Ok(None), None) => &bytes[..],
            (Err(why), Some(Err(TakeError::Header(said)))) => {
                prop_assert_eq!(why, said);
                &bytes[..]
            }
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        drop(far);
        let mut kept = Vec::new();
        (&near).read_to_end(&mut kept).unwrap();
        prop_assert_eq!(kept, left, "what is no header stays in the kernel");
    }

    /// Nothing panics, nothing is taken for more than it is, and an early no is never taken back.
    #[test]
    fn bytes_of_any_kind_are_a_header_or_not(start in 0usize..4, noise: Vec<u8>) {
        let start = [b"".as_slice(), b"PROXY ", b"PROXY TCP4 1.2.3.4 ", V2][start];
        let bytes = [start, &noise].concat();
        let mut verdict = Ok(None);
        for len in 0..=bytes.len() {
            let now = parse(&bytes[..len]);
            match verdict {
                Ok(None) => {}
                decided => prop_assert_eq!(now, decided, "after {} bytes", len),
            }
            if let Ok(Some(header)) = now {
                prop_assert!(header.len <= len.min(MAX_BYTES));
            }
            verdict = now;
        }
        prop_assert!(bytes.len() < MAX_BYTES || verdict != Ok(None), "{} bytes decide", MAX_BYTES);
    }

    /// Where both decide, they decide alike, except for what is refused here on purpose.
    #[test]
    fn another_implementation_sees_mutated_headers_alike(
        (source, destination) in pair(), at: prop::sample::Index, byte: u8, second: bool,
    ) {
        let version = if second { ProxyVersion::V2 } else { ProxyVersion::V1 };
        let mut bytes = Vec::new();
        version.write(source, destination, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let theirs = ProxyHeader::parse(&bytes, ParseConfig::default());
        let ours = parse(&bytes);
        if let (Ok(Some(ours)), Ok((theirs, len))) = (ours, &theirs) {
            prop_assert_eq!(ours.len, *len);
            match ours.origin {
                Origin::Client { source, destination } => {
                    let expected = ProxiedAddress::stream(source, destination);
                    prop_assert_eq!(theirs.proxied_address(), Some(&expected));
                }
                // Theirs gives the addresses of datagrams too.
                Origin::Connection => prop_assert!(theirs.proxied_address().is_none()
                    || bytes[13] & 0xf == 2 || bytes.starts_with(b"PROXY")),
            }
        }
        if let Ok(Some(_)) = ours {
            // Theirs refuses families that the text defines: unspecified protocols.
            prop_assert!(theirs.is_ok() || second, "only theirs refuses {:?}", bytes);
        }
    }
}

fn pair_of_sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, far)
}

/// Waits until this many bytes wait in the kernel.
fn arrived(socket: &TcpStream, bytes: usize) {
    while peek(socket, &mut [0; 1024]).unwrap() != Some(bytes) {
        std::thread::yield_now();
    }
}

#[test]
fn a_header_is_taken_from_a_socket_when_it_is_whole_and_nothing_else_is() {
    let (mut near, mut far) = pair_of_sockets();
    assert!(matches!(take(&near), Ok(None)), "nothing has come");
    let mut header = Vec::new();
    ProxyVersion::V2.write("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap(), &mut header);
    for (index, byte) in header.iter().enumerate().take(header.len() - 1) {
        far.write_all(&[*byte]).unwrap();
        arrived(&near, index + 1);
        assert!(matches!(take(&near), Ok(None)));
    }
    far.write_all(&[header[header.len() - 1], b'h', b'i']).unwrap();
    arrived(&near, header.len() + 2);
    assert_eq!(take(&near).unwrap(), Some(client("192.0.2.1:1", "192.0.2.2:2")));
    drop(far);
    let mut rest = String::new();
    near.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "hi");
}

#[test]
fn a_client_that_ends_within_its_header_is_told_from_one_that_is_slow() {
    let (near, mut far) = pair_of_sockets();
    far.write_all(b"PROXY TC").unwrap();
    arrived(&near, 8);
    assert!(matches!(take(&near), Ok(None)));
    drop(far);
    while !has_hung_up(&near) {
        std::thread::yield_now();
    }
    assert!(matches!(take(&near), Err(TakeError::Header(HeaderError::Cut))));
    // Without a word, it is no broken header.
    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    assert!(
        matches!(take(&near), Err(TakeError::Socket(error)) if error.kind() == io::ErrorKind::UnexpectedEof)
    );
}

#[test]
fn what_is_no_header_is_left_where_it_is() {
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert!(matches!(take(&near), Err(TakeError::Header(HeaderError::Missing))));
    assert_eq!(peek(&near, &mut [0; 64]).unwrap(), Some(16));
}
