//! One line of the access log in the making: what is noted of a request until its answer has ended.

use super::access_log::{AccessFormat, AccessLog};
use super::date::civil;
use super::wire::{RequestHead, Version};
use crate::clock::Nanos;
use crate::sys::Clock;
use crate::transport::address::ClientAddress;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// The most bytes of a target that are logged, as they stand in the line.
const TARGET_MAX: usize = 1024;
/// The most bytes of a referer and of a user agent, as they stand in the line.
const HEADER_MAX: usize = 256;
/// The most bytes of a method, as they stand in the line.
const METHOD_MAX: usize = 32;
/// The most bytes that are noted of a request: the parts above, and the names of fields and of the listener.
const NOTED_MAX: usize = 2048;

/// A request that left before it was answered, or was given up: nginx's number.
const GONE: u16 = 499;

/// What is noted of a request. The line is written when this is dropped, wherever that is: so each request whose head
/// was read has one line, and each that could not be read too.
#[derive(Debug)]
pub(in crate::service) struct AccessEntry {
    log: AccessLog,
    client: ClientAddress,
    clock: Clock,
    began: Nanos,
    /// Of the answer that was begun; 0 before.
    pub(in crate::service) status: u16,
    /// Bytes of the answer's body.
    pub(in crate::service) sent: u64,
    /// The parts of the line that come from the request, escaped: what was asked, then by whom.
    asked: Vec<u8>,
    by_whom: usize,
}

impl AccessEntry {
    /// What one takes of the machine at most. A connection has one at a time.
    pub(super) const BYTES: usize = size_of::<Self>() + NOTED_MAX;

    /// Of a request; of one that could not be read nothing is known but its client.
    pub(in crate::service) fn new(
        log: &AccessLog,
        listener: &str,
        client: ClientAddress,
        (clock, began): (Clock, Nanos),
        head: Option<&RequestHead<'_>>,
    ) -> Box<Self> {
        let mut asked = Vec::with_capacity(256);
        let by_whom = match log.format() {
            AccessFormat::Combined => note_combined(head, &mut asked),
            AccessFormat::Json => note_json(head, listener, &mut asked),
        };
        Box::new(Self { log: log.clone(), client, clock, began, status: 0, sent: 0, asked, by_whom })
    }

    fn write(&self, status: u16, out: &mut Vec<u8>) {
        let took = self.clock.now().saturating_sub(self.began);
        let (seconds, micros) = (took / 1_000_000_000, took / 1000 % 1_000_000);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (year, month, day) = civil(now.as_secs() / 86_400);
        let of_day = now.as_secs() % 86_400;
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let (asked, by_whom) = self.asked.split_at(self.by_whom);
        // A vector takes whatever it is given.
        let _ = match self.log.format() {
            AccessFormat::Combined => {
                let month = MONTHS[month];
                write!(
                    out,
                    "{} - - [{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000] ",
                    self.client.source()
                )
                .and_then(|()| out.write_all(asked))
                .and_then(|()| write!(out, " {status} {} ", self.sent))
                .and_then(|()| out.write_all(by_whom))
                .and_then(|()| writeln!(out, " {seconds}.{micros:06}"))
            }
            AccessFormat::Json => {
                let (month, millis) = (month + 1, now.subsec_millis());
                write!(
                    out,
                    "{{\"time\":\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z\",\
                     \"client\":\"{}\",",
                    self.client
                )
                .and_then(|()| out.write_all(asked))
                .and_then(|()| {
                    write!(
                        out,
                        ",\"status\":{status},\"bytes\":{},\"seconds\":{seconds}.{micros:06}",
                        self.sent
                    )
                })
                .and_then(|()| out.write_all(by_whom))
                .and_then(|()| out.write_all(b"}\n"))
            }
        };
    }
}

