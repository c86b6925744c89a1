//! WebSocket (RFC 6455): the handshake, the frames of a client, and the messages of a server.

use super::form::RequestForm;
use super::http::{MAX_HEAD, MAX_HEADERS};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use tidegate_units::url::Url;

/// The longest payload of a control frame.
const CONTROL_MAX: u64 = 125;
/// The mask of those who do not choose one.
pub const MASK: [u8; 4] = *b"tide";
/// What the RFC has servers append to a client's key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a client says first, and what it must be answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    bytes: Box<[u8]>,
    accept: String,
}

impl Handshake {
    /// With these 16 bytes for a key: the server proves with them that it has read the handshake.
    pub fn new(url: &Url, form: &RequestForm, key: [u8; 16]) -> Self {
        let key = BASE64.encode(key);
        let own = form.lines(&[
            ("Host", &url.authority()),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", &key),
        ]);
        let mut hash = sha1_smol::Sha1::new();
        hash.update(key.as_bytes());
        hash.update(GUID.as_bytes());
        Self {
            bytes: format!("GET {} HTTP/1.1\r\n{own}\r\n", url.path).into_bytes().into(),
            accept: BASE64.encode(hash.digest().bytes()),
        }
    }

    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What the answer to a handshake comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Greeting {
    /// It is not whole.
    More,
    /// The socket is open; this number of the bytes were the answer's.
    Open(usize),
    /// It is whole, and there is no socket: the status says why.
    Refused,
    /// It is no answer of HTTP.
    Wrong,
}

/// How far the answer to a handshake has come.
#[derive(Debug, Default)]
pub struct GreetingReader {
    held: Vec<u8>,
    status: u16,
}

impl GreetingReader {
    /// The status of the answer; 0 before there is one.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Takes the next bytes.
    pub fn read(&mut self, handshake: &Handshake, bytes: &[u8]) -> Greeting {
        let before = self.held.len();
        self.held.extend_from_slice(bytes);
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let used = match response.parse(&self.held) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) if self.held.len() <= MAX_HEAD => return Greeting::More,
            _ => return Greeting::Wrong,
        };
        self.status = response.code.unwrap_or_default();
        let is = |name: &str, value: &str| {
            let mut found = response.headers.iter().filter(|it| it.name.eq_ignore_ascii_case(name));
            found.next().is_some_and(|it| it.value.eq_ignore_ascii_case(value.as_bytes()))
        };
        // The key is told apart by case, unlike the name of the protocol.
        let key = response.headers.iter().find(|it| it.name.eq_ignore_ascii_case("sec-websocket-accept"));
        let accepted = key.is_some_and(|key| key.value == handshake.accept.as_bytes());
        let is_open = self.status == 101 && accepted && is("upgrade", "websocket");
        self.held = Vec::new();
        if is_open { Greeting::Open(used.saturating_sub(before)) } else { Greeting::Refused }
    }
}

/// The frame of a message: text where it is text.
pub fn message(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    frame(if std::str::from_utf8(payload).is_ok() { TEXT } else { BINARY }, payload, mask)
}

/// The frame with which a client that has said all closes: its code is 1000.
pub fn close(mask: [u8; 4]) -> Vec<u8> {
    frame(CLOSE, &1000u16.to_be_bytes(), mask)
}

/// A client's frame.
fn frame(opcode: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// The masked payload of a frame of a client.
pub fn masked(frame: &[u8]) -> &[u8] {
    let head = match frame.get(1).map(|byte| byte & 0x7f) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.get(head + 4..).unwrap_or_default()
}

/// What some bytes of a server come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Said {
    /// Nothing yet.
    Part,
    /// A message is whole.
    Message,
    /// The server closes, with this code if it gave one.
    Close(Option<u16>),
    /// The server breaks the protocol.
    Wrong,
}

/// How far the server's frames have come.
#[derive(Debug)]
pub struct FrameReader {
    mask: [u8; 4],
    /// The head of a frame.
    head: [u8; 10],
    filled: usize,
    /// The first byte of the frame whose head is whole, and what is left of its payload.
    frame: Option<(u8, u64)>,
    /// A message has begun and not ended.
    begun: bool,
    /// The payload of a control frame.
    control: Vec<u8>,
    /// Frames that answer pings.
    pongs: Vec<u8>,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::masking(MASK)
    }
}

