//! Handlers in plain blocking style. A handler keeps its worker until it returns, as a handler of Python's
//! `socketserver` keeps its thread, but each of its waits has a deadline.

use super::{Fault, Peer, Service, Session, Stream, Turn};
use crate::transport::socket::{receive, unread};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, BufRead, Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Longer times count as no limit: the clocks of some systems cannot represent them.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// How often a waiting handler checks whether the server is ending.
const LOOK: Duration = Duration::from_millis(100);

/// A service from a closure that handles a whole connection and then returns. The closure keeps its worker until
/// then, even while its client is silent. So the server handles as many connections at once as it has workers, and
/// the others wait in the queue. [`Blocking`] says how long a handler waits for its client.
///
/// ```no_run
/// use std::io::{BufRead, Write};
/// use tidegate::{Server, handler};
///
/// let shout = handler(|stream| {
///     let mut line = String::new();
///     stream.read_line(&mut line)?;
///     stream.write_all(line.to_uppercase().as_bytes())
/// });
/// let server = Server::builder().listen("127.0.0.1:0", shout)?.bind()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn handler<F>(handle: F) -> Handler<F>
where
    F: Fn(&mut Blocking<'_, '_>) -> io::Result<()> + Send + Sync + 'static,
{
    Handler { name: "handler".to_owned(), handle: std::sync::Arc::new(handle) }
}

/// What [`handler`] makes.
pub struct Handler<F> {
    name: String,
    handle: std::sync::Arc<F>,
}

impl<F> Handler<F> {
    /// The `service` label of its metrics. Default: `handler`.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }
}

impl<F> std::fmt::Debug for Handler<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<F> Service for Handler<F>
where
    F: Fn(&mut Blocking<'_, '_>) -> io::Result<()> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Handling(self.handle.clone()))
    }

    fn client_speaks_first(&self) -> bool {
        false
    }
}

struct Handling<F>(std::sync::Arc<F>);

impl<F> Session for Handling<F>
where
    F: Fn(&mut Blocking<'_, '_>) -> io::Result<()> + Send + Sync,
{
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        let mut blocking = stream.blocking();
        (self.0)(&mut blocking)?;
        blocking.flush()?;
        Ok(Turn::Close)
    }
}

impl<'a> Stream<'a> {
    /// A view of the stream whose reads and writes wait, for code in plain blocking style. It keeps the worker
    /// meanwhile. Input that was read ahead and not used is lost when the view is dropped, so use it for a
    /// conversation that ends with [`Turn::Close`](super::Turn::Close).
    pub fn blocking(&mut self) -> Blocking<'_, 'a> {
        Blocking::new(self)
    }
}

/// A connection whose reads and writes wait: it is [`Read`], [`BufRead`] and [`Write`], like `rfile` and `wfile` in
/// Python's `StreamRequestHandler`. Every wait has a deadline, and no deadline starts again with each byte, so a
/// client that sends slowly cannot hold a worker:
///
/// - Reading: `read_timeout` in all, counted from the first wait after the start or after the last write. So it
///   covers one request, with the silence before it. (`idle_timeout` is for `lines` and [`Session`]s.) A handler that
///   only reads must end within it, or call [`set_total_deadline`](Self::set_total_deadline).
/// - Writing: `write_timeout` for each piece of at most 16 KiB.
/// - [`set_total_deadline`](Self::set_total_deadline): one time for everything, instead of both.
///
/// Past a deadline the operation fails with [`io::ErrorKind::TimedOut`]. Return that error, and the connection ends
/// and is counted as a timeout. While the server drains, a read returns the end of input once the client has been
/// answered all that it had sent by then. When the server is told to end at once, waits fail with
/// [`io::ErrorKind::ConnectionAborted`].
#[derive(Debug)]
pub struct Blocking<'s, 'a> {
    stream: &'s mut Stream<'a>,
    buffer: Vec<u8>,
    at: usize,
    /// When the present request must have been read.
    read_deadline: Option<Instant>,
    total_deadline: Option<Instant>,
    /// While the server ends: how many bytes are still read from this client. They are those it had sent by then.
    last_input: Option<usize>,
}

impl<'s, 'a> Blocking<'s, 'a> {
    const BUFFER_BYTES: usize = 8 * 1024;
    const PIECE_BYTES: usize = 16 * 1024;

