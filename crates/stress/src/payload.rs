//! The bytes that requests carry: a text, a number of bytes, a file, or the lines of a file in turn.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tidegate_units::read_bounded;

/// The largest payload. It is held once, not once per connection.
pub(crate) const MAX_PAYLOAD: u64 = 64 << 20;

/// What requests carry. A clone shares the bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Payload {
    bytes: Arc<[u8]>,
    /// The requests, sent in turn; at least one.
    parts: Arc<[Range<usize>]>,
}

impl Payload {
    /// The same bytes in every request.
    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        Self { parts: std::iter::once(0..bytes.len()).collect(), bytes: bytes.into() }
    }

    /// Each of these in turn; at least one.
    pub(crate) fn collect(requests: impl Iterator<Item = Vec<u8>>) -> Self {
        let (mut bytes, mut parts) = (Vec::new(), Vec::new());
        for request in requests {
            let begin = bytes.len();
            bytes.extend_from_slice(&request);
            parts.push(begin..bytes.len());
        }
        Self { bytes: bytes.into(), parts: parts.into() }
    }

    /// `size` bytes of printable text without a line end.
    pub(crate) fn sized(size: usize) -> Self {
        Self::whole((0..size).map(|n| b'a' + (n % 26) as u8).collect())
    }

    /// A file's bytes.
    pub(crate) fn file(path: &Path) -> Result<Self, String> {
        read(path).map(Self::whole)
    }

    /// Each line of a file is one request, with its line end; empty lines are left out.
    pub(crate) fn lines(path: &Path) -> Result<Self, String> {
        Self::of_lines(read(path)?).ok_or_else(|| format!("{} has no line with text", path.display()))
    }

    fn of_lines(mut bytes: Vec<u8>) -> Option<Self> {
        if bytes.last().is_some_and(|&last| last != b'\n') {
            bytes.push(b'\n');
        }
        let mut parts = Vec::new();
        let mut begin = 0;
        for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'\n') {
            // A line end as other systems write it is no text either.
            if bytes[begin..at].iter().any(|byte| *byte != b'\r') {
                parts.push(begin..at + 1);
            }
            begin = at + 1;
        }
        (!parts.is_empty()).then(|| Self { bytes: bytes.into(), parts: parts.into() })
    }

    /// The bytes of request number `n`, counted from 0; the parts come round again.
    pub(crate) fn part(&self, n: usize) -> &[u8] {
        let range = if self.parts.len() == 1 { &self.parts[0] } else { &self.parts[n % self.parts.len()] };
        &self.bytes[range.clone()]
    }

    /// How many different requests there are.
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The size of the largest request, in bytes.
    pub(crate) fn largest(&self) -> usize {
        self.parts.iter().map(ExactSizeIterator::len).max().unwrap_or(0)
    }

    /// Whether every request ends with a line end, so that a line is expected back.
    pub(crate) fn is_lines(&self) -> bool {
        self.parts.iter().all(|part| self.bytes[part.clone()].ends_with(b"\n"))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = read_bounded(path, MAX_PAYLOAD)?;
    if bytes.is_empty() {
        return Err(format!("cannot read {}: it is empty", path.display()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_round() {
        let payload = Payload::collect([b"ab\n".to_vec(), b"c\n".to_vec()].into_iter());
        assert!(Arc::ptr_eq(&payload.bytes, &payload.clone().bytes), "held once");
        assert_eq!([payload.part(0), payload.part(1), payload.part(2)], [&b"ab\n"[..], b"c\n", b"ab\n"]);
        assert!(payload.is_lines());
        assert!(!Payload::sized(64).is_lines());
        assert_eq!(Payload::sized(64).part(9).len(), 64);
    }

    #[test]
    fn lines_are_taken_as_they_are_and_empty_ones_left_out() {
        for (text, lines) in [
            ("one\r\n\r\ntwo\r\n", &["one\r\n", "two\r\n"][..]),
            ("one\n\n\ntwo", &["one\n", "two\n"]),
            ("\r\none\n\r\r\n", &["one\n"]),
            (" \n", &[" \n"]),
            ("\n\r\n", &[]),
            ("\r", &[]),
        ] {
            let payload = Payload::of_lines(text.as_bytes().to_vec());
            let parts = payload.as_ref().map_or(0, Payload::parts);
            let got: Vec<_> = (0..parts).map(|n| payload.as_ref().unwrap().part(n)).collect();
            assert_eq!(got, lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>(), "{text:?}");
        }
    }
}
