//! HTTP/1.1 on the wire, without sockets: heads, header lists, where a body ends, chunks, targets.
//!
//! One strict reading for everybody: the server reads requests with it, the gate reads what backends
//! answer, and both decide alike where a message ends. Where RFC 9112 leaves a choice between taking and
//! refusing, an ambiguous message is refused, because two parties that read it differently could be made
//! to disagree about where the next message begins (request smuggling).
//!
//! All parsers take the bytes that there are and say how many they used, so they work under every split of
//! the input, and none of them keeps a byte:
//!
//! ```
//! use tidegate::service::http::wire::{BodyLimits, Piece, RequestHead, Scanner, Slots};
//!
//! let bytes = b"POST /form?x=1 HTTP/1.1\r\nHost: example\r\nContent-Length: 3\r\n\r\nabc";
//! let mut scanner = Scanner::requests();
//! let head = scanner.find(bytes, 16 << 10)?.expect("the head is whole");
//! let mut slots = Slots::new();
//! let request = RequestHead::parse(&bytes[head.clone()], &mut slots, 100)?;
//! assert_eq!((request.method, request.target.path()), ("POST", "/form"));
//! let mut body = request.body.reader(BodyLimits::default());
//! assert_eq!(body.next(&bytes[head.end..])?, (3, Piece::Data(b"abc")));
//! assert_eq!(body.next(b"")?, (0, Piece::End));
//! # Ok::<(), tidegate::service::http::wire::Refused>(())
//! ```

mod body;
mod chunked;
mod decimal;
mod head;
mod headers;
mod lone;
mod piece;
mod refused;
mod scan;
mod seek;
mod target;

pub use body::{BodyLength, BodyLimits, BodyReader};
pub use chunked::{Chunked, LAST_CHUNK, chunk_head};
pub(crate) use decimal::decimal;
pub use head::{RequestHead, ResponseHead, Slots, Version};
pub use headers::{Headers, list};
pub(crate) use lone::is_lone_request;
pub use piece::Piece;
pub use refused::Refused;
pub use scan::Scanner;
pub use target::{Form, Target, decode_component, decode_path};

/// Whether a byte may be part of a method or of a header's name (RFC 9110, `tchar`).
pub(crate) const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether a byte may be part of a header's value: everything but control bytes; HTAB is allowed.
pub(crate) const fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// A value without the spaces and tabs around it.
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
