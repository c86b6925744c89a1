//! A service with state per connection: it adds up the numbers it is sent, one a line, and answers
//! each with the sum so far. Between lines a connection is its session and nothing else.
//!
//! `cargo run --example sum`, then `printf '1\n2\n3\n' | tidegate client tcp://127.0.0.1:5000`.

use std::io;
use tidegate::{Peer, Received, Server, Service, Session, Stream, Turn};

mod support;

struct Sum;

impl Service for Sum {
    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Adding { sum: 0, line: Vec::new() })
    }
}

struct Adding {
    sum: i64,
    line: Vec<u8>,
}

impl Session for Adding {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        let (input, output) = stream.split();
        loop {
            match input.receive()? {
                Received::Data(data) => {
                    for &byte in data {
                        if byte == b'\n' {
                            output.send(self.add()?.as_bytes())?;
                        } else if self.line.len() < 20 {
                            self.line.push(byte);
                        } else {
                            return Err(io::Error::new(io::ErrorKind::InvalidData, "too long for a number"));
                        }
                    }
                }
                Received::Nothing if self.line.is_empty() => return Ok(Turn::Park),
                // Half a number: the rest must come within `read_timeout`.
                Received::Nothing => return Ok(Turn::Partial),
                Received::End => return Ok(Turn::Close),
            }
        }
    }
}

impl Adding {
    fn add(&mut self) -> io::Result<String> {
        let not_a_number = |_| io::Error::new(io::ErrorKind::InvalidData, "not a number");
        let text = String::from_utf8_lossy(&self.line).trim().to_owned();
        self.sum = self.sum.wrapping_add(text.parse().map_err(not_a_number)?);
        self.line.clear();
        Ok(format!("{}\n", self.sum))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().listen(&*support::address(), Sum)?.bind()?;
    support::say(&server)?;
    server.serve()?.wait();
    Ok(())
}
