//! The certificates that are believed.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where systems keep the certificates of all authorities that they trust, in one file.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// A longer file of certificates is not read, in bytes.
const LONGEST: u64 = 16 << 20;

/// The authorities of a file, or those that the system trusts.
pub(super) fn authorities(file: Option<&Path>, options: &str) -> Result<RootCertStore, String> {
    let path = match file {
        Some(path) => path.to_owned(),
        None => system(options)?,
    };
    let shown = path.display();
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
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("{shown}: {error}"))?;
        match (roots.add(certificate), file) {
            (Err(error), Some(_)) => return Err(format!("{shown}: a certificate cannot be used: {error}")),
            // The system may trust certificates of kinds that are not known here.
            (Ok(()), _) | (Err(_), None) => {}
        }
    }
    match roots.is_empty() {
        true => Err(format!("{shown}: there is no certificate in it")),
        false => Ok(roots),
    }
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
