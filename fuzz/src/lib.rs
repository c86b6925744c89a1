//! What holds for every input that tidegate reads from the network: no panic, all bytes accounted for, and the same
//! verdict however the input is cut into pieces. The targets are in `tests/`; here is what they check.
//!
//! `cargo test -p tidegate-fuzz` replays the corpus and tries random inputs for a moment, on stable Rust. To search
//! for longer: `cargo bolero test -p tidegate-fuzz http_requests`.

use tidegate::proxy_header::{self, MAX_BYTES, Origin, ProxyVersion};
use tidegate::service::http::wire::{
    BodyLimits, BodyReader, Chunked, Piece, Refused, RequestHead, ResponseHead, Scanner, Slots, decode_path,
};
use tidegate::websocket::{FramePiece, FrameReader, close_payload, unmask};

/// What a reader made of its input: each thing in a line, and the bytes that came out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    lines: Vec<String>,
    bytes: Vec<u8>,
}

/// A reader that is fed in pieces; false once it refuses its input.
trait Reader {
    fn take(&mut self, bytes: &[u8]) -> bool;
    fn seen(self) -> Seen;
}

/// Feeds the input whole, byte by byte, and cut where its own first bytes say; all must be alike.
fn check<R: Reader>(input: &[u8], reader: impl Fn() -> R) {
    let read = |sizes: &mut dyn Iterator<Item = usize>| {
        let (mut reader, mut rest) = (reader(), input);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(sizes.next().unwrap_or(rest.len()).clamp(1, rest.len()));
            if !reader.take(piece) {
                break;
            }
            rest = after;
        }
        reader.seen()
    };
    let whole = read(&mut std::iter::empty());
    assert_eq!(read(&mut std::iter::repeat(1)), whole);
    assert_eq!(read(&mut input.iter().map(|byte| usize::from(*byte))), whole);
    assert!(whole.bytes.len() <= input.len(), "more came out than went in");
}

/// Messages of HTTP, one after the other.
struct Messages {
    responses: bool,
    held: Vec<u8>,
    scanner: Scanner,
    body: Option<BodyReader>,
    seen: Seen,
}

impl Messages {
    fn scanner(responses: bool) -> Scanner {
        if responses { Scanner::responses() } else { Scanner::requests() }
    }

    fn step(&mut self) -> Result<bool, Refused> {
        let Some(body) = &mut self.body else { return self.head() };
        let (used, piece) = body.next(&self.held)?;
        match piece {
            Piece::Data(data) => self.seen.bytes.extend_from_slice(data),
            Piece::More => {
                assert_eq!(used, self.held.len(), "a reader that wants more has used all");
                self.held.clear();
                return Ok(false);
            }
            Piece::End => self.body = None,
        }
        self.held.drain(..used);
        Ok(true)
    }

    fn head(&mut self) -> Result<bool, Refused> {
        let Some(range) = self.scanner.find(&self.held, 4096)? else { return Ok(false) };
        let (head, mut slots) = (&self.held[range.clone()], Slots::new());
        let (text, length) = if self.responses {
            let head = ResponseHead::parse(head, "GET", &mut slots, 20)?;
            (format!("{head:?}"), head.body)
        } else {
            let head = RequestHead::parse(head, &mut slots, 20)?;
            if let Ok(path) = decode_path(head.target.path()) {
                assert!(!path.split('/').any(|segment| segment == ".."), "{path}");
            }
            (format!("{head:?}"), head.body)
        };
        self.seen.lines.push(text);
        let limits = BodyLimits::default().max_body(1 << 16).max_overhead(256);
        self.body = Some(length.reader(limits));
        self.scanner = Self::scanner(self.responses);
        self.held.drain(..range.end);
        Ok(true)
    }
}

impl Reader for Messages {
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.held.extend_from_slice(bytes);
        loop {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return true,
                Err(refused) => {
                    self.seen.lines.push(refused.to_string());
                    return false;
                }
            }
        }
    }

    fn seen(self) -> Seen {
        self.seen
    }
}

/// Requests with their bodies.
pub fn http_requests(input: &[u8]) {
    check(input, || messages(false));
}

/// Responses with their bodies, as a gate reads them.
pub fn http_responses(input: &[u8]) {
    check(input, || messages(true));
}

