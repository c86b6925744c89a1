//! An answer over HTTP, read strictly by other means than the server's own.

use super::{Client, End};
use std::io::Read;

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Reads the next answer of a client; the answer to HEAD has no body.
    #[track_caller]
    pub(crate) fn read(client: &mut Client, head_only: bool) -> Self {
        let head = head(&mut client.stream());
        let mut lines = head.trim_end().split("\r\n");
        let first = lines.next().unwrap();
        assert!(first.starts_with("HTTP/1.1 "), "{first:?}");
        let headers = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{line:?} is not a header")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        let mut reply =
            Self { status: first[9..12].parse().unwrap(), headers: headers.collect(), body: Vec::new() };
        if !head_only && !matches!(reply.status, 100..200 | 204 | 304) {
            reply.body = reply.read_body(client);
        }
        reply
    }

    #[track_caller]
    fn read_body(&self, client: &mut Client) -> Vec<u8> {
        if self.header("transfer-encoding") == Some("chunked") {
            return read_chunks(client);
        }
        let Some(length) = self.header("content-length") else {
            let (body, end) = client.rest();
            assert_eq!(end, End::Fin);
            return body;
        };
        let mut body = vec![0; length.parse().unwrap()];
        client.stream().read_exact(&mut body).expect("the body is as long as it says");
        body
    }

    /// The one value of this header.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(it, _)| it == name).map(|(_, value)| value.as_str());
        let first = values.next();
        assert_eq!(values.next(), None, "two of {name}");
        first
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Whether the connection ends after it.
    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

#[track_caller]
fn read_chunks(client: &mut Client) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            client.stream().read_exact(&mut byte).expect("a chunk's size");
            line.push(byte[0]);
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim_end(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        client.stream().read_exact(&mut chunk).expect("a chunk");
        assert!(chunk.ends_with(b"\r\n"));
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return body;
        }
    }
}

impl Client {
    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Reply {
        let head_only = request.as_ref().starts_with(b"HEAD ");
        self.say(request);
        Reply::read(self, head_only)
    }

    /// GETs a path, and keeps the connection.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Reply {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"))
    }

    /// The next answer.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        Reply::read(self, false)
    }
}

/// Reads a head of HTTP.
#[track_caller]
pub(crate) fn head(from: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("no head: {error}, after {:?}", String::from_utf8_lossy(&head)));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
