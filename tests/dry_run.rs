//! Dry runs: the same load meets a server whose limit is in force and one whose limit is in a dry run. As many are turned
//! away by the one as the other counts and lets through.
#![cfg(target_os = "linux")]

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use support::{Client, End, Folder, PATIENCE, Program, Running, Scrape, admin, eventually, run};
use tidegate::{DryRun, Limits};

const DROPPED: &str = "tidegate_connections_dropped_total";
const WOULD: &str = "tidegate_would_drop_total";

/// What was turned away and what would have been, for a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    turned_away: u64,
    let_through: u64,
}

/// The counts for this reason; there are none for any other.
#[track_caller]
fn counts(server: &Running, reason: &str) -> Counts {
    let seen = Scrape::of(server);
    seen.assert_conserved();
    let label = format!("reason=\"{reason}\"");
    let one = |metric| {
        let count = seen.sum(metric, &[&label]);
        assert_eq!(count, seen.sum(metric, &[]), "{metric} has no other reason");
        count
    };
    Counts { turned_away: one(DROPPED), let_through: one(WOULD) }
}

#[track_caller]
fn until(server: &Running, reason: &str, turned_away: u64, let_through: u64) {
    let wanted = Counts { turned_away, let_through };
    let mut last = wanted;
    let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("the counts are as wanted", || {
            last = counts(server, reason);
            (last == wanted).then_some(())
        })
    }));
    assert!(reached.is_ok(), "{last:?}, and not {wanted:?}");
}

/// The load meets a server with this limit in force, and one with it in a dry run.
fn both(program: impl Fn() -> Program, limit: &str, load: impl Fn(&Running, bool)) {
    load(&program().start(), false);
    let server = program().arg("--dry-run", limit).start();
    let said = server.stdout();
    assert!(said.contains("limits: "), "{said}");
    let line = format!("dry run: {limit}, whom they would turn away is counted and let through\n");
    eventually("it says so at the start", || server.stdout().ends_with(&line).then_some(()));
    load(&server, true);
}

fn program() -> Program {
    Program::new().admin().arg("--workers", 1).arg("--refusal-rate", "all")
}

/// One worker that a request occupies for this time.
fn slow(time: &str) -> Program {
    program().service("work").arg("--work", format!("sleep:{time}"))
}

/// A client whose request has the only worker.
#[track_caller]
fn occupy(server: &Running) -> Client {
    let mut client = server.client();
    client.say("x\n");
    eventually("the worker has it", || {
        (Scrape::of(server).sum("tidegate_connections_active", &[]) == 1).then_some(())
    });
    client
}

#[track_caller]
fn until_accepted(server: &Running, count: u64) {
    eventually("they are accepted", || {
        (Scrape::of(server).sum("tidegate_connections_accepted_total", &[]) == count).then_some(())
    });
}

#[test]
fn max_per_source_lets_in_as_many_as_it_would_refuse() {
    both(
        || program().arg("--max-per-source", 2),
        "max-per-source",
        |server, dry| {
            let mut clients: Vec<Client> = (0..2).map(|_| server.client()).collect();
            for client in &mut clients {
                client.say("x").hear("x");
            }
            for refused in 1..=5 {
                let mut client = server.client();
                if dry {
                    client.say("x").hear("x");
                    clients.push(client);
                } else {
                    assert_eq!(client.end(), End::Reset);
                }
                let counted = if dry { (0, refused) } else { (refused, 0) };
                until(server, "per_source", counted.0, counted.1);
            }
            // Those that were let in beside the limit are not counted for it.
            clients.remove(0);
            eventually("it has left", || {
                (Scrape::of(server).sum("tidegate_connections_closed_total", &[]) == 1).then_some(())
            });
            server.client().say("x").hear("x");
            until(server, "per_source", if dry { 0 } else { 5 }, if dry { 5 } else { 0 });
        },
    );
}

#[test]
fn source_rate_lets_in_as_many_as_it_would_refuse() {
    both(
        || program().arg("--source-rate", "0.001/s"),
        "source-rate",
        |server, dry| {
            server.client().say("x").hear("x");
            for _ in 0..6 {
                let mut client = server.client();
                if dry {
                    client.say("x").hear("x");
                } else {
                    assert_eq!(client.end(), End::Reset);
                }
            }
            until(server, "rate", if dry { 0 } else { 6 }, if dry { 6 } else { 0 });
        },
    );
}

