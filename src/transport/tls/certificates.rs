//! The certificates of a listener: read from files, checked, chosen by the name that a client asks for, and replaced
//! while the server serves.

use super::error::TlsError;
use super::validity::{Validity, date};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;
use tidegate_protocols::tls::in_words;

/// A file that is longer has something else in it.
const FILE_MAX: u64 = 1024 * 1024;

thread_local! {
    /// The name that the client asked for whose handshake this thread goes on with: rustls tells it here only.
    static ASKED: Cell<Option<String>> = const { Cell::new(None) };
}

/// The name that was asked for since the last call.
pub(super) fn take_asked_name() -> Option<String> {
    ASKED.take()
}

/// Where a certificate and its key come from.
#[derive(Clone, Debug)]
pub(super) enum PemOrigin {
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
    /// Texts that were given; nothing can be read again.
    Given,
}

impl PemOrigin {
    fn name(&self) -> String {
        match self {
            PemOrigin::Files { certificate, .. } => certificate.display().to_string(),
            PemOrigin::Given => "what was given".to_owned(),
        }
    }

    fn key_name(&self) -> String {
        match self {
            PemOrigin::Files { key, .. } => key.display().to_string(),
            PemOrigin::Given => "what was given".to_owned(),
        }
    }
}

/// One certificate with its chain and its key.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    origin: PemOrigin,
    key: Arc<CertifiedKey>,
    /// In seconds since the Unix epoch.
    expires_at: i64,
}

impl Identity {
    /// Reads and checks two files.
    pub(super) fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let (chain, secret) = (read(certificate)?, read(key)?);
        let origin = PemOrigin::Files { certificate: certificate.to_owned(), key: key.to_owned() };
        Self::parse(&chain, &secret, origin, provider)
    }

    /// Reads and checks two texts in PEM.
    pub(super) fn parse(
        chain: &[u8],
        key: &[u8],
        origin: PemOrigin,
        provider: &CryptoProvider,
    ) -> Result<Self, TlsError> {
        let name = origin.name();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError(format!("the certificate in {name} cannot be read: {error}")))?;
        let Some(first) = chain.first() else {
            return Err(TlsError(format!(
                "there is no certificate in {name}: it begins with -----BEGIN CERTIFICATE-----"
            )));
        };
        let expires_at = check_validity(first, &name)?;
        let key = private_key(key, &origin)?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError(format!(
                "the private key in {} does not belong to the certificate in {name}",
                origin.key_name()
            )),
            error => TlsError(format!(
                "the certificate in {name} cannot be used with its key: {}",
                in_words(&error)
            )),
        })?;
        Ok(Self { origin, key: Arc::new(key), expires_at })
    }

    /// The same read again; as it is if it did not come from files.
    fn again(&self, provider: &CryptoProvider) -> Result<Self, TlsError> {
        match &self.origin {
            PemOrigin::Files { certificate, key } => Self::read(certificate, key, provider),
            PemOrigin::Given => Ok(self.clone()),
        }
    }

    /// Whether it is for this name.
    fn is_for(&self, name: &ServerName<'_>) -> bool {
        let certificate = self.key.end_entity_cert().and_then(ParsedCertificate::try_from);
        certificate.is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
    }
}

/// Checks that a certificate is valid now; when it expires.
fn check_validity(certificate: &[u8], name: &str) -> Result<i64, TlsError> {
    let validity = Validity::of(certificate)
        .ok_or_else(|| TlsError(format!("the certificate in {name} is not one of X.509")))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    if now > validity.until {
        return Err(TlsError(format!(
            "the certificate in {name} expired on {}: renew it",
            date(validity.until)
        )));
    }
    if now < validity.from {
        return Err(TlsError(format!(
            "the certificate in {name} is not valid before {}, and today is {} by this machine's clock",
            date(validity.from),
            date(now)
        )));
    }
    Ok(validity.until)
}

fn private_key(text: &[u8], origin: &PemOrigin) -> Result<PrivateKeyDer<'static>, TlsError> {
    let name = origin.key_name();
    let encrypted = memchr::memmem::find(text, b"ENCRYPTED").is_some();
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        TlsError(match error {
            _ if encrypted => {
                format!(
                    "the private key in {name} is encrypted: decrypt it with openssl pkey -in FILE -out FILE"
                )
            }
            rustls::pki_types::pem::Error::NoItemsFound => {
                format!("there is no private key in {name}: it begins with -----BEGIN PRIVATE KEY-----")
            }
            error => format!("the private key in {name} cannot be read: {error}"),
        })
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |why: &dyn std::fmt::Display| TlsError(format!("cannot read {}: {why}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| failed(&error))?;
    if !metadata.is_file() {
        // To open a pipe would wait for a program that writes to it.
        return Err(failed(&"it is not a file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(failed(&format_args!("it has more than {FILE_MAX} bytes")));
    }
    Ok(bytes)
}

/// The certificates that are in use, the first for clients that ask for no name or for one that none is for.
#[derive(Debug)]
pub(super) struct Certificates(RwLock<Arc<[Identity]>>);

impl Certificates {
    pub(super) fn new(identities: impl Into<Arc<[Identity]>>) -> Self {
        Self(RwLock::new(identities.into()))
    }

    pub(super) fn current(&self) -> Arc<[Identity]> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads all files again. On any error all stay as they are. Whether a certificate is another one now.
    pub(super) fn reload(&self, provider: &CryptoProvider) -> Result<bool, TlsError> {
        let current = self.current();
        let read: Vec<_> =
            current.iter().map(|identity| identity.again(provider)).collect::<Result<_, _>>()?;
        let changed = read.iter().zip(&*current).any(|(new, old)| new.key.cert != old.key.cert);
        if changed {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = read.into();
        }
        Ok(changed)
    }

    /// Whether the certificates of another one are the same.
    pub(super) fn are_those_of(&self, other: &Self) -> bool {
        let certificates = |all: &[Identity]| all.iter().map(|one| one.key.cert.clone()).collect::<Vec<_>>();
        certificates(&other.current()) == certificates(&self.current())
    }

    /// Those of another one take the place of all. Do so also where they are the same: their keys may be others, or their
    /// files.
    pub(super) fn replace_by(&self, other: &Self) {
        let new = other.current();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// When the first of them expires, in seconds since the Unix epoch.
    pub(super) fn expires_at(&self) -> u64 {
        let first = self.current().iter().map(|identity| identity.expires_at).min();
        first.and_then(|at| u64::try_from(at).ok()).unwrap_or(0)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        ASKED.set(name.map(str::to_ascii_lowercase));
        let current = self.current();
        let fits = |identity: &&Identity| identity.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = match (&*current, name.and_then(|name| ServerName::try_from(name).ok())) {
            ([_], _) | (_, None) => None,
            (all, Some(name)) => all.iter().filter(|identity| identity.is_for(&name)).find(fits),
        };
        let identity = named.or_else(|| current.iter().find(fits)).or(current.first())?;
        Some(identity.key.clone())
    }
}
