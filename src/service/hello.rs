//! `hello`: answers each line with `hello ` and the line.

use super::{DatagramService, Reply, Service, lines};
use std::io;

const GREETING: &[u8] = b"hello ";

/// Answers each line with `hello ` and the line with its end, like a Python handler that writes `"hello
/// {}".format(line)` for each line of `rfile`. So `\r\n` stays as it is, and the answer to a last line without an end
/// has none either.
pub fn hello() -> impl Service {
    lines("hello", |line, reply| {
        reply.send(GREETING)?;
        reply.send(line)
    })
    .with_ends()
}

/// Answers each datagram with `hello ` and its text, with the newline if it has one.
pub fn hello_datagrams() -> impl DatagramService {
    HelloDatagrams
}

struct HelloDatagrams;

impl DatagramService for HelloDatagrams {
    fn name(&self) -> &str {
        "hello"
    }

    fn reply_max(&self, request: usize) -> usize {
        GREETING.len() + request
    }

    fn datagram(&self, request: &[u8], reply: &mut Reply<'_>) -> io::Result<()> {
        reply.send(GREETING)?;
        reply.send(request)
    }
}
