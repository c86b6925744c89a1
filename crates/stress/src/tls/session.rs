//! One connection's TLS, and what all of a run share: whom they trust, and for which name they ask.

use super::trust::{Anybody, authorities};
use super::{Shaken, TlsChoices};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, Error};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// The most bytes of requests in one system call: more would wait inside, where nobody counts them.
const PIECE: usize = 64 << 10;

/// The TLS of a run.
pub(crate) struct Tls {
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
    pub(crate) fn new(choices: &TlsChoices, host: &str, protocol: Option<&str>) -> Result<Self, String> {
        let name = choices.name.as_deref().unwrap_or(host);
        // A zone is for this machine only.
        let name = name.split('%').next().unwrap_or_default();
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("`{name}` is no name that a certificate could have: use --tls-name"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("cannot speak TLS: {error}"))?;
        let mut config = match choices.insecure {
            true => {
                let anybody = Arc::new(Anybody::new(&provider));
                builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()
            }
            false => {
                let roots = authorities(choices.authorities.as_deref())?;
                builder.with_root_certificates(roots).with_no_client_auth()
            }
        };
        if !choices.resume {
            config.resumption = Resumption::disabled();
        }
        config.alpn_protocols = protocol.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self { config: Arc::new(config), name, why: Mutex::new(None) })
    }

    /// The TLS of a new connection.
    pub(crate) fn begin(&self) -> Option<Box<Secrets>> {
        match ClientConnection::new(self.config.clone(), self.name.clone()) {
            Ok(connection) => Some(Box::new(Secrets(connection))),
            Err(error) => {
                self.note(&error);
                None
            }
        }
    }

    /// Why the last handshake failed.
    pub(crate) fn why(&self) -> Option<String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, error: &Error) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(explain(error));
    }
}

/// Why a handshake failed, and what to do.
fn explain(error: &Error) -> String {
    match error {
        // One of the same name is trusted, and it was another who signed.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "nobody who is trusted here has signed its certificate: name a file with --cacert, or accept any \
             certificate with --insecure"
                .to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for another name: ask for that with --tls-name".to_owned(),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired: --insecure accepts it".to_owned()
        }
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        Error::AlertReceived(alert) => format!("it ended the TLS handshake with the alert {alert:?}"),
        other => format!("TLS failed: {other}"),
    }
}

/// The TLS of one connection.
#[derive(Debug)]
pub(crate) struct Secrets(ClientConnection);

impl Secrets {
    /// Moves the handshake on.
    pub(crate) fn shake(&mut self, tls: &Tls, fd: &OwnedFd) -> Shaken {
        loop {
            if let Err(error) = self.flush(fd) {
                return Shaken::Broken(error);
            }
            if !self.0.is_handshaking() {
                return Shaken::Done;
            }
            match self.0.read_tls(&mut Socket(fd)) {
                Ok(0) => return Shaken::Ended,
                Ok(_) => {}
                Err(error) => match errno(&error) {
                    Errno::AGAIN => return Shaken::Waits,
                    error => return Shaken::Broken(error),
                },
            }
            if let Err(error) = self.0.process_new_packets() {
                tls.note(&error);
                // The alert tells the server why.
                let _ = self.flush(fd);
                return Shaken::Failed;
            }
        }
    }

    /// Gives the kernel what it takes of what is to be sent.
    pub(crate) fn flush(&mut self, fd: &OwnedFd) -> Result<(), Errno> {
        while self.0.wants_write() {
            match self.0.write_tls(&mut Socket(fd)) {
                Ok(_) => {}
                Err(error) => match errno(&error) {
                    Errno::AGAIN => return Ok(()),
                    error => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Sends some bytes, once those before them have gone.
    pub(crate) fn send(&mut self, fd: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
        self.flush(fd)?;
        if self.0.wants_write() {
            return Err(Errno::AGAIN);
        }
        let piece = &bytes[..bytes.len().min(PIECE)];
        let taken = self.0.writer().write(piece).map_err(|error| errno(&error))?;
        self.flush(fd)?;
        Ok(taken)
    }

    /// Receives some bytes; 0 is the end, which the server has said. An end that it has not said is an error: somebody may
    /// have cut the connection.
    pub(crate) fn receive(&mut self, fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            match self.0.reader().read(buffer) {
                Ok(got) => return Ok(got),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Errno::CONNRESET),
            }
            self.0.read_tls(&mut Socket(fd)).map_err(|error| errno(&error))?;
            self.0.process_new_packets().map_err(|_| Errno::PROTO)?;
            self.flush(fd)?;
        }
    }

    /// Says that this is the end. A kernel that has no room for so few bytes has a server that does not read.
    pub(crate) fn end(&mut self, fd: &OwnedFd) {
        self.0.send_close_notify();
        let _ = self.flush(fd);
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::PROTO)
}

/// The kernel's side.
struct Socket<'a>(&'a OwnedFd);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = rustix::io::retry_on_intr(|| rustix::net::recv(self.0, &mut *buffer, RecvFlags::empty()));
        Ok(got?.0)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
