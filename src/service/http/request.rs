//! A request, as a handler sees it.

use super::wire::{Headers, RequestHead, Version, decode_component};
use crate::service::Peer;
use std::borrow::Cow;

/// A request with its whole body.
#[derive(Debug)]
pub struct Request<'r> {
    pub(super) head: RequestHead<'r>,
    pub(super) path: Cow<'r, str>,
    pub(super) body: &'r [u8],
    pub(super) peer: &'r Peer,
}

impl<'r> Request<'r> {
    /// The method: `GET`, `POST` and so on, as it was sent.
    pub fn method(&self) -> &'r str {
        self.head.method
    }

    /// The target of the request, as it was sent: `/a%20b?x=1`.
    pub fn target(&self) -> &'r str {
        self.head.target.as_str()
    }

    /// The path, decoded once. It has no `.` or `..` segments: a path above the root was answered 400.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query after the `?`, as it was sent.
    pub fn query(&self) -> Option<&'r str> {
        self.head.target.query()
    }

    /// Names and values of the query, decoded.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'r, str>, Cow<'r, str>)> + use<'r> {
        pairs(self.query().unwrap_or_default())
    }

    /// The first value of this name in the query, decoded.
    pub fn query_value(&self, name: &str) -> Option<Cow<'r, str>> {
        self.query_pairs().find(|(it, _)| it == name).map(|(_, value)| value)
    }

    /// All headers.
    pub fn headers(&self) -> Headers<'r> {
        self.head.headers
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&'r [u8]> {
        self.head.headers.get(name)
    }

    /// The host that the client asked for, with its port if it gave one.
    pub fn host(&self) -> Option<&'r str> {
        self.head.host
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Whether the client wants to switch to another protocol.
    pub(in crate::service) fn upgrades(&self) -> bool {
        self.head.upgrade
    }

    /// Whether a body comes with it, as far as the head says. One in chunks may turn out to be empty.
    pub(in crate::service) fn has_body(&self) -> bool {
        !self.head.body.is_empty()
    }

    /// The client.
    pub fn peer(&self) -> &'r Peer {
        self.peer
    }

    /// The body. It is empty if there is none, and in [`Streaming::head`](super::Streaming::head), which is called
    /// before the body comes.
    pub fn body(&self) -> &'r [u8] {
        self.body
    }

    /// The body as JSON. A body that is not JSON is an error, which is answered 400. (Feature `json`.)
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> std::io::Result<T> {
        serde_json::from_slice(self.body).map_err(|_| super::status(400))
    }

    /// Names and values of a form that was sent as the body (`application/x-www-form-urlencoded`), decoded. None if
    /// the body is something else.
    pub fn form(&self) -> impl Iterator<Item = (Cow<'r, str>, Cow<'r, str>)> + use<'r> {
        let form = self.header("content-type").is_some_and(|value| {
            let kind = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
            kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
        });
        let text = std::str::from_utf8(self.body).ok().filter(|_| form);
        pairs(text.unwrap_or_default())
    }

    /// The first value of this name in a form.
    pub fn form_value(&self, name: &str) -> Option<Cow<'r, str>> {
        self.form().find(|(it, _)| it == name).map(|(_, value)| value)
    }
}

fn pairs(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode_component(name), decode_component(value))
    })
}
