//! HTTP as a hostile world sends it: a good request with one thing in it that can be read in two ways is refused, wherever
//! in the request that is, and however it is cut into packets. What stands behind it is never taken for a request.

mod support;

use proptest::prelude::*;
use std::sync::OnceLock;
use support::Site;
use tidegate::service::http::wire::{BodyLimits, Piece, Refused, RequestHead, Scanner, Slots};
use tidegate::{Limits, http};

const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 100;

/// A request whose lines can be tampered with before it is written.
#[derive(Clone, Debug)]
struct Draft {
    first: String,
    /// Names and values; `Host` is among them.
    headers: Vec<(String, String)>,
    body: Framed,
}

#[derive(Clone, Debug)]
enum Framed {
    Length(Vec<u8>),
    Chunks(Vec<Vec<u8>>),
}

impl Draft {
    fn is_chunked(&self) -> bool {
        matches!(self.body, Framed::Chunks(_))
    }

    /// The lines of the head without their ends, and the body; so with its framing.
    fn parts(&self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut lines = vec![self.first.clone().into_bytes()];
        lines.extend(self.headers.iter().map(|(name, value)| format!("{name}: {value}").into_bytes()));
        match &self.body {
            Framed::Length(body) => {
                lines.push(format!("Content-Length: {}", body.len()).into_bytes());
                (lines, body.clone())
            }
            Framed::Chunks(chunks) => {
                lines.push(b"Transfer-Encoding: chunked".to_vec());
                let mut body = Vec::new();
                for chunk in chunks {
                    body.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    body.extend(chunk);
                    body.extend(b"\r\n");
                }
                body.extend(b"0\r\n\r\n");
                (lines, body)
            }
        }
    }

    /// Adds a header somewhere.
    fn add(&mut self, name: &str, value: &str, dice: &mut Dice) {
        let at = dice.below(self.headers.len() + 1);
        self.headers.insert(at, (name.to_owned(), value.to_owned()));
    }

    /// The request with another line in the place of the one that says where its body ends.
    fn framed_as(&self, line: &str) -> Vec<u8> {
        let (mut lines, body) = self.parts();
        lines.pop();
        lines.push(line.as_bytes().to_vec());
        joined(&lines, &body)
    }

    fn written(&self) -> Vec<u8> {
        let (lines, body) = self.parts();
        joined(&lines, &body)
    }
}

fn joined(lines: &[Vec<u8>], body: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect();
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

prop_compose! {
    fn draft()(
        method in prop_oneof!["GET", "POST", "PUT", "DELETE", "[A-Z]{3,8}"]
            .prop_filter("CONNECT has another target", |it| it != "CONNECT"),
        path in "/[a-z0-9/_~-]{0,30}",
        headers in prop::collection::vec(("X-[A-Za-z0-9_-]{1,12}", "[!-~]([ -~]{0,20}[!-~])?"), 1..6),
        host_at in any::<prop::sample::Index>(),
        length in prop::collection::vec(any::<u8>(), 0..200),
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 1..5),
        is_chunked in any::<bool>(),
    ) -> Draft {
        let mut headers = headers;
        headers.insert(host_at.index(headers.len() + 1), ("Host".to_owned(), "h".to_owned()));
        let body = if is_chunked { Framed::Chunks(chunks) } else { Framed::Length(length) };
        Draft { first: format!("{method} {path} HTTP/1.1"), headers, body }
    }
}

/// What is done to a request: each line of the list that docs/http.md has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    LengthAndCoding,
    LengthsDiffer,
    LengthNotDigits,
    CodingBehindChunked,
    ChunkedTwice,
    CodingUnknown,
    CodingInOld,
    NoHost,
    TwoHosts,
    HostNotOne,
    BareLf,
    BareCr,
    Fold,
    SpaceBeforeColon,
    ControlByte,
    NameByte,
    ChunkTooLong,
    ChunkJunk,
    ChunkEnd,
    TargetNotOne,
    TargetEscape,
    AboveRoot,
    Version,
    TwoSpaces,
    Expectation,
    TooManyHeaders,
    HeadTooLong,
    BodyTooLong,
}

