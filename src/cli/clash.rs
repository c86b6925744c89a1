//! Addresses that cannot be together in one program: two things that listen in one place, and gates that lead back to
//! themselves.

use super::plan::{Plan, PlannedListener};
use crate::{Address, UnixName};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// What is wrong, if anything is.
pub(super) fn find(plan: &Plan) -> Option<String> {
    one_place(plan).or_else(|| circle(&plan.listeners))
}

/// Two that listen in one place.
fn one_place(plan: &Plan) -> Option<String> {
    let beside = [("the admin endpoint", "--admin", plan.admin), ("the agent", "--agent", plan.agent)];
    let beside = beside.into_iter().filter_map(|(name, option, address)| {
        Some((format!("{name} ({option} {})", address?), Address::Ip(address?), true))
    });
    let listeners = plan
        .listeners
        .iter()
        .map(|listener| (format!("listener `{}`", listener.text), listener.address, listener.has_backlog()));
    let all: Vec<_> = listeners.chain(beside).collect();
    let pairs =
        all.iter().enumerate().flat_map(|(at, one)| all[at + 1..].iter().map(move |other| (one, other)));
    // Datagrams have ports of their own.
    let mut clashes = pairs.filter(|(one, other)| one.2 == other.2 && is_one_place(&one.1, &other.1));
    let (one, other) = clashes.next()?;
    let what = if one.1.is_unix() { "path" } else { "port" };
    Some(format!("{} and {} listen in the same place: give one of them another {what}", one.0, other.0))
}

/// Whether the kernel would refuse the second of two that listen there.
fn is_one_place(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Ip(one), Address::Ip(other)) => {
            let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
            let covers =
                ip.is_unspecified() || other_ip.is_unspecified() || ip == other_ip && zones_meet(one, other);
            one.port() != 0 && one.port() == other.port() && ip.is_ipv4() == other_ip.is_ipv4() && covers
        }
        (one, other) => one == other,
    }
}

/// Whether two addresses may be on one interface: only a link-local address names its own.
fn zones_meet(one: &SocketAddr, other: &SocketAddr) -> bool {
    match (one, other) {
        (SocketAddr::V6(one), SocketAddr::V6(other)) => {
            [one.scope_id(), other.scope_id()].contains(&0) || one.scope_id() == other.scope_id()
        }
        _ => true,
    }
}

/// Gates that pass a connection on to each other for ever, each time on a new connection.
fn circle(listeners: &[PlannedListener]) -> Option<String> {
    let next: Vec<Vec<usize>> = listeners
        .iter()
        .map(|gate| (0..listeners.len()).filter(|&at| leads_to(gate, &listeners[at])).collect())
        .collect();
    let round = (0..listeners.len()).find_map(|start| way_back(start, &next))?;
    let text = |at: &usize| format!("listener `{}`", listeners[*at].text);
    Some(match &round[..] {
        [one] => format!("{} has itself as a backend: a connection would go round for ever", text(one)),
        many => {
            let all: Vec<_> = many.iter().map(text).collect();
            format!("{} lead to each other: a connection would go round for ever", all.join(" and "))
        }
    })
}

/// The shortest way from a gate back to itself, by the positions on it.
fn way_back(start: usize, next: &[Vec<usize>]) -> Option<Vec<usize>> {
    let (mut ways, mut seen) = (vec![vec![start]], vec![false; next.len()]);
    let mut at = 0;
    while let Some(way) = ways.get(at).cloned() {
        for &to in &next[way[way.len() - 1]] {
            if to == start {
                return Some(way);
            }
            if !std::mem::replace(&mut seen[to], true) {
                ways.push([&way[..], &[to]].concat());
            }
        }
        at += 1;
    }
    None
}

/// Whether a gate has this listener among its backends.
fn leads_to(gate: &PlannedListener, listener: &PlannedListener) -> bool {
    listener.has_backlog()
        && gate.backend_addresses().iter().any(|backend| reaches(backend, &listener.address))
}

/// Whether a connection to this address comes to this listener.
fn reaches(to: &Address, listener: &Address) -> bool {
    match (to, listener) {
        (Address::Ip(to), Address::Ip(listener)) => {
            let (ip, own) = (destination(to.ip()), listener.ip().to_canonical());
            let there = ip == own
                || own.is_unspecified() && (own.is_ipv6() || ip.is_ipv4()) && is_of_this_machine(ip);
            to.port() == listener.port() && there
        }
        (Address::Unix(to), Address::Unix(listener)) => whole(to) == whole(listener),
        _ => false,
    }
}

/// Where a connection to this address goes.
fn destination(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Whether this machine has the address: then, and only then, a socket can be bound to it.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// A path from the root, since a backend's may be a relative one.
fn whole(name: &UnixName) -> Option<std::path::PathBuf> {
    match name.as_path() {
        Some(path) => std::path::absolute(path).ok(),
        // An abstract name begins with a byte that no path has.
        None => Some(name.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<SocketAddr>().unwrap().into()
    }

    #[test]
    fn a_place_is_an_address_with_a_port_and_all_addresses_cover_each() {
        for (one, other, same) in [
            ("127.0.0.1:5000", "127.0.0.1:5000", true),
            ("127.0.0.1:5000", "127.0.0.1:5001", false),
            ("127.0.0.1:5000", "127.0.0.2:5000", false),
            ("0.0.0.0:5000", "127.0.0.1:5000", true),
            ("[::]:5000", "[::1]:5000", true),
            ("[::]:5000", "127.0.0.1:5000", false),
            ("[::ffff:127.0.0.1]:5000", "127.0.0.1:5000", true),
            ("[fe80::1%1]:5000", "[fe80::1%2]:5000", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            for (one, other) in [(one, other), (other, one)] {
                assert_eq!(is_one_place(&address(one), &address(other)), same, "{one} {other}");
            }
        }
        let unix = |path: &str| Address::from(UnixName::path(path).unwrap());
        assert!(
            is_one_place(&unix("/run/x"), &unix("/run/x")) && !is_one_place(&unix("/run/x"), &unix("/run/y"))
        );
    }

    #[test]
    fn a_backend_is_a_listener_where_its_connections_come_to_it() {
        for (backend, listener, same) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "[::]:80", true),
            ("[::1]:80", "0.0.0.0:80", false),
            ("192.0.2.1:80", "0.0.0.0:80", false),
            ("127.0.0.1:81", "0.0.0.0:80", false),
        ] {
            assert_eq!(reaches(&address(backend), &address(listener)), same, "{backend} {listener}");
        }
        let unix = |path: &str| Address::from(UnixName::path(path).unwrap());
        let here = std::env::current_dir().unwrap().join("x.sock");
        assert!(reaches(&unix("x.sock"), &unix(here.to_str().unwrap())));
    }

    #[test]
    fn the_way_back_is_the_shortest() {
        let next = [vec![1], vec![2, 0], vec![0], vec![3], vec![]];
        let ways: Vec<_> = (0..5).map(|start| way_back(start, &next)).collect();
        let expected = [Some(vec![0, 1]), Some(vec![1, 0]), Some(vec![2, 0, 1]), Some(vec![3]), None];
        assert_eq!(ways, expected);
    }
}
