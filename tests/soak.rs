//! Everything hostile at once, at random, for as long as `TIDEGATE_SOAK` says (two minutes if it says nothing), while
//! clients that behave keep their connections: to services and through gates, with TLS and without. The program is replaced
//! by a new one meanwhile. The seed is printed; `TIDEGATE_SOAK_SEED` repeats the order of events.
#![cfg(all(target_os = "linux", feature = "tls"))]

#[path = "support/behaving.rs"]
mod behaving;
#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/admin_http.rs"]
mod http;
#[path = "support/replaced.rs"]
mod replaced;
mod support;

use behaving::{Kept, Speech, behave, behave_over_udp};
use certificate::{Certificate, Files};
use replaced::Process;
use rustix::process::{Resource, Rlimit, Signal, prlimit};
use rustls::ClientConfig;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
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
    server: &'a Process<'a>,
    /// Behind the gates.
    backend: &'a Running,
    echo: SocketAddr,
    lines: SocketAddr,
    web: SocketAddr,
    time: SocketAddr,
    /// An echo of datagrams.
    datagrams: SocketAddr,
    /// A service inside TLS.
    secret: SocketAddr,
    /// WebSockets, without TLS and inside it.
    socket: SocketAddr,
    secret_socket: SocketAddr,
    /// A gate that passes bytes on.
    pairs: SocketAddr,
    /// A gate for HTTP, without TLS and inside it.
    requests: SocketAddr,
    secret_requests: SocketAddr,
    trust: Arc<ClientConfig>,
}

impl Target<'_> {
    /// Where a client that speaks so has to go.
    fn of(&self, speech: Speech) -> SocketAddr {
        match speech {
            Speech::Lines => self.lines,
            Speech::SecretLines => self.secret,
            Speech::Pair => self.pairs,
            Speech::Requests => self.secret_requests,
            Speech::Messages => self.secret_socket,
        }
    }
}

type Attack = fn(&Target<'_>, &mut Random);

/// Each by its name; one is drawn after the other.
const ATTACKS: [(&str, Attack); 24] = [
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
            let at = if random.below(2) == 0 { target.time } else { target.datagrams };
            let _ = socket.send_to(&vec![b'x'; random.below(3_000) as usize], at);
        }
    }),
    ("the process stopped", |target, random| {
        target.server.signal(Signal::STOP);
        pause(random);
        target.server.signal(Signal::CONT);
    }),
    ("no descriptor left", |target, random| {
        let before = target.server.open_files() as u64;
        let old = rustix::process::getrlimit(Resource::Nofile).maximum.expect("it has one");
        let limit = |current| Rlimit { current: Some(current), maximum: Some(old) };
        prlimit(Some(target.server.pid()), Resource::Nofile, limit(before)).expect("it can be lowered");
        drop(crowd(target.echo, 100));
        pause(random);
        prlimit(Some(target.server.pid()), Resource::Nofile, limit(old)).expect("it can be raised");
    }),
    ("reload without a change", |target, random| {
        target.server.signal(Signal::HUP);
        pause(random);
    }),
    ("half a handshake, held", |target, random| {
        hold(target.secret, [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 100]].concat(), random);
    }),
    ("no TLS where TLS is expected", |target, random| {
        for mut client in crowd(target.secret_requests, random.below(100)) {
            client.mutter(if random.below(2) == 0 { &b"GET / HTTP/1.1\r\n\r\n"[..] } else { &[23; 300] });
        }
    }),
    ("readers inside TLS that stop", |target, random| {
        let secret = |_| behaving::secret(target.secret_requests, &target.trust).ok();
        let mut clients: Vec<_> = (0..random.below(20)).filter_map(secret).collect();
        for client in &mut clients {
            let _ = client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n");
            let _ = client.sock.set_write_timeout(Some(Duration::from_millis(20)));
            let _ = client.write_all(&[b'x'; 200_000]);
        }
        pause(random);
    }),
    ("half a message, held", |target, random| {
        hold(target.socket, [HANDSHAKE.as_bytes(), &[0x81, 0xfe, 1, 0, 1, 2, 3, 4, 9]].concat(), random);
    }),
    ("broken messages", |target, random| {
        let frames: [&[u8]; 4] =
            [&[0x81, 1, 9], &[0xff; 14], &[0x89, 0x80, 1, 2, 3, 4], &[0x88, 0x81, 1, 2, 3, 4, 5]];
        for mut client in crowd(target.socket, random.below(100)) {
            client.mutter(HANDSHAKE).mutter(frames[random.below(4) as usize].repeat(5));
        }
    }),
    ("pairs that are silent", |target, random| hold(target.pairs, "", random)),
    ("pairs that are reset", |target, random| {
        for mut client in crowd(target.pairs, random.below(60)) {
            client.mutter(vec![b'x'; 1 + random.below(200_000) as usize]);
            if !client.was_reset() {
                client.reset();
            }
        }
    }),
    ("half requests at a gate", |target, random| {
        let mut clients = crowd(target.requests, random.below(200));
        each(&mut clients, |client| {
            client
                .mutter("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n")
                .mutter([b'x'; 9_000]);
        });
        pause(random);
    }),
    ("requests that nobody waits for", |target, random| {
        let request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nback".repeat(20);
        for mut client in crowd(target.requests, random.below(100)) {
            client.mutter(&request);
        }
    }),
    ("the backend stopped", |target, random| {
        target.backend.signal(Signal::STOP);
        let mut clients = crowd(target.pairs, random.below(50));
        each(&mut clients, |client| {
            client.mutter("anybody?");
        });
        pause(random);
        target.backend.signal(Signal::CONT);
    }),
    ("the program replaced", |target, _| target.server.replace()),
];

