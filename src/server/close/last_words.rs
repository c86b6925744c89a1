//! The last words: the bytes that a client is sent when it is turned away, such as `--busy-reply` or an HTTP 503. They
//! also say whether the server has to read what that client still sends before it closes the connection.

/// The last words to a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastWords {
    /// Nothing is said where this is empty.
    pub(crate) text: Vec<u8>,
    /// Whether these are all the bytes that a client sends before it has an answer, where its protocol can tell. Then the
    /// connection is closed at once: no later byte of the client can turn the close into a reset.
    pub(crate) is_all: Option<fn(&[u8]) -> bool>,
}

impl LastWords {
    /// Words to a client that may go on sending.
    pub(crate) fn new(text: Vec<u8>) -> Self {
        Self { text, is_all: None }
    }
}
