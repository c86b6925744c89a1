//! The scenes: what is played, and against which servers.

use super::plan::{Asks, From, Party, Script, Stage, Wire};
use crate::peers::Mode;
use crate::server::Service;
use std::net::Ipv4Addr;
use std::time::Duration;

/// 1 ms of processor time for a request.
const CPU: Mode = Mode::Cpu(Duration::from_millis(1));
/// A request that waits and needs no processor, as one does that asks a database.
const WAIT: Mode = Mode::Sleep(Duration::from_millis(20));
/// Of the measured tidegate, and of the bare pool.
const WORKERS: f64 = 32.0;
/// Standing connections of the surge, and what they ask for a second.
const SURGE_CLIENTS: usize = 8_000;
const SURGE_RATE: f64 = 8_000.0;
const CALM_RATE: f64 = 600.0;
/// Every server for connections.
const ALL: &str = "tidegate tokio thread pool epoll python asyncio";

/// Which scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Name {
    /// 8,000 standing connections ask 600 times a second, then 8,000 times a second for ten seconds.
    Surge,
    /// The surge where each connection comes from an address of its own.
    SurgeSources,
    /// The surge with work that waits: 20 ms for each request, 32 workers.
    SurgeWait,
    /// The surge with datagrams.
    SurgeUdp,
    /// The surge with all cores for servers and clients together.
    SurgeCores,
    /// The surge over HTTP, on connections that are kept alive.
    SurgeHttp,
    /// The surge against a service for lines, where one client in ten sends its line in two halves.
    SurgeLines,
    /// One source with 4,000 standing connections at eight times the capacity, beside 50 polite sources.
    Sources,
    /// 300 clients that ask without a pause at 20 ms of waiting and 32 workers, beside 50 newcomers a second.
    Newcomers,
    /// 1,000 newcomers at one instant.
    Crowd,
    /// 300 newcomers at one instant, four times a second, beside a polite client.
    Bursts,
    /// Connections for one request each at ten times the capacity.
    OneShot,
    /// 160 clients at once for 32 workers, a second of waiting for each.
    Absorb,
    /// 32 clients that send 64 KiB of newlines at once to a service for lines.
    Pipeline,
}

/// Where the capacity of a scene comes from: what a server without any loss could do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Capacity {
    /// One core, measured with the one-thread loop and connections that stay.
    Core,
    /// The same with a connection for each request, which costs more.
    CoreOfNewcomers,
    /// The same with all cores; the clients take their part of them.
    Cores,
    /// This rate, by arithmetic.
    Known(f64),
    /// The scene asks for little.
    Ample,
}

/// A scene, ready to be played.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    /// What is done, in a sentence or two.
    pub(crate) what: &'static str,
    pub(crate) script: Script,
    pub(crate) service: Service,
    /// Whether server and clients have processors of their own.
    pub(crate) apart: bool,
    /// The servers, unless others are asked for.
    pub(crate) peers: &'static str,
    /// The stage that is judged.
    pub(crate) judged: usize,
    /// Whether the server is told to end while the clients are there.
    pub(crate) ends: bool,
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A calm beginning, the stage that is judged, and an end of calm whose first second is apart.
fn stages(judged: &'static str, time: u64) -> Vec<Stage> {
    [("before", 4), (judged, time), ("first second after", 1), ("after", 4)]
        .map(|(name, time)| Stage { name, time: seconds(time) })
        .to_vec()
}

impl Name {
    pub(crate) fn capacity(self) -> Capacity {
        match self {
            Name::Surge
            | Name::SurgeSources
            | Name::SurgeUdp
            | Name::SurgeLines
            | Name::SurgeHttp
            | Name::Sources => Capacity::Core,
            Name::OneShot => Capacity::CoreOfNewcomers,
            Name::SurgeCores => Capacity::Cores,
            Name::SurgeWait | Name::Newcomers => Capacity::Known(WORKERS / 0.02),
            Name::Crowd | Name::Bursts | Name::Absorb | Name::Pipeline => Capacity::Ample,
        }
    }

    pub(crate) fn work(self) -> Mode {
        match self {
            Name::SurgeWait | Name::Newcomers => WAIT,
            Name::Crowd | Name::Bursts => Mode::Echo,
            Name::Absorb => Mode::Sleep(seconds(1)),
            _ => CPU,
        }
    }

    /// The scene, for a server whose capacity is this rate.
    pub(crate) fn scene(self, capacity: f64) -> Scene {
        let base = Scene {
            key: "",
            title: "",
            what: "",
            script: Script { wire: Wire::Stream, stages: Vec::new(), groups: Vec::new() },
            service: Service::stream(self.work()),
            apart: true,
            peers: ALL,
            judged: 1,
            ends: false,
        };
        match self {
            Name::Surge
            | Name::SurgeSources
            | Name::SurgeWait
            | Name::SurgeUdp
            | Name::SurgeCores
            | Name::SurgeHttp
            | Name::SurgeLines => surge(self, base),
            Name::Sources => sources(base, capacity),
            Name::Newcomers => newcomers(base),
            Name::Crowd => crowd(base),
            Name::Bursts => bursts(base),
            Name::OneShot => one_shot(base, capacity),
            Name::Absorb => absorb(base),
            Name::Pipeline => pipeline(base),
        }
    }
}

