//! Messages to be sent, to one socket or to many.

use super::frame::{Opcode, frame_head};
use std::sync::Arc;

/// A message to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message<'m> {
    /// Text.
    Text(&'m str),
    /// Bytes.
    Binary(&'m [u8]),
}

impl<'m> Message<'m> {
    pub(super) fn parts(self) -> (Opcode, &'m [u8]) {
        match self {
            Message::Text(text) => (Opcode::Text, text.as_bytes()),
            Message::Binary(bytes) => (Opcode::Binary, bytes),
        }
    }
}

impl<'m> From<&'m str> for Message<'m> {
    fn from(text: &'m str) -> Self {
        Message::Text(text)
    }
}

impl<'m> From<&'m String> for Message<'m> {
    fn from(text: &'m String) -> Self {
        Message::Text(text)
    }
}

impl<'m> From<&'m [u8]> for Message<'m> {
    fn from(bytes: &'m [u8]) -> Self {
        Message::Binary(bytes)
    }
}

/// A message for many sockets. It is in memory once, however many clients have yet to read it.
#[derive(Clone, Debug)]
pub struct Prepared(pub(super) Arc<[u8]>);

impl<'m, M: Into<Message<'m>>> From<M> for Prepared {
    fn from(message: M) -> Self {
        let (opcode, payload) = message.into().parts();
        Prepared([frame_head(opcode, payload.len()).as_ref(), payload].concat().into())
    }
}
