//! The time of day, said on connect over TCP and in answer to any datagram over UDP: one service,
//! two listeners, one pool of workers.
//!
//! `cargo run --example time`, then `nc 127.0.0.1 5000`, or
//! `tidegate client udp://127.0.0.1:5000 --data ''`.

use tidegate::{Server, Time};

mod support;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = support::address();
    let server = Server::builder().listen(&*address, Time)?.listen_datagrams(&*address, Time)?.bind()?;
    support::say(&server)?;
    server.serve()?.wait();
    Ok(())
}
