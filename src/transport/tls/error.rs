//! Errors in the TLS settings of a listener.

/// Why a listener cannot speak TLS: one line for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub(super) String);
