//! What the server knows about a TLS client after the handshake.

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

impl TlsVersion {
    /// As it is written: `1.2` or `1.3`.
    pub const fn as_str(self) -> &'static str {
        match self {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        }
    }
}

impl std::fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for TlsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1.2" => Ok(TlsVersion::V1_2),
            "1.3" => Ok(TlsVersion::V1_3),
            _ => Err(format!("`{text}` is not a version of TLS: write 1.2 or 1.3")),
        }
    }
}

/// What a client and the server agreed on in the handshake; see [`Peer::tls`](crate::Peer::tls).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFacts {
    /// The version that is spoken.
    pub version: TlsVersion,
    /// The name that the client asked for (SNI), in lower case. `None` if it named none.
    pub server_name: Option<String>,
    /// The protocol that was agreed on (ALPN), like `http/1.1`. `None` if there was no choice.
    pub protocol: Option<Vec<u8>>,
    /// Whether the client resumed an earlier session by a ticket, which costs the server no signature.
    pub resumed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_is_written() {
        for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        assert!("1.1".parse::<TlsVersion>().unwrap_err().contains("write 1.2 or 1.3"));
        assert!(TlsVersion::V1_2 < TlsVersion::V1_3);
    }
}
