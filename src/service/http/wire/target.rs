//! What a request asks for: its target, its path, its query.

use super::Refused;
use super::seek::seek;
use std::borrow::Cow;

/// The forms of a target (RFC 9112, 3.2). No other case will be added, so a `match` needs no wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`, as it is sent to a proxy.
    Absolute,
    /// `host:port`, with CONNECT.
    Authority,
    /// `*`, with OPTIONS.
    Asterisk,
}

/// A request's target, taken apart and not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'h> {
    raw: &'h str,
    form: Form,
    authority: Option<&'h str>,
    path: &'h str,
    query: Option<&'h str>,
}

impl<'h> Target<'h> {
    /// Takes a target apart. It is refused if it has anything but visible ASCII, a fragment, or none of the
    /// forms.
    pub fn parse(method: &str, raw: &'h str) -> Result<Self, Refused> {
        if !raw.bytes().all(|byte| ASKED[usize::from(byte)]) {
            return Err(Refused::Target);
        }
        if method == "CONNECT" {
            let port = raw.rsplit_once(':').map(|(_, port)| port.as_bytes());
            let whole = is_authority(raw.as_bytes()) && port.is_some_and(is_port);
            let target = Self { raw, form: Form::Authority, authority: Some(raw), path: "", query: None };
            return if whole { Ok(target) } else { Err(Refused::Target) };
        }
        if raw == "*" && method == "OPTIONS" {
            return Ok(Self { raw, form: Form::Asterisk, authority: None, path: "*", query: None });
        }
        if raw.starts_with('/') {
            return Ok(Self::split(raw, Form::Origin, None, raw));
        }
        let after = |scheme: &str| {
            let (start, rest) = raw.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        let rest = after("http://").or_else(|| after("https://")).ok_or(Refused::Target)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if !is_authority(authority.as_bytes()) {
            return Err(Refused::Target);
        }
        Ok(Self::split(raw, Form::Absolute, Some(authority), rest))
    }

    fn split(raw: &'h str, form: Form, authority: Option<&'h str>, rest: &'h str) -> Self {
        let (path, query) = match seek(b'?', rest.as_bytes()) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        Self { raw, form, authority, path, query }
    }

    /// As it was sent.
    pub fn as_str(&self) -> &'h str {
        self.raw
    }

    /// Its form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Host and port, where the target names them.
    pub fn authority(&self) -> Option<&'h str> {
        self.authority
    }

    /// The path as it was sent, not decoded: see [`decode_path`]. `/` where an absolute target has none; empty
    /// with CONNECT.
    pub fn path(&self) -> &'h str {
        self.path
    }

    /// What stands behind the `?`, not decoded.
    pub fn query(&self) -> Option<&'h str> {
        self.query
    }
}

