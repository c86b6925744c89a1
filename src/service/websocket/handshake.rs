//! The handshake that makes a WebSocket out of a request (RFC 6455, 4.2).

use super::session::WebSocketSession;
use super::socket::{Event, SocketState, WebSocket};
use super::{SocketService, WebSocketConfig, WebSockets};
use crate::contain::contain;
use crate::reason::{CloseReason, SocketHandshake};
use crate::service::http::{Answer, Request, Response, Upgraded};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// What the RFC has servers append to a client's key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a server answers to a client's key.
fn accept_key(key: &str) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID.as_bytes());
    base64(&hash.digest().bytes())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { digit as char } else { '=' });
        }
    }
    text
}

/// Whether a text is the base64 of 16 bytes.
fn is_key(text: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    text.len() == 24 && text[..22].iter().all(digit) && text.ends_with(b"==")
}

/// What a request lacks to become a WebSocket: what is counted, a status and a line.
fn refusal(request: &Request<'_>, service: &SocketService) -> Option<(SocketHandshake, u16, &'static str)> {
    let headers = request.headers();
    if !request.upgrades() || !headers.lists("upgrade", "websocket") {
        return Some((SocketHandshake::NotWebSocket, 426, "this is a WebSocket: connect with ws://"));
    }
    // A body that is still to come would be read as frames.
    if request.method() != "GET" || request.has_body() {
        return Some((SocketHandshake::Method, 400, "a WebSocket begins with GET, without a body"));
    }
    if headers.get("sec-websocket-version") != Some(b"13") {
        return Some((SocketHandshake::Version, 426, "the version of WebSockets here is 13"));
    }
    let mut keys = headers.all("sec-websocket-key");
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key) => {}
        _ => {
            let why = "there is no Sec-WebSocket-Key of 16 bytes in base64";
            return Some((SocketHandshake::Key, 400, why));
        }
    }
    let known = |origin: &[u8]| service.origins.iter().any(|it| it.as_bytes().eq_ignore_ascii_case(origin));
    // A client that is not a browser sends none.
    let welcome = service.origins.is_empty() || headers.all("origin").all(known);
    (!welcome).then_some((SocketHandshake::Origin, 403, "pages from there may not connect"))
}

impl Response<'_, '_> {
    /// Makes a WebSocket of the connection, if the request asks for one; otherwise says what it lacks: 426, 400, or
    /// 403 for a page that may not connect. So a service can have pages and sockets:
    ///
    /// ```no_run
    /// use tidegate::{http, websocket};
    /// use tidegate::websocket::Event;
    ///
    /// let echo = websocket(|event, socket| match event {
    ///     Event::Text(text) => socket.send(text),
    ///     _ => Ok(()),
    /// });
    /// let site = http(move |request, response| match request.path() {
    ///     "/echo" => response.websocket(request, &echo),
    ///     _ => Err(http::status(404)),
    /// });
    /// ```
    pub fn websocket(self, request: &Request<'_>, sockets: &WebSockets) -> io::Result<Answer> {
        let service = &*sockets.service;
        if let Some((what, status, why)) = refusal(request, service) {
            self.count(what);
            let refused = self.status(status).header("Sec-WebSocket-Version", "13");
            return refused.protocols("websocket").text(&format!("{why}\n"));
        }
        let opening = Some(opening(request, service));
        self.upgrade(|output, caller| {
            let config = service.config.unwrap_or_else(|| WebSocketConfig::of(output.context.limits));
            let counts = output.context.web.map(|web| web.counts.clone());
            let count = |handshake| counts.iter().for_each(|counts| counts.handshake(handshake));
            let mut state = SocketState::new(config, counts.clone());
            let mut socket =
                WebSocket { output: Some(output), caller: Some(caller), state: &mut state, opening };
            let open = || (service.on)(Event::Open(request), &mut socket).and_then(|()| socket.open());
            let opened = catch_unwind(AssertUnwindSafe(open));
            let begun = socket.opening.is_none();
            let mut session = WebSocketSession::new(service.on.clone(), state, Instant::now());
            match opened {
                Ok(opened) if begun => {
                    count(SocketHandshake::Opened);
                    (Some(Box::new(session)), opened)
                }
                Ok(opened) => {
                    // There was no socket, so nothing can be pushed to it.
                    count(SocketHandshake::Service);
                    session.shut();
                    (None, opened)
                }
                Err(panic) => {
                    // What the service has noted of this socket at its opening it can forget now.
                    count(SocketHandshake::Opened);
                    let _ = contain(|| session.finish(CloseReason::Panic));
                    resume_unwind(panic)
                }
            }
        })
    }
}

/// The answer that opens a socket.
fn opening(request: &Request<'_>, service: &SocketService) -> Vec<u8> {
    let key = request.header("sec-websocket-key").and_then(|key| std::str::from_utf8(key).ok());
    let key = accept_key(key.unwrap_or_default());
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {key}\r\n"
    );
    let offered = |protocol: &str| request.headers().lists("sec-websocket-protocol", protocol);
    if let Some(spoken) = service.protocols.iter().find(|protocol| offered(protocol)) {
        answer += &format!("Sec-WebSocket-Protocol: {spoken}\r\n");
    }
    answer += "\r\n";
    answer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_the_one_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_is_as_the_rfc_has_it() {
        for (text, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), coded);
        }
    }
}
