//! Answers that the gate gives by itself, when no backend does.

use crate::service::http::wire::Version;
use crate::service::http::{date, reason};
use std::io::Write;

/// An answer of the gate's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GateWords<'w> {
    pub(super) status: u16,
    /// One line for a person.
    pub(super) text: &'w str,
    /// The `Retry-After` header, in seconds.
    pub(super) retry_after: Option<u64>,
}

/// What the form of the answer depends on in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SaidTo {
    pub(super) version: Version,
    pub(super) head_only: bool,
    /// The connection stays open.
    pub(super) keep: bool,
}

impl GateWords<'_> {
    pub(super) fn write(&self, to: SaidTo, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        let _ = write!(out, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        out.extend_from_slice(&date::line());
        out.extend_from_slice(b"Server: tidegate\r\n");
        if let Some(seconds) = self.retry_after {
            let _ = write!(out, "Retry-After: {seconds}\r\n");
        }
        let length = self.text.len() + 1;
        let _ = write!(out, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n");
        out.extend_from_slice(connection(to.version, to.keep));
        out.extend_from_slice(b"\r\n");
        if !to.head_only {
            out.extend_from_slice(self.text.as_bytes());
            out.push(b'\n');
        }
    }
}

/// The header that says whether the connection stays open; empty if that is the default of the version.
pub(super) fn connection(version: Version, keep: bool) -> &'static [u8] {
    match (keep, version) {
        (false, _) => b"Connection: close\r\n",
        (true, Version::Http10) => b"Connection: keep-alive\r\n",
        (true, Version::Http11) => b"",
    }
}

/// How many seconds a refused client should wait before it tries again: the time to work off the requests that wait.
pub(super) fn retry_after(waiting: u64, mean_nanos: u64, places: u64) -> u64 {
    let nanos = u128::from(waiting + 1) * u128::from(mean_nanos) / u128::from(places.max(1));
    u64::try_from(nanos.div_ceil(1_000_000_000)).unwrap_or(u64::MAX).clamp(1, 120)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_an_answer_for_people_and_programs() {
        let words = GateWords { status: 503, text: "come again", retry_after: Some(3) };
        let say = |to| {
            let mut out = Vec::new();
            words.write(to, &mut out);
            String::from_utf8(out).unwrap()
        };
        let to = SaidTo { version: Version::Http11, head_only: false, keep: true };
        let text = say(to);
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\nDate: "), "{text}");
        assert!(text.contains("\r\nRetry-After: 3\r\n") && !text.contains("Connection"), "{text}");
        assert!(text.ends_with("Content-Length: 11\r\n\r\ncome again\n"), "{text}");
        let text = say(SaidTo { head_only: true, keep: false, ..to });
        assert!(text.ends_with("Content-Length: 11\r\nConnection: close\r\n\r\n"), "{text}");
        assert!(say(SaidTo { version: Version::Http10, ..to }).contains("Connection: keep-alive\r\n"));
    }

    #[test]
    fn the_estimate_is_the_time_to_work_off_what_waits() {
        const MS: u64 = 1_000_000;
        assert_eq!(retry_after(0, 10 * MS, 2), 1);
        assert_eq!(retry_after(399, 10 * MS, 2), 2);
        assert_eq!(retry_after(999, 100 * MS, 10), 10);
        assert_eq!(retry_after(u64::MAX - 1, u64::MAX, 0), 120);
    }
}
