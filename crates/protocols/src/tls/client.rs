//! What a client of TLS needs before it has a connection: whom it trusts, and for which name it asks. `options` is what the names of the options begin with that choose it: `--`, or `--backend-`.

use super::TlsChoices;
use super::trust::{Anybody, Trusted};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
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
    let trusted = Trusted::read(choices.authorities.as_deref(), options)?.verifier(&provider)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(trusted)).with_no_client_auth())
}

/// The name that a server's certificate must be for, from the name or address of its host.
pub fn server_name(host: &str, options: &str) -> Result<ServerName<'static>, String> {
    // A zone is for this machine only.
    let name = host.split('%').next().unwrap_or_default();
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("no certificate can be for the name `{name}`: use {options}tls-name"))
}