/// A part of the clients of a surge.
fn surging(name: &'static str, clients: usize) -> Party {
    let share = clients as f64 / SURGE_CLIENTS as f64;
    let rates = [CALM_RATE, SURGE_RATE, CALM_RATE, CALM_RATE].map(|rate| rate * share);
    Party::standing(name, clients, &rates)
}

/// The clients of a surge that send whole lines, and a tenth that sends its lines in halves.
fn lines_and_halves() -> (Party, Party) {
    let (tenth, pause) = (SURGE_CLIENTS / 10, Duration::from_millis(300));
    let whole = surging("whole lines", SURGE_CLIENTS - tenth);
    let halves = Party {
        from: From::Like { group: 0 },
        halves: Some((1, pause)),
        // A second from the first half on, as all others have.
        patience: whole.patience - pause,
        ..surging("in halves", tenth)
    };
    (whole, halves)
}

fn surge(name: Name, base: Scene) -> Scene {
    let mut all = surging("all", SURGE_CLIENTS);
    let mut halves = None;
    let (mut wire, mut peers) = (Wire::Stream, ALL);
    let (key, title, what) = match name {
        Name::SurgeSources => {
            let first = Ipv4Addr::new(127, 16, 0, 1);
            (all.from, peers) = (From::Addresses { first, count: SURGE_CLIENTS }, "tidegate tokio epoll");
            (
                "surge-sources",
                "Surge from 8,000 addresses",
                "The surge, where each connection comes from an address of its own. (In the others all come from one \
                 or two addresses, as from behind a balancer.)",
            )
        }
        Name::SurgeWait => {
            peers = "tidegate pool";
            (
                "surge-wait",
                "Surge, with work that waits",
                "The surge, where each request waits 20 ms and needs no processor, with 32 workers.",
            )
        }
        Name::SurgeUdp => {
            (wire, peers) = (Wire::Datagrams, "tidegate udp python");
            ("surge-udp", "Surge of datagrams", "The surge, where each of 8,000 sockets sends datagrams.")
        }
        Name::SurgeHttp => {
            (wire, peers) = (Wire::Http, "tidegate hyper");
            (
                "surge-http",
                "Surge of HTTP requests",
                "The surge over HTTP, on connections that are kept alive. An answer with a status other than 200 is a \
                 refusal; its client asks again when its next request is due.",
            )
        }
        Name::SurgeCores => (
            "surge-cores",
            "Surge, all cores",
            "The surge, where servers and clients share all cores, so that a server can \
              only do what the clients leave it.",
        ),
        Name::SurgeLines => {
            let (whole, some) = lines_and_halves();
            (all, halves) = (whole, Some(some));
            (wire, peers) = (Wire::Lines, "tidegate");
            (
                "surge-lines",
                "Surge of lines",
                "The surge against a service for lines. One client in ten sends the first half of its line 300 ms \
                 before the second.",
            )
        }
        _ => (
            "surge",
            "Surge on connections that stay",
            "8,000 connections stand open and ask 600 times a second in all. Then they ask 8,000 times a second for \
             ten seconds. A client without a reply after a second closes its connection, and comes back half a \
             second later.",
        ),
    };
    let apart = name != Name::SurgeCores;
    let groups = [all].into_iter().chain(halves).collect();
    let script = Script { wire, stages: stages("surge", 10), groups };
    let service = Service { wire, ..base.service };
    Scene { key, title, what, script, service, apart, peers, ..base }
}

fn sources(base: Scene, capacity: f64) -> Scene {
    let load = 8.0 * capacity;
    let busy = Party {
        from: From::Addresses { first: Ipv4Addr::new(127, 0, 2, 1), count: 1 },
        ..Party::standing("one busy source", 4_000, &[200.0, load, 200.0, 200.0])
    };
    let polite = Party {
        from: From::Addresses { first: Ipv4Addr::new(127, 0, 1, 1), count: 50 },
        ..Party::standing("50 polite sources", 50, &[50.0; 4])
    };
    Scene {
        key: "sources",
        title: "One busy source beside 50 polite ones",
        what: "One address has 4,000 standing connections, which ask for eight times the capacity for ten seconds. \
               Fifty other addresses have one connection each, and ask once a second each.",
        script: Script { wire: Wire::Stream, stages: stages("busy", 10), groups: vec![busy, polite] },
        ..base
    }
}

