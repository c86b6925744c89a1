//! How a listener speaks TLS: its certificates, the versions and protocols that it offers.

use super::certificates::{Certificates, Identity, PemOrigin};
use super::engine::RustlsEngine;
use super::error::TlsError;
use super::facts::TlsVersion;
use super::outcome::Broken;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::NoServerSessionStorage;
use std::path::Path;
use std::sync::Arc;

/// How a listener speaks TLS: with which certificates, from which version on, and which protocols it offers inside
/// (ALPN). See [`Listen::tls`](crate::Listen::tls).
///
/// A clone has the same certificates: when one of them [reloads](Self::reload) its files, all have the new ones.
///
/// ```no_run
/// use tidegate::{Echo, Listen, Server, Tls};
///
/// let tls = Tls::files("/etc/site/cert.pem", "/etc/site/key.pem")?;
/// let listen = Listen::new("0.0.0.0:5443", Echo)?.tls(tls.clone());
/// let handle = Server::builder().listener(listen).bind()?.serve()?;
/// // ... when the files were renewed:
/// tls.reload()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    certificates: Arc<Certificates>,
    min_version: TlsVersion,
    protocols: Vec<Vec<u8>>,
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("min_version", &self.min_version).finish_non_exhaustive()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

impl Tls {
    /// With the certificate (and the chain that leads to a known authority) in one file, and its private key in
    /// another, both in PEM.
    ///
    /// # Errors
    ///
    /// A file cannot be read, has not in it what it should, the key does not belong to the certificate, or that is not
    /// valid now.
    pub fn files(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TlsError> {
        Self::new(vec![Identity::read(certificate.as_ref(), key.as_ref(), &provider())?])
    }

    /// The same with texts in PEM in place of files. They cannot be reloaded.
    ///
    /// # Errors
    ///
    /// As [`files`](Self::files).
    pub fn pem(certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        let (certificate, key) = (certificate.as_ref(), key.as_ref());
        Self::new(vec![Identity::parse(certificate, key, PemOrigin::Given, &provider())?])
    }

    /// One more certificate, for other names: a client that asks for a name (SNI) is shown the first certificate that
    /// is for it. The first of all is for the clients that ask for none, or for an unknown one.
    ///
    /// # Errors
    ///
    /// As [`files`](Self::files).
    pub fn and_files(self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TlsError> {
        let more = Identity::read(certificate.as_ref(), key.as_ref(), &provider())?;
        let all: Vec<_> = self.certificates.current().iter().cloned().chain([more]).collect();
        let certificates = Arc::new(Certificates::new(all));
        let config = config(&certificates, self.min_version, &self.protocols)?;
        Ok(Self { certificates, config, ..self })
    }

    fn new(identities: Vec<Identity>) -> Result<Self, TlsError> {
        let (certificates, min_version) = (Arc::new(Certificates::new(identities)), TlsVersion::V1_2);
        let config = config(&certificates, min_version, &[])?;
        Ok(Self { certificates, min_version, protocols: Vec::new(), config })
    }

    /// The oldest version that is spoken. Default: TLS 1.2.
    ///
    /// # Errors
    ///
    /// The system has no random numbers for the new configuration.
    pub fn min_version(self, min_version: TlsVersion) -> Result<Self, TlsError> {
        let config = config(&self.certificates, min_version, &self.protocols)?;
        Ok(Self { min_version, config, ..self })
    }

    /// The protocols that are offered inside, the best first: `["http/1.1"]` for HTTP. A client that offers only
    /// others is refused; one that offers none is served. Default: none, and what clients offer is not looked at.
    ///
    /// # Errors
    ///
    /// The system has no random numbers for the new configuration.
    pub fn protocols<P: AsRef<[u8]>>(self, protocols: impl IntoIterator<Item = P>) -> Result<Self, TlsError> {
        let protocols: Vec<_> = protocols.into_iter().map(|protocol| protocol.as_ref().to_vec()).collect();
        let config = config(&self.certificates, self.min_version, &protocols)?;
        Ok(Self { protocols, config, ..self })
    }

    /// Reads the files again. Handshakes from now on have what is in them, connections go on as they are. Returns
    /// whether a certificate is another one now.
    ///
    /// # Errors
    ///
    /// As [`files`](Self::files); then all certificates stay as they were.
    pub fn reload(&self) -> Result<bool, TlsError> {
        self.certificates.reload(&provider())
    }

    /// Handshakes from now on show the certificates of another one.
    #[cfg_attr(
        not(feature = "cli"),
        allow(dead_code, reason = "the program reads new files with a new plan")
    )]
    pub(crate) fn show_certificates_of(&self, other: &Self) {
        self.certificates.replace_by(&other.certificates);
    }

    /// Whether the certificates are the same.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program compares plans"))]
    pub(crate) fn shows_the_same(&self, other: &Self) -> bool {
        self.certificates.are_those_of(&other.certificates)
    }

    /// Whether all but the certificates is the same.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program compares plans"))]
    pub(crate) fn speaks_like(&self, other: &Self) -> bool {
        self.min_version == other.min_version && self.protocols == other.protocols
    }

    /// When the first of the certificates expires, in seconds since the Unix epoch.
    pub fn expires_at(&self) -> u64 {
        self.certificates.expires_at()
    }

    /// The TLS of a new connection.
    pub(crate) fn engine(&self) -> Result<RustlsEngine, Broken> {
        RustlsEngine::new(self.config.clone())
    }
}

fn config(
    certificates: &Arc<Certificates>,
    min_version: TlsVersion,
    protocols: &[Vec<u8>],
) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |error: rustls::Error| TlsError(format!("TLS cannot be set up: {error}"));
    let versions: &[&rustls::SupportedProtocolVersion] = match min_version {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(versions).map_err(failed)?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificates.clone());
    config.alpn_protocols = protocols.to_vec();
    // A session is resumed by what its client keeps, so that the server keeps nothing for clients that have left.
    config.ticketer = Ticketer::new().map_err(failed)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // What is sent with the first message can be a copy of what another has recorded: it is never taken.
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn pair(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn why(certificate: &str, key: &str) -> String {
        Tls::pem(certificate, key).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_one_clear_line() {
        let (good, key) = pair(|_| {});
        let (other, other_key) = pair(|_| {});
        assert!(Tls::pem(&good, &key).is_ok() && Tls::pem(&other, &other_key).is_ok());
        let expired = pair(|params| params.not_after = date_time_ymd(2020, 2, 29));
        let early = pair(|params| params.not_before = date_time_ymd(4000, 1, 1));
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (said, expected) in [
            (why(&good, &other_key), "does not belong to the certificate"),
            (why(&expired.0, &expired.1), "expired on 2020-02-29: renew it"),
            (why(&early.0, &early.1), "is not valid before 4000-01-01, and today is 2"),
            (why(&key, &key), "there is no certificate in what was given"),
            (why(&good, &good), "there is no private key in what was given"),
            (why(&good, encrypted), "is encrypted: decrypt it"),
            (why("", ""), "there is no certificate"),
            (
                why("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key),
                "is not one of X.509",
            ),
            (why("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &key), "cannot be read"),
        ] {
            assert!(said.contains(expected) && !said.contains('\n'), "{said} / {expected}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_had_is_named() {
        let said = Tls::files("/nowhere/cert.pem", "/nowhere/key.pem").unwrap_err().to_string();
        assert!(said.starts_with("cannot read /nowhere/cert.pem: "), "{said}");
        let said = Tls::files("/", "/").unwrap_err().to_string();
        assert_eq!(said, "cannot read /: it is not a file");
    }
}
