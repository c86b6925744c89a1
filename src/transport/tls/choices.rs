//! What a person chooses about TLS with backends.

use std::path::PathBuf;

/// What the options of the program begin with that choose it.
#[cfg(feature = "tls")]
pub(super) const OPTIONS: &str = "--backend-";

/// How a gate speaks TLS with its backends; see [`ProxyBuilder::tls`](crate::ProxyBuilder::tls). Start from
/// [`BackendTls::default`] and change the fields that must differ.
///
/// A backend must prove that it is who it is taken for: its certificate must be for its name, be valid today, and be signed by
/// an authority that is trusted. A backend that cannot do that is treated like one that refuses the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendTls {
    /// A file of certificates, in PEM: only who holds one of these, or has a certificate that was signed with one, is
    /// trusted. Default: the authorities that the system trusts.
    pub authorities: Option<PathBuf>,
    /// The name to ask for (SNI), and to find in the certificate. Default: the host of each backend.
    pub name: Option<String>,
    /// Dangerous: any certificate is accepted, whoever shows it. The traffic is encrypted, but anybody between the gate and
    /// the backend can pose as the backend and read and change all of it. Default: false.
    pub insecure: bool,
}

impl BackendTls {
    /// The authorities that are trusted, for a person.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program shows it"))]
    pub(crate) fn trusted(&self) -> String {
        match &self.authorities {
            Some(file) => file.display().to_string(),
            None => "system".to_owned(),
        }
    }
}
