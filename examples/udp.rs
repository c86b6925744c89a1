//! Datagrams from a closure: each is answered in upper case. A reply is at most as long as the
//! service says; a forged source must gain nothing.
//!
//! `cargo run --example udp`, then `tidegate client udp://127.0.0.1:5000 --data hello`.

use tidegate::{Server, datagrams};

mod support;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shout = datagrams(|request, reply| reply.send(&request.to_ascii_uppercase())).reply_max(2048);
    let server = Server::builder().listen_datagrams(&*support::address(), shout)?.bind()?;
    support::say(&server)?;
    server.serve()?.wait();
    Ok(())
}