#[test]
fn the_queue_lets_in_as_many_as_it_would_refuse() {
    both(
        || slow("3s").arg("--queue", 2).arg("--queue-timeout", "60s"),
        "queue",
        |server, dry| {
            let first = occupy(server);
            let clients: Vec<Client> = (0..7).map(|_| server.client()).collect();
            until_accepted(server, 8);
            until(server, "queue_full", if dry { 0 } else { 5 }, if dry { 5 } else { 0 });
            eventually("all that were let in have had their turn", || {
                let idle = Scrape::of(server).sum("tidegate_connections", &["state=\"idle\""]);
                (idle == if dry { 8 } else { 3 }).then_some(())
            });
            // The places that the limit has are free again, however many were let in beside it.
            let more: Vec<Client> = (0..2).map(|_| server.client()).collect();
            until_accepted(server, 10);
            until(server, "queue_full", if dry { 0 } else { 5 }, if dry { 5 } else { 0 });
            drop((first, clients, more));
        },
    );
}

#[test]
fn queue_timeout_gives_newcomers_and_requests_their_turn_that_it_would_give_up() {
    both(
        || slow("1500ms").arg("--queue-timeout", "200ms"),
        "queue-timeout",
        |server, dry| {
            let mut known: Vec<Client> = (0..2).map(|_| server.client()).collect();
            eventually("they have had their first turn", || {
                let idle = Scrape::of(server).sum("tidegate_connections", &["state=\"idle\""]);
                (idle == 2).then_some(())
            });
            let first = occupy(server);
            let newcomers: Vec<Client> = (0..4).map(|_| server.client()).collect();
            until_accepted(server, 7);
            for client in &mut known {
                client.say("x\n");
            }
            let shed = || Scrape::of(server).sum("tidegate_turns_shed_total", &["reason=\"queue_timeout\""]);
            if dry {
                until(server, "queue_timeout", 0, 4 + 2);
                for client in &mut known {
                    client.hear("x\n");
                }
                assert_eq!(shed(), 0);
            } else {
                until(server, "queue_timeout", 4, 0);
                eventually("the requests are shed", || (shed() == 2).then_some(()));
            }
            drop((first, newcomers));
        },
    );
}

#[test]
fn datagram_source_rate_answers_as_many_as_it_would_drop() {
    both(
        || {
            program()
                .without_echo()
                .arg("--listen", "echo=udp://127.0.0.1:0")
                .arg("--datagram-source-rate", "0.001/s")
        },
        "datagram-source-rate",
        |server, dry| {
            let said = server.stdout();
            let address =
                said.lines().find_map(|line| line.split_once("udp://")?.1.parse::<SocketAddr>().ok());
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            for n in 0..20_u8 {
                socket.send_to(&[n], address.unwrap()).unwrap();
            }
            let answered = if dry { 20 } else { 8 };
            for n in 0..answered {
                let mut answer = [0; 2];
                assert_eq!((socket.recv(&mut answer).unwrap(), answer[0]), (1, n));
            }
            let seen = || {
                let seen = Scrape::of(server);
                let of = |metric, labels: &[&str]| seen.sum(metric, labels);
                let dropped = of("tidegate_datagrams_dropped_total", &[]);
                assert_eq!(dropped, of("tidegate_datagrams_dropped_total", &["reason=\"source_rate\""]));
                assert_eq!(of(WOULD, &[]), of(WOULD, &["reason=\"source_rate\""]));
                (of("tidegate_datagrams_received_total", &[]), dropped, of(WOULD, &[]))
            };
            let wanted = if dry { (20, 0, 12) } else { (20, 12, 0) };
            eventually("the others are counted", || (seen() == wanted).then_some(()));
            socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            assert!(socket.recv(&mut [0]).is_err(), "no more answers");
        },
    );
}

