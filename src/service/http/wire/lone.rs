//! A request that is all that its client sends for now.

use super::{BodyLength, RequestHead, Scanner, Slots};

/// The most headers that are looked at.
const HEADERS: usize = 100;

/// Whether these bytes are one whole request without a body, and nothing else. Its client then waits for the answer. (One that
/// sends requests without waiting for answers may have more to say; this cannot be known.)
pub(crate) fn is_lone_request(bytes: &[u8]) -> bool {
    let Ok(Some(head)) = Scanner::requests().find(bytes, bytes.len()) else { return false };
    let mut slots = Slots::new();
    head.end == bytes.len()
        && RequestHead::parse(&bytes[head], &mut slots, HEADERS)
            .is_ok_and(|head| head.body == BodyLength::Bytes(0) && head.method != "CONNECT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_alone_if_nothing_can_follow_before_its_answer() {
        let whole = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
        for alone in [
            whole,
            "HEAD / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        ] {
            assert!(is_lone_request(alone.as_bytes()), "{alone}");
            assert!((0..alone.len()).all(|cut| !is_lone_request(&alone.as_bytes()[..cut])), "{alone}");
        }
        for other in [
            &format!("{whole}G"),
            &format!("{whole}{whole}"),
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
            "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "PROXY UNKNOWN\r\n\r\n",
            "",
        ] {
            assert!(!is_lone_request(other.as_bytes()), "{other}");
        }
    }
}
