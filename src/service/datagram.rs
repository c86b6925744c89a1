//! Datagram services: one request, at most one reply, nothing in between.

use super::Peer;
use std::io;

/// The longest reply of a closure that does not set its own limit: 512 bytes, as many as DNS allowed over UDP, for
/// the same reason.
const REPLY_MAX: usize = 512;

/// A service that answers datagrams. It runs on a worker, so a slow answer delays one worker and nothing else.
pub trait DatagramService: Send + Sync + 'static {
    /// The `service` label of its metrics. Default: `datagrams`.
    fn name(&self) -> &str {
        "datagrams"
    }

    /// Whether this client is answered. Default: yes.
    fn verify(&self, peer: &Peer) -> bool {
        let _ = peer;
        true
    }

    /// The longest reply to a request of `request` bytes. A longer reply is an error and is not sent. Senders of
    /// datagrams can forge their address, so every reply can be directed at a victim: keep replies small. Default:
    /// 512. `max_datagram` and 64 bytes are the limit in any case.
    fn reply_max(&self, request: usize) -> usize {
        let _ = request;
        REPLY_MAX
    }

    /// Answers one datagram. If it does not call [`Reply::send`], no answer is sent. An error is counted, passed to
    /// [`datagram_failed`](Self::datagram_failed), and not answered.
    fn datagram(&self, request: &[u8], reply: &mut Reply<'_>) -> io::Result<()>;

    /// Called when answering returned an error or panicked; `error` says which. Default: does nothing.
    fn datagram_failed(&self, peer: &Peer, error: &io::Error) {
        let _ = (peer, error);
    }
}

/// The reply to one datagram. Its pieces leave as one datagram when the service returns.
#[derive(Debug)]
pub struct Reply<'a> {
    buffer: &'a mut [u8],
    len: usize,
    answered: bool,
    peer: Peer,
}

impl<'a> Reply<'a> {
    /// A reply that is written to `buffer`.
    pub(crate) fn new(peer: Peer, buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0, answered: false, peer }
    }

    /// The client that sent the datagram.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Adds bytes to the reply. An empty piece (`b""`) makes an empty datagram, if nothing else is added.
    ///
    /// Fails when the reply would be longer than [`DatagramService::reply_max`] or `max_datagram` allows.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        let end = self.len + data.len();
        let Some(room) = self.buffer.get_mut(self.len..end) else {
            let why = format!("a reply of {end} bytes, where {} are allowed", self.buffer.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        };
        room.copy_from_slice(data);
        self.len = end;
        self.answered = true;
        Ok(())
    }

    /// The length of the reply; `None` if there is none.
    pub(crate) fn finish(self) -> Option<usize> {
        self.answered.then_some(self.len)
    }
}

impl io::Write for Reply<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data).map(|()| data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A datagram service from a closure. Its replies have at most 512 bytes, unless [`reply_max`](Datagrams::reply_max)
/// sets another limit.
///
/// ```
/// use std::time::Duration;
/// use tidegate::{Server, datagrams};
///
/// let shout = datagrams(|request, reply| reply.send(&request.to_ascii_uppercase()));
/// let handle = Server::builder().listen_datagrams("127.0.0.1:0", shout)?.bind()?.serve()?;
///
/// let client = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"hello", handle.addresses()[0])?;
/// let mut buffer = [0; 16];
/// let n = client.recv(&mut buffer)?;
/// assert_eq!(&buffer[..n], b"HELLO");
/// # handle.shutdown(Duration::from_secs(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn datagrams<F>(answer: F) -> Datagrams<F>
where
    F: Fn(&[u8], &mut Reply<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    Datagrams { name: "datagrams".to_owned(), reply_max: REPLY_MAX, answer }
}

/// What [`datagrams`] makes.
pub struct Datagrams<F> {
    name: String,
    reply_max: usize,
    answer: F,
}

impl<F> Datagrams<F> {
    /// The `service` label of its metrics. Default: `datagrams`.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Sets the longest reply; see [`DatagramService::reply_max`]. Default: 512. `max_datagram` and 64 bytes are the
    /// limit in any case.
    #[must_use]
    pub fn reply_max(mut self, bytes: usize) -> Self {
        self.reply_max = bytes;
        self
    }
}

impl<F> std::fmt::Debug for Datagrams<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datagrams")
            .field("name", &self.name)
            .field("reply_max", &self.reply_max)
            .finish_non_exhaustive()
    }
}

impl<F> DatagramService for Datagrams<F>
where
    F: Fn(&[u8], &mut Reply<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn reply_max(&self, _request: usize) -> usize {
        self.reply_max
    }

    fn datagram(&self, request: &[u8], reply: &mut Reply<'_>) -> io::Result<()> {
        (self.answer)(request, reply)
    }
}
