//! The gate as a library: at most 20 connections in front of a server that somebody else wrote.
//!
//! ```text
//! python3 -m http.server 8000 &
//! cargo run --example gate -- 127.0.0.1:6000 127.0.0.1:8000
//! curl http://127.0.0.1:6000/
//! ```
//!
//! More backends may follow the first. It serves until its standard input ends; then standing pairs have ten seconds.

use std::io::Read;
use std::time::Duration;
use tidegate::{ConnectOn, Server, proxy};

/// What a browser understands, so that it tells its user and comes again.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let listen = args.next().unwrap_or_else(|| "127.0.0.1:6000".to_owned());
    let mut backends: Vec<String> = args.collect();
    if backends.is_empty() {
        backends.push("127.0.0.1:8000".to_owned());
    }
    let gate = proxy(&backends)?
        .connections(20)
        // The client speaks first in HTTP, so a silent one needs no place.
        .connect_on(ConnectOn::FirstByte)
        .check_every(Duration::from_secs(2))
        .busy_reply(BUSY)
        .build()?;
    let server = Server::builder().queue(64).listen(listen.as_str(), gate)?.bind()?;
    println!("{} -> {}", server.addresses()[0], backends.join(", "));
    let handle = server.serve()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    println!("{}", handle.shutdown(Duration::from_secs(10)));
    Ok(())
}
