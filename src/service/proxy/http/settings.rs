//! The settings of a gate for HTTP.

use crate::transport::address::ClientAddress;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

/// The settings of a gate for HTTP. Start from [`HttpGateConfig::default`] and change the fields that must differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpGateConfig {
    /// How many bytes of a request's body the gate collects before it asks for a place at a backend, so that a client that
    /// sends slowly holds no place. The rest of a longer body is passed on as it comes. Default: 64 KiB.
    pub buffer_request: usize,
    /// How long a backend may be silent while the gate waits for it: until the head of its answer is complete, and between
    /// two pieces of the body. After that the client is answered 504, or, if its answer has begun, is disconnected. Default:
    /// 60 s.
    pub backend_timeout: Duration,
    /// How long an unused connection to a backend is kept open. With 0 each request gets a new connection. Default: 60 s.
    pub backend_idle: Duration,
    /// What makes a source, when requests wait for a place and sources take turns. Default: the client's address.
    pub fair: FairBy,
    /// The balancers in front of the gate: the gate believes their `X-Forwarded-For`, `-Proto` and `-Host` headers and adds
    /// to them. From anybody else it replaces these headers. Default: none.
    pub trusted: Vec<Network>,
    /// The path that checks request of each backend. A backend that does not answer with a status from 200 to 399 is set
    /// aside. This needs [`check_every`](crate::ProxyBuilder::check_every). Default: none, and a check only connects.
    pub check_path: Option<String>,
    /// Paths of requests that go first, as `/healthz`: they are served before all others that wait, and where a gate has more
    /// than one place, one is kept for them. A request has priority if its path, without the query and not decoded, is
    /// one of these. At most 16 such requests wait, beside those of `queue`. Default: none.
    pub priority_paths: Vec<String>,
}

impl Default for HttpGateConfig {
    fn default() -> Self {
        Self {
            buffer_request: 64 << 10,
            backend_timeout: Duration::from_secs(60),
            backend_idle: Duration::from_secs(60),
            fair: FairBy::Address,
            trusted: Vec::new(),
            check_path: None,
            priority_paths: Vec::new(),
        }
    }
}

impl HttpGateConfig {
    /// The settings, under the names of the command-line options and written as those are.
    pub(in super::super) fn table(&self) -> Vec<(&'static str, String)> {
        let fair = match &self.fair {
            FairBy::Address => "address".to_owned(),
            FairBy::Header(name) => format!("header:{name}"),
        };
        let networks: Vec<_> = self.trusted.iter().map(ToString::to_string).collect();
        let trusted = if networks.is_empty() { "off".to_owned() } else { networks.join(",") };
        let first =
            if self.priority_paths.is_empty() { "off".to_owned() } else { self.priority_paths.join(",") };
        vec![
            ("backend-timeout", crate::limits::show_time(self.backend_timeout)),
            ("backend-idle", crate::limits::show_time(self.backend_idle)),
            ("backend-check-path", self.check_path.clone().unwrap_or_else(|| "off".to_owned())),
            ("buffer-request", crate::limits::show_size(self.buffer_request)),
            ("backend-fair", fair),
            ("priority-path", first),
            ("trust-forwarded", trusted),
        ]
    }
}

/// What makes a source, when sources take turns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FairBy {
    /// The client's address, as far as `source_prefix` says.
    Address,
    /// The value of this header. Requests without it count for their client's address.
    Header(String),
}

/// The error for a text that is no [`FairBy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write `address`, or `header:` and the name of a header")]
pub struct FairByError;

impl FromStr for FairBy {
    type Err = FairByError;

    fn from_str(text: &str) -> Result<Self, FairByError> {
        match (text, text.strip_prefix("header:")) {
            ("address", _) => Ok(FairBy::Address),
            (_, Some(name)) if !name.is_empty() && name.bytes().all(crate::service::http::wire::is_token) => {
                Ok(FairBy::Header(name.to_owned()))
            }
            _ => Err(FairByError),
        }
    }
}

/// A network: all addresses with the same leading bits, written `10.0.0.0/8`. An address alone is a network of one, and
/// `unix` stands for all clients of Unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(Reach);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Addresses { address: u128, bits: u8 },
    UnixSockets,
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Reach::Addresses { address, bits } = self.0 else { return f.write_str("unix") };
        let address = Ipv6Addr::from(address);
        match address.to_ipv4_mapped() {
            Some(v4) if bits >= 96 => write!(f, "{v4}/{}", bits - 96),
            _ => write!(f, "{address}/{bits}"),
        }
    }
}

/// The error for a text that is no [`Network`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a network: {why}")]
pub struct NetworkError {
    text: String,
    why: &'static str,
}

/// An address in its IPv6 form, so that IPv4 needs no rule of its own.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if text == "unix" {
            return Ok(Self(Reach::UnixSockets));
        }
        let error = |why| NetworkError { text: text.to_owned(), why };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let form = "write one like 10.0.0.0/8, an address, or unix";
        let address: IpAddr = address.parse().map_err(|_| error(form))?;
        let (longest, too_long) = match address {
            IpAddr::V4(_) => (32, "an IPv4 address has 32 bits: what comes after the / is 0 to 32"),
            IpAddr::V6(_) => (128, "an IPv6 address has 128 bits: what comes after the / is 0 to 128"),
        };
        let bits = match bits {
            Some(bits) => bits.parse::<u8>().ok().filter(|bits| *bits <= longest).ok_or(error(too_long))?,
            None => longest,
        };
        Ok(Self(Reach::Addresses { address: number(address), bits: bits + (128 - longest) }))
    }
}

impl Network {
    /// Whether an address belongs to the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let Reach::Addresses { address: own, bits } = self.0 else { return false };
        let differ = number(address.to_canonical()) ^ own;
        differ.leading_zeros() >= u32::from(bits)
    }

    /// Whether it stands for clients of Unix sockets.
    pub fn is_unix(&self) -> bool {
        self.0 == Reach::UnixSockets
    }

    /// Whether a client is one of them.
    pub(crate) fn has(&self, client: &ClientAddress) -> bool {
        client.ip().map_or(self.is_unix(), |address| self.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_share_its_bits() {
        let has = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.0"));
        assert!(has("10.1.2.3", "10.1.2.3") && has("10.1.2.3", "::ffff:10.1.2.3"));
        assert!(has("fd00::/8", "fd12::1") && !has("fd00::/8", "10.0.0.1"));
        assert!(has("0.0.0.0/0", "8.8.8.8") && !has("0.0.0.0/0", "fd00::1"));
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
            ("unix", "unix"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), shown);
        }
        for text in ["", "10.0.0.0/33", "x/8", "10.0.0.0/", "::/129"] {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains("is not a network"), "{error}");
        }
    }

    #[test]
    fn clients_are_told_apart_by_address_or_by_a_header() {
        assert_eq!("address".parse(), Ok(FairBy::Address));
        assert_eq!("header:X-Api-Key".parse(), Ok(FairBy::Header("X-Api-Key".to_owned())));
        for text in ["header:", "header:a b", "cookie", ""] {
            assert_eq!(text.parse::<FairBy>(), Err(FairByError));
        }
    }
}
