//! How TLS is spoken with backends: whom the gate trusts, and for which name it asks.

use super::choices::{BackendTls, OPTIONS};
use super::engine::RustlsEngine;
use super::outcome::Broken;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tidegate_protocols::tls::{TlsChoices, config, server_name};

/// The most sessions that are kept for one name, so that the next connection can resume one; each takes up to this many bytes.
const SESSIONS: usize = 8;
const SESSION_BYTES: usize = 8 * 1024;

/// How TLS is spoken with the backends of one gate.
pub(crate) struct ToBackends {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

/// The name that a backend's certificate must be for.
pub(crate) type BackendTlsName = ServerName<'static>;

impl std::fmt::Debug for ToBackends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToBackends").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ToBackends {
    /// The most bytes that it keeps for each name.
    pub(crate) const NAME_BYTES: usize = SESSIONS * SESSION_BYTES;

    /// With `http`, backends are told that HTTP/1.1 will be spoken inside. `names` is how many names there are.
    pub(crate) fn new(chosen: &BackendTls, http: bool, names: usize) -> Result<Self, String> {
        let mut choices = TlsChoices::default();
        choices.authorities.clone_from(&chosen.authorities);
        choices.insecure = chosen.insecure;
        let mut config = config(&choices, OPTIONS)?;
        config.resumption = Resumption::in_memory_sessions(SESSIONS * names.max(1));
        if http {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let name = chosen.name.as_deref().map(|name| server_name(name, OPTIONS)).transpose()?;
        Ok(Self { config: Arc::new(config), name })
    }

    /// The name to ask for at this host. A Unix socket has no host.
    pub(crate) fn name(&self, host: Option<&str>) -> Result<BackendTlsName, String> {
        match (&self.name, host) {
            (Some(name), _) => Ok(name.clone()),
            (None, Some(host)) => server_name(host, OPTIONS),
            (None, None) => Err(format!(
                "a Unix socket has no name, and a certificate is for a name: give one with {OPTIONS}tls-name"
            )),
        }
    }

    /// The TLS of a new connection.
    pub(crate) fn engine(&self, name: &BackendTlsName) -> Result<RustlsEngine, Broken> {
        RustlsEngine::to_server(self.config.clone(), name.clone())
    }
}