fn is_port(text: &[u8]) -> bool {
    let number = text.iter().try_fold(0u16, |number, byte| {
        let digit = byte.is_ascii_digit().then_some(u16::from(byte.wrapping_sub(b'0')))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    !text.is_empty() && number.is_some()
}

/// The bytes of a target: what is visible but `#`.
const ASKED: [bool; 256] = {
    let (mut table, mut at) = ([false; 256], b'!');
    while at <= b'~' {
        table[at as usize] = at != b'#';
        at += 1;
    }
    table
};

/// The bytes of a host's name (RFC 3986, 3.2.2). Every request has a host, so it is a look into a table.
const NAMED: [bool; 256] = {
    let (mut table, mut at) = ([false; 256], 0);
    while at < 256 {
        table[at] = (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    let (marks, mut at) = (b"-._~%!$&'()*+,;=", 0);
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether a text is a host with or without a port, which is ASCII. (A user name is not allowed: RFC 9110, 4.2.4.)
pub(super) fn is_authority(text: &[u8]) -> bool {
    let port = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let address = std::str::from_utf8(&rest[..end]).ok();
            if address.is_none_or(|address| address.parse::<std::net::Ipv6Addr>().is_err()) {
                return false;
            }
            &rest[end + 1..]
        }
        _ => {
            let end = text.iter().position(|byte| !NAMED[usize::from(*byte)]).unwrap_or(text.len());
            if end == 0 {
                return false;
            }
            &text[end..]
        }
    };
    // A port may be empty (RFC 3986, 3.2.3).
    match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => is_port(digits),
        _ => false,
    }
}

/// A path with its escapes decoded, once, and without `.` and `..` segments, so that no path leads above the
/// root: one that would is refused. An escaped slash counts as a slash, an escaped dot as a dot. Paths are
/// UTF-8.
pub fn decode_path(path: &str) -> Result<Cow<'_, str>, Refused> {
    let bytes = path.as_bytes();
    let dotted = || seek(b'.', bytes).is_some() && bytes.windows(2).any(|two| two == b"/.");
    let plain = seek(b'%', bytes).is_none() && !dotted();
    if plain {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = unescape(bytes, false).ok_or(Refused::PathEscape)?;
    let decoded = String::from_utf8(decoded).map_err(|_| Refused::PathEscape)?;
    if decoded.contains('\0') {
        return Err(Refused::PathEscape);
    }
    remove_dots(&decoded).map(Cow::Owned)
}

fn remove_dots(path: &str) -> Result<String, Refused> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop().ok_or(Refused::PathLeavesRoot)?),
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if last {
            kept.push("");
        }
    }
    let mut whole = String::with_capacity(path.len());
    for segment in kept {
        whole.push('/');
        whole.push_str(segment);
    }
    Ok(if whole.is_empty() { "/".to_owned() } else { whole })
}

/// A name or value of a query or a form: `+` is a space, escapes are decoded once. An escape that is none
/// stays as it is, and what is not UTF-8 becomes U+FFFD, as in browsers.
pub fn decode_component(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    let decoded = unescape(&spaced, true).unwrap_or(spaced);
    Cow::Owned(match String::from_utf8(decoded) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// Decodes `%XX`; with `lenient` an escape that is none stays.
fn unescape(bytes: &[u8], lenient: bool) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            decoded.push(bytes[at]);
            at += 1;
            continue;
        }
        let digit = |at: usize| (*bytes.get(at)? as char).to_digit(16);
        match (digit(at + 1), digit(at + 2)) {
            (Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                at += 3;
            }
            _ if lenient => {
                decoded.push(b'%');
                at += 1;
            }
            _ => return None,
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_are_told_from_what_is_none() {
        for good in [
            "h",
            "h:80",
            "h:",
            "h:0",
            "h:65535",
            "h:00080",
            "127.0.0.1",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:443",
            "[::1]:",
            "a-b._~%20!$&'()*+,;=c",
            "H.Example:1",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":",
            ":80",
            "h:65536",
            "h:+80",
            "h:8a",
            "h:80:80",
            "h:80 ",
            "a b",
            "a/b",
            "u@h",
            "h#",
            "\u{e9}",
            "h:\u{e9}",
            "[::1",
            "[::1]x",
            "[::1]80",
            "[]",
            "[h]",
            "[127.0.0.1]",
            "[::1%25lo]",
            "x[::1]",
            "h]",
            "h?",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    /// The same, word for word as the RFC has it.
    fn is_authority_by_the_rfc(text: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(text) else { return false };
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
                _ => return false,
            },
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let is_number = |port: &str| {
            port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
        };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
        let has_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_number);
        !host.is_empty() && host.bytes().all(named) && has_port
    }

    proptest! {
        #[test]
        fn hosts_are_read_as_the_rfc_has_them(
            host in "[a-z0-9.\\\\[\\\\]:@ %\u{e9}]{0,6}", port in "(:[0-9+a]{0,6})?", noise: Vec<u8>, noisy: bool,
        ) {
            let text = if noisy { noise } else { (host + &port).into_bytes() };
            prop_assert_eq!(is_authority(&text), is_authority_by_the_rfc(&text), "{:?}", text);
        }
    }
}
