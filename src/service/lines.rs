//! Line services: a closure is called for each line; between lines the connection is parked.

use super::{Output, Peer, Received, Service, Session, Stream, Turn};
use crate::limits::Limits;
use crate::service::Fault;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// Where the reply to a line goes.
#[derive(Debug)]
pub struct LineReply<'r, 'a> {
    output: &'r mut Output<'a>,
    peer: &'r Peer,
    ending: bool,
}

impl LineReply<'_, '_> {
    /// Sends bytes, without waiting; see [`Output::send`].
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.output.send(data)
    }

    /// The client.
    pub fn peer(&self) -> &Peer {
        self.peer
    }

    /// Ends the connection after this reply.
    pub fn close(&mut self) {
        self.ending = true;
    }
}

impl io::Write for LineReply<'_, '_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data).map(|()| data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A service from a closure that answers one line at a time. The line comes without its end
/// (`\n` or `\r\n`); a last line without one is answered as it is. A line longer than `max_line`
/// ends the connection, counted as `protocol`; so does one that comes in parts while there is no room
/// for them in `input_total`, counted as `input_limit`.
///
/// `name` is the `service` label of its metrics.
///
/// ```no_run
/// use tidegate::{Server, lines};
///
/// let count = lines("count", |line, reply| reply.send(format!("{}\n", line.len()).as_bytes()));
/// let server = Server::builder().listen("127.0.0.1:0", count)?.bind()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lines<F>(name: &str, answer: F) -> impl Service
where
    F: Fn(&[u8], &mut LineReply<'_, '_>) -> io::Result<()> + Send + Sync + 'static,
{
    Lines { name: name.to_owned(), answer: Arc::new(answer) }
}

struct Lines<F> {
    name: String,
    answer: Arc<F>,
}

impl<F> Service for Lines<F>
where
    F: Fn(&[u8], &mut LineReply<'_, '_>) -> io::Result<()> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(LineSession { partial: None, answer: self.answer.clone() })
    }
}

struct LineSession<F> {
    /// The beginning of a line whose end has not come; nothing between lines.
    partial: Option<Partial>,
    answer: Arc<F>,
}

/// Part of a line; never empty.
struct Partial {
    bytes: Vec<u8>,
    /// What it has taken of `total`: the room for its bytes. Given back when it is dropped.
    taken: usize,
    total: Arc<AtomicUsize>,
}

impl Partial {
    /// The least room that is made.
    const ROOM_MIN: usize = 64;

    fn new(total: &Arc<AtomicUsize>) -> Self {
        Self { bytes: Vec::new(), taken: 0, total: total.clone() }
    }

    /// Adds bytes, of which the line has at most `max_line` and 2, if there is room.
    fn extend(&mut self, data: &[u8], limits: &Limits) -> io::Result<()> {
        let needed = self.bytes.len() + data.len();
        if needed > self.taken {
            // By doubling, up to what the longest line needs: a client that drips makes no work.
            let doubled = needed.next_power_of_two().max(Self::ROOM_MIN);
            let room = doubled.min(limits.max_line + 2).max(needed);
            let more = room - self.taken;
            if self.total.fetch_add(more, Relaxed) + more > limits.input_total {
                self.total.fetch_sub(more, Relaxed);
                return Err(Fault::InputLimit.into());
            }
            self.taken = room;
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.total.fetch_sub(self.taken, Relaxed);
    }
}

impl<F> Session for LineSession<F>
where
    F: Fn(&[u8], &mut LineReply<'_, '_>) -> io::Result<()> + Send + Sync,
{
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        let peer = *stream.peer();
        let (input, output) = stream.split();
        let mut reply = LineReply { output, peer: &peer, ending: false };
        loop {
            match input.receive()? {
                Received::Data(data) => self.take(data, &mut reply)?,
                Received::Nothing if self.partial.is_none() => return Ok(Turn::Park),
                Received::Nothing => return Ok(Turn::Partial),
                Received::End => {
                    if let Some(last) = self.partial.take() {
                        (self.answer)(strip(&last.bytes), &mut reply)?;
                    }
                    return Ok(Turn::Close);
                }
            }
            if reply.ending {
                return Ok(Turn::Close);
            }
        }
    }
}

impl<F> LineSession<F>
where
    F: Fn(&[u8], &mut LineReply<'_, '_>) -> io::Result<()>,
{
    /// Answers the lines that are whole and keeps the beginning of the next.
    fn take(&mut self, mut data: &[u8], reply: &mut LineReply<'_, '_>) -> io::Result<()> {
        let context = reply.output.context;
        let max_line = context.limits.max_line;
        while let Some(end) = data.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&data[..end], &data[end + 1..]);
            match self.partial.take() {
                None => self.answer_line(line, max_line, reply)?,
                Some(mut whole) => {
                    // One byte more than allowed, and a `\r`, are enough to know that the line is too long.
                    let enough = line.len().min(max_line + 2 - whole.bytes.len());
                    whole.extend(&line[..enough], context.limits)?;
                    self.answer_line(&whole.bytes, max_line, reply)?;
                }
            }
            if reply.ending {
                return Ok(());
            }
            data = rest;
        }
        if data.is_empty() {
            return Ok(());
        }
        let begun = self.partial.as_ref().map_or(0, |partial| partial.bytes.len());
        // A `\r` may belong to the end of the line, so it does not count yet.
        if begun + data.len() > max_line + 1 {
            return Err(Fault::LineTooLong.into());
        }
        let partial = self.partial.get_or_insert_with(|| Partial::new(context.input_total));
        partial.extend(data, context.limits)
    }

    fn answer_line(&self, line: &[u8], max_line: usize, reply: &mut LineReply<'_, '_>) -> io::Result<()> {
        let line = strip(line);
        if line.len() > max_line {
            return Err(Fault::LineTooLong.into());
        }
        (self.answer)(line, reply)
    }
}

fn strip(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