fn messages(responses: bool) -> Messages {
    let scanner = Messages::scanner(responses);
    Messages { responses, held: Vec::new(), scanner, body: None, seen: Seen::default() }
}

struct Chunks(Chunked, Seen);

impl Reader for Chunks {
    fn take(&mut self, bytes: &[u8]) -> bool {
        let mut used = 0;
        loop {
            match self.0.next(&bytes[used..], 1 << 16) {
                Ok((n, Piece::Data(data))) => {
                    used += n;
                    self.1.bytes.extend_from_slice(data);
                }
                Ok((n, Piece::More)) => {
                    assert_eq!(used + n, bytes.len(), "a reader that wants more has used all");
                    return true;
                }
                Ok((_, Piece::End)) => {
                    self.1.lines.push("end".to_owned());
                    return false;
                }
                Err(refused) => {
                    self.1.lines.push(refused.to_string());
                    return false;
                }
            }
        }
    }

    fn seen(self) -> Seen {
        self.1
    }
}

/// The chunked coding.
pub fn http_chunks(input: &[u8]) {
    check(input, || Chunks(Chunked::new(64), Seen::default()));
}

struct Frames(FrameReader, Seen);

impl Reader for Frames {
    fn take(&mut self, bytes: &[u8]) -> bool {
        let (reader, seen) = (&mut self.0, &mut self.1);
        let mut used = 0;
        loop {
            let (n, piece) = match reader.next(&bytes[used..]) {
                Ok(next) => next,
                Err(violation) => {
                    seen.lines.push(violation.to_string());
                    return false;
                }
            };
            used += n;
            match piece {
                FramePiece::More => {
                    assert_eq!(used, bytes.len(), "a reader that wants more has used all");
                    return true;
                }
                FramePiece::Payload(payload, key) => {
                    let start = seen.bytes.len();
                    seen.bytes.extend_from_slice(payload);
                    unmask(&mut seen.bytes[start..], key);
                }
                FramePiece::Message(opcode) => seen.lines.push(format!("{opcode:?} at {}", seen.bytes.len())),
                FramePiece::Control(opcode) => {
                    let payload = reader.control();
                    assert!(payload.len() <= 125);
                    seen.lines.push(format!("{opcode:?} {payload:?} {:?}", close_payload(payload)));
                }
            }
        }
    }

    fn seen(self) -> Seen {
        self.1
    }
}

/// Frames of a WebSocket's client.
pub fn websocket_frames(input: &[u8]) {
    check(input, || Frames(FrameReader::of_client(1 << 16), Seen::default()));
}

/// A PROXY header, and what its client says after it.
#[derive(Default)]
struct Proxied {
    /// The header, until it is whole.
    held: Vec<u8>,
    is_whole: bool,
    seen: Seen,
}

impl Reader for Proxied {
    fn take(&mut self, bytes: &[u8]) -> bool {
        if self.is_whole {
            self.seen.bytes.extend_from_slice(bytes);
            return true;
        }
        self.held.extend_from_slice(bytes);
        match proxy_header::parse(&self.held) {
            Ok(None) => assert!(self.held.len() < MAX_BYTES, "{MAX_BYTES} bytes decide"),
            Ok(Some(header)) => {
                assert!(header.len <= MAX_BYTES);
                self.is_whole = true;
                self.seen.lines.push(format!("{header:?}"));
                self.seen.bytes.extend_from_slice(&self.held[header.len..]);
                passed_on(header.origin);
            }
            Err(why) => {
                self.seen.lines.push(why.to_string());
                return false;
            }
        }
        true
    }

    fn seen(self) -> Seen {
        self.seen
    }
}

/// A gate passes on what it was told, in either version: the next reader learns of the same client.
fn passed_on(origin: Origin) {
    let Origin::Client { source, destination } = origin else { return };
    let canonical = |address: std::net::SocketAddr| (address.ip().to_canonical(), address.port());
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut bytes = Vec::new();
        version.write(source, destination, &mut bytes);
        let header = proxy_header::parse(&bytes).unwrap().expect("it is whole");
        assert_eq!(header.len, bytes.len());
        let Origin::Client { source: from, destination: to } = header.origin else { panic!("{header:?}") };
        assert_eq!((canonical(from), canonical(to)), (canonical(source), canonical(destination)));
    }
}

/// The PROXY header of a balancer.
pub fn proxy_headers(input: &[u8]) {
    check(input, Proxied::default);
}
