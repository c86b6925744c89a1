//! `echo`: sends back what it receives.

use super::{DatagramService, Peer, Received, Reply, Service, Session, Stream, Turn};
use std::io;

/// Sends back what it receives, and ends the connection when the client does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Service for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Echo)
    }
}

impl Session for Echo {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        let (input, output) = stream.split();
        loop {
            match input.receive()? {
                Received::Data(data) => output.send(data)?,
                Received::Nothing => return Ok(Turn::Park),
                Received::End => return Ok(Turn::Close),
            }
        }
    }
}

impl DatagramService for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn reply_max(&self, request: usize) -> usize {
        request
    }

    fn datagram(&self, request: &[u8], reply: &mut Reply<'_>) -> io::Result<()> {
        reply.send(request)
    }
}
