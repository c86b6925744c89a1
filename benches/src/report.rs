//! The report: `docs/benchmarks.md`.

use crate::load::LATE;
use crate::plots::{thousands, title_of};
use crate::results::{ClientRates, Results, SHARED, Survival, SurvivalPoint};
use crate::stats::{median, spread};
use crate::work_table::work_table;
use crate::{gate, scene};
use crate::{goals, machine::Machine};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What each work is, in the order of the report.
const WORKS: &[(&str, &str)] = &[
    ("echo-64-1", "Echo of 64 bytes, 1 connection"),
    ("echo-64-32", "Echo of 64 bytes, 32 connections"),
    ("echo-64-1000", "Echo of 64 bytes, 1,000 connections"),
    ("echo-64-10000", "Echo of 64 bytes, 10,000 connections"),
    ("echo-65536-32", "Echo of 64 KiB, 32 connections"),
    ("churn", "Connect, echo of 64 bytes, close; 32 at once"),
    ("refuse", "Connect, be refused; 32 at once"),
    ("features", "Echo of 64 bytes, 32 connections: metrics, limits and timeouts"),
    ("udp-echo-1", "UDP echo of 64 bytes, 1 socket"),
    ("udp-echo-1x32", "UDP echo of 64 bytes, 1 socket with 32 in flight"),
    ("udp-echo-32", "UDP echo of 64 bytes, 32 sockets"),
    ("udp-echo-1000", "UDP echo of 64 bytes, 1,000 sockets"),
    ("udp-time-1", "UDP time, 1 socket"),
    ("udp-time-1x32", "UDP time, 1 socket with 32 in flight"),
    ("udp-time-32", "UDP time, 32 sockets"),
    ("udp-time-1000", "UDP time, 1,000 sockets"),
];

/// The whole report.
pub(crate) fn markdown(results: &Results) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = head(&mut page, &results.machine);
    let _ = later(&mut page, &results.later);
    let _ = goal_table(&mut page, results);
    page += "\n";
    page += include_str!("../notes.md");
    if let Some(survival) = &results.survival {
        let _ = survive(&mut page, survival);
    }
    let _ = scene::report(&mut page, &results.scenes);
    if let Some(gates) = &results.gate {
        let _ = gate::report(&mut page, gates);
    }
    page += "\n## Speed and memory\n\n![Echo of 64 bytes](img/echo.svg)\n\n\
             ![Peak memory with 10,000 connections](img/memory.svg)\n";
    for (key, title) in WORKS {
        if let Some(comparison) = results.work.get(*key) {
            let _ = writeln!(page, "\n### {title}");
            let _ = work_table(&mut page, comparison);
        }
        if let Some(comparison) = results.work.get(&format!("{key}{SHARED}")) {
            let _ = writeln!(page, "\nSharing all cores:");
            let _ = work_table(&mut page, comparison);
        }
    }
    let _ = start_table(&mut page, results);
    let _ = client_table(&mut page, results);
    page
}

fn head(page: &mut String, machine: &Machine) -> std::fmt::Result {
    let Machine { processor, cores, memory_gib, kernel, rustc, python, revision, date, pinned } = machine;
    let where_ = match (pinned, cores) {
        (true, 2..) => "Servers run on one core, clients on the others.",
        _ => "Servers and clients share all cores.",
    };
    writeln!(
        page,
        "# Benchmarks\n\n\
         What tidegate costs and what it survives, beside what else one could use. One command measures all of it and \
         writes this page and its pictures:\n\n\
         ```sh\ncargo run --release -p tidegate-bench -- all\n```\n\n\
         It needs Linux and takes about fifty minutes; `python3` is one of the peers (`--no-python` leaves it \
         out), and `wrk` is the HTTP client that `tidegate stress` is measured against. `tidegate-bench quick --help` compares a few servers under one load, \
         `tidegate-bench scene --help` plays one scene of overload and prints each second.\n\n\
         | machine | |\n|---|---|\n\
         | processor | {processor}, {cores} cores |\n| memory | {memory_gib} GiB |\n| kernel | Linux {kernel} |\n\
         | compiler | {rustc} |\n| Python | {python} |\n| revision | {revision} |\n| date | {date} |\n\n\
         How it is measured. {where_} All servers are measured in turn, each round beginning with another one, and \
         figures are compared within a round, so that what else the machine does falls on all of them alike. A figure \
         is the median of the rounds; a ratio is the median of the rounds' ratios, with the least and the most behind \
         it. Compare ratios; the absolute figures are this machine's. *CPU* is the server's CPU time for each request, \
         which says more than the rate where the client, not the server, was what could go no faster. *Peak MB* is the most memory \
         that the process of the server ever held (VmHWM of /proc/PID/status), with what it has mapped of its own program and of \
         libraries, in millions of bytes; *peak MiB* is the same in units of 1,048,576 bytes.\n\n\
         The peers are in `benches/`, each what a good engineer writes first, with `TCP_NODELAY` and buffers of 64 KiB: \
         Python's `ThreadingTCPServer` and `ThreadingUDPServer`, Python's asyncio, a thread per connection in Rust, tokio with a task per \
         connection, a bare bounded pool (an acceptor, a bounded channel, 32 blocking workers, nothing else), and what \
         no server can beat: one-thread loops over epoll, over `recvfrom`, and over accept and reset."
    )
}

