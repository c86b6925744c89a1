//! Line services: a closure is called for each line; between lines the connection is parked.

use super::{Output, Peer, Received, Service, Session, Stream, Turn};
use crate::service::Fault;
use std::io;
use std::sync::Arc;

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
/// ends the connection, counted as `protocol`.
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
        Box::new(LineSession { partial: Vec::new(), answer: self.answer.clone() })
    }
}

struct LineSession<F> {
    /// The beginning of a line whose end has not come; empty, and nothing allocated, between lines.
    partial: Vec<u8>,
    answer: Arc<F>,
}

impl<F> Session for LineSession<F>
where
    F: Fn(&[u8], &mut LineReply<'_, '_>) -> io::Result<()> + Send + Sync,
{
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        let peer = *stream.peer();
        let max_line = stream.limits().max_line;
        let (input, output) = stream.split();
        let mut reply = LineReply { output, peer: &peer, ending: false };
        loop {
            match input.receive()? {
                Received::Data(data) => self.take(data, max_line, &mut reply)?,
                Received::Nothing if self.partial.is_empty() => return Ok(Turn::Park),
                Received::Nothing => return Ok(Turn::Partial),
                Received::End => {
                    if !self.partial.is_empty() {
                        let last = std::mem::take(&mut self.partial);
                        (self.answer)(strip(&last), &mut reply)?;
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
    fn take(&mut self, mut data: &[u8], max_line: usize, reply: &mut LineReply<'_, '_>) -> io::Result<()> {
        while let Some(end) = data.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&data[..end], &data[end + 1..]);
            if self.partial.is_empty() {
                self.answer_line(line, max_line, reply)?;
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                // One byte more than allowed is enough to know that the line is too long.
                whole.extend_from_slice(&line[..line.len().min(max_line + 2)]);
                self.answer_line(&whole, max_line, reply)?;
            }
            if reply.ending {
                return Ok(());
            }
            data = rest;
        }
        // A `\r` may belong to the end of the line, so it does not count yet.
        if self.partial.len() + data.len() > max_line + 1 {
            return Err(Fault::LineTooLong.into());
        }
        self.partial.extend_from_slice(data);
        Ok(())
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
