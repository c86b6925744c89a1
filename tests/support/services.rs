//! Services that do what a test needs at the moment it needs it.

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use tidegate::{Peer, Received, Service, Session, Stream, Turn};

/// Shut at first; turns of [`Held`] wait until it opens.
#[derive(Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    pub(crate) fn shut(&self) {
        *self.open.lock().unwrap() = false;
    }

    /// Waits until it is open.
    pub(crate) fn pass(&self) {
        let open = self.open.lock().unwrap();
        let waited = self.changed.wait_timeout_while(open, super::PATIENCE, |open| !*open).unwrap();
        assert!(*waited.0, "nobody opened the gate");
    }
}

/// An echo that holds its worker until the gate opens.
pub(crate) struct Held(pub(crate) Arc<Gate>);

impl Service for Held {
    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Holding(self.0.clone()))
    }
}

struct Holding(Arc<Gate>);

impl Session for Holding {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        let (input, output) = stream.split();
        loop {
            match input.receive()? {
                Received::Data(data) => {
                    self.0.pass();
                    output.send(data)?;
                }
                Received::Nothing => return Ok(Turn::Park),
                Received::End => return Ok(Turn::Close),
            }
        }
    }
}