impl FrameReader {
    /// Answers pings with frames of this mask.
    pub fn masking(mask: [u8; 4]) -> Self {
        Self {
            mask,
            head: [0; 10],
            filled: 0,
            frame: None,
            begun: false,
            control: Vec::new(),
            pongs: Vec::new(),
        }
    }

    /// Whether a message has begun and not ended.
    pub fn is_in_a_message(&self) -> bool {
        self.begun
    }

    /// The answers to pings that have come, as frames to send.
    pub fn take_pongs(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pongs)
    }

    /// Takes some bytes: how many, and what they came to. `payload` is given those of messages. None: there are no bytes.
    pub fn next(&mut self, bytes: &[u8], payload: &mut impl FnMut(&[u8])) -> Option<(usize, Said)> {
        let Some((first, left)) = self.frame else {
            let byte = *bytes.first()?;
            return Some((1, self.take_head(byte)));
        };
        let taken = left.min(bytes.len() as u64);
        if taken == 0 && left > 0 {
            return None;
        }
        let piece = &bytes[..taken as usize];
        if first & 0x0f >= CLOSE {
            self.control.extend_from_slice(piece);
        } else {
            payload(piece);
        }
        self.frame = Some((first, left - taken));
        let said = if left == taken { self.end_frame(first) } else { Said::Part };
        Some((taken as usize, said))
    }

    fn take_head(&mut self, byte: u8) -> Said {
        self.head[self.filled] = byte;
        self.filled += 1;
        let second = self.head[1];
        let more = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.filled < 2 || self.filled < 2 + more {
            return Said::Part;
        }
        let length = match more {
            0 => u64::from(second & 0x7f),
            _ => self.head[2..2 + more].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let (first, opcode) = (self.head[0], self.head[0] & 0x0f);
        self.filled = 0;
        let in_order = match opcode {
            0 => self.begun,
            TEXT | BINARY => !self.begun,
            CLOSE | PING | PONG => first & 0x80 != 0 && length <= CONTROL_MAX,
            _ => false,
        };
        // A server masks nothing, and no extension was offered.
        if !in_order || first & 0x70 != 0 || second & 0x80 != 0 || length >> 63 == 1 {
            return Said::Wrong;
        }
        self.begun |= opcode < CLOSE;
        self.frame = Some((first, length));
        match length {
            0 => self.end_frame(first),
            _ => Said::Part,
        }
    }

    fn end_frame(&mut self, first: u8) -> Said {
        self.frame = None;
        let control = std::mem::take(&mut self.control);
        match first & 0x0f {
            CLOSE => Said::Close(control.first_chunk().map(|code| u16::from_be_bytes(*code))),
            PING => {
                self.pongs.extend(frame(PONG, &control, self.mask));
                Said::Part
            }
            PONG => Said::Part,
            _ if first & 0x80 != 0 => {
                self.begun = false;
                Said::Message
            }
            _ => Said::Part,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url() -> Url {
        "ws://h:1/x".parse().unwrap()
    }

    /// A server's frame.
    fn said(first: u8, payload: &[u8]) -> Vec<u8> {
        [&[first, payload.len() as u8], payload].concat()
    }

    #[test]
    fn the_handshake_is_the_rfcs_and_its_answer_is_checked() {
        // The example of the RFC.
        let handshake = Handshake::new(&url(), &RequestForm::default(), *b"the sample nonce");
        let text = String::from_utf8(handshake.bytes().to_vec()).unwrap();
        assert!(text.starts_with("GET /x HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\n"), "{text}");
        assert!(text.contains("\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "{text}");
        let accept = &handshake.accept;
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let answer = |status: &str, upgrade: &str, accept: &str| {
            format!("HTTP/1.1 {status}\r\nUpgrade: {upgrade}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")
        };
        let good = answer("101 Switching Protocols", "WebSocket", accept);
        for (text, greeting) in [
            (format!("{good}\u{81}"), Greeting::Open(good.len())),
            (answer("101 x", "websocket", &accept.to_lowercase()), Greeting::Refused),
            (answer("101 x", "h2c", accept), Greeting::Refused),
            (answer("200 OK", "websocket", accept), Greeting::Refused),
            (answer("503 Busy", "x", ""), Greeting::Refused),
            ("SSH-2.0-x\r\n".to_owned(), Greeting::Wrong),
            ("HTTP/1.1 101 x\r\n".to_owned(), Greeting::More),
            (format!("HTTP/1.1 101 x\r\nA: {}", "b".repeat(MAX_HEAD)), Greeting::Wrong),
        ] {
            assert_eq!(GreetingReader::default().read(&handshake, text.as_bytes()), greeting, "{text:?}");
        }
        // In pieces, where the last one has the beginning of a frame too.
        let mut reader = GreetingReader::default();
        assert_eq!(reader.read(&handshake, &good.as_bytes()[..20]), Greeting::More);
        let last = [&good.as_bytes()[20..], &[0x81, 0]].concat();
        assert_eq!(reader.read(&handshake, &last), Greeting::Open(good.len() - 20));
        assert_eq!(reader.status(), 101);
    }

    #[test]
    fn a_message_is_masked_and_text_where_it_is_text() {
        assert_eq!(message(b"hi", [0; 4]), b"\x81\x82\0\0\0\0hi");
        assert_eq!(message(b"\xff", [1; 4]), b"\x82\x81\x01\x01\x01\x01\xfe");
        assert_eq!(close([0; 4]), b"\x88\x82\0\0\0\0\x03\xe8");
        for length in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![7; length];
            assert_eq!(masked(&message(&payload, [0; 4])), payload, "{length}");
        }
    }

    /// The messages in some bytes, which are read whole and then byte by byte, and what ended them.
    fn messages(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<Said>) {
        let read = |step: usize| {
            let (mut reader, mut all, mut message) = (FrameReader::default(), Vec::new(), Vec::new());
            for mut rest in bytes.chunks(step) {
                while let Some((used, said)) =
                    reader.next(rest, &mut |piece| message.extend_from_slice(piece))
                {
                    rest = &rest[used..];
                    match said {
                        Said::Part => {}
                        Said::Message => all.push(std::mem::take(&mut message)),
                        end => return (all, Some(end)),
                    }
                }
            }
            (all, None)
        };
        let whole = read(bytes.len().max(1));
        assert_eq!(whole, read(1), "{bytes:?}");
        whole
    }

    #[test]
    fn messages_are_put_together_and_control_frames_may_stand_between_their_parts() {
        let bytes = [said(0x01, b"h"), said(0x89, b"p"), said(0x00, b""), said(0x80, b"i"), said(0x82, b"")];
        assert_eq!(messages(&bytes.concat()), (vec![b"hi".to_vec(), Vec::new()], None));
        let bytes = [said(0x81, b"hi"), said(0x88, b"\x03\xf5busy")].concat();
        assert_eq!(messages(&bytes), (vec![b"hi".to_vec()], Some(Said::Close(Some(1013)))));
        assert_eq!(messages(&said(0x88, b"")), (Vec::new(), Some(Said::Close(None))));
        for wrong in [
            said(0x83, b"hi"),
            said(0xc1, b"hi"),
            said(0x80, b"hi"),
            [said(0x01, b"h"), said(0x81, b"i")].concat(),
            said(0x09, b""),
            vec![0x81, 0x80, 0, 0, 0, 0],
        ] {
            assert_eq!(messages(&wrong).1, Some(Said::Wrong), "{wrong:?}");
        }
    }

    #[test]
    fn pings_are_answered_with_what_they_say() {
        let mut reader = FrameReader::masking([0; 4]);
        let bytes = said(0x89, b"abc");
        let mut rest = &bytes[..];
        while let Some((used, _)) = reader.next(rest, &mut |_| {}) {
            rest = &rest[used..];
        }
        assert_eq!(reader.take_pongs(), frame(PONG, b"abc", [0; 4]));
        assert!(reader.take_pongs().is_empty());
    }
}
