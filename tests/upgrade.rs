//! SIGUSR2 replaces the program: no client is refused or reset, standing connections live on, and a new program that does
//! not come to serve changes nothing.
#![cfg(target_os = "linux")]

#[path = "support/configuration.rs"]
mod configuration;
mod support;

use configuration::{Configuration, reload, status};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Client, PATIENCE, Program, Running, command, eventually, path, raise_open_files};

/// A process that is not our child, ended when the test is over.
struct Successor(Pid);

impl Successor {
    /// Waits until the program says who serves now; `nth` counts from 1.
    #[track_caller]
    fn of(server: &Running, nth: usize) -> Self {
        let number = eventually("the new program serves", || {
            let text = server.stderr();
            let pids: Vec<_> = text.lines().filter(|line| line.contains("the new program serves")).collect();
            let line = pids.get(nth - 1)?;
            line.rsplit_once("pid=")?.1.split_whitespace().next()?.parse::<i32>().ok()
        });
        Self(Pid::from_raw(number).unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.0, signal).expect("it runs");
    }

    fn is_there(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.0.as_raw_nonzero()))
            .is_ok_and(|stat| !stat.contains(") Z "))
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[test]
fn the_new_program_serves_at_the_same_addresses_and_the_old_one_ends() {
    let server = Program::new().admin().arg("--listen", "time=udp://127.0.0.1:0").service("echo").start();
    let address = server.address();
    let mut before = server.client();
    before.say("x").hear("x");
    server.signal(Signal::USR2);
    let new = Successor::of(&server, 1);
    let mut after = Client::connect(address);
    after.say("y").hear("y");
    before.say("still").hear("still");
    drop(before);
    assert_eq!(server.ended().0, Some(0), "it ends when its last client has left");
    after.say("z").hear("z");
    new.signal(Signal::TERM);
    drop(after);
    eventually("the new one ends too", || (!new.is_there()).then_some(()));
}

/// Both programs have the one socket. What comes while the old one hands over is answered by one of them, and what comes later
/// by the new one.
#[test]
fn no_datagram_is_lost_in_three_replacements() {
    let server = Program::new()
        .arg("--listen", "echo=udp://127.0.0.1:0")
        .arg("--datagram-source-rate", "off")
        .without_echo()
        .service("echo")
        .start();
    let address = server.listening("echo on udp");
    let over = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_until(address, &over));
        let mut successors: Vec<Successor> = Vec::new();
        for nth in 1..=3 {
            match successors.last() {
                Some(successor) => successor.signal(Signal::USR2),
                None => server.signal(Signal::USR2),
            }
            successors.push(Successor::of(&server, nth));
            let old = successors.iter().rev().nth(1);
            eventually("the old one has ended", || {
                old.map_or_else(|| !server.is_running(), |old| !old.is_there()).then_some(())
            });
        }
        over.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    println!("{asked} datagrams, one after another, each answered");
    // How many that are is the machine's; some were asked during each replacement.
    assert!(asked > 100, "{asked}");
}

/// One datagram after another, each of which must be answered; how many those are.
fn ask_until(server: SocketAddr, over: &AtomicBool) -> u64 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut asked = 0u64;
    while !over.load(Ordering::Relaxed) {
        asked += 1;
        let mut answer = [0; 8];
        socket.send(&asked.to_be_bytes()).expect("somebody has the socket");
        assert_eq!(socket.recv(&mut answer).expect("it is answered"), 8, "number {asked}");
        assert_eq!(answer, asked.to_be_bytes());
    }
    asked
}

#[test]
fn the_new_program_has_the_listeners_that_were_opened_and_none_that_was_closed() {
    let listen =
        |second: &str| format!("listen = [\"echo=tcp://127.0.0.1:0\", \"{second}=tcp://127.0.0.1:0\"]\n");
    let file = Configuration::new("upgrade-relisten", &listen("time"));
    let server = file.program().without_echo().start();
    file.write(&listen("hello"));
    let said = reload(&server);
    assert!(said.contains("hello=tcp://127.0.0.1:0 opens, time=tcp://127.0.0.1:0 closes"), "{said}");
    let seen = status(&server);
    let address = |position: usize| -> SocketAddr {
        let url = seen["listeners"][position]["listener"].as_str().unwrap();
        url.strip_prefix("tcp://").unwrap().parse().unwrap()
    };
    server.signal(Signal::USR2);
    let new = Successor::of(&server, 1);
    Client::connect(address(0)).say("x\n").hear("x\n");
    Client::connect(address(2)).say("x\n").hear("hello x\n");
    let closed = TcpStream::connect(address(1)).unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(server.ended().0, Some(0));
    Client::connect(address(2)).say("y\n").hear("hello y\n");
    drop(new);
}