impl Drop for AccessEntry {
    fn drop(&mut self) {
        let status = match self.status {
            // The connection was reset; that is what it comes to.
            0 if std::thread::panicking() => 500,
            0 => GONE,
            status => status,
        };
        let mut line = Vec::with_capacity(128 + self.asked.len());
        self.write(status, &mut line);
        self.log.append(&line);
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const fn version(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    }
}

/// Notes the parts of a line of the combined format; where the second one begins.
fn note_combined(head: Option<&RequestHead<'_>>, out: &mut Vec<u8>) -> usize {
    let Some(head) = head else {
        out.extend_from_slice(b"\"-\"\"-\" \"-\"");
        return 3;
    };
    out.push(b'"');
    escape_combined(head.method.as_bytes(), METHOD_MAX, out);
    out.push(b' ');
    escape_combined(head.target.as_str().as_bytes(), TARGET_MAX, out);
    out.push(b' ');
    out.extend_from_slice(version(head.version).as_bytes());
    out.push(b'"');
    let by_whom = out.len();
    for (place, name) in ["referer", "user-agent"].into_iter().enumerate() {
        out.extend_from_slice(if place == 0 { b"\"" } else { b" \"" });
        escape_combined(head.headers.get(name).unwrap_or(b"-"), HEADER_MAX, out);
        out.push(b'"');
    }
    by_whom
}

/// Notes the parts of a line of JSON; where the second one begins.
fn note_json(head: Option<&RequestHead<'_>>, listener: &str, out: &mut Vec<u8>) -> usize {
    json_field("\"listener\":", listener.as_bytes(), HEADER_MAX / 2, out);
    let Some(head) = head else {
        out.extend_from_slice(b",\"method\":null,\"target\":null,\"protocol\":null");
        return out.len();
    };
    json_field(",\"method\":", head.method.as_bytes(), METHOD_MAX, out);
    json_field(",\"target\":", head.target.as_str().as_bytes(), TARGET_MAX, out);
    json_field(",\"protocol\":", version(head.version).as_bytes(), METHOD_MAX, out);
    let by_whom = out.len();
    for (name, key) in [("referer", ",\"referer\":"), ("user-agent", ",\"user_agent\":")] {
        if let Some(value) = head.headers.get(name) {
            json_field(key, value, HEADER_MAX, out);
        }
    }
    by_whom
}

fn json_field(key: &str, value: &[u8], most: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'"');
    escape_json(value, most, out);
    out.push(b'"');
}

/// As nginx escapes: a line and its quoted parts stay what they are, and no terminal is told anything. What would take
/// more than `most` bytes is cut.
fn escape_combined(bytes: &[u8], most: usize, out: &mut Vec<u8>) {
    let end = out.len() + most;
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. if out.len() + 4 <= end => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            0x20..0x7f if byte != b'"' && byte != b'\\' && out.len() < end => out.push(byte),
            _ => return,
        }
    }
}

