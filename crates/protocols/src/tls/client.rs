//! What a client of TLS needs before it has a connection: whom it trusts, for which name it asks, and words for what can go
//! wrong. `options` is what the names of the options begin with that choose it: `--`, or `--backend-`.

use super::TlsChoices;
use super::trust::{Anybody, authorities};
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, Error};
use std::sync::Arc;

/// The configuration of a client that chose this.
pub fn config(choices: &TlsChoices, options: &str) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot speak TLS: {error}"))?;
    if choices.insecure {
        let anybody = Arc::new(Anybody::new(&provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth());
    }
    let roots = authorities(choices.authorities.as_deref(), options)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The name that a server's certificate must be for, from the name or address of its host.
pub fn server_name(host: &str, options: &str) -> Result<ServerName<'static>, String> {
    // A zone is for this machine only.
    let name = host.split('%').next().unwrap_or_default();
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("no certificate can be for the name `{name}`: use {options}tls-name"))
}

/// Why a handshake failed, and what to do.
pub fn explain(error: &Error, options: &str) -> String {
    match error {
        // One of the same name is trusted, and it was another who signed.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            format!(
                "no trusted authority has signed its certificate: name a file with {options}cacert, or accept \
                 any certificate with {options}insecure"
            )
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("its certificate is for another name: give that name with {options}tls-name"),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("its certificate has expired: {options}insecure accepts it")
        }
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        Error::AlertReceived(alert) => format!("it ended the TLS handshake with the alert {alert:?}"),
        other => format!("TLS failed: {other}"),
    }
}
