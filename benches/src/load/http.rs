//! What the load client knows of HTTP: one request, and how long the answer to it is.

use anyhow::{Context, Result, bail, ensure};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};

/// The longest first answer.
const ANSWER_MAX: usize = 64 << 10;

/// What each client asks, again and again.
pub(super) fn request(target: SocketAddr) -> Vec<u8> {
    format!("GET /you HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes()
}

/// Whether an answer begins so that the request was served. What comes in pieces is judged by its first piece.
pub(super) fn is_ok(answer: &[u8]) -> bool {
    let begin = b"HTTP/1.1 200 ";
    let known = begin.len().min(answer.len());
    answer[..known] == begin[..known]
}

/// Reads the first answer of a connection; its length in bytes is that of all that follow.
pub(super) fn first_answer(stream: &mut TcpStream) -> Result<usize> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer)?;
        ensure!(n > 0, "it was closed");
        answer.extend_from_slice(&buffer[..n]);
        if let Some(length) = length(&answer)? {
            ensure!(answer.len() <= length, "the answer is longer than it says");
            if answer.len() == length {
                return Ok(length);
            }
        }
        ensure!(answer.len() <= ANSWER_MAX, "the answer is longer than {ANSWER_MAX} bytes");
    }
}

/// The length of head and body together, once the head is there.
fn length(answer: &[u8]) -> Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    ensure!(is_ok(answer), "the answer is `{}`", head.lines().next().unwrap_or_default());
    for line in head.lines().skip(1) {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            let body: usize = value.trim().parse().context("the length of the answer is no number")?;
            return Ok(Some(end + 4 + body));
        }
    }
    bail!("the answer does not say its length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_an_answer_is_that_of_head_and_body() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-Length:  5\r\n\r\nhel";
        assert_eq!(length(answer).unwrap(), Some(answer.len() + 2));
        assert_eq!(length(&answer[..30]).unwrap(), None);
        assert!(length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(length(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").is_err());
    }

    #[test]
    fn an_answer_is_judged_by_what_there_is_of_it() {
        assert!(is_ok(b"HT") && is_ok(b"HTTP/1.1 200 OK\r\n"));
        assert!(!is_ok(b"HTTP/1.1 503 "));
    }
}
