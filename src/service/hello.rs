//! `hello`: each line is answered with `hello ` and the line.

use super::{DatagramService, Reply, Service, lines};
use std::io;

const GREETING: &[u8] = b"hello ";

/// Answers each line with `hello ` and the line; a last line without a newline too.
pub fn hello() -> impl Service {
    lines("hello", |line, reply| {
        reply.send(GREETING)?;
        reply.send(line)?;
        reply.send(b"\n")
    })
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
