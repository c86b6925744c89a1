//! `shout`: answers each line in upper case.

use super::{Service, lines};

/// Answers each line in upper case.
pub fn shout() -> impl Service {
    lines("shout", |line, reply| {
        reply.send(&line.to_ascii_uppercase())?;
        reply.send(b"\n")
    })
}
