//! The local addresses that connections come from. With several, one machine looks like many, and does not run out of
//! ports: each pair of source and destination address has ports of its own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of local addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    network: IpAddr,
    prefix: u8,
}

impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is not an address or a range of them: write it like 127.0.1.0/24 or 127.0.0.2")
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| wrong())?;
        let widest = if network.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|p| *p <= widest).ok_or_else(wrong)?,
            None => widest,
        };
        Ok(Self { network, prefix })
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl Sources {
    /// How many addresses there are.
    pub(crate) fn len(&self) -> u64 {
        let bits = if self.network.is_ipv4() { 32 } else { 128 } - u32::from(self.prefix);
        1u64.checked_shl(bits).unwrap_or(u64::MAX)
    }

    /// Whether an address of this family can be reached from here.
    pub(crate) fn reaches(&self, target: IpAddr) -> bool {
        self.network.is_ipv4() == target.is_ipv4()
    }

    /// Address number `n`; they come round again.
    pub(crate) fn get(&self, n: u64) -> IpAddr {
        let offset = n % self.len();
        match self.network {
            IpAddr::V4(network) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from((u32::from(network) & mask) + offset as u32))
            }
            IpAddr::V6(network) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from((u128::from(network) & mask) + u128::from(offset)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_walked() {
        for (text, len, n, address) in [
            ("127.0.1.0/24", 256, 0, "127.0.1.0"),
            ("127.0.1.77/24", 256, 255, "127.0.1.255"),
            ("127.0.1.0/24", 256, 256, "127.0.1.0"),
            ("127.0.0.2", 1, 9, "127.0.0.2"),
            ("127.0.0.0/8", 1 << 24, 256, "127.0.1.0"),
            ("0.0.0.0/0", 1 << 32, 1, "0.0.0.1"),
            ("::1", 1, 5, "::1"),
            ("fd00::/64", u64::MAX, 3, "fd00::3"),
        ] {
            let sources: Sources = text.parse().unwrap();
            assert_eq!(sources.len(), len, "{text}");
            assert_eq!(sources.get(n).to_string(), address, "{text}");
            assert_eq!(sources.to_string().parse(), Ok(sources), "{text}");
        }
        for text in ["", "x", "127.0.0.1/33", "127.0.0/8", "127.0.0.1/", "::1/129"] {
            assert!(text.parse::<Sources>().is_err(), "{text}");
        }
    }
}
