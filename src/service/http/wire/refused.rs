//! Why a message is not taken, and the status that says so.

/// Why a message is refused. The text is one line for the person who wrote the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// A TLS handshake on a port without TLS.
    #[error("this port speaks HTTP without TLS: use http://, not https://")]
    Tls,
    /// HTTP/2 without an upgrade.
    #[error("this port speaks HTTP/1.1, not HTTP/2")]
    Http2,
    /// The first line is not one of HTTP.
    #[error("the first line is not one of HTTP/1.1")]
    FirstLine,
    /// A version that is neither 1.0 nor 1.1.
    #[error("the version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    /// LF without CR before it.
    #[error("a line of the head ends with LF alone: lines end with CR LF")]
    BareLf,
    /// CR without LF after it.
    #[error("a CR in the head is not followed by LF")]
    BareCr,
    /// A header that goes on in the next line.
    #[error("a header is folded: a line begins with a space")]
    Fold,
    /// A header's name.
    #[error("a header's name has a byte that names cannot have, or a space before its colon")]
    HeaderName,
    /// A header's value.
    #[error("a header's value has a control byte")]
    HeaderValue,
    /// The head is longer than `max_head`.
    #[error("the head is longer than allowed")]
    HeadTooLong,
    /// More headers than `max_headers`.
    #[error("there are more headers than allowed")]
    TooManyHeaders,
    /// The request's target.
    #[error("the target is not a path, a URL or `*`")]
    Target,
    /// The path has an escape that is not `%` and two hexadecimal digits, stands for a byte 0, or is not UTF-8.
    #[error("the path has a bad %-escape")]
    PathEscape,
    /// The path has more `..` than directories.
    #[error("the path leaves the root")]
    PathLeavesRoot,
    /// A request without Host.
    #[error("there is no Host header")]
    NoHost,
    /// More than one Host.
    #[error("there are two Host headers")]
    TwoHosts,
    /// A host that cannot be one.
    #[error("the Host header is not a host and port")]
    BadHost,
    /// Both ways to say where a body ends.
    #[error("there are both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// Several lengths.
    #[error("there are several lengths that differ")]
    LengthsDiffer,
    /// Not a length.
    #[error("the Content-Length is not a number of bytes")]
    BadLength,
    /// A coding of which chunked is not the last, or is more than once.
    #[error("the Transfer-Encoding does not end in chunked, or has it twice")]
    CodingNotChunked,
    /// A coding other than chunked.
    #[error("the only Transfer-Encoding here is chunked")]
    CodingUnknown,
    /// A coding in HTTP/1.0.
    #[error("there is no Transfer-Encoding in HTTP/1.0")]
    CodingInOld,
    /// The body is longer than `max_body`.
    #[error("the body is longer than allowed")]
    BodyTooLong,
    /// A chunk's size.
    #[error("the size of a chunk is not 1 to 16 hexadecimal digits")]
    ChunkSize,
    /// What follows a chunk.
    #[error("a chunk does not end with CR LF")]
    ChunkEnd,
    /// Chunk extensions.
    #[error("a chunk's extension has a control byte, or the extensions are longer than allowed")]
    ChunkExtension,
    /// Trailers.
    #[error("a trailer is not a header, or the trailers are longer than allowed")]
    Trailer,
    /// An expectation other than `100-continue`.
    #[error("the only expectation here is 100-continue")]
    Expectation,
    /// The status of a response.
    #[error("the status is not three digits")]
    Status,
}

impl Refused {
    /// The status that a server answers with. A gate whose backend sent it answers 502.
    pub fn status(self) -> u16 {
        match self {
            Refused::HeadTooLong | Refused::TooManyHeaders => 431,
            Refused::BodyTooLong => 413,
            Refused::Expectation => 417,
            Refused::CodingUnknown => 501,
            Refused::Version | Refused::Http2 => 505,
            _ => 400,
        }
    }
}

impl From<Refused> for std::io::Error {
    fn from(refused: Refused) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, refused)
    }
}
