//! One connection's TLS, and what all connections of a client share: whom they trust, and for which name they ask.

use super::client::{config, server_name};
use super::words::explain;
use super::{Shaken, TlsChoices};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Error};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// What the options begin with that a person may have to change.
const OPTIONS: &str = "--";

/// The most bytes of requests in one system call: more would wait inside, where nobody counts them.
const PIECE: usize = 64 << 10;

/// What all connections to one server share.
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// Why the last handshake failed.
    why: Mutex<Option<String>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tls {
    /// TLS with the host of a URL, which is told that this protocol will be spoken inside.
    pub fn new(choices: &TlsChoices, host: &str, protocol: Option<&str>) -> Result<Self, String> {
        let name = server_name(choices.name.as_deref().unwrap_or(host), OPTIONS)?;
        let mut config = config(choices, OPTIONS)?;
        if !choices.resume {
            config.resumption = Resumption::disabled();
        }
        config.alpn_protocols = protocol.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self { config: Arc::new(config), name, why: Mutex::new(None) })
    }

    /// The TLS of a new connection.
    pub fn begin(&self) -> Option<Box<Session>> {
        match ClientConnection::new(self.config.clone(), self.name.clone()) {
            Ok(connection) => Some(Box::new(Session(connection))),
            Err(error) => {
                self.note(&error);
                None
            }
        }
    }

    /// Why the last handshake failed.
    pub fn why(&self) -> Option<String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, error: &Error) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(explain(error, OPTIONS));
    }
}

/// The TLS of one connection. Its methods work on the connection's socket, which does not block.
#[derive(Debug)]
pub struct Session(ClientConnection);

impl Session {
    /// Moves the handshake on.
    pub fn shake(&mut self, tls: &Tls, socket: &mut (impl Read + Write)) -> Shaken {
        loop {
            if let Err(error) = self.flush(socket) {
                return Shaken::Broken(error);
            }
            if !self.0.is_handshaking() {
                return Shaken::Done;
            }
            match self.0.read_tls(socket) {
                Ok(0) => return Shaken::Ended,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Shaken::Waits,
                Err(error) => return Shaken::Broken(error),
            }
            if let Err(error) = self.0.process_new_packets() {
                tls.note(&error);
                // The alert tells the server why.
                let _ = self.flush(socket);
                return Shaken::Failed;
            }
        }
    }

    /// Gives the kernel what it takes of what is to be sent.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.0.wants_write() {
            match self.0.write_tls(socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends some bytes, once those before them have gone: how many were taken.
    pub fn send(&mut self, socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        if self.0.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let piece = &bytes[..bytes.len().min(PIECE)];
        let taken = self.0.writer().write(piece)?;
        self.flush(socket)?;
        Ok(taken)
    }

    /// Receives some bytes; 0 is the end, which the server has said. An end that it has not said is the error
    /// `UnexpectedEof`: somebody may have cut the connection. What breaks TLS is `InvalidData`.
    pub fn receive(&mut self, socket: &mut (impl Read + Write), buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            self.0.read_tls(socket)?;
            if let Err(error) = self.0.process_new_packets() {
                // The alert tells the server why.
                let _ = self.flush(socket);
                return Err(io::Error::new(io::ErrorKind::InvalidData, explain(&error, OPTIONS)));
            }
            self.flush(socket)?;
        }
    }

    /// Whether bytes have been decrypted that were not received yet: the kernel may have nothing to report.
    pub fn has_input(&mut self) -> bool {
        self.0.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }

    /// Whether something that was sent waits for room in the kernel.
    pub fn has_output(&self) -> bool {
        self.0.wants_write()
    }

    /// Says that this is the end. A kernel that has no room for so few bytes has a server that does not read.
    pub fn end(&mut self, socket: &mut impl Write) {
        self.0.send_close_notify();
        let _ = self.flush(socket);
    }
}