/// Text as JSON has it; bytes that are no text become U+FFFD, and no terminal is told anything. What would take more than
/// `most` bytes is cut.
fn escape_json(bytes: &[u8], most: usize, out: &mut Vec<u8>) {
    let end = out.len() + most;
    // No character has more bytes here than there.
    let bytes = &bytes[..bytes.len().min(most)];
    for c in String::from_utf8_lossy(bytes).chars() {
        let before = out.len();
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        if out.len() > end {
            return out.truncate(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::http::wire::Slots;
    use proptest::prelude::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    struct Out(Sender<Vec<u8>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(format: AccessFormat) -> (AccessLog, Receiver<Vec<u8>>) {
        let (sender, receiver) = channel();
        (AccessLog::to(Out(sender), format).unwrap(), receiver)
    }

    /// The line of a request.
    fn line(format: AccessFormat, head: Option<&[u8]>, status: u16) -> String {
        let (log, lines) = log(format);
        let mut slots = Slots::new();
        let head = head.map(|head| RequestHead::parse(head, &mut slots, 100).unwrap());
        let clock = Clock::start();
        let client = "192.0.2.7:4711".parse::<std::net::SocketAddr>().unwrap().into();
        let mut entry = AccessEntry::new(&log, "http://h:80", client, (clock, clock.now()), head.as_ref());
        (entry.status, entry.sent) = (status, 12);
        drop(entry);
        assert!(log.finish(Duration::from_secs(10)));
        String::from_utf8(lines.try_iter().flatten().collect()).unwrap()
    }

    const HEAD: &[u8] =
        b"GET /a%20b?c=\"d HTTP/1.1\r\nHost: h\r\nUser-Agent: x\"y\\z\t\xff\r\nReferer: http://r/\r\n\r\n";

    #[test]
    fn a_line_of_the_combined_format_is_one_that_others_read() {
        let text = line(AccessFormat::Combined, Some(HEAD), 200);
        let (who, rest) = text.split_once(" - - [").unwrap();
        let (time, rest) = rest.split_once("] ").unwrap();
        assert_eq!((who, time.len(), time.ends_with(" +0000")), ("192.0.2.7", 26, true), "{text}");
        let expected = "\"GET /a%20b?c=\\x22d HTTP/1.1\" 200 12 \"http://r/\" \"x\\x22y\\x5Cz\\x09\\xFF\" 0.";
        assert!(rest.starts_with(expected) && rest.ends_with('\n'), "{rest}");
        let unread = line(AccessFormat::Combined, None, 400);
        assert!(unread.contains("] \"-\" 400 12 \"-\" \"-\" 0."), "{unread}");
    }

    #[cfg(feature = "json")]
    #[test]
    fn a_line_of_json_is_an_object() {
        let text = line(AccessFormat::Json, Some(HEAD), 0);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((value["client"].as_str(), value["status"].as_u64()), (Some("192.0.2.7:4711"), Some(499)));
        assert_eq!(value["target"].as_str(), Some("/a%20b?c=\"d"));
        assert_eq!(value["user_agent"].as_str(), Some("x\"y\\z\t\u{fffd}"));
        assert_eq!(
            (value["listener"].as_str(), value["protocol"].as_str()),
            (Some("http://h:80"), Some("HTTP/1.1"))
        );
        assert!(value["seconds"].as_f64().unwrap() < 10.0 && value["bytes"] == 12);
        let unread: serde_json::Value = serde_json::from_str(&line(AccessFormat::Json, None, 400)).unwrap();
        assert!(unread["target"].is_null() && unread["status"] == 400);
    }

    #[test]
    fn a_request_is_cut_to_a_bound() {
        let head = format!(
            "GET /{} HTTP/1.1\r\nHost: h\r\nUser-Agent: {}\r\n\r\n",
            "p".repeat(9000),
            "u".repeat(5000)
        );
        for format in [AccessFormat::Combined, AccessFormat::Json] {
            let text = line(format, Some(head.as_bytes()), 200);
            let count = |c| text.chars().filter(|&it| it == c).count();
            assert!(count('p') < 1100 && count('u') < 300 && text.len() < 1700, "{} bytes", text.len());
        }
    }

    #[test]
    fn what_is_noted_of_a_request_has_room_in_what_is_reckoned_with() {
        let text = |what: &str| what.repeat(5000);
        for filler in ["x", "\"", "\\", "\u{e9}"] {
            let target = if filler.is_ascii() { text(filler) } else { text("%") };
            let (agent, referer) = (text(filler), text(filler));
            let head = format!(
                "GET /{target} HTTP/1.1\r\nHost: h\r\nUser-Agent: {agent}\r\nReferer: {referer}\r\n\r\n"
            );
            for format in [AccessFormat::Combined, AccessFormat::Json] {
                let (log, _lines) = log(format);
                let mut slots = Slots::new();
                let Ok(head) = RequestHead::parse(head.as_bytes(), &mut slots, 100) else { continue };
                let client = "192.0.2.7:4711".parse::<std::net::SocketAddr>().unwrap().into();
                let clock = Clock::start();
                let listener = text("l");
                let entry = AccessEntry::new(&log, &listener, client, (clock, 0), Some(&head));
                assert!(entry.asked.len() > TARGET_MAX, "it was made to be long");
                assert!(
                    entry.asked.capacity() <= NOTED_MAX,
                    "{filler} {format:?}: {}",
                    entry.asked.capacity()
                );
            }
        }
    }

    proptest! {
        /// Whatever a client sends, it is one line without a control character.
        #[test]
        fn a_line_is_one_line(value in proptest::collection::vec(any::<u8>(), 0..400)) {
            for escape in [escape_combined, escape_json] {
                let mut out = Vec::new();
                escape(&value, HEADER_MAX, &mut out);
                prop_assert!(out.len() <= HEADER_MAX);
                let text = String::from_utf8(out).expect("text");
                prop_assert!(!text.chars().any(char::is_control), "{text:?}");
                prop_assert!(!text.replace("\\\\", "").replace("\\\"", "").contains('"'), "{text:?}");
            }
        }
    }
}