const CHANGES: [Change; 28] = [
    Change::LengthAndCoding,
    Change::LengthsDiffer,
    Change::LengthNotDigits,
    Change::CodingBehindChunked,
    Change::ChunkedTwice,
    Change::CodingUnknown,
    Change::CodingInOld,
    Change::NoHost,
    Change::TwoHosts,
    Change::HostNotOne,
    Change::BareLf,
    Change::BareCr,
    Change::Fold,
    Change::SpaceBeforeColon,
    Change::ControlByte,
    Change::NameByte,
    Change::ChunkTooLong,
    Change::ChunkJunk,
    Change::ChunkEnd,
    Change::TargetNotOne,
    Change::TargetEscape,
    Change::AboveRoot,
    Change::Version,
    Change::TwoSpaces,
    Change::Expectation,
    Change::TooManyHeaders,
    Change::HeadTooLong,
    Change::BodyTooLong,
];

/// Picks one of what there is.
#[derive(Clone, Debug)]
struct Dice(Vec<prop::sample::Index>, usize);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.1 += 1;
        self.0[self.1 % self.0.len()].index(most)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

fn dice() -> impl Strategy<Value = Dice> {
    prop::collection::vec(any::<prop::sample::Index>(), 8).prop_map(|rolls| Dice(rolls, 0))
}

impl Change {
    /// The request with this change; nothing where it has no place for it.
    fn apply(self, draft: &Draft, dice: &mut Dice) -> Option<Vec<u8>> {
        if let Some(changed) = self.of_framing(draft, dice) {
            return changed;
        }
        if let Some(changed) = self.of_lines(draft, dice) {
            return changed;
        }
        let mut draft = draft.clone();
        let (method, path) = draft.first.strip_suffix(" HTTP/1.1")?.split_once(' ')?;
        match self {
            Change::NoHost => draft.headers.retain(|(name, _)| name != "Host"),
            Change::TwoHosts => draft.add("HOST", dice.of(&["h", "other"]), dice),
            Change::HostNotOne => {
                let wrong = dice.of(&["a b", "a/b", "u@h", "h:99999", "[::1", "h:x", "h#"]);
                draft.headers.iter_mut().find(|(name, _)| name == "Host")?.1 = wrong.to_owned();
            }
            Change::TargetNotOne => {
                let wrong =
                    dice.of(&["x", "*", "/a#b", "ftp://h/", "http://", "http://u@h/", "h:80", "/\u{e9}"]);
                draft.first =
                    format!("{} {wrong} HTTP/1.1", if method == "OPTIONS" { "GET" } else { method });
            }
            Change::TargetEscape => {
                let wrong = dice.of(&["/%", "/a%2", "/%zz", "/%00", "/a/%g1"]);
                draft.first = format!("{method} {wrong} HTTP/1.1");
            }
            Change::AboveRoot => {
                let wrong = dice.of(&["/..", "/a/../..", "/%2e%2e/x", "/../x?y", "/a/../%2e./b"]);
                draft.first = format!("{method} {wrong} HTTP/1.1");
            }
            Change::Version => {
                let wrong = dice.of(&["1.2", "2.0", "0.9", "1.1.1", "11", "1.1x", "1.1 x", "1,1"]);
                draft.first = format!("{method} {path} HTTP/{wrong}");
            }
            Change::TwoSpaces => {
                let spaces: Vec<_> = draft.first.match_indices(' ').map(|(at, _)| at).collect();
                draft.first.insert(dice.of(&spaces), dice.of(&[' ', '\t']));
            }
            Change::Expectation => draft.add("Expect", dice.of(&["100", "200-ok", "100-continue, x"]), dice),
            Change::TooManyHeaders => (0..=MAX_HEADERS).for_each(|_| draft.add("X-More", "y", dice)),
            Change::HeadTooLong => draft.add("X-Long", &"y".repeat(MAX_HEAD), dice),
            _ => unreachable!("{self:?} is done by another"),
        }
        Some(draft.written())
    }