    fn new(stream: &'s mut Stream<'a>) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            at: 0,
            read_deadline: None,
            total_deadline: None,
            last_input: None,
        }
    }

    /// The client.
    pub fn peer(&self) -> &Peer {
        self.stream.peer()
    }

    /// From now on all reads and writes together must end within this time. It replaces `read_timeout` for each
    /// request and `write_timeout` for each piece of a reply.
    pub fn set_total_deadline(&mut self, from_now: Duration) {
        self.total_deadline = Some(Instant::now() + from_now.min(LONGEST));
    }

    /// Waits until the socket is ready, or the deadline has passed.
    fn wait(&self, flags: PollFlags, deadline: Instant, late: Fault) -> io::Result<()> {
        let (input, output) = self.stream.halves();
        loop {
            if output.context.stopping.load(Ordering::Relaxed) {
                return Err(Fault::Shutdown.into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late.into());
            }
            let timeout = Timespec::try_from(left.min(LOOK)).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
            match poll(&mut [PollFd::new(input.socket, flags)], Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for Blocking<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len() && out.len() >= Self::BUFFER_BYTES && !self.stream.is_secured() {
            return self.read_socket(out);
        }
        let available = self.fill_buf()?;
        let n = available.len().min(out.len());
        out[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl Blocking<'_, '_> {
    /// The deadline for the client's next bytes; `None` if the client has closed its half, so that nothing more is
    /// read.
    fn begin_to_read(&mut self) -> io::Result<Option<Instant>> {
        // The reply so far is sent before waiting for more input; otherwise both sides could wait for each other.
        self.flush()?;
        if self.has_said_all() {
            return Ok(None);
        }
        let allowed = self.stream.limits().read_timeout;
        let from_now = || Instant::now() + allowed;
        Ok(Some(self.total_deadline.unwrap_or_else(|| *self.read_deadline.get_or_insert_with(from_now))))
    }

    /// Reads input that came through TLS into the buffer, which is empty.
    fn fill_secured(&mut self) -> io::Result<()> {
        (self.at, self.buffer) = (0, Vec::new());
        let Some(deadline) = self.begin_to_read()? else { return Ok(()) };
        loop {
            match self.stream.split().0.after_wait().transpose()?.flatten() {
                Some(bytes) => {
                    self.buffer = bytes.to_vec();
                    return Ok(());
                }
                None => self.wait(PollFlags::IN, deadline, Fault::ReadTimeout)?,
            }
        }
    }

    fn read_socket(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(deadline) = self.begin_to_read()? else { return Ok(0) };
        loop {
            let (input, _) = self.stream.split();
            if let Some(n) = receive(input.socket, out)? {
                input.account(n, out.len());
                self.last_input = self.last_input.map(|left| left.saturating_sub(n));
                return Ok(n);
            }
            self.wait(PollFlags::IN, deadline, Fault::ReadTimeout)?;
        }
    }
}

impl Blocking<'_, '_> {
    /// While the server ends: whether the client has been answered all that it had sent by then. A client that goes
    /// on sending sees the end of the connection.
    fn has_said_all(&mut self) -> bool {
        if !self.stream.is_draining() || self.read_deadline.is_some() {
            return false;
        }
        let unread = || unread(self.stream.halves().0.socket);
        let left = self.last_input.unwrap_or_else(unread);
        self.last_input.replace(left) == Some(0)
    }
}

impl BufRead for Blocking<'_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.buffer.len() && self.stream.is_secured() {
            self.fill_secured()?;
        } else if self.at == self.buffer.len() {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(Self::BUFFER_BYTES, 0);
            let read = self.read_socket(&mut buffer);
            buffer.truncate(*read.as_ref().unwrap_or(&0));
            self.buffer = buffer;
            self.at = 0;
            read?;
        }
        Ok(&self.buffer[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.buffer.len());
    }
}

impl Write for Blocking<'_, '_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let (_, output) = self.stream.split();
        // In pieces below the output limit, so that a large reply waits and does not fail.
        let piece = data.len().min(output.piece_max().min(Self::PIECE_BYTES));
        if !output.kept.is_empty() {
            self.flush()?;
        }
        self.stream.send(&data[..piece])?;
        // The request has been read. The next one has a deadline of its own.
        self.read_deadline = None;
        Ok(piece)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.split().1.flush()?;
        if self.stream.split().1.kept.is_empty() {
            return Ok(());
        }
        let allowed = self.stream.limits().write_timeout;
        let deadline = self.total_deadline.unwrap_or_else(|| Instant::now() + allowed);
        loop {
            let (_, output) = self.stream.split();
            let flushed = output.kept.flush(output.socket)?;
            output.sent += flushed as u64;
            if output.kept.is_empty() {
                return Ok(());
            }
            self.wait(PollFlags::OUT, deadline, Fault::WriteTimeout)?;
        }
    }
}
