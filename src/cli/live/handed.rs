//! Sockets that the process which started this one has handed over: a supervisor (`LISTEN_FDS`, as systemd does it), or
//! the older program whose place this one takes.
//!
//! Each such socket has a name. A listener gets the socket whose name is the listener's own text, its service, or its
//! address, in this order. The admin endpoint gets the one that is named `admin` or has its address, and the agent
//! likewise the one that is named `agent`.

use super::super::exit::ExitError;
use crate::Address;
use crate::server::BoundSocket;
use crate::transport::listen::address_of;
use std::env;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};

/// The first descriptor that a supervisor hands over.
const FIRST: RawFd = 3;
/// The most sockets that are taken; a larger number is a mistake.
const SOCKETS_MAX: usize = 256;
/// The name of the admin endpoint's socket.
pub(crate) const ADMIN: &str = "admin";
/// The name of the agent's socket.
pub(crate) const AGENT: &str = "agent";
/// Where a program that hands itself over says what it hands over; see [`Handover`].
pub(crate) const HANDOVER: &str = "TIDEGATE_HANDOVER";

/// One socket.
#[derive(Debug)]
pub(crate) struct HandedSocket {
    /// Its place in what was handed over.
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) socket: OwnedFd,
    pub(crate) address: Option<Address>,
    /// It is for datagrams.
    pub(crate) datagrams: bool,
    pub(crate) bound: BoundSocket,
}

/// What was handed over.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    pub(crate) sockets: Vec<HandedSocket>,
    /// Where the program that this one takes the place of waits to hear that this one serves.
    pub(crate) predecessor: Option<OwnedFd>,
}

/// What a program writes into [`HANDOVER`] for the one that takes its place: the number of the pipe on which it waits,
/// and the number and name of each socket. A `+` behind a number says that the file of that socket goes with it,
/// a `*` that a supervisor has it too.
#[derive(Debug, PartialEq)]
pub(crate) struct Handover {
    pub(crate) pipe: RawFd,
    pub(crate) sockets: Vec<NumberedSocket>,
}

/// A socket as it is handed over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NumberedSocket {
    pub(crate) number: RawFd,
    pub(crate) name: String,
    pub(crate) bound: BoundSocket,
}

impl Handover {
    /// As text for an environment variable.
    pub(crate) fn to_text(&self) -> String {
        let sockets = self.sockets.iter().map(|NumberedSocket { number, name, bound }| {
            let file = if bound.has_file { "+" } else { "" };
            let shared = if bound.is_shared { "*" } else { "" };
            format!(" {number}{file}{shared}={}", encode(name))
        });
        format!("{}{}", self.pipe, sockets.collect::<String>())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let pipe = words.next()?.parse().ok()?;
        let socket = |word: &str| {
            let (number, name) = word.split_once('=')?;
            let bound = BoundSocket { has_file: number.contains('+'), is_shared: number.contains('*') };
            let number = number.trim_end_matches(['+', '*']).parse().ok()?;
            Some(NumberedSocket { number, name: decode(name)?, bound })
        };
        let sockets: Option<Vec<_>> = words.map(socket).collect();
        Some(Self { pipe, sockets: sockets?.into_iter().take(SOCKETS_MAX).collect() })
    }
}

/// A name without spaces.
fn encode(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    let each = name.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    each.collect()
}

fn decode(name: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), name.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

impl Handed {
    /// Takes what the environment says was handed over. Call it before anything else is opened.
    pub(crate) fn take() -> Result<Self, ExitError> {
        if let Some(text) = env::var_os(HANDOVER) {
            let handover = text.to_str().and_then(Handover::parse);
            let handover = handover
                .ok_or_else(|| ExitError::usage(format!("{HANDOVER} is not what a tidegate wrote")))?;
            return Ok(Self::from_predecessor(&handover));
        }
        Self::from_supervisor()
    }

    fn from_predecessor(handover: &Handover) -> Self {
        let sockets = handover.sockets.iter().map(|socket| socket.number);
        let numbers: Vec<RawFd> = std::iter::once(handover.pipe).chain(sockets).collect();
        let mut taken = crate::sys::take_descriptors(&numbers).into_iter();
        let predecessor = taken.next().flatten();
        let sockets = handover.sockets.iter().zip(taken).enumerate();
        let sockets = sockets.filter_map(|(number, (said, socket))| {
            let socket = HandedSocket::new(number, said.name.clone(), socket?);
            Some(HandedSocket { bound: said.bound, ..socket })
        });
        Self { sockets: sockets.collect(), predecessor }
    }