    /// Changes of what says where the body ends; nothing for others.
    fn of_framing(self, draft: &Draft, dice: &mut Dice) -> Option<Option<Vec<u8>>> {
        let (mut draft, is_chunked) = (draft.clone(), draft.is_chunked());
        match self {
            Change::LengthAndCoding if is_chunked => draft.add("Content-Length", "3", dice),
            Change::LengthAndCoding => draft.add("Transfer-Encoding", "chunked", dice),
            Change::LengthsDiffer if is_chunked => return Some(None),
            Change::LengthsDiffer => draft.add("content-length", "12345", dice),
            Change::LengthNotDigits => {
                draft.body = Framed::Length(Vec::new());
                let wrong =
                    dice.of(&["+0", "-0", "0x0", "0 0", "", "0,", "1e1", "\u{661}", "99999999999999999999"]);
                return Some(Some(draft.framed_as(&format!("Content-Length: {wrong}"))));
            }
            Change::BodyTooLong => {
                let length = 99_999_999 + dice.below(1 << 30);
                return Some(Some(draft.framed_as(&format!("Content-Length: {length}"))));
            }
            Change::CodingBehindChunked
            | Change::ChunkedTwice
            | Change::CodingUnknown
            | Change::CodingInOld
            | Change::ChunkTooLong
            | Change::ChunkJunk
            | Change::ChunkEnd
                if !is_chunked =>
            {
                return Some(None);
            }
            Change::CodingBehindChunked => {
                let wrong =
                    dice.of(&["chunked, gzip", "identity", "xchunked", "chunked;q=1", ", chunked", ""]);
                return Some(Some(draft.framed_as(&format!("Transfer-Encoding: {wrong}"))));
            }
            Change::ChunkedTwice => draft.add("transfer-encoding", "chunked", dice),
            // Before the other or behind it.
            Change::CodingUnknown => draft.add("Transfer-Encoding", "gzip", dice),
            Change::CodingInOld => draft.first = draft.first.replace("HTTP/1.1", "HTTP/1.0"),
            Change::ChunkTooLong | Change::ChunkJunk | Change::ChunkEnd => {
                return Some(tampered_chunks(self, &draft, dice));
            }
            _ => return None,
        }
        Some(Some(draft.written()))
    }

    /// Changes of the lines as they are written; nothing for others.
    fn of_lines(self, draft: &Draft, dice: &mut Dice) -> Option<Option<Vec<u8>>> {
        let (mut lines, body) = draft.parts();
        let at = 1 + dice.below(lines.len() - 1);
        let colon = lines[at].iter().position(|&byte| byte == b':').expect("a header has a colon");
        match self {
            Change::BareLf => {
                // One of the head's line ends loses its CR.
                let bytes = draft.written();
                let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an end") + 4;
                let ends: Vec<_> = (0..head).filter(|&at| bytes[at] == b'\r').collect();
                let cut = dice.of(&ends);
                return Some(Some([&bytes[..cut], &bytes[cut + 1..]].concat()));
            }
            // Within the value: a CR at its end would be the end of the line, if another one follows.
            Change::BareCr => lines[at].insert(colon + 2, b'\r'),
            Change::ControlByte => {
                let place = colon + 2 + dice.below(lines[at].len() - colon - 2);
                lines[at].insert(place, dice.of(&[0, 1, 8, 0x0b, 0x0c, 0x1f, 0x7f]));
            }
            Change::Fold => lines.insert(at, dice.of(&[&b" folded"[..], b"\tfolded", b" x: y"]).to_vec()),
            Change::SpaceBeforeColon => lines[at].insert(colon, dice.of(b" \t")),
            Change::NameByte => {
                let place = dice.below(colon + 1);
                lines[at].insert(place, dice.of(b"\0(),/;<=>?@[\\]{}\"\x7f\x80\xff"));
            }
            _ => return None,
        }
        Some(Some(joined(&lines, &body)))
    }
}

