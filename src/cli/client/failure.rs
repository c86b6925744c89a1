//! Why a conversation with the server stopped early.

/// Why the conversation ended before its end.
pub(super) enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// Something failed on the way.
    Failed(String),
    /// The reader of standard output has gone, so nobody wants the rest.
    ReaderGone,
}