/// The sections that are of another run than the rest.
fn later(page: &mut String, later: &BTreeMap<String, Machine>) -> std::fmt::Result {
    if later.is_empty() {
        return Ok(());
    }
    let sections: Vec<String> = later
        .iter()
        .map(|(section, machine)| format!("`{section}` ({}, revision {})", machine.date, machine.revision))
        .collect();
    writeln!(
        page,
        "\nMeasured again later, each with `tidegate-bench all --only SECTION`: {}.",
        sections.join(", ")
    )
}

fn goal_table(page: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(
        page,
        "\n## Goals\n\n*Apart*: servers have one core and clients the others. *Sharing*: both share all cores, so that a \
         server may use more than one, and a client's work is in its way. *Per CPU second*: replies for each CPU second \
         of the server, apart; this is what the rates come to where a server has its core to itself.{}\n\n\
         | work | figure | goal | apart | sharing | per CPU second |\n|---|---|---|---|---|---|",
        busy(results)
    )?;
    let mut others = scene::goals(&results.scenes);
    others.extend(gate::goals(results.gate.as_ref()));
    for goal in goals::all(results, others) {
        let columns = [&goal.values, &goal.shared, &goal.per_cpu].map(|values| goal.measured(values));
        let [apart, sharing, per_cpu] = match columns.iter().all(String::is_empty) {
            true => [goal.unmeasured.to_owned(), String::new(), String::new()],
            false => columns,
        };
        let (work, figure, promise) = (&goal.work, &goal.figure, goal.promise());
        writeln!(page, "| {work} | {figure} | {promise} | {apart} | {sharing} | {per_cpu} |")?;
    }
    Ok(())
}

/// How much of its core a server had that had no reason to rest. The rest went to other work on the machine.
fn busy(results: &Results) -> String {
    let share = results.work.get("echo-64-32").and_then(|comparison| {
        let at = comparison.servers.iter().position(|name| name == "epoll")?;
        Some(median(&comparison.values(at, |sample| sample.server_cpu)))
    });
    match share {
        Some(share) if share < QUIET => format!(
            "\n\n**The machine was not quiet in this run**: at 32 connections the one-thread loop had its core for {:.0} % \
             of the time, and other work on the machine had the rest. A server of many threads then gets more of the \
             core than one of a single thread, so that rates flatter it; the figures per CPU second do not.",
            share * 100.0
        ),
        _ => String::new(),
    }
}

/// A server that is asked for more than it can do has at least this much of its core on a quiet machine.
const QUIET: f64 = 0.85;

fn survive(page: &mut String, survival: &Survival) -> std::fmt::Result {
    writeln!(
        page,
        "\n## Survival\n\n![Useful replies over offered load](img/survival.svg)\n\n\
         Each request takes 1 ms of CPU, the server has one core, each request comes on a connection of its own, and a \
         client that has no reply one second after it wanted to ask leaves. Requests come at a rate, whatever becomes of \
         them (open loop). One core can do {} a second, measured with the one-thread loop. The figures are useful \
         replies a second, with the p99 in ms behind them. tidegate runs with its defaults. The peers listen with a \
         backlog of 4096, the kernel's own limit (`somaxconn`), which Go and others use as it is.",
        thousands(survival.capacity)
    )?;
    survival_table(page, &survival.points)?;
    writeln!(
        page,
        "\nWith a backlog of 128, as Rust's standard library has it, the kernel turns most clients away before a server \
         sees them, by dropping their first packet, and the peers keep some of their work; Python's own default is 5. \
         It helps by being small: nothing tells the clients, or the operator, that they were turned away."
    )?;
    survival_table(page, &survival.points_small)
}

