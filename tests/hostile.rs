//! A hostile world, as far as no other file has it: slow attackers that others wrote, clocks that step, a closed or full
//! stdout, many thousand connections again and again. docs/reliability.md lists them all.
#![cfg(target_os = "linux")]

mod support;

use rustix::process::{Resource, Signal};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{
    Client, End, Ending, Program, Scrape, admin, command, eventually, figure, path, raise_open_files,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// How long a healthy client waited for its answer over a new connection.
#[track_caller]
fn healthy(at: SocketAddr) -> Duration {
    let began = Instant::now();
    let mut client = Client::connect(at);
    client.say(GET);
    let (answer, end) = client.rest();
    assert!(
        answer.starts_with(b"HTTP/1.1 200 OK") && end == End::Fin,
        "{}",
        String::from_utf8_lossy(&answer)
    );
    began.elapsed()
}

/// Slow headers, slow bodies, ranges and slow reading, 300 connections of each.
#[test]
fn slowhttptest_in_all_its_modes_delays_no_healthy_client() {
    raise_open_files();
    let server = Program::new().without_echo().arg("--listen", "echo=http://127.0.0.1:0").start();
    let at = server.listening("echo on http");
    let url = format!("http://{at}/");
    let threads = server.threads();
    let mut attackers: Vec<Ending> = ["-H", "-B", "-R", "-X"]
        .iter()
        .map(|mode| {
            let mut slow = command("slowhttptest");
            slow.args([
                mode, "-c", "300", "-r", "150", "-i", "1", "-l", "12", "-x", "24", "-p", "3", "-u", &url,
            ]);
            slow.stdout(Stdio::null()).stderr(Stdio::null());
            Ending(slow.spawn().expect("tests/setup.sh installs it"))
        })
        .collect();
    let mut waits = Vec::new();
    eventually("all attackers have ended", || {
        waits.push(healthy(at));
        attackers.iter_mut().all(|one| one.0.try_wait().unwrap().is_some()).then_some(())
    });
    waits.sort_unstable();
    let p99 = waits[(waits.len() - 1) * 99 / 100];
    figure(format!(
        "{} healthy requests beside 1,200 slow ones: p99 {p99:.1?}, {threads} threads",
        waits.len()
    ));
    assert!(waits.len() > 100, "{} requests", waits.len());
    assert!(p99 < Duration::from_secs(1), "p99 of healthy clients {p99:?}");
    assert!(server.status("Threads") <= threads);
}

/// The library that gives a program another time of day.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|one| one.path());
    let found =
        folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists());
    found.expect("tests/setup.sh installs it")
}

#[test]
fn a_clock_that_steps_by_days_ends_nobody_early_or_late() {
    let file = std::env::temp_dir().join(format!("tidegate-clock-{}", std::process::id()));
    std::fs::write(&file, "+0d\n").unwrap();
    let server = Program::new()
        .without_echo()
        .arg("--listen", "echo=tcp://127.0.0.1:0")
        .arg("--listen", "time=tcp://127.0.0.1:0")
        .arg("--idle-timeout", "1500ms")
        .arg("--drain-timeout", "5s")
        .admin()
        .prelude(&format!(
            "export LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1",
            faketime().display(),
            file.display()
        ))
        .start();
    let (echo, time) = (server.listening("echo on tcp"), server.listening("time on tcp"));
    let day = || String::from_utf8(Client::connect(time).rest().0).unwrap();
    let mut busy = Client::connect(echo);
    let today = day();
    // What is one value for the life of the process, whatever the clock says when it is asked.
    let constants = || -> Vec<String> {
        let scrape = admin(&server, "/metrics");
        let lines = scrape.text().lines().filter(|line| !line.starts_with('#'));
        lines
            .filter(|line| {
                line.contains("start_time") || line.contains("timestamp") || line.contains("_info")
            })
            .map(str::to_owned)
            .collect()
    };
    let before = constants();
    assert!(before.iter().any(|line| line.starts_with("process_start_time_seconds ")), "{before:?}");
    for step in ["+3d\n", "-3d\n", "+0d\n"] {
        let mut silent = Client::connect(echo);
        silent.say("x").hear("x");
        let began = Instant::now();
        std::fs::write(&file, step).unwrap();
        let stepped = day();
        assert_eq!(stepped[..10] == today[..10], step == "+0d\n", "the clock says {stepped} after {step}");
        for _ in 0..10 {
            busy.say("still here").hear("still here");
        }
        assert_eq!(constants(), before, "after {step}");
        assert_eq!(silent.end(), End::Fin);
        let ended = began.elapsed();
        figure(format!("step {}: a silent client ended after {ended:.1?} (idle-timeout 1.5 s)", step.trim()));
        assert!((Duration::from_millis(1_400)..Duration::from_secs(5)).contains(&ended), "after {ended:?}");
        busy = Client::connect(echo);
    }
    busy.finish();
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
    let _ = std::fs::remove_file(file);
}

