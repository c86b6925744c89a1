//! The certificates that are believed.

use super::words::{in_words, is_an_authority};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where systems keep the certificates of all authorities that they trust, in one file.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// A longer file of certificates is not read, in bytes.
const LONGEST: u64 = 16 << 20;

/// The certificates that are trusted.
pub(super) struct Trusted {
    roots: RootCertStore,
    /// Those of a file that somebody named: a server that shows one of them is trusted too.
    held: Vec<CertificateDer<'static>>,
}

impl Trusted {
    /// The authorities of a file, or those that the system trusts.
    pub(super) fn read(file: Option<&Path>, options: &str) -> Result<Self, String> {
        let (shown, pem) = certificates(file, options)?;
        let mut trusted = Self { roots: RootCertStore::empty(), held: Vec::new() };
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate =
                certificate.map_err(|error| format!("{shown}: it is no certificate in PEM: {error}"))?;
            match (trusted.roots.add(certificate.clone()), file) {
                (Err(error), Some(_)) => {
                    return Err(format!("{shown}: a certificate cannot be used: {}", in_words(&error)));
                }
                (Ok(()), Some(_)) => trusted.held.push(certificate),
                // The system may trust certificates of kinds that are not known here.
                (Ok(()) | Err(_), None) => {}
            }
        }
        match trusted.roots.is_empty() {
            true => Err(format!(
                "{shown}: there is no certificate in it: it begins with -----BEGIN CERTIFICATE-----"
            )),
            false => Ok(trusted),
        }
    }

    /// What looks at the certificates that servers show.
    pub(super) fn verifier(self, provider: &Arc<CryptoProvider>) -> Result<TrustedOnly, String> {
        let roots = WebPkiServerVerifier::builder_with_provider(self.roots.into(), provider.clone());
        let signed = roots.build().map_err(|error| format!("cannot speak TLS: {error}"))?;
        Ok(TrustedOnly { signed, held: self.held })
    }
}

/// What is in the file of certificates, and its name.
fn certificates(file: Option<&Path>, options: &str) -> Result<(String, Vec<u8>), String> {
    let path = match file {
        Some(path) => path.to_owned(),
        None => system(options)?,
    };
    let shown = path.display().to_string();
    let (opened, first) =
        tidegate_units::open_in_time(&path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let mut pem = first;
    opened
        .take(LONGEST + 1)
        .read_to_end(&mut pem)
        .map_err(|error| format!("cannot read {shown}: {error}"))?;
    if pem.len() as u64 > LONGEST {
        return Err(format!("{shown}: it has more than {LONGEST} bytes"));
    }
    Ok((shown, pem))
}

fn system(options: &str) -> Result<PathBuf, String> {
    let named = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let known = SYSTEM.iter().map(PathBuf::from).find(|path| path.exists());
    named.or(known).ok_or_else(|| {
        format!(
            "this system has no file of trusted certificates: name one with {options}cacert, or accept any with \
             {options}insecure"
        )
    })
}

/// Believes a certificate that a trusted authority has signed, and one that is trusted itself: openssl makes self-signed
/// certificates that are authorities too, and rustls accepts none of these as a server's own.
#[derive(Debug)]
pub(super) struct TrustedOnly {
    signed: Arc<WebPkiServerVerifier>,
    held: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for TrustedOnly {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.signed.verify_server_cert(shown, chain, name, ocsp, now) {
            // Its time was looked at before that, and its name was not.
            Err(error) if is_an_authority(&error) && self.held.contains(shown) => {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// Believes every certificate, and still wants its owner's signature.
#[derive(Debug)]
pub(super) struct Anybody(WebPkiSupportedAlgorithms);

impl Anybody {
    pub(super) fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
