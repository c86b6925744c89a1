//! Everything hostile at once, at random, for as long as `TIDEGATE_SOAK` says (two minutes if it says nothing), while
//! clients that behave keep their connections. The seed is printed; `TIDEGATE_SOAK_SEED` repeats the order of events.
#![cfg(target_os = "linux")]

#[path = "support/admin_http.rs"]
mod http;
mod support;

use rustix::process::{Resource, Rlimit, Signal, prlimit};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::{Client, Program, Running, eventually, figure, raise_open_files};

/// Numbers that look random and come again with their seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What is attacked.
struct Target<'a> {
    server: &'a Running,
    echo: SocketAddr,
    lines: SocketAddr,
    web: SocketAddr,
    time: SocketAddr,
}

type Attack = fn(&Target<'_>, &mut Random);

/// Each by its name; one is drawn after the other.
const ATTACKS: [(&str, Attack); 13] = [
    ("connect and leave", |target, random| drop(crowd(target.echo, 50 + random.below(400)))),
    ("resets after a request", |target, random| {
        for mut client in crowd(target.echo, random.below(200)) {
            client.mutter("request");
            if !client.was_reset() {
                client.reset();
            }
        }
    }),
    ("half a line, held", |target, random| hold(target.lines, "half a line", random)),
    ("silence, held", |target, random| hold(target.lines, "", random)),
    ("half-closed", |target, random| {
        let mut clients = crowd(target.echo, random.below(200));
        each(&mut clients, |client| {
            client.mutter("x").finish_quietly();
        });
        pause(random);
    }),
    ("a byte at a time", |target, random| {
        let mut clients = crowd(target.lines, random.below(100));
        for byte in b"hello there" {
            each(&mut clients, |client| {
                client.mutter([*byte]);
            });
            std::thread::sleep(Duration::from_millis(20));
        }
    }),
    ("readers that stop", |target, random| {
        let mut clients = crowd(target.echo, random.below(20));
        each(&mut clients, |client| {
            client.mutter(vec![b'x'; 200_000]);
        });
        pause(random);
    }),
    ("a line without an end", |target, random| {
        let mut clients = crowd(target.lines, random.below(20));
        each(&mut clients, |client| {
            client.mutter(vec![b'x'; 100_000]);
        });
    }),
    ("broken HTTP", |target, random| {
        let words = [
            "GET / HTTP/1.1\r\nHost",
            "\0\0\0",
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "GET\r\n\r\n",
        ];
        for mut client in crowd(target.web, random.below(100)) {
            client.mutter(words[random.below(4) as usize]);
        }
    }),
    ("datagrams", |target, random| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..random.below(2_000) {
            let _ = socket.send_to(&vec![b'x'; random.below(3_000) as usize], target.time);
        }
    }),
    ("the process stopped", |target, random| {
        target.server.signal(Signal::STOP);
        pause(random);
        target.server.signal(Signal::CONT);
    }),
    ("no descriptor left", |target, random| {
        let before = open_files(target.server) as u64;
        let old = rustix::process::getrlimit(Resource::Nofile).maximum.expect("it has one");
        let limit = |current| Rlimit { current: Some(current), maximum: Some(old) };
        prlimit(Some(target.server.rustix_pid()), Resource::Nofile, limit(before))
            .expect("it can be lowered");
        drop(crowd(target.echo, 100));
        pause(random);
        prlimit(Some(target.server.rustix_pid()), Resource::Nofile, limit(old)).expect("it can be raised");
    }),
    ("reload without a change", |target, random| {
        target.server.signal(Signal::HUP);
        pause(random);
    }),
];

fn crowd(at: SocketAddr, count: u64) -> Vec<Client> {
    let connect = |_| Client::try_connect(at, Duration::from_millis(50)).ok();
    (0..count).filter_map(connect).collect()
}

fn each(clients: &mut [Client], act: impl FnMut(&mut Client)) {
    clients.iter_mut().for_each(act);
}

fn hold(at: SocketAddr, words: &str, random: &mut Random) {
    let mut clients = crowd(at, random.below(500));
    each(&mut clients, |client| {
        client.mutter(words);
    });
    pause(random);
}

fn pause(random: &mut Random) {
    std::thread::sleep(Duration::from_millis(100 + random.below(900)));
}

fn open_files(server: &Running) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count()
}

