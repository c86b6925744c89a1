//! TLS between a client of the load and its socket.

#[cfg(feature = "tls")]
mod session;
#[cfg(feature = "tls")]
mod trust;
#[cfg(not(feature = "tls"))]
mod without;

#[cfg(feature = "tls")]
pub(crate) use session::{Secrets, Tls};
#[cfg(not(feature = "tls"))]
pub(crate) use without::{NoSecrets as Secrets, NoTls as Tls};

use rustix::io::Errno;
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
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What became of a handshake.
#[derive(Debug)]
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "nothing makes one without TLS"))]
pub(crate) enum Shaken {
    /// It is complete.
    Done,
    /// It waits for the server.
    Waits,
    /// The server ended the connection.
    Ended,
    /// A system call failed.
    Broken(Errno),
    /// It failed, and the target keeps the reason.
    Failed,
}
