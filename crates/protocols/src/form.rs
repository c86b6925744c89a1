//! What the requests of HTTP are to look like: their method, and headers of one's own.

use tidegate_units::url::{Scheme, Url};

/// The method and the headers that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestForm {
    method: Option<String>,
    headers: Vec<(String, String)>,
}

/// Headers that say where a message ends, or what becomes of its connection: they follow from other options.
const FRAMING: [&str; 5] = ["content-length", "transfer-encoding", "connection", "upgrade", "expect"];

impl RequestForm {
    /// Reads a method, and lines like `Name: value`, for requests to this URL.
    pub fn of(url: &Url, method: Option<&str>, lines: &[String]) -> Result<Self, String> {
        let form = Self::read(method, lines)?;
        if !form.is_default() && !url.scheme.has_path() {
            return Err(format!("--method and --header are about http://, and this is {url}"));
        }
        if form.method.is_some() && matches!(url.scheme, Scheme::Ws | Scheme::Wss | Scheme::WsUnix) {
            return Err("--method: a WebSocket begins with GET".to_owned());
        }
        Ok(form)
    }

    fn read(method: Option<&str>, lines: &[String]) -> Result<Self, String> {
        if let Some(method) = method {
            let wrong = || format!("--method: `{}` is not a method", method.escape_debug());
            if method.is_empty() || !method.bytes().all(is_token) {
                return Err(wrong());
            }
            if method == "CONNECT" {
                return Err("--method: CONNECT asks for a tunnel, not for a reply".to_owned());
            }
        }
        let headers = lines.iter().map(|line| header(line)).collect::<Result<_, _>>()?;
        Ok(Self { method: method.map(str::to_owned), headers })
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The method; `default` where none was asked for.
    pub fn method<'m>(&'m self, default: &'m str) -> &'m str {
        self.method.as_deref().unwrap_or(default)
    }

    /// Header lines: those of the protocol, unless one of the same name was asked for, and those that were.
    pub fn lines(&self, own: &[(&str, &str)]) -> String {
        let asked = |name: &str| self.headers.iter().any(|(it, _)| it.eq_ignore_ascii_case(name));
        let own = own.iter().filter(|(name, _)| !asked(name)).copied();
        let asked = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        own.chain(asked).map(|(name, value)| format!("{name}: {value}\r\n")).collect()
    }
}

fn header(line: &str) -> Result<(String, String), String> {
    let shown = line.escape_debug();
    let wrong = || format!("--header: `{shown}` is not a header: write it like `Name: value`");
    let (name, value) = line.split_once(':').ok_or_else(wrong)?;
    let value = value.trim_matches([' ', '\t']);
    if name.is_empty() || !name.bytes().all(is_token) || value.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(wrong());
    }
    if FRAMING.iter().any(|it| name.eq_ignore_ascii_case(it))
        || name.to_ascii_lowercase().starts_with("sec-websocket-")
    {
        return Err(format!("--header: {name} is set by tidegate alone"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Whether a byte may stand in a method or in the name of a header.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_asked_for_stands_in_the_place_of_the_usual_one() {
        let lines = ["host: other".to_owned(), "X-Key:  a b ".to_owned(), "X-Key: c".to_owned()];
        let form = RequestForm::read(Some("PUT"), &lines).unwrap();
        let own = [("Host", "h"), ("Accept", "*/*")];
        assert_eq!(form.lines(&own), "Accept: */*\r\nhost: other\r\nX-Key: a b\r\nX-Key: c\r\n");
        assert_eq!((form.method("GET"), RequestForm::default().method("GET")), ("PUT", "GET"));
    }

    #[test]
    fn a_form_is_for_requests_that_can_have_one() {
        let of = |url: &str, method: Option<&str>, lines: &[String]| {
            RequestForm::of(&url.parse().unwrap(), method, lines)
        };
        let lines = ["X-A: b".to_owned()];
        assert!(of("https://h/", Some("PUT"), &lines).is_ok() && of("wss://h/", None, &lines).is_ok());
        assert!(of("tcp://h:1", None, &[]).is_ok());
        for (url, method, lines) in
            [("tcp://h:1", None, &lines[..]), ("unix:///x", Some("PUT"), &[]), ("ws://h", Some("PUT"), &[])]
        {
            assert!(of(url, method, lines).is_err(), "{url}");
        }
    }

    #[test]
    fn what_would_be_no_request_is_refused() {
        for line in [
            "",
            "x",
            ": y",
            "a b: c",
            "a: b\r\nc: d",
            "Content-Length: 3",
            "connection: close",
            "Sec-WebSocket-Key: x",
        ] {
            assert!(RequestForm::read(None, &[line.to_owned()]).is_err(), "{line:?}");
        }
        for method in ["", "GE T", "GET\r\n", "CONNECT"] {
            assert!(RequestForm::read(Some(method), &[]).is_err(), "{method:?}");
        }
    }
}