/// The sum of all samples of a metric.
fn sum(scrape: &str, name: &str) -> f64 {
    let of_it =
        scrape.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']));
    of_it.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn scrape(server: &Running) -> String {
    http::get(server.admin(), "/metrics").expect("/metrics answers").body
}

/// A client that behaves: it keeps its connection and asks again and again. How long each answer took.
fn behave(at: SocketAddr, stop: &AtomicBool, waits: &Mutex<Vec<Duration>>) {
    let mut client = Client::connect(at);
    while !stop.load(Relaxed) {
        let began = Instant::now();
        client.say("ask\n").hear("hello ask\n");
        waits.lock().unwrap().push(began.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    client.finish();
}

/// How long to go on, and the seed.
fn order() -> (Duration, u64) {
    let set = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let time = set("TIDEGATE_SOAK").map_or(Duration::from_secs(120), |text| {
        let minutes: f64 = text.parse().expect("TIDEGATE_SOAK is a number of minutes");
        Duration::from_secs_f64(minutes * 60.0)
    });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (time, set("TIDEGATE_SOAK_SEED").map_or(now.as_nanos() as u64 | 1, |text| text.parse().expect("a seed")))
}

#[test]
fn what_is_hostile_at_random_ends_no_client_that_behaves_and_leaves_nothing_behind() {
    raise_open_files();
    let (time, seed) = order();
    println!("TIDEGATE_SOAK_SEED={seed}");
    let server = start();
    let target = Target {
        server: &server,
        echo: server.listening("echo on tcp"),
        lines: server.listening("hello on tcp"),
        web: server.listening("echo on http"),
        time: server.listening("time on udp"),
    };
    let (threads, descriptors) = (server.status("Threads"), open_files(&server));
    let (stop, waits) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let (mut random, began, mut attacks) = (Random(seed), Instant::now(), [0_u64; ATTACKS.len()]);
    std::thread::scope(|scope| {
        let behaving: Vec<_> = (0..8).map(|_| scope.spawn(|| behave(target.lines, &stop, &waits))).collect();
        let stopping = StopAtEnd(&stop);
        while began.elapsed() < time {
            let drawn = random.below(ATTACKS.len() as u64) as usize;
            ATTACKS[drawn].1(&target, &mut random);
            attacks[drawn] += 1;
            assert!(server.is_running(), "it ended after `{}`: {}", ATTACKS[drawn].0, server.stderr());
            assert!(
                !behaving.iter().any(|one| one.is_finished()),
                "after `{}` one is lost",
                ATTACKS[drawn].0
            );
        }
        drop(stopping);
    });
    report(&server, seed, time, &attacks, &mut waits.into_inner().unwrap(), (threads, descriptors));
    server.signal(Signal::TERM);
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
}

/// What held, checked and told.
fn report(
    server: &Running,
    seed: u64,
    time: Duration,
    attacks: &[u64],
    waits: &mut [Duration],
    (threads, descriptors): (u64, usize),
) {
    eventually("all clients have left", || {
        let open = sum(&scrape(server), "tidegate_connections");
        (open == 0.0 && open_files(server) <= descriptors).then_some(())
    });
    let seen = scrape(server);
    let (accepted, dropped, closed) = (
        sum(&seen, "tidegate_connections_accepted_total"),
        sum(&seen, "tidegate_connections_dropped_total"),
        sum(&seen, "tidegate_connections_closed_total"),
    );
    assert_eq!(accepted, dropped + closed, "every connection is accounted for");
    assert!(server.status("Threads") <= threads, "{} threads, {threads} before", server.status("Threads"));
    assert_eq!(sum(&seen, "tidegate_handler_panics_total"), 0.0);
    let ceiling: u64 =
        server.stdout().split("at most ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let most = server.status("VmHWM") / 1024;
    assert!(most <= ceiling, "{most} MiB, {ceiling} MiB is the ceiling");
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let attacks: Vec<String> =
        ATTACKS.iter().zip(attacks).map(|((name, _), count)| format!("{count} x {name}")).collect();
    let said = format!(
        "{} min, seed {seed}: {}\n{accepted} connections accepted = {dropped} dropped + {closed} closed\n\
         8 connections that behave: {} requests, 0 lost; p50 {:.1} ms, p99 {:.1} ms, longest {:.0} ms (the process is stopped for up \
         to 1 s)\nat the end {} descriptors ({descriptors} before), {} threads ({threads} before), at most {most} MiB resident \
         (ceiling {ceiling} MiB), exit code 0",
        time.as_secs_f64() / 60.0,
        attacks.join(", "),
        waits.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        open_files(server),
        server.status("Threads"),
    );
    figure(said);
}

fn start() -> Running {
    let program = Program::new().admin().without_echo();
    let listeners = [
        "echo=tcp://127.0.0.1:0",
        "hello=tcp://127.0.0.1:0",
        "echo=http://127.0.0.1:0",
        "time=udp://127.0.0.1:0",
    ];
    let program = listeners.iter().fold(program, |program, listener| program.arg("--listen", listener));
    program
        .arg("--workers", 8)
        .arg("--max-connections", 2_000)
        .arg("--read-timeout", "3s")
        .arg("--write-timeout", "3s")
        .arg("--idle-timeout", "6s")
        .arg("--queue-timeout", "30s")
        .start()
}

/// Ends the clients when the test ends, however it ends.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
