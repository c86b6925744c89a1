//! The errors that end a run without a report.

/// Why a run could not be made, in one line for a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The options say something that cannot be done, or that contradicts itself.
    #[error("{0}")]
    Usage(String),
    /// The run could not begin, or could not go on.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Error::Usage(message.into())
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Error::Failed(message.into())
    }
}