fn survival_table(page: &mut String, points: &[SurvivalPoint]) -> std::fmt::Result {
    let Some(first) = points.first() else {
        return Ok(());
    };
    write!(page, "\n| offered |")?;
    for name in &first.comparison.servers {
        write!(page, " {} |", title_of(name))?;
    }
    writeln!(page, "\n|---:|{}", "---:|".repeat(first.comparison.servers.len()))?;
    let mut any_late = false;
    for point in points {
        write!(page, "| {}x |", point.factor)?;
        for name in &point.comparison.servers {
            let rate = point.of(name, |sample| sample.outcome.rate).unwrap_or(f64::NAN);
            let p99 = point.of(name, |sample| sample.outcome.p99 * 1e3).unwrap_or(f64::NAN);
            let late = point
                .of(name, |sample| sample.outcome.late_p99)
                .is_some_and(|late| late > LATE.as_secs_f64());
            any_late |= late;
            let mark = if late { "*" } else { "" };
            match rate < 0.5 {
                true => write!(page, " 0{mark} |")?,
                false => write!(page, " {rate:.0} ({p99:.0}){mark} |")?,
            }
        }
        writeln!(page)?;
    }
    if any_late {
        writeln!(
            page,
            "\n\\* The client itself was late: it began one request in a hundred {} ms or more after it was due, so \
             that part of what it saw is its own doing.",
            LATE.as_millis()
        )?;
    }
    Ok(())
}

fn start_table(page: &mut String, results: &Results) -> std::fmt::Result {
    if results.starts.is_empty() {
        return Ok(());
    }
    writeln!(page, "\n### Start to first reply\n\n| server | ms | least to most |\n|---|---:|---:|")?;
    for (name, starts) in &results.starts {
        let (least, most) = spread(starts);
        let (middle, least, most) = (median(starts) * 1e3, least * 1e3, most * 1e3);
        writeln!(page, "| {} | {middle:.1} | {least:.1} to {most:.1} |", title_of(name))?;
    }
    Ok(())
}

fn client_table(page: &mut String, results: &Results) -> std::fmt::Result {
    let Results { clients, clients_churn, clients_http, .. } = results;
    if clients.is_empty() && clients_churn.is_none() && clients_http.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "\n### The load clients\n\n`tidegate stress` and another client, in turn, closed loop, each with the cores that \
         the server has not: how many requests the stress client can make, and what its measurements cost. The bare \
         client of `benches/` sends 64 bytes to the one-thread epoll loop, which sends them back; wrk asks the same \
         loop with a small HTTP response. Two seconds go before the measured time; wrk knows no warm-up, and all of its \
         time counts.\n\n\
         | load | `tidegate stress`, replies/s | other client | its replies/s | ratio |\n|---|---:|---|---:|---:|"
    )?;
    let connections = |n: &usize| format!("{} connections", thousands(*n as f64));
    for (n, rates) in clients {
        client_line(page, &format!("echo, {}", connections(n)), "bare", rates)?;
    }
    if let Some(rates) = clients_churn {
        client_line(page, "connect, echo, close; 32 at once", "bare", rates)?;
    }
    for (n, rates) in clients_http {
        client_line(page, &format!("http, {}", connections(n)), "wrk", rates)?;
    }
    if !results.wrk {
        writeln!(page, "| http | {} | wrk | | |", goals::NO_WRK)?;
    }
    Ok(())
}

fn client_line(page: &mut String, load: &str, other: &str, rates: &ClientRates) -> std::fmt::Result {
    let ratios = rates.ratios();
    let (least, most) = spread(&ratios);
    writeln!(
        page,
        "| {load} | {} | {other} | {} | {:.2} ({least:.2} to {most:.2}) |",
        thousands(median(&rates.stress)),
        thousands(median(&rates.other)),
        median(&ratios),
    )
}
