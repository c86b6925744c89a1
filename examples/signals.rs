//! A server that ends in good order on Ctrl-C, SIGTERM or SIGHUP: requests that have come are answered, and then it ends.
//! (The crate `ctrlc` needs its feature `termination` for the last two.)
//!
//! `cargo run --example signals`, then `nc 127.0.0.1 5000`, and end it with Ctrl-C.

use tidegate::{Server, lines};

mod support;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let echo = lines("echo", |line, reply| reply.send(line)).with_ends();
    let server = Server::builder().listen(&*support::address(), echo)?.bind()?;
    // Before somebody can know that it serves: a signal that came between the two would end it without a drain.
    let trigger = server.trigger();
    ctrlc::set_handler(move || trigger.drain())?;
    support::say(&server)?;
    println!("{}", server.serve()?.wait());
    Ok(())
}
