//! TLS between a client and its socket.

#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
mod session;
#[cfg(feature = "tls")]
mod trust;
#[cfg(not(feature = "tls"))]
mod without;
#[cfg(feature = "tls")]
mod words;

#[cfg(feature = "tls")]
pub use client::{config, server_name};
#[cfg(feature = "tls")]
pub use session::{Session, Tls};
#[cfg(not(feature = "tls"))]
pub use without::{NoSession as Session, NoTls as Tls};
#[cfg(feature = "tls")]
pub use words::{explain, in_words};

use std::io;
use std::path::PathBuf;

/// How TLS is spoken, where the target speaks it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsChoices {
    /// A file of certificates, in PEM, whose holders are trusted in place of those that the system trusts.
    pub authorities: Option<PathBuf>,
    /// Any certificate is accepted.
    pub insecure: bool,
    /// The name to ask for, and to find in the certificate; default the host of the URL.
    pub name: Option<String>,
    /// Connections resume the session of one before, if the server lets them; default not: each makes a whole handshake.
    pub resume: bool,
}

impl TlsChoices {
    /// Whether nothing was chosen.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What became of a handshake.
#[derive(Debug)]
#[must_use]
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "nothing makes one without TLS"))]
pub enum Shaken {
    /// It is complete.
    Done,
    /// It waits for the server, or for room in the kernel.
    Waits,
    /// The server ended the connection.
    Ended,
    /// The socket failed.
    Broken(io::Error),
    /// It failed, and [`Tls::why`] has the reason.
    Failed,
}
