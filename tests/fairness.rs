//! One source that floods the real program from many connections beside one with a single connection.

mod support;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{Client, Ending, Program, Scrape, command, eventually, path};

/// 200 connections from 127.0.0.2 that ask again at once, at two workers that do 400 requests a second.
fn flood(at: SocketAddr) -> Ending {
    let mut stress = command(path());
    let load = ["-c", "200", "-d", "60s", "-t", "5s", "--warmup", "0s", "--source-ip", "127.0.0.2"];
    stress.arg("stress").arg(format!("tcp://{at}")).args(load).args(["--progress", "off"]);
    Ending(stress.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// How long a client at 127.0.0.3 waits for its answers beside the flood, sorted.
fn waits_of_the_polite(count: usize, options: &[(&str, &str)]) -> Vec<Duration> {
    let mut program = Program::new().without_echo().admin();
    program =
        program.arg("--listen", "work=tcp://127.0.0.1:0").arg("--work", "sleep:5ms").arg("--workers", "2");
    for (name, value) in options {
        program = program.arg(name, value);
    }
    let program = program.start();
    let at = program.addresses()[0];
    // It is in before the others come, so it is no newcomer.
    let mut polite = Client::from("127.0.0.3", at);
    polite.say("hello").hear("hello");
    let _flood = flood(at);
    eventually("the queue stands", || {
        (Scrape::of(&program).sum("tidegate_queue_standing", &[]) > 0).then_some(())
    });
    let ask = |_| {
        let began = Instant::now();
        polite.say("hello").hear("hello");
        began.elapsed()
    };
    let mut waits: Vec<Duration> = (0..count).map(ask).collect();
    waits.sort();
    eprintln!("{options:?}: median {:?}, slowest {:?}", waits[count / 2], waits[count - 1]);
    waits
}

#[test]
fn a_source_with_one_connection_is_served_at_once_beside_one_that_floods() {
    let waits = waits_of_the_polite(30, &[]);
    assert!(waits[15] < Duration::from_millis(250), "{waits:?}");
    assert!(waits[29] < Duration::from_secs(1), "{waits:?}");
}

/// Where it is one of 201, it is the freshest at times and served at once; at others it waits for a round, which takes half a
/// second, or longer.
#[test]
fn it_waits_for_its_turn_among_all_where_both_are_one_source() {
    for options in [("--source-prefix", "8,0"), ("--fair", "off")] {
        let waits = waits_of_the_polite(12, &[options]);
        assert!(waits[11] > Duration::from_millis(400), "{options:?}: {waits:?}");
    }
}
