//! The protocol that the clients of a service speak.

/// The protocol that the clients of a service speak; where there is TLS, the one inside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// The service's own protocol, over a stream of bytes.
    #[default]
    Stream,
    /// HTTP.
    Http,
    /// WebSocket, which begins with HTTP.
    WebSocket,
}

impl Protocol {
    /// The scheme of the URLs that lead to the service.
    ///
    /// ```
    /// use tidegate::Protocol;
    ///
    /// assert_eq!((Protocol::Http.scheme(false), Protocol::Http.scheme(true)), ("http", "https"));
    /// ```
    pub const fn scheme(self, tls: bool) -> &'static str {
        match (self, tls) {
            (Protocol::Stream, false) => "tcp",
            (Protocol::Stream, true) => "tls",
            (Protocol::Http, false) => "http",
            (Protocol::Http, true) => "https",
            (Protocol::WebSocket, false) => "ws",
            (Protocol::WebSocket, true) => "wss",
        }
    }
}
