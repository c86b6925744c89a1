//! Which listeners a reload opens and closes, and why it cannot.

use crate::cli::plan::PlannedListener;
use crate::server::no_seat;

/// A listener that a server has, or had and closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownListener {
    /// Where it listens, with its real port.
    pub(crate) url: String,
    /// The name of its service.
    pub(crate) service: String,
    pub(crate) is_open: bool,
}

impl KnownListener {
    /// Whether it was closed, and this is it.
    fn opens_again_as(&self, listener: &PlannedListener) -> bool {
        !self.is_open && self.url == listener.url(&listener.address) && self.service == listener.kind()
    }
}

/// The listeners that a reload opens and closes.
pub(crate) struct Relistened<'a> {
    /// Those that the server never had, in their order.
    pub(crate) added: Vec<&'a PlannedListener>,
    /// Those that were closed and open again: their positions, how they were, and how they will be.
    pub(crate) again: Vec<(usize, &'a PlannedListener, &'a PlannedListener)>,
    /// Those that close, with their positions.
    pub(crate) gone: Vec<(usize, &'a PlannedListener)>,
}

impl<'a> Relistened<'a> {
    /// What opens and closes when `new` follows on `old`, by the position of each one's partner.
    pub(crate) fn between(
        old: &'a [PlannedListener],
        new: &'a [PlannedListener],
        partners: &[Option<usize>],
    ) -> Self {
        let (mut added, mut again) = (Vec::new(), Vec::new());
        for (new, partner) in new.iter().zip(partners) {
            match partner {
                None => added.push(new),
                Some(position) if !old[*position].is_open() => again.push((*position, &old[*position], new)),
                Some(_) => {}
            }
        }
        let gone = old.iter().enumerate();
        let gone = gone.filter(|(at, old)| old.is_open() && !partners.contains(&Some(*at))).collect();
        Self { added, again, gone }
    }

    /// The texts of all that open.
    pub(crate) fn opening(&self) -> impl Iterator<Item = &'a str> + '_ {
        let again = self.again.iter().map(|(_, _, new)| *new);
        again.chain(self.added.iter().copied()).map(|listener| listener.text.as_str())
    }

    /// The texts of all that close.
    pub(crate) fn closing(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.gone.iter().map(|(_, listener)| listener.text.as_str())
    }

    /// Why this cannot be before a restart, if it cannot: `known` are the listeners that the server has had, `going` the URLs
    /// of those that go on, and it has room for `most`.
    pub(crate) fn obstacle(&self, known: &[KnownListener], going: &[String], most: usize) -> Option<String> {
        let added = self.added.iter().filter(|new| !known.iter().any(|one| one.opens_again_as(new)));
        let added: Vec<_> = added.collect();
        let here_was = |new: &PlannedListener| {
            let url = new.url(&new.address);
            let there = known.iter().filter(|one| place(&one.url) == place(&url));
            there.filter(|one| !going.contains(&one.url)).count() > 0
        };
        if let Some(other) = added.iter().find(|new| here_was(new)) {
            let text = &other.text;
            return Some(format!(
                "listener `{text}` is where another one was since the start: it opens at a restart"
            ));
        }
        (known.len() + added.len() > most && !added.is_empty()).then(|| no_seat(most))
    }
}

/// Where a URL says that a listener is: two have room at one address, of which one takes datagrams.
fn place(url: &str) -> (bool, &str) {
    let place = url.split_once("://").or_else(|| url.split_once(':')).map_or(url, |(_, place)| place);
    (url.starts_with("udp:"), place)
}

#[cfg(test)]
mod tests {
    use super::super::pairs::partners;
    use super::*;
    use crate::cli::args::ServeArgs;
    use crate::cli::plan::Plan;

    fn planned(listen: &[&str]) -> Vec<PlannedListener> {
        let listen = listen.iter().map(|&text| text.to_owned()).collect();
        Plan::on(&ServeArgs { listen, ..ServeArgs::default() }, 100_000).unwrap().listeners
    }

    fn between<'a>(old: &'a [PlannedListener], new: &'a [PlannedListener]) -> Relistened<'a> {
        Relistened::between(old, new, &partners(old, new))
    }

    fn known(url: &str, service: &str, is_open: bool) -> KnownListener {
        KnownListener { url: url.to_owned(), service: service.to_owned(), is_open }
    }

    const ECHO: &str = "echo=tcp://127.0.0.1:1001";
    const HELLO: &str = "hello=tcp://127.0.0.1:1002";
    const HELLO_ADDRESS: &str = "127.0.0.1:1002";
    const TIME: &str = "time=http://127.0.0.1:1003";

    #[test]
    fn what_is_not_in_the_file_closes_what_was_not_opens_and_what_was_opens_again() {
        let (mut old, new) = (planned(&[ECHO, HELLO]), planned(&[TIME, HELLO]));
        old[1].close(HELLO_ADDRESS.parse::<std::net::SocketAddr>().unwrap().into());
        let found = between(&old, &new);
        assert_eq!(found.opening().collect::<Vec<_>>(), [HELLO, TIME]);
        assert_eq!(found.closing().collect::<Vec<_>>(), [ECHO]);
        assert_eq!((found.again[0].0, found.gone[0].0), (1, 0));
        let seats =
            [known("tcp://127.0.0.1:1001", "echo", true), known("tcp://127.0.0.1:1002", "hello", false)];
        assert_eq!(found.obstacle(&seats, &[], 3), None);
        assert!(found.obstacle(&seats, &[], 2).unwrap().contains("more than 2"));
    }

    #[test]
    fn a_place_where_another_service_was_is_no_place_before_a_restart() {
        let (old, new) = (planned(&[ECHO]), planned(&["hello=tcp://127.0.0.1:1001"]));
        let found = between(&old, &new);
        let echo = |is_open| [known("tcp://127.0.0.1:1001", "echo", is_open)];
        for is_open in [true, false] {
            let why = found.obstacle(&echo(is_open), &[], 9).unwrap();
            assert!(why.starts_with("listener `hello=tcp://127.0.0.1:1001` is where another"), "{why}");
        }
        let going = ["tcp://127.0.0.1:1001".to_owned()];
        assert_eq!(found.obstacle(&echo(true), &going, 9), None, "the kernel says that it is in use");
        let closed = [known("tcp://127.0.0.1:1001", "hello", false)];
        assert_eq!(found.obstacle(&closed, &[], 1), None, "it opens again, which takes no more room");
    }

    #[test]
    fn a_listener_for_datagrams_may_be_where_one_for_connections_is() {
        let (old, new) = (planned(&[ECHO]), planned(&[ECHO, "time=udp://127.0.0.1:1001"]));
        let seats =
            [known("tcp://127.0.0.1:1001", "echo", true), known("udp://127.0.0.1:1001", "echo", false)];
        let found = between(&old, &new);
        assert_eq!(found.obstacle(&seats[..1], &[], 9), None);
        assert!(found.obstacle(&seats, &[], 9).unwrap().contains("is where another one was"));
    }

    #[test]
    fn places_are_compared_without_what_is_spoken_there() {
        for (url, expected) in [
            ("tcp://[::1]:5", (false, "[::1]:5")),
            ("udp://[::1]:5", (true, "[::1]:5")),
            ("unix:/run/x", (false, "/run/x")),
            ("http+unix:/run/x", (false, "/run/x")),
        ] {
            assert_eq!(place(url), expected);
        }
    }
}
