//! tidegate as a library: a session that another thread wakes as often as its client wants, and that tells the client of each
//! turn with a byte. Between two wakes it is idle.

use super::announce::announce;
use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tidegate::{Peer, Received, Server, Service, Session, Stream, Turn, Waker};

/// Longest wait for the turn that a wake has brought about.
const TURN_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn serve(listen: SocketAddr) -> Result<()> {
    let server = Server::builder().listen(listen, Wakes)?.bind()?;
    let address = server.addresses().first().and_then(|at| at.ip());
    announce("tcp", address.context("a bound server has an address")?)?;
    server.serve()?.wait();
    Ok(())
}

struct Wakes;

impl Service for Wakes {
    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Woken(None))
    }
}

/// The thread that wakes hears through this of each turn, once there is one.
struct Woken(Option<Sender<()>>);

impl Session for Woken {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        if let Some(told) = &self.0 {
            stream.send(b"w")?;
            // The one that wakes has ended with its last wake: so does the connection.
            return Ok(if told.send(()).is_ok() { Turn::Park } else { Turn::Close });
        }
        let wakes = match stream.receive()? {
            Received::Data(number) => {
                std::str::from_utf8(number).ok().and_then(|text| text.trim().parse().ok())
            }
            Received::Nothing => return Ok(Turn::Park),
            _ => return Ok(Turn::Close),
        };
        let wakes = wakes.ok_or(io::ErrorKind::InvalidData)?;
        let (tell, told) = bounded(1);
        let waker = stream.waker();
        std::thread::Builder::new().name("wakes".to_owned()).spawn(move || wake(&waker, wakes, &told))?;
        self.0 = Some(tell);
        Ok(Turn::Park)
    }
}

/// Each wake finds the session idle, since it waits for the turn of the one before it. At the end the thread says how long this
/// took, the turns included: a figure for people, which depends on the machine.
fn wake(waker: &Waker, wakes: u32, told: &Receiver<()>) {
    let began = Instant::now();
    for _ in 0..wakes {
        waker.wake();
        if told.recv_timeout(TURN_TIMEOUT).is_err() {
            return;
        }
    }
    let took = began.elapsed();
    // Nobody need listen.
    let _ = writeln!(io::stderr(), "{wakes} wakes took {:.2?} each", took / wakes.max(1));
}