fn tampered_chunks(change: Change, draft: &Draft, dice: &mut Dice) -> Option<Vec<u8>> {
    let Framed::Chunks(chunks) = &draft.body else { return None };
    let (lines, _) = draft.parts();
    let wrong = dice.below(chunks.len());
    let mut body = Vec::new();
    for (at, chunk) in chunks.iter().enumerate() {
        let size = format!("{:x}", chunk.len());
        let line = match change {
            Change::ChunkTooLong if at == wrong => format!("{}{size}", "0".repeat(17 - size.len())),
            Change::ChunkJunk if at == wrong => {
                let [before, after] = dice.of(&[
                    [" ", ""],
                    ["", " "],
                    ["+", ""],
                    ["0x", ""],
                    ["", "g"],
                    ["-", ""],
                    ["\t", ""],
                    ["", "\0"],
                ]);
                format!("{before}{size}{after}")
            }
            _ => size,
        };
        body.extend(line.bytes());
        body.extend(b"\r\n");
        body.extend(chunk);
        body.extend_from_slice(match change {
            Change::ChunkEnd if at == wrong => dice.of(&[&b"\n"[..], b"\r", b"xx", b"\n\r"]),
            _ => b"\r\n",
        });
    }
    body.extend(b"0\r\n\r\n");
    Some(joined(&lines, &body))
}

/// Reads one request from pieces, as a server does: how far it came, and why not further.
fn read<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Result<bool, Refused> {
    let (mut held, mut scanner, mut body) = (Vec::new(), Scanner::requests(), None);
    for piece in pieces {
        held.extend_from_slice(piece);
        if body.is_none() {
            let Some(range) = scanner.find(&held, MAX_HEAD)? else { continue };
            let mut slots = Slots::new();
            let head = RequestHead::parse(&held[range.clone()], &mut slots, MAX_HEADERS)?;
            tidegate::service::http::wire::decode_path(head.target.path())?;
            body = Some(head.body.reader(BodyLimits::default().max_body(1 << 20)));
            held.drain(..range.end);
        }
        let Some(reader) = &mut body else { continue };
        let mut used = 0;
        loop {
            let (n, piece) = reader.next(&held[used..])?;
            used += n;
            match piece {
                Piece::Data(_) => {}
                Piece::More => break,
                Piece::End => return Ok(true),
            }
        }
        held.drain(..used);
    }
    Ok(false)
}

fn cut(bytes: &[u8], size: usize) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(size.max(1))
}

/// Behind each request: whoever disagrees about the end of the one before takes it for another.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

proptest! {
    #[test]
    fn a_good_request_is_read_to_its_end(draft in draft(), size in 1usize..200) {
        let bytes = draft.written();
        prop_assert_eq!(read(cut(&bytes, size)), Ok(true), "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_request_with_one_hostile_change_is_refused_under_every_split(
        draft in draft(),
        change in prop::sample::select(&CHANGES[..]),
        dice in dice(),
        size in 1usize..200,
    ) {
        let Some(bytes) = change.apply(&draft, &mut dice.clone()) else { return Ok(()) };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let followed = [&bytes, SMUGGLED].concat();
        let whole = read(std::iter::once(&followed[..]));
        let Err(refused) = whole else { panic!("{change:?} is taken: {text}") };
        prop_assert!((400..=505).contains(&refused.status()), "{change:?}: {refused}");
        prop_assert_eq!(read(cut(&followed, size)), Err(refused), "{:?} in pieces of {}: {}", change, size, text);
    }
}

/// One server for all of them: none holds it up.
fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let service = http(|request, response| {
            assert_ne!(request.path(), "/smuggled", "what stands behind a refused request was taken for one");
            response.bytes(request.body())
        });
        Site::serve(Limits::default().workers(2).queue(1000), service)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_server_answers_each_with_one_status_and_one_line_and_ends_the_connection(
        draft in draft(),
        change in prop::sample::select(&CHANGES[..]),
        dice in dice(),
    ) {
        let Some(bytes) = change.apply(&draft, &mut dice.clone()) else { return Ok(()) };
        let mut client = site().client();
        client.mutter([&bytes, SMUGGLED].concat());
        client.finish_quietly();
        let (said, _) = client.rest();
        let text = String::from_utf8_lossy(&said).into_owned();
        prop_assert!(text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 50"), "{change:?}: {text}");
        prop_assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{:?}: {}", change, text);
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        prop_assert!(head.contains("\r\nConnection: close"), "{change:?}: {text}");
        prop_assert_eq!(body.lines().count(), 1, "{:?}: {}", change, text);
        prop_assert_eq!(site().stats().handler_panics, 0);
    }
}
