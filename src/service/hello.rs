//! `hello`: each line is answered with `hello ` and the line.

use super::{DatagramService, Reply, Service, lines};
use std::io;

const GREETING: &[u8] = b"hello ";

/// Answers each line with `hello ` and the line, its end included, as a Python handler does that writes
/// `"hello {}".format(line)` for each line of `rfile`. So `\r\n` stays as it is, and a last line without
/// an end is answered without one.
pub fn hello() -> impl Service {
    lines("hello", |line, reply| {
        reply.send(GREETING)?;
        reply.send(line)
    })
    .with_ends()
}

/// Answers each datagram with `hello ` and what it says; its newline, if it has one, stays.
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
