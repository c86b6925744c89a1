//! Why a backend was not reached.

use crate::reason::BackendFailure;
use std::borrow::Cow;

/// Why a backend was not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreached {
    pub(crate) failure: BackendFailure,
    /// More about it, for a person; may be empty.
    pub(crate) why: Cow<'static, str>,
}

impl Unreached {
    /// Its TLS failed.
    pub(crate) fn tls(why: impl Into<Cow<'static, str>>) -> Self {
        Self { failure: BackendFailure::Tls, why: why.into() }
    }
}

impl From<BackendFailure> for Unreached {
    fn from(failure: BackendFailure) -> Self {
        Self { failure, why: Cow::Borrowed("") }
    }
}
