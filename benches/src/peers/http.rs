//! The one-thread epoll loop with an answer to each HTTP request head, pipelined or not: what HTTP clients are measured
//! against. Requests have no body.

use super::epoll::{self, Connection};
use anyhow::Result;
use std::net::TcpListener;

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nContent-Type: text/plain\r\n\
                          Connection: keep-alive\r\n\r\nHello, World!\n";
/// Answers that go out in one call.
const ANSWERS: usize = 64;
/// What a head ends with.
const END: &[u8; 4] = b"\r\n\r\n";

/// How much of the end of a head a connection has seen.
#[derive(Default)]
struct Seen(usize);

impl Seen {
    /// How many heads end in these bytes.
    fn heads(&mut self, bytes: &[u8]) -> usize {
        let (mut heads, mut at) = (0, 0);
        while let Some(&byte) = bytes.get(at) {
            // If the byte where the end would end is no byte of an end, none is there. This skips most of a long head.
            if self.0 == 0 && bytes.get(at + END.len() - 1).is_some_and(|last| !END.contains(last)) {
                at += END.len();
                continue;
            }
            self.0 = match byte {
                _ if byte == END[self.0] => self.0 + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.0 == END.len() {
                heads += 1;
                self.0 = 0;
            }
            at += 1;
        }
        heads
    }
}

pub(super) fn serve(listener: TcpListener) -> Result<()> {
    let answers = RESPONSE.repeat(ANSWERS);
    epoll::run(listener, |connection: &mut Connection<Seen>, bytes| {
        let mut heads = connection.state.heads(bytes);
        while heads > 0 {
            let some = heads.min(ANSWERS);
            if !connection.send(&answers[..some * RESPONSE.len()]) {
                return false;
            }
            heads -= some;
        }
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_counted_however_they_are_cut() {
        let requests = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n\r\r\n\r\nGET";
        for size in 1..=requests.len() {
            let mut seen = Seen::default();
            let heads: usize = requests.chunks(size).map(|bytes| seen.heads(bytes)).sum();
            assert_eq!(heads, 2, "in pieces of {size}");
        }
    }

    #[test]
    fn the_response_says_its_length() {
        let text = std::str::from_utf8(RESPONSE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{text}");
    }
}
