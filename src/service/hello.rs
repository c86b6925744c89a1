//! `hello`: each line is answered with `hello ` and the line.

use super::{Service, lines};

/// Answers each line with `hello ` and the line; a last line without a newline too.
pub fn hello() -> impl Service {
    lines("hello", |line, reply| {
        reply.send(b"hello ")?;
        reply.send(line)?;
        reply.send(b"\n")
    })
}
