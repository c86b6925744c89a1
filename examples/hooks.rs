//! Every hook that Python's `socketserver` has: who is served (`verify_request`), setting up and
//! finishing a connection (`setup`, `finish`), errors (`handle_error`), housekeeping
//! (`service_actions`), and an end after some connections (`handle_request`).
//!
//! `cargo run --example hooks`, then twice `tidegate client tcp://127.0.0.1:5000 --data 'hello\n'`.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;
use tidegate::reason::CloseReason;
use tidegate::{Peer, Received, Server, Service, Session, Stream, Turn};

mod support;

struct Greeter;

impl Service for Greeter {
    fn name(&self) -> &str {
        "greeter"
    }

    fn verify(&self, peer: &Peer) -> bool {
        matches!(peer.address.ip(), Some(IpAddr::V4(ip)) if ip.is_loopback())
    }

    fn connect(&self, peer: &Peer) -> Box<dyn Session> {
        // `verify` has let nobody in who has no address.
        say(&format!("set up: {}", peer.address.ip().expect("an address")));
        Box::new(Greeting)
    }

    fn turn_failed(&self, _peer: &Peer, error: &io::Error) {
        say(&format!("failed: {error}"));
    }
}

struct Greeting;

impl Session for Greeting {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        match stream.receive()? {
            Received::Data(b"fail\n") => Err(io::Error::other("as asked")),
            Received::Data(_) => {
                stream.send(b"welcome\n")?;
                Ok(Turn::Close)
            }
            Received::Nothing => Ok(Turn::Park),
            Received::End => Ok(Turn::Close),
        }
    }

    fn finish(&mut self, reason: CloseReason) {
        say(&format!("finished: {reason}"));
    }
}

/// A line on stdout, if anybody still listens there.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .listen(&*support::address(), Greeter)?
        .tick(Duration::from_millis(100), || say("tick"))
        .end_after(2)
        .bind()?;
    support::say(&server)?;
    let report = server.serve()?.wait();
    say(&format!("ended: clean is {}", report.is_clean()));
    Ok(())
}
