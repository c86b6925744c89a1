//! `work`: an echo that takes time for each request, to size a pool before the real handler exists.

use super::{DatagramService, Peer, Received, Reply, Service, Session, Stream, Turn};
use std::io;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The most work that one request may be.
const COST_MAX: Duration = Duration::from_secs(60);

/// What each request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cost {
    /// This much processor time.
    Cpu(Duration),
    /// This much time without using a processor, as a call to a database would take.
    Sleep(Duration),
}

impl FromStr for Cost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not a kind of work: write cpu:1ms or sleep:20ms");
        let (kind, time) = text.split_once(':').ok_or_else(form)?;
        let cost = match kind {
            "cpu" => Cost::Cpu,
            "sleep" => Cost::Sleep,
            _ => return Err(form()),
        };
        match tidegate_units::duration(time)? {
            time if time > COST_MAX => {
                Err(format!("`{text}` is too much work for one request: it may be {kind}:60s at most"))
            }
            time => Ok(cost(time)),
        }
    }
}

impl Cost {
    /// Does the work of one request.
    pub fn pay(self) {
        match self {
            Cost::Sleep(time) => std::thread::sleep(time),
            Cost::Cpu(time) => burn(time),
        }
    }
}

/// Uses this much processor time of the calling thread. Time on the wall would let the work of a preempted worker
/// look done.
fn burn(time: Duration) {
    let spent = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    };
    let end = spent() + time;
    while spent() < end {
        let pause = Instant::now();
        // Reading the thread's clock is a system call, so it is read every few microseconds only.
        while pause.elapsed() < Duration::from_micros(5) {
            std::hint::spin_loop();
        }
    }
}

/// Does the work once for each piece of input that it receives, and then sends the piece back.
#[derive(Clone, Copy, Debug)]
pub struct Work(pub Cost);

impl Service for Work {
    fn name(&self) -> &str {
        "work"
    }

    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(*self)
    }
}

impl Session for Work {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        let (input, output) = stream.split();
        loop {
            match input.receive()? {
                Received::Data(data) => {
                    self.0.pay();
                    output.send(data)?;
                }
                Received::Nothing => return Ok(Turn::Park),
                Received::End => return Ok(Turn::Close),
            }
        }
    }
}

impl DatagramService for Work {
    fn name(&self) -> &str {
        "work"
    }

    fn reply_max(&self, request: usize) -> usize {
        request
    }

    fn datagram(&self, request: &[u8], reply: &mut Reply<'_>) -> io::Result<()> {
        self.0.pay();
        reply.send(request)
    }
}
