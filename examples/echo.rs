//! The smallest server: an echo from a closure.
//!
//! `cargo run --example echo`, then `nc 127.0.0.1 5000`.

use tidegate::{Server, lines};

mod support;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let echo = lines("echo", |line, reply| {
        reply.send(line)?;
        reply.send(b"\n")
    });
    let server = Server::builder().workers(32).queue(128).listen(&*support::address(), echo)?.bind()?;
    support::say(&server)?;
    server.serve()?.wait();
    Ok(())
}