#[test]
fn it_serves_with_stdout_and_stderr_closed_or_full() {
    for outputs in [">&- 2>&-", ">/dev/full 2>/dev/full", ">/dev/full 2>&-"] {
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let line = format!("exec \"$0\" -v --admin off --listen echo=tcp://{at} {outputs}");
        let mut server = Ending(command("/bin/sh").args(["-c", &line, path()]).spawn().unwrap());
        let mut client = eventually("it listens", || Client::try_connect(at, Duration::from_secs(1)).ok());
        client.say("hello").hear("hello");
        rustix::process::kill_process(rustix::process::Pid::from_child(&server.0), Signal::TERM).unwrap();
        let status = eventually("it ends", || server.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{outputs}");
        figure(format!("with `{outputs}`: served, exit code 0 at SIGTERM"));
    }
}

#[test]
fn ten_rounds_of_ten_thousand_connections_leave_nothing_behind() {
    raise_open_files();
    let count =
        usize::try_from(rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(20_000)).unwrap();
    let count = count.saturating_sub(1_000).min(10_000);
    let server = Program::new().arg("--refusal-rate", "all").start();
    let files = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let (threads, descriptors) = (server.threads(), files());
    let (mut resident, mut asked, mut heard) = (Vec::new(), 0, 0);
    for round in 0..10 {
        let mut clients: Vec<Client> = (0..count).map(|_| server.client()).collect();
        for client in clients.iter_mut().step_by(97) {
            heard += usize::from(client.mutter("x").heard(&mut [0]));
            asked += 1;
        }
        clients.into_iter().filter(|client| !client.was_reset()).for_each(Client::reset);
        eventually(&format!("round {round} has left"), || (files() <= descriptors).then_some(()));
        resident.push(server.status("VmRSS"));
    }
    figure(format!(
        "10 rounds of {count}: {} KiB resident after the second, {} after the last; {threads} threads and {descriptors} \
         descriptors before and after",
        resident[1], resident[9]
    ));
    assert!(server.status("Threads") <= threads);
    // They come as quickly as one thread can connect, and where other programs have the processors too, the server refuses some
    // of them: what is shown here is what the others leave behind.
    assert!(heard * 2 >= asked, "{heard} of {asked} were answered");
    assert!(resident[9] <= resident[1] + 2_048, "{resident:?} KiB");
    server.client().say("x").hear("x");
}

/// The wait that 99 of 100 do not exceed.
fn p99(mut waits: Vec<Duration>) -> Duration {
    waits.sort_unstable();
    waits[(waits.len() - 1) * 99 / 100]
}

/// How long one that behaves waits for its answers, until the attack is over.
fn ask_until(over: &AtomicBool, at: SocketAddr) -> Vec<Duration> {
    let (mut client, mut waits) = (Client::connect(at), Vec::new());
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        client.say("hello").hear("hello");
        waits.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    waits
}

#[test]
fn two_thousand_clients_of_a_byte_a_second_both_ways_delay_nobody_and_cost_no_thread() {
    raise_open_files();
    let server = Program::new().start();
    let (at, threads, resident) = (server.address(), server.threads(), server.status("VmRSS"));
    let mut slow: Vec<Client> = (0..2_000).map(|_| server.client()).collect();
    let over = AtomicBool::new(false);
    let waits = std::thread::scope(|scope| {
        let healthy = scope.spawn(|| ask_until(&over, at));
        for _ in 0..4 {
            let began = Instant::now();
            for client in &mut slow {
                client.say("x").hear("x");
            }
            std::thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
        }
        over.store(true, Ordering::Relaxed);
        healthy.join().expect("who behaves is answered")
    });
    let (now, count) = (server.status("Threads"), waits.len());
    let (p99, more) = (p99(waits), server.status("VmRSS").saturating_sub(resident));
    figure(format!(
        "{count} requests of one that behaves beside 2,000 such: p99 {p99:.1?}; {threads} threads, then {now}; {more} KiB more resident"
    ));
    assert!(p99 < Duration::from_millis(500), "p99 of one that behaves {p99:?}");
    assert!(now <= threads, "{now} threads, {threads} before");
    assert!(more < 32 * 1024, "{more} KiB more for 2,000 connections");
    drop(slow);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn sources_by_the_thousand_have_each_their_own_limit_and_take_little_memory() {
    raise_open_files();
    let server = Program::new().arg("--max-per-source", 1).arg("--refusal-rate", "all").admin().start();
    let resident = server.status("VmRSS");
    let (mut served, mut refused) = (0, 0);
    let mut held = Vec::new();
    for n in 0..3_000_u32 {
        let source = format!("127.1.{}.{}", n / 250, n % 250 + 1);
        let mut first = Client::from(&source, server.address());
        served += u32::from(first.mutter("x").heard(&mut [0]));
        let mut second = Client::from(&source, server.address());
        refused += u32::from(!second.mutter("x").heard(&mut [0]));
        // A thousand stay; of the others only their source is remembered.
        if n % 3 == 0 {
            held.push(first);
        }
    }
    let more = server.status("VmRSS").saturating_sub(resident);
    let seen = Scrape::of(&server);
    seen.assert_conserved();
    let counted = seen.sum("tidegate_connections_dropped_total", &["reason=\"per_source\""]);
    figure(format!(
        "3,000 sources, each twice at once: {served} served, {refused} refused ({counted} counted); {more} KiB more resident"
    ));
    assert_eq!((served, refused, counted), (3_000, 3_000, 3_000));
    assert!(more < 32 * 1024, "{more} KiB more");
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}