    fn from_supervisor() -> Result<Self, ExitError> {
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        // What was handed to another process was only left in the environment.
        if number("LISTEN_PID") != Some(u64::from(std::process::id())) {
            return Ok(Self::default());
        }
        let count = number("LISTEN_FDS").unwrap_or(0) as usize;
        if count > SOCKETS_MAX {
            return Err(ExitError::usage(format!(
                "LISTEN_FDS is {count}: at most {SOCKETS_MAX} sockets can be handed over"
            )));
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
        let numbers: Vec<RawFd> = (FIRST..).take(count).collect();
        let taken = crate::sys::take_descriptors(&numbers);
        let sockets = taken.into_iter().zip(names).enumerate().map(|(number, (socket, name))| {
            let socket = socket.ok_or_else(|| {
                ExitError::usage(format!(
                    "LISTEN_FDS is {count}, and descriptor {} is not open",
                    numbers[number]
                ))
            })?;
            let bound = BoundSocket { has_file: false, is_shared: true };
            Ok(HandedSocket { bound, ..HandedSocket::new(number, name, socket) })
        });
        Ok(Self { sockets: sockets.collect::<Result<_, ExitError>>()?, predecessor: None })
    }

    /// Takes out the socket of a listener, and what else there is to it: `text` is what it was configured as.
    pub(crate) fn for_listener(
        &mut self,
        text: &str,
        service: &str,
        address: &Address,
        datagrams: bool,
    ) -> Option<(OwnedFd, BoundSocket)> {
        let found = self.find(|socket| socket.datagrams == datagrams, &[text, service], address)?;
        Some((found.socket, found.bound))
    }

    /// Takes out the socket of the admin endpoint or of the agent, by its name.
    pub(crate) fn for_endpoint(&mut self, name: &str, address: SocketAddr) -> Option<OwnedFd> {
        self.find(|socket| !socket.datagrams, &[name], &address.into()).map(|found| found.socket)
    }

    fn find(
        &mut self,
        fits: impl Fn(&HandedSocket) -> bool,
        names: &[&str],
        address: &Address,
    ) -> Option<HandedSocket> {
        let mut found = None;
        for name in names {
            found = found.or(self.sockets.iter().position(|socket| fits(socket) && socket.name == *name));
        }
        let at = |socket: &HandedSocket| socket.address.is_some_and(|own| same(&own, address));
        let found = found.or(self.sockets.iter().position(|socket| fits(socket) && at(socket)))?;
        Some(self.sockets.remove(found))
    }

    /// A supervisor's socket that nobody wanted is a mistake in the configuration. A predecessor's is not: the listener
    /// is gone.
    pub(crate) fn check_empty(&self) -> Result<(), ExitError> {
        match self.sockets.first() {
            Some(HandedSocket { name, address, .. }) if self.predecessor.is_none() => {
                let address = address.map_or(String::new(), |address| format!(" ({address})"));
                Err(ExitError::usage(format!(
                    "the socket `{name}`{address} was handed over, and no listener has this name or address"
                )))
            }
            _ => Ok(()),
        }
    }
}

impl HandedSocket {
    fn new(number: usize, name: String, socket: OwnedFd) -> Self {
        let known = socket2::SockRef::from(&socket);
        let address = address_of(&socket);
        let datagrams = known.r#type().is_ok_and(|kind| kind == socket2::Type::DGRAM);
        Self { number, name, address, datagrams, bound: BoundSocket::default(), socket }
    }
}

/// Whether a socket with this address is what a listener with that one wants: `[::]` stands for `0.0.0.0`, since it
/// takes both families. A listener whose port is free to choose wants none by its address.
fn same(own: &Address, wanted: &Address) -> bool {
    let (Some(own), Some(wanted)) = (own.ip(), wanted.ip()) else { return own == wanted };
    let any = own.ip().is_unspecified() && wanted.ip().is_unspecified();
    let ip = own.ip().to_canonical() == wanted.ip().to_canonical() || any;
    wanted.port() != 0 && own.port() == wanted.port() && ip
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn socket(name: &str, address: &str) -> HandedSocket {
        let file = std::fs::File::open("/dev/null").unwrap();
        let address = Some(address.parse::<SocketAddr>().unwrap().into());
        let (name, datagrams, bound) = (name.to_owned(), false, BoundSocket::default());
        HandedSocket { number: 0, name, socket: file.into(), address, datagrams, bound }
    }

    #[test]
    fn a_listener_takes_the_socket_of_its_text_then_of_its_service_then_of_its_address() {
        let mut handed = Handed::default();
        handed.sockets.push(socket("web", "[::]:80"));
        handed.sockets.push(socket("echo", "127.0.0.1:5001"));
        handed.sockets.push(socket("echo=tcp://127.0.0.1:0", "127.0.0.1:5002"));
        let address = |text: &str| Address::from(text.parse::<SocketAddr>().unwrap());
        let left = |handed: &Handed| handed.sockets.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
        assert!(handed.for_listener("x", "echo", &address("127.0.0.1:1"), true).is_none(), "no datagrams");
        assert!(
            handed.for_listener("echo=tcp://127.0.0.1:0", "echo", &address("127.0.0.1:0"), false).is_some()
        );
        assert_eq!(left(&handed), ["web", "echo"]);
        assert!(handed.for_listener("echo=tcp://h:1", "echo", &address("127.0.0.1:1"), false).is_some());
        assert!(handed.for_listener("x", "y", &address("127.0.0.1:80"), false).is_none());
        assert!(handed.check_empty().unwrap_err().why.contains("`web` ([::]:80)"));
        assert!(handed.for_listener("x", "y", &address("0.0.0.0:80"), false).is_some());
        assert!(handed.check_empty().is_ok());
    }

    proptest! {
        #[test]
        fn what_is_handed_over_is_read_as_it_was_written(
            pipe in 3i32..,
            sockets in prop::collection::vec((3i32.., ".*", any::<(bool, bool)>()), 0..8),
        ) {
            let numbered = |(number, name, (has_file, is_shared))| {
                NumberedSocket { number, name, bound: BoundSocket { has_file, is_shared } }
            };
            let sockets = sockets.into_iter().map(numbered).collect();
            let handover = Handover { pipe, sockets };
            prop_assert_eq!(Handover::parse(&handover.to_text()), Some(handover));
        }

        #[test]
        fn nonsense_is_not_a_handover(text in ".*") {
            let _ = Handover::parse(&text);
        }
    }
}
