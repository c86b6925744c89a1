//! The heads of requests and responses: `httparse` takes them apart, the rules here refuse what is left.

use super::body::BodyLength;
use super::headers::{Coding, Expectation, Facts, Length};
use super::{Headers, Refused, Target};
use std::mem::MaybeUninit;

/// The version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    /// As it stands in a first line.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }

    fn of(minor: Option<u8>) -> Result<Self, Refused> {
        match minor {
            Some(0) => Ok(Version::Http10),
            Some(1) => Ok(Version::Http11),
            _ => Err(Refused::Version),
        }
    }
}

/// As many headers as `max_headers` allows by default.
const FEW: usize = 100;

/// Room for the headers of one head while it is looked at: on the stack for as many as usual. Memory for more is taken when
/// a head has more.
pub struct Slots<'b> {
    few: [MaybeUninit<httparse::Header<'b>>; FEW],
    many: Vec<MaybeUninit<httparse::Header<'b>>>,
}

impl<'b> Slots<'b> {
    /// Room that is not used yet.
    pub const fn new() -> Self {
        Self { few: [const { MaybeUninit::uninit() }; FEW], many: Vec::new() }
    }

    /// The room on the stack, for at most this many headers; and what has room for them if that is too little.
    fn rooms<'s>(&'s mut self, max_headers: usize) -> (Room<'s, 'b>, Option<MoreRoom<'s, 'b>>) {
        let Self { few, many } = self;
        let more = (max_headers > FEW).then_some(MoreRoom { many, most: max_headers });
        (&mut few[..max_headers.min(FEW)], more)
    }
}

/// Room for headers.
type Room<'s, 'b> = &'s mut [MaybeUninit<httparse::Header<'b>>];

/// Room for more headers than the stack has.
struct MoreRoom<'s, 'b> {
    many: &'s mut Vec<MaybeUninit<httparse::Header<'b>>>,
    most: usize,
}

impl<'s, 'b> MoreRoom<'s, 'b> {
    fn room(self) -> Room<'s, 'b> {
        self.many.resize_with(self.most, MaybeUninit::uninit);
        self.many
    }
}

impl Default for Slots<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Slots<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").finish_non_exhaustive()
    }
}

/// The head of a request, and what it says of the request and of the connection.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestHead<'h> {
    /// The method, as it was sent: methods are told apart by case.
    pub method: &'h str,
    /// What is asked for.
    pub target: Target<'h>,
    /// The version.
    pub version: Version,
    /// All headers.
    pub headers: Headers<'h>,
    /// The host that is asked: of the target, if it names one, or of the Host header.
    pub host: Option<&'h str>,
    /// Where the body ends.
    pub body: BodyLength,
    /// Whether the client wants another request on this connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The client wants to go on with another protocol: `Connection: upgrade`.
    pub upgrade: bool,
}

impl<'h> RequestHead<'h> {
    /// Reads a head that is whole, as [`Scanner::find`](super::Scanner::find) has found it.
    pub fn parse<'b: 'h>(
        head: &'b [u8],
        slots: &'h mut Slots<'b>,
        max_headers: usize,
    ) -> Result<RequestHead<'h>, Refused> {
        let (room, more) = slots.rooms(max_headers);
        let mut request = httparse::Request::new(&mut []);
        let mut parsed = request.parse_with_uninit_headers(head, room);
        if let (Err(httparse::Error::TooManyHeaders), Some(more)) = (&parsed, more) {
            request = httparse::Request::new(&mut []);
            parsed = request.parse_with_uninit_headers(head, more.room());
        }
        match parsed {
            Ok(httparse::Status::Complete(used)) if used == head.len() => {}
            // The scanner has seen the version: what is wrong is what stands before it.
            Ok(_) | Err(httparse::Error::Version) => return Err(Refused::FirstLine),
            Err(error) => return Err(refusal(error)),
        }
        let httparse::Request { method: Some(method), path: Some(target), version, headers } = request else {
            return Err(Refused::FirstLine);
        };
        let version = Version::of(version)?;
        let target = Target::parse(method, target)?;
        let headers = Headers::new(headers, head);
        let facts = Facts::of(headers);
        Ok(RequestHead {
            method,
            target,
            version,
            headers,
            host: host(&facts, &target, version)?,
            body: request_body(&facts, version)?,
            keep_alive: keep_alive(&facts, version),
            expects_continue: match facts.expectation {
                Expectation::Other => return Err(Refused::Expectation),
                // A client of 1.0 does not know 100.
                expectation => expectation == Expectation::Continue && version == Version::Http11,
            },
            upgrade: facts.upgrade && version == Version::Http11,
        })
    }
}

/// The head of a response.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ResponseHead<'h> {
    /// The version.
    pub version: Version,
    /// The status, 100 to 999.
    pub status: u16,
    /// What stands behind the status; nobody should depend on it.
    pub reason: &'h str,
    /// All headers.
    pub headers: Headers<'h>,
    /// Where the body ends.
    pub body: BodyLength,
    /// Whether the server takes another request on this connection. A body that ends with the connection
    /// leaves no connection either.
    pub keep_alive: bool,
    /// The server lists `upgrade` in `Connection`, as a response 101 must.
    pub upgrade: bool,
}