fn newcomers(base: Scene) -> Scene {
    let established = Party { asks: Asks::Closed, ..Party::standing("300 established", 300, &[1.0, 1.0]) };
    let newcomers = Party::newcomers("newcomers", &[0.0, 50.0]);
    let stages = [("before", 2), ("newcomers", 6)].map(|(name, time)| Stage { name, time: seconds(time) });
    Scene {
        key: "newcomers",
        title: "Newcomers beside busy clients",
        what: "300 connections ask without a pause, 20 ms of waiting for each request, 32 workers. Beside them 50 \
               newcomers a second connect, ask once, and leave.",
        script: Script { wire: Wire::Stream, stages: stages.to_vec(), groups: vec![established, newcomers] },
        peers: "tidegate tokio thread pool python asyncio",
        ..base
    }
}

fn crowd(base: Scene) -> Scene {
    let crowd = Party {
        asks: Asks::Burst { pause: seconds(60) },
        clients: 1_000,
        patience: seconds(10),
        ..Party::newcomers("1,000 at once", &[1.0])
    };
    Scene {
        key: "crowd",
        title: "A crowd at one instant",
        what: "1,000 newcomers connect at one instant and ask for one echo each.",
        script: Script {
            wire: Wire::Stream,
            stages: vec![Stage { name: "crowd", time: seconds(4) }],
            groups: vec![crowd],
        },
        judged: 0,
        ..base
    }
}

fn bursts(base: Scene) -> Scene {
    let bursts = Party {
        asks: Asks::Burst { pause: Duration::from_millis(250) },
        clients: 300,
        patience: seconds(5),
        ..Party::newcomers("bursts of 300", &[1.0])
    };
    let polite = Party { patience: seconds(5), ..Party::newcomers("polite client", &[20.0]) };
    Scene {
        key: "bursts",
        title: "Bursts at a low load",
        what: "300 newcomers connect at one instant and ask for one echo each, four times a second: a small part of \
               what a core can do. Beside them one client connects and asks 20 times a second.",
        script: Script {
            wire: Wire::Stream,
            stages: vec![Stage { name: "bursts", time: seconds(6) }],
            groups: vec![bursts, polite],
        },
        judged: 0,
        ..base
    }
}

fn one_shot(base: Scene, capacity: f64) -> Scene {
    Scene {
        key: "one-shot",
        title: "Connections for one request each, at ten times the load",
        what: "Newcomers connect, ask once and leave, at ten times the capacity. They give up after a second.",
        script: Script {
            wire: Wire::Stream,
            stages: [("first second", 1), ("overload", 6)]
                .map(|(name, time)| Stage { name, time: seconds(time) })
                .to_vec(),
            groups: vec![Party::newcomers("newcomers", &[10.0 * capacity; 2])],
        },
        ..base
    }
}

fn absorb(base: Scene) -> Scene {
    let crowd = Party {
        asks: Asks::Burst { pause: seconds(60) },
        clients: 160,
        patience: seconds(10),
        ..Party::newcomers("160 at once", &[1.0])
    };
    Scene {
        key: "absorb",
        title: "A burst that the queue can hold",
        what: "160 newcomers connect at one instant; each request waits for a second. 32 workers and a queue of 128 \
               can serve them all within 5 s, and the clients wait that long.",
        script: Script {
            wire: Wire::Stream,
            stages: vec![Stage { name: "burst", time: seconds(8) }],
            groups: vec![crowd],
        },
        peers: "tidegate pool",
        judged: 0,
        ..base
    }
}

fn pipeline(base: Scene) -> Scene {
    let flood = Party {
        asks: Asks::Flood,
        clients: 32,
        size: 64 << 10,
        ..Party::standing("32 floods", 0, &[0.0, 1.0])
    };
    let established = Party::standing("established client", 1, &[5.0; 2]);
    let newcomers = Party::newcomers("newcomers", &[2.0; 2]);
    Scene {
        key: "pipeline",
        title: "Lines without end",
        what: "A service for lines takes 1 ms of processor time for each. 32 clients send 64 KiB of newlines at once. \
               An established client asks five times a second, and two newcomers come each second. At the end the \
               server is told to end within two seconds.",
        script: Script {
            wire: Wire::Lines,
            stages: [("before", 2), ("flood", 10)]
                .map(|(name, time)| Stage { name, time: seconds(time) })
                .to_vec(),
            groups: vec![flood, established, newcomers],
        },
        service: Service { wire: Wire::Lines, ..base.service },
        peers: "tidegate",
        ends: true,
        ..base
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_scene_has_a_name_a_rate_for_each_stage_and_a_stage_to_judge() {
        for name in Name::value_variants() {
            let scene = name.scene(950.0);
            let word = name.to_possible_value().unwrap();
            assert_eq!(scene.key, word.get_name());
            assert!(!scene.title.is_empty() && scene.judged < scene.script.stages.len(), "{}", scene.key);
            for group in &scene.script.groups {
                assert_eq!(group.rates.len(), scene.script.stages.len(), "{}: {}", scene.key, group.name);
            }
        }
    }
}
