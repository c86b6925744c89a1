//! A client that says what it expects.

use super::PATIENCE;
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How a connection ended, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// FIN: the end of the stream.
    Fin,
    /// RST.
    Reset,
}

/// `None`: it was reset before it knew that it was connected.
pub(crate) struct Client(Option<TcpStream>);

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address, PATIENCE).expect("the server can be reached")
    }

    pub(crate) fn try_connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        Self::of(TcpStream::connect_timeout(&address, timeout))
    }

    /// Connects from an address of this machine.
    #[track_caller]
    pub(crate) fn from(source: &str, address: SocketAddr) -> Self {
        Self::try_from(source, address).expect("the server can be reached")
    }

    pub(crate) fn try_from(source: &str, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        let source = SocketAddr::new(source.parse().expect("an address"), 0);
        socket.bind(&source.into())?;
        let connected = socket.connect_timeout(&address.into(), PATIENCE);
        Self::of(connected.map(|()| socket.into()))
    }

    /// Connects with a small receive buffer: what it does not read piles up at the server.
    #[track_caller]
    pub(crate) fn narrow(address: SocketAddr) -> Self {
        Self::narrow_from(None, address)
    }

    /// The same, from an address of this machine.
    #[track_caller]
    pub(crate) fn narrow_from(source: Option<&str>, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into()).unwrap();
        }
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        let connected = socket.connect_timeout(&address.into(), PATIENCE);
        Self::of(connected.map(|()| socket.into())).expect("the server can be reached")
    }

    fn of(connected: io::Result<TcpStream>) -> io::Result<Self> {
        let stream = match connected {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Self(None)),
            connected => connected?,
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Ok(Self(Some(stream)))
    }

    /// Whether it was reset before it knew that it was connected.
    pub(crate) fn was_reset(&self) -> bool {
        self.0.is_none()
    }

    #[track_caller]
    pub(crate) fn stream(&self) -> &TcpStream {
        self.0.as_ref().expect("it was not reset while it connected")
    }

    #[track_caller]
    pub(crate) fn say(&mut self, words: impl AsRef<[u8]>) -> &mut Self {
        self.stream().write_all(words.as_ref()).expect("the server takes it");
        self
    }

    /// Says it, whether or not anybody listens.
    pub(crate) fn mutter(&mut self, words: impl AsRef<[u8]>) -> &mut Self {
        let said = self.0.as_ref().map(|mut stream| stream.write_all(words.as_ref()));
        // The system tells of a reset once: who reads after that sees an ordinary end.
        if said.is_some_and(|said| said.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)) {
            self.0 = None;
        }
        self
    }

    #[track_caller]
    pub(crate) fn hear(&mut self, words: impl AsRef<[u8]>) -> &mut Self {
        let words = words.as_ref();
        let mut heard = vec![0; words.len()];
        self.stream().read_exact(&mut heard).expect("the server answers");
        let text = String::from_utf8_lossy;
        assert!(heard == words, "heard `{}`, not `{}`", text(&heard), text(words));
        self
    }

    /// Whether an answer of this length comes, and not an end.
    pub(crate) fn heard(&mut self, answer: &mut [u8]) -> bool {
        self.0.as_ref().is_some_and(|mut stream| stream.read_exact(answer).is_ok())
    }

    /// Says that it will say no more.
    pub(crate) fn finish(&mut self) -> &mut Self {
        self.stream().shutdown(Shutdown::Write).expect("connected");
        self
    }

    /// Says that it will say no more, to whom may have left.
    pub(crate) fn finish_quietly(&mut self) -> &mut Self {
        let _ = self.0.as_ref().map(|stream| stream.shutdown(Shutdown::Write));
        self
    }

    /// What comes until the end, and how that looked.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        let Some(mut stream) = self.0.as_ref() else {
            return (Vec::new(), End::Reset);
        };
        let mut all = Vec::new();
        let mut buffer = [0; 64 * 1024];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return (all, End::Fin),
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return (all, End::Reset),
                Err(error) => panic!("neither an answer nor an end: {error}"),
            }
        }
    }

    /// The end, before which nothing comes.
    #[track_caller]
    pub(crate) fn end(&mut self) -> End {
        let (said, end) = self.rest();
        assert!(said.is_empty(), "before the end came `{}`", String::from_utf8_lossy(&said));
        end
    }

    /// Leaves with RST.
    #[track_caller]
    pub(crate) fn reset(self) {
        socket2::SockRef::from(self.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// From here on its leaving is an RST.
    pub(crate) fn reset_quietly(&mut self) {
        let _ = self.0.as_ref().map(|stream| socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)));
    }
}