impl<'h> ResponseHead<'h> {
    /// Reads a head that is whole, the answer to a request of this method: no answer to HEAD has a body.
    pub fn parse<'b: 'h>(
        head: &'b [u8],
        method: &str,
        slots: &'h mut Slots<'b>,
        max_headers: usize,
    ) -> Result<ResponseHead<'h>, Refused> {
        let (room, more) = slots.rooms(max_headers);
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let mut parsed = parser.parse_response_with_uninit_headers(&mut response, head, room);
        if let (Err(httparse::Error::TooManyHeaders), Some(more)) = (&parsed, more) {
            response = httparse::Response::new(&mut []);
            parsed = parser.parse_response_with_uninit_headers(&mut response, head, more.room());
        }
        match parsed {
            Ok(httparse::Status::Complete(used)) if used == head.len() => {}
            Ok(_) => return Err(Refused::FirstLine),
            Err(error) => return Err(refusal(error)),
        }
        let httparse::Response { code: Some(status), reason, version, headers } = response else {
            return Err(Refused::FirstLine);
        };
        if status < 100 {
            return Err(Refused::Status);
        }
        let version = Version::of(version)?;
        let headers = Headers::new(headers, head);
        let facts = Facts::of(headers);
        let body = response_body(&facts, version, status, method)?;
        let keep_alive = keep_alive(&facts, version) && body != BodyLength::UntilClose;
        let reason = reason.unwrap_or_default();
        Ok(ResponseHead { version, status, reason, headers, body, keep_alive, upgrade: facts.upgrade })
    }
}

fn refusal(error: httparse::Error) -> Refused {
    match error {
        httparse::Error::HeaderName => Refused::HeaderName,
        httparse::Error::HeaderValue => Refused::HeaderValue,
        httparse::Error::NewLine => Refused::BareCr,
        httparse::Error::Status => Refused::Status,
        httparse::Error::Token => Refused::FirstLine,
        httparse::Error::TooManyHeaders => Refused::TooManyHeaders,
        httparse::Error::Version => Refused::Version,
    }
}

/// The one host of a request; 1.0 has none of necessity.
fn host<'h>(facts: &Facts<'h>, target: &Target<'h>, version: Version) -> Result<Option<&'h str>, Refused> {
    match facts.hosts {
        0 if version == Version::Http11 => return Err(Refused::NoHost),
        0 | 1 => {}
        _ => return Err(Refused::TwoHosts),
    }
    let Some(host) = facts.host else { return Ok(target.authority()) };
    if !host.is_empty() && !super::target::is_authority(host) {
        return Err(Refused::BadHost);
    }
    let named = std::str::from_utf8(host).map_err(|_| Refused::BadHost)?;
    Ok(target.authority().or(Some(named)))
}

fn keep_alive(facts: &Facts<'_>, version: Version) -> bool {
    !facts.close && (version == Version::Http11 || facts.keep_alive)
}

/// The length that Content-Length and Transfer-Encoding give, if they give one. Both together, or one that
/// cannot be understood, is how requests are smuggled: refused, for responses too.
fn framed(facts: &Facts<'_>, version: Version) -> Result<Option<BodyLength>, Refused> {
    if facts.coding != Coding::None && facts.length != Length::None {
        return Err(Refused::LengthAndCoding);
    }
    if facts.coding != Coding::None && version == Version::Http10 {
        return Err(Refused::CodingInOld);
    }
    match (facts.coding, facts.length) {
        (Coding::Chunked, _) => Ok(Some(BodyLength::Chunked)),
        (Coding::Others, _) => Err(Refused::CodingUnknown),
        (Coding::Unended | Coding::Bad, _) => Err(Refused::CodingNotChunked),
        (Coding::None, Length::Is(length)) => Ok(Some(BodyLength::Bytes(length))),
        (Coding::None, Length::None) => Ok(None),
        (Coding::None, Length::Differ) => Err(Refused::LengthsDiffer),
        (Coding::None, Length::Bad) => Err(Refused::BadLength),
    }
}

fn request_body(facts: &Facts<'_>, version: Version) -> Result<BodyLength, Refused> {
    Ok(framed(facts, version)?.unwrap_or(BodyLength::Bytes(0)))
}

/// RFC 9112, 6.3. What the headers say is checked even where there is no body, so that nobody between takes
/// it for one.
fn response_body(
    facts: &Facts<'_>,
    version: Version,
    status: u16,
    method: &str,
) -> Result<BodyLength, Refused> {
    let none = method == "HEAD" || matches!(status, 100..200 | 204 | 304);
    let tunnel = method == "CONNECT" && matches!(status, 200..300);
    match framed(facts, version) {
        // A 204 or 304 with `Transfer-Encoding: chunked` and no body is common.
        _ if tunnel => Ok(BodyLength::UntilClose),
        Ok(_) if none => Ok(BodyLength::Bytes(0)),
        Ok(length) => Ok(length.unwrap_or(BodyLength::UntilClose)),
        Err(refused) => Err(refused),
    }
}
