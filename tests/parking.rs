//! An idle connection owns no thread and no buffer.

mod support;

use std::time::{Duration, Instant};
use support::{Client, Program, raise_open_files};

const CONNECTIONS: usize = 10_000;
const WORKERS: u64 = 32;

/// How long a newcomer waits for its answer: the median of some, since the machine has other things to do.
fn median_answer(server: &support::Running) -> Duration {
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let began = Instant::now();
            server.client().say("ping").hear("ping");
            began.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn ten_thousand_open_connections_cost_no_thread_little_memory_and_no_time() {
    raise_open_files();
    let server = Program::new()
        .arg("--workers", WORKERS)
        .arg("--idle-timeout", "10m")
        .arg("--max-connections", CONNECTIONS + 200)
        .start();
    let address = server.address();
    let empty = server.status("RssAnon");
    let mut open: Vec<Client> = Vec::with_capacity(CONNECTIONS);
    let message = [b'm'; 4096];
    for n in 0..CONNECTIONS {
        let mut client = Client::connect(address);
        // Some use buffers that a server could be tempted to keep.
        match n % 10 {
            0 => client.say(message).hear(message),
            _ => client.say("x").hear("x"),
        };
        open.push(client);
    }
    let (threads, resident) = (server.status("Threads"), server.status("VmRSS"));
    let grown = server.status("RssAnon") - empty;
    let answer = median_answer(&server);
    support::figure(format!(
        "{CONNECTIONS} open: {threads} threads, {resident} KiB resident ({grown} KiB for the connections), \
         a newcomer's answer in {answer:?}"
    ));
    assert!(threads <= WORKERS + 10, "{threads} threads");
    // Some 180 bytes each, a place in the table, and the buffers and stacks of the workers that were needed. A
    // buffer of 4 KiB for every tenth connection would not fit.
    assert!(grown <= 5 * 1024, "{grown} KiB more than without connections");
    // The code of an unoptimised program alone is larger than that.
    if !cfg!(debug_assertions) {
        assert!(resident <= 10 * 1024, "{resident} KiB resident");
    }
    assert!(answer <= Duration::from_millis(10), "a newcomer is answered in {answer:?}");
    // They are connections still, the last as the first.
    for client in open.iter_mut().step_by(997) {
        client.say("still here").hear("still here");
    }
    assert!(server.status("Threads") <= WORKERS + 10);
}