/// The beginning of a WebSocket.
const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn crowd(at: SocketAddr, count: u64) -> Vec<Client> {
    let connect = |_| Client::try_connect(at, Duration::from_millis(50)).ok();
    (0..count).filter_map(connect).collect()
}

fn each(clients: &mut [Client], act: impl FnMut(&mut Client)) {
    clients.iter_mut().for_each(act);
}

fn hold(at: SocketAddr, words: impl AsRef<[u8]>, random: &mut Random) {
    let mut clients = crowd(at, random.below(500));
    each(&mut clients, |client| {
        client.mutter(&words);
    });
    pause(random);
}

fn pause(random: &mut Random) {
    std::thread::sleep(Duration::from_millis(100 + random.below(900)));
}

/// The sum of all samples of a metric.
fn sum(scrape: &str, name: &str) -> f64 {
    let of_it =
        scrape.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']));
    of_it.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
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

/// The clients that behave.
const BEHAVING: [Speech; 8] = [
    Speech::Lines,
    Speech::Lines,
    Speech::SecretLines,
    Speech::SecretLines,
    Speech::Pair,
    Speech::Requests,
    Speech::Requests,
    Speech::Messages,
];

#[test]
fn what_is_hostile_at_random_ends_no_client_that_behaves_and_leaves_nothing_behind() {
    raise_open_files();
    let (time, seed) = order();
    println!("TIDEGATE_SOAK_SEED={seed}");
    let files = Certificate::new(&["localhost"], 4000).files();
    let backend = Program::new().service("echo").arg("--listen", "echo=http://127.0.0.1:0").start();
    let server = start(&backend, &files);
    let process = Process::of(&server);
    let target = target(&process, &server, &backend, &files);
    let (threads, descriptors) = (server.threads(), process.open_files());
    let kept = Kept::default();
    let (mut random, began, mut attacks) = (Random(seed), Instant::now(), [0_u64; ATTACKS.len()]);
    std::thread::scope(|scope| {
        let client = |speech| {
            let (target, process, kept) = (&target, &process, &kept);
            scope.spawn(move || behave(speech, target.of(speech), &target.trust, process, kept))
        };
        let mut behaving: Vec<_> =
            BEHAVING.into_iter().map(|speech| (format!("{speech:?}"), client(speech))).collect();
        behaving.push(("Datagrams".to_owned(), scope.spawn(|| behave_over_udp(target.datagrams, &kept))));
        let stopping = StopAtEnd(&kept.stop);
        while began.elapsed() < time {
            let drawn = random.below(ATTACKS.len() as u64) as usize;
            ATTACKS[drawn].1(&target, &mut random);
            attacks[drawn] += 1;
            assert!(process.is_running(), "it ended after `{}`: {}", ATTACKS[drawn].0, server.stderr());
            let lost = behaving.iter().find(|(_, client)| client.is_finished());
            assert!(
                lost.is_none(),
                "after `{}` {:?} is lost",
                ATTACKS[drawn].0,
                lost.map(|(speech, _)| speech)
            );
        }
        drop(stopping);
    });
    report(&process, seed, time, &attacks, &kept, (threads, descriptors));
    let last = process.pid();
    process.signal(Signal::TERM);
    process.ended(last);
    drop(target);
    drop(process);
    let (code, log) = server.ended();
    assert!(matches!(code, Some(0 | 3)), "{code:?}: {log}");
}

/// What held, checked and told.
fn report(
    server: &Process<'_>,
    seed: u64,
    time: Duration,
    attacks: &[u64],
    kept: &Kept,
    (threads, descriptors): (u64, usize),
) {
    /// Descriptors of the pipes that a gate keeps for the next pairs in bulk.
    const PIPES: usize = 2 * 64;
    let scrape = || http::get(server.first.admin(), "/metrics").expect("/metrics answers").body;
    eventually("all clients have left", || {
        let open = sum(&scrape(), "tidegate_connections") + sum(&scrape(), "tidegate_gate_places");
        (open == 0.0 && server.open_files() <= descriptors + PIPES).then_some(())
    });
    let seen = scrape();
    let (accepted, dropped, closed) = (
        sum(&seen, "tidegate_connections_accepted_total"),
        sum(&seen, "tidegate_connections_dropped_total"),
        sum(&seen, "tidegate_connections_closed_total"),
    );
    assert_eq!(accepted, dropped + closed, "every connection is accounted for");
    let places = (
        sum(&seen, "tidegate_backend_places_taken_total"),
        sum(&seen, "tidegate_backend_places_given_back_total"),
    );
    assert_eq!(places.0, places.1, "every place was given back");
    assert!(server.status("Threads") <= threads, "{} threads, {threads} before", server.status("Threads"));
    assert_eq!(sum(&seen, "tidegate_handler_panics_total"), 0.0);
    let ceiling: u64 =
        server.first.stdout().split("at most ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let most = server.most_resident() / 1024;
    assert!(most <= ceiling, "{most} MiB, {ceiling} MiB is the ceiling");
    let mut waits = kept.waits.lock().unwrap();
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let attacks: Vec<String> =
        ATTACKS.iter().zip(attacks).map(|((name, _), count)| format!("{count} x {name}")).collect();
    let said = format!(
        "{} min, seed {seed}: {}\nof the last program {accepted} connections accepted = {dropped} dropped + {closed} closed\n\
         8 connections that behave: {} requests, 0 lost; {} connections made anew because the program was replaced, {} requests \
         told that the backend cannot be reached; p50 {:.1} ms, p99 {:.1} ms, longest {:.0} ms (processes are stopped for up \
         to 1 s)\na client of datagrams: {} answered, {} of them after another try, 0 without an answer\nat the end {} descriptors ({descriptors} before), {} threads ({threads} before), at most {most} MiB resident \
         (ceiling {ceiling} MiB), exit code 0",
        time.as_secs_f64() / 60.0,
        attacks.join(", "),
        waits.len(),
        kept.renewed.load(Relaxed),
        kept.told.load(Relaxed),
        at(0.5),
        at(0.99),
        at(1.0),
        kept.datagrams.load(Relaxed),
        kept.resent.load(Relaxed),
        server.open_files(),
        server.status("Threads"),
    );
    figure(said);
}

fn start(backend: &Running, files: &Files) -> Running {
    let behind = (backend.address(), backend.listening("echo on http"));
    let program = Program::new().admin().without_echo();
    let listeners = [
        "echo=tcp://127.0.0.1:0".to_owned(),
        "hello=tcp://127.0.0.1:0".to_owned(),
        "echo=http://127.0.0.1:0".to_owned(),
        "time=udp://127.0.0.1:0".to_owned(),
        "echo=udp://127.0.0.1:0".to_owned(),
        "hello=tls://127.0.0.1:0".to_owned(),
        "echo=ws://127.0.0.1:0".to_owned(),
        "echo=wss://127.0.0.1:0".to_owned(),
        format!("proxy:{}=tcp://127.0.0.1:0", behind.0),
        format!("proxy:http://{}=http://127.0.0.1:0", behind.1),
        format!("proxy:http://{}=https://127.0.0.1:0", behind.1),
    ];
    let program = listeners.iter().fold(program, |program, listener| program.arg("--listen", listener));
    program
        .arg("--tls-cert", files.certificate.display())
        .arg("--tls-key", files.key.display())
        .arg("--backend-connections", 200)
        .arg("--backend-idle", "2s")
        .arg("--workers", 8)
        .arg("--max-connections", 2_000)
        .arg("--read-timeout", "3s")
        .arg("--write-timeout", "3s")
        .arg("--idle-timeout", "6s")
        .arg("--queue-timeout", "30s")
        .arg("--drain-timeout", "2s")
        .start()
}

fn target<'a>(process: &'a Process<'a>, server: &Running, backend: &'a Running, files: &Files) -> Target<'a> {
    let (bytes, http) = (backend.address(), backend.listening("echo on http"));
    Target {
        server: process,
        backend,
        echo: server.listening("echo on tcp"),
        lines: server.listening("hello on tcp"),
        web: server.listening("echo on http"),
        time: server.listening("time on udp"),
        datagrams: server.listening("echo on udp"),
        secret: server.listening("hello on tls"),
        socket: server.listening("echo on ws"),
        secret_socket: server.listening("echo on wss"),
        pairs: server.listening(&format!("proxy:{bytes} on tcp")),
        requests: server.listening(&format!("proxy:http://{http} on http")),
        secret_requests: server.listening(&format!("proxy:http://{http} on https")),
        trust: behaving::trust(files),
    }
}

/// Ends the clients when the test ends, however it ends.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