#[test]
fn a_new_program_that_does_not_serve_changes_nothing() {
    let file = std::env::temp_dir().join(format!("tidegate-upgrade-{}.toml", std::process::id()));
    std::fs::write(&file, "workers = 4\n").unwrap();
    let server = Program::new().arg("--config", file.display()).start();
    let mut client = server.client();
    std::fs::write(&file, "workers = \"many\"\n").unwrap();
    server.signal(Signal::USR2);
    eventually("it says why it goes on", || {
        server
            .stderr()
            .contains("this program goes on: the new program does not serve: exit status: 2")
            .then_some(())
    });
    assert!(server.stderr().contains("many"), "the new one says what is wrong: {}", server.stderr());
    client.say("x").hear("x");
    server.client().say("y").hear("y");
    std::fs::write(&file, "workers = 5\n").unwrap();
    server.signal(Signal::USR2);
    let _new = Successor::of(&server, 1);
    let _ = std::fs::remove_file(file);
}

/// Connections that come all the time, each with one request, while the program is replaced ten times.
#[test]
fn ten_reloads_of_the_program_refuse_and_reset_nobody() {
    raise_open_files();
    let server =
        Program::new().arg("--drain-timeout", "5s").arg("--queue", 1000).arg("--max-per-source", 0).start();
    let url = format!("tcp://{}", server.address());
    let mut stress = command(path());
    stress
        .args(["stress", &url, "--reuse", "never", "-c", "20", "--close", "rst", "-t", "10s", "-o", "json"]);
    let (rate, time) = if path().contains("/debug/") { ("600", "14s") } else { ("5000", "21s") };
    stress.args(["-r", rate, "-d", time, "--connect-timeout", "10s"]);
    let load = Running::of(stress.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut successors: Vec<Successor> = Vec::new();
    for nth in 1..=10 {
        std::thread::sleep(Duration::from_millis(400));
        match successors.last() {
            None => server.signal(Signal::USR2),
            Some(last) => last.signal(Signal::USR2),
        }
        // All of them write to the same stderr.
        successors.push(Successor::of(&server, nth));
    }
    let mut load = load;
    load.ended_well();
    let report: Value = serde_json::from_str(&load.stdout()).unwrap();
    println!("{}", report["outcomes"]);
}

/// A client that stands at a gate for TCP has `drain-timeout`, and then no request that could be waited for.
#[test]
fn a_pair_at_a_gate_ends_with_the_drain_timeout() {
    for says_something in [false, true] {
        let backend = Program::new().start();
        let server = Program::new()
            .service(&format!("proxy:{}", backend.address()))
            .arg("--drain-timeout", "2s")
            .start();
        let mut client = server.client();
        client.say("x").hear("x");
        server.signal(Signal::USR2);
        let new = Successor::of(&server, 1);
        let began = std::time::Instant::now();
        while says_something && began.elapsed() < Duration::from_millis(1_200) {
            client.say("y").hear("y");
        }
        assert_eq!(client.end(), support::End::Reset);
        eventually("it ends", || (!server.is_running()).then_some(()));
        let took = began.elapsed();
        // The new one holds its log open.
        drop(new);
        let ended = server.ended();
        assert_eq!(ended.0, Some(3), "{}", ended.1);
        assert!(ended.1.contains("cut 1"), "{}", ended.1);
        // From when the new program serves, which is a moment before its number is known.
        let time = Duration::from_millis(1_500)..Duration::from_millis(4_500);
        assert!(time.contains(&took), "{took:?} with a drain-timeout of 2 s: {}", ended.1);
        support::figure(format!("a standing pair: ended after {took:.1?} (drain-timeout 2 s)"));
    }
}

/// Five thousand connections stand and say something now and then: none is cut before the time is over, and all of them
/// end in good order when it is.
#[test]
fn standing_connections_live_on_until_the_drain_timeout() {
    raise_open_files();
    let count = 5_000;
    let server = Program::new().arg("--drain-timeout", "6s").arg("--queue", count).start();
    let mut clients: Vec<Client> = (0..count).map(|_| server.client()).collect();
    for client in &mut clients {
        client.say("x");
    }
    for client in &mut clients {
        client.hear("x");
    }
    server.signal(Signal::USR2);
    let _new = Successor::of(&server, 1);
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(3500) {
        for client in clients.iter_mut().step_by(97) {
            client.say("y").hear("y");
        }
    }
    for client in &mut clients {
        client.say("z").hear("z");
    }
    for client in &mut clients {
        assert_eq!(client.end(), support::End::Fin);
    }
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(server.ended().0, Some(0));
}