/// `all` is every limit that can be: the others turn away as always.
#[test]
fn a_dry_run_of_all_leaves_in_force_what_memory_is_reckoned_by() {
    let limits = ["--max-per-source", "--queue"];
    let program = limits.iter().fold(program().arg("--max-connections", 3), |all, name| all.arg(name, 1));
    let server = program.arg("--dry-run", "all").start();
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for client in &mut clients {
        client.say("x").hear("x");
    }
    assert_eq!(server.client().end(), End::Reset);
    let seen = Scrape::of(&server);
    seen.assert_conserved();
    assert_eq!(seen.sum(WOULD, &["reason=\"per_source\""]), 2);
    assert_eq!(seen.sum(DROPPED, &["reason=\"max_connections\""]), 1);
    let page = admin(&server, "/status");
    assert!(page.text().contains("dry run, let through: per_source"), "{}", page.text());
    let has_limit = page.text().lines().any(|line| line.split_whitespace().eq(["dry-run", "all"]));
    assert!(has_limit, "{}", page.text());
}

#[test]
fn a_file_names_the_limits_in_one_text_or_in_a_list() {
    let folder = Folder::new("dry-run-list");
    for tried in ["\"queue,max-per-source\"", "[\"max-per-source\", \"queue\"]"] {
        let file = folder.write("tidegate.toml", &format!("max-per-source = 1\ndry-run = {tried}\n"));
        let said = run(["check", "--config", &file]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let line = text.lines().find(|line| line.trim_start().starts_with("dry-run "));
        assert!(line.is_some_and(|line| line.contains("queue,max-per-source")), "{tried}: {text}");
    }
    let file = folder.write("tidegate.toml", "dry-run = [\"queue\", \"workers\"]\n");
    let said = run(["check", "--config", &file]);
    let why = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.status.code() == Some(2) && why.contains("line 1") && why.contains("`workers` cannot be"),
        "{why}"
    );
}

#[test]
fn a_reload_begins_a_dry_run_and_ends_it() {
    let folder = Folder::new("dry-run");
    let write = |tried: &str| {
        let text = format!("max-per-source = 1\nrefusal-rate = \"all\"\ndry-run = \"{tried}\"\n");
        folder.write("tidegate.toml", &text)
    };
    let server = Program::new().admin().arg("--config", write("off")).start();
    let mut first = server.client();
    first.say("x").hear("x");
    assert_eq!(server.client().end(), End::Reset);
    write("max-per-source,queue");
    server.signal(rustix::process::Signal::HUP);
    eventually("the log says so", || {
        server.stderr().contains("dry-run off -> queue,max-per-source").then_some(())
    });
    server.client().say("x").hear("x");
    write("off");
    server.signal(rustix::process::Signal::HUP);
    eventually("the log says so", || server.stderr().contains("-> off").then_some(()));
    assert_eq!(server.client().end(), End::Reset);
    until(&server, "per_source", 2, 1);
}

#[test]
fn a_limit_that_cannot_be_in_a_dry_run_ends_the_start_with_one_line_that_says_why() {
    for row in Limits::default().table().iter().filter(|row| !row.dry_run) {
        for command in [&["check"][..], &["serve"]] {
            let args = [command, &["--dry-run", row.name]].concat();
            let ended = run(args);
            let said = String::from_utf8(ended.stderr).unwrap();
            assert_eq!((ended.status.code(), said.lines().count()), (Some(2), 1), "{said}");
            assert!(said.contains(&format!("`{}` cannot be in a dry run: ", row.name)), "{said}");
        }
    }
    let ended = run(["check", "--dry-run", "all"]);
    let said = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success() && said.contains("\n  dry-run                all "), "{said}");
}

/// docs/live.md names the limits that can be in a dry run.
#[test]
fn the_page_names_them() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/live.md")).unwrap();
    let (_, section) = page.split_once("\n## Dry run\n").expect("docs/live.md has the section");
    let section = section.split("\n## ").next().unwrap();
    for row in Limits::default().table() {
        let first = format!("\n| `{}` |", row.name);
        assert_eq!(section.contains(&first), row.dry_run, "{}", row.name);
        assert!(!row.dry_run || row.name.parse::<DryRun>().is_ok());
    }
}
