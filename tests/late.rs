//! Deadlines on a busy core: a client that drips, so that its connection is in the line or has a turn whenever the timekeeper
//! looks, is ended in time too.

mod support;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use support::{Client, Ending, Program, Running, Stop, command, raise_open_files, with_processors};

/// They share a core, so they run one after the other.
static ALONE: Mutex<()> = Mutex::new(());

const TIMEOUT: Duration = Duration::from_millis(1_500);

/// How late a deadline may be.
const LATE_MOST: Duration = Duration::from_millis(300);

/// Clients that drip, all on one thread: a byte each tenth of a second, until they are ended.
fn drip(server: &Running, count: usize) -> Vec<Duration> {
    let mut dripping: Vec<Option<(Client, Instant)>> = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(server.addresses()[0]);
        // Before the server can hear of it: this thread may have no processor after it has spoken.
        let since = Instant::now();
        client.say("a").stream().set_nonblocking(true).unwrap();
        dripping.push(Some((client, since)));
    }
    let (mut ended, mut next) = (Vec::new(), Instant::now());
    let began = Instant::now();
    while ended.len() < count && began.elapsed() < support::PATIENCE {
        let mut fds: Vec<_> = Vec::new();
        for (client, _) in dripping.iter().flatten() {
            fds.push(PollFd::new(client.stream(), PollFlags::IN));
        }
        let wait = next.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(wait).unwrap();
        let _ = poll(&mut fds, Some(&wait));
        drop(fds);
        let now = Instant::now();
        for place in &mut dripping {
            let Some((client, since)) = place else { continue };
            match client.stream().read(&mut [0; 16]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if now >= next {
                        let _ = client.stream().write(b"x");
                    }
                }
                _ => {
                    ended.push(now - *since);
                    *place = None;
                }
            }
        }
        if now >= next {
            next += Duration::from_millis(100);
        }
    }
    ended
}

/// Keeps the core busy with requests of the server's own: closed-loop clients of another source.
fn load(server: &Running, clients: usize, over: &AtomicBool, done: impl FnOnce()) {
    let address = server.addresses()[1];
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let mut client = Client::from("127.0.0.2", address);
                    while !over.load(Ordering::Relaxed) {
                        client.mutter("work");
                        if !client.heard(&mut [0; 4]) {
                            break;
                        }
                    }
                }
            });
        }
        let _over = Stop(over);
        done();
    });
}

/// A server that shares its core.
fn server() -> (Running, usize) {
    raise_open_files();
    let core = std::thread::available_parallelism().map_or(0, |n| n.get() - 1);
    let server = Program::new()
        .service("hello")
        .service("work")
        .arg("--work", "cpu:1ms")
        .arg("--read-timeout", "1500ms")
        // Nobody is refused or shed here, though the workers hardly have a processor.
        .arg("--queue", 1000)
        .arg("--queue-timeout", "20s")
        .prelude(&format!("taskset -pc {core} $$ >/dev/null"))
        .start();
    (server, core)
}

/// All have been ended, and none early: whoever has the processors. `Err` if one was late.
#[track_caller]
fn none_is_late(ended: &[Duration]) -> Result<(), String> {
    assert_eq!(ended.len(), 200, "all are ended");
    let (first, last) = (ended.iter().min().unwrap(), ended.iter().max().unwrap());
    assert!(*first >= TIMEOUT - Duration::from_millis(20), "one is ended early, after {first:?}");
    support::figure(format!("200 of 200 ended after {first:.1?} to {last:.1?} (read-timeout 1.5 s)"));
    if *last <= TIMEOUT + LATE_MOST { Ok(()) } else { Err(format!("one is ended late, after {last:?}")) }
}

#[test]
fn none_is_ended_late_where_other_programs_have_the_core_too() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (server, core) = server();
    let spin =
        || command("taskset").args(["-c", &core.to_string(), "sh", "-c", "while :; do :; done"]).spawn();
    let _others = [Ending(spin().unwrap()), Ending(spin().unwrap())];
    with_processors(|| none_is_late(&drip(&server, 200)));
}

#[test]
fn none_of_two_hundred_clients_that_drip_is_ended_late_on_a_busy_core() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (server, _) = server();
    with_processors(|| {
        let (over, mut ended) = (AtomicBool::new(false), Vec::new());
        load(&server, 16, &over, || ended = drip(&server, 200));
        none_is_late(&ended)
    });
}
