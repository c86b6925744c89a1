//! The log: for people and for programs, and never in the server's way.

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{Client, End, Ending, Program, Scrape, command, eventually, path};

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A pipe that takes no more.
fn full_pipe() -> (std::io::PipeReader, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while (&writer).write(&[b'.'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer.into())
}

/// A terminal that takes no more: its emulator is stopped, or somebody has pressed Ctrl-S.
fn full_terminal() -> (File, OwnedFd) {
    let (control, terminal) = support::terminal();
    support::fill(&control);
    (control, terminal.into())
}

/// Starts a server of `hello` whose short idle timeout somebody has to keep, and waits until it serves.
fn start(address: SocketAddr, args: &[&str], stdout: Stdio, stderr: Stdio) -> (Ending, Client) {
    let listen = format!("hello=tcp://{address}");
    let mut server = command(path());
    server
        .env("TIDEGATE_ADMIN", "off")
        .args(["--workers", "1", "--idle-timeout", "1s", "--listen", &listen])
        .args(args);
    let child = Ending(server.stdout(stdout).stderr(stderr).spawn().expect("it starts"));
    let client = eventually("it serves", || Client::try_connect(address, Duration::from_secs(1)).ok());
    (child, client)
}

/// Asserts that it serves, keeps time, and ends in good order.
#[track_caller]
fn goes_on(mut server: Ending, mut client: Client, address: SocketAddr) {
    for _ in 0..2 {
        client.say("x\n").hear("hello x\n");
        // The thread that keeps time writes to the log too.
        assert_eq!(client.end(), End::Fin);
        client = Client::connect(address);
    }
    drop(client);
    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    let status = eventually("it ends", || server.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    for format in ["text", "json"] {
        for pipe in [true, false] {
            let address = free_address();
            let (unread, stderr): (Box<dyn Read>, OwnedFd) = match pipe {
                true => {
                    let (reader, writer) = full_pipe();
                    (Box::new(reader), writer)
                }
                false => {
                    let (control, terminal) = full_terminal();
                    (Box::new(control), terminal)
                }
            };
            let args = ["-vv", "--log-format", format];
            let (server, client) = start(address, &args, Stdio::null(), stderr.into());
            goes_on(server, client, address);
            drop(unread);
        }
    }
    support::figure(
        "a full pipe and a stopped terminal as stderr, text and JSON: 4 of 4 serve on and end in order",
    );
}

/// The start lines go to stdout, which may be as full.
#[test]
fn start_lines_that_nobody_reads_hold_nothing_up() {
    for format in ["text", "json"] {
        for pipe in [true, false] {
            let address = free_address();
            let (unread, stdout): (Box<dyn Read>, OwnedFd) = match pipe {
                true => {
                    let (reader, writer) = full_pipe();
                    (Box::new(reader), writer)
                }
                false => {
                    let (control, terminal) = full_terminal();
                    (Box::new(control), terminal)
                }
            };
            let args = ["--log-format", format];
            let (server, client) = start(address, &args, stdout.into(), Stdio::null());
            goes_on(server, client, address);
            drop(unread);
        }
    }
    support::figure("the same as stdout: 4 of 4 serve on and end in order");
}

/// Nothing is lost without being counted: the lines that came and those that the log says were dropped are all.
#[test]
fn lines_that_nobody_read_are_counted_once_somebody_reads() {
    const FAILED_TURNS: usize = 3000;
    let (began, address) = (Instant::now(), free_address());
    let (mut reader, stderr) = full_pipe();
    let admin = free_address();
    let place = admin.to_string();
    let args = ["-v", "--max-line", "4", "--log-format", "json", "--refusal-rate", "100k", "--admin", &place];
    let (mut server, client) = start(address, &args, Stdio::null(), stderr.into());
    drop(client);
    for _ in 0..FAILED_TURNS {
        let mut client = Client::connect(address);
        client.mutter("too long\n");
        assert_eq!(client.end(), End::Fin);
    }
    let mut scrape = Client::connect(admin);
    scrape.say("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let metrics = String::from_utf8(scrape.rest().0).unwrap();
    let metric = metrics.lines().find_map(|line| line.strip_prefix("tidegate_log_lines_dropped_total "));
    let counted: u64 = metric.expect("a metric counts them").parse().unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut log = Vec::new();
        let _ = reader.read_to_end(&mut log);
        let _ = told.send(log);
    });
    // Somebody reads now. The last line at the end of the server makes sure that the dropped ones are reported.
    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    eventually("it ends", || server.0.try_wait().unwrap());
    let log = String::from_utf8(heard.recv_timeout(support::PATIENCE).unwrap()).unwrap();
    // What filled the pipe has no line end.
    let lines = log.trim_start_matches('.').lines();
    let lines: Vec<serde_json::Value> = lines.map(|line| serde_json::from_str(line).expect(line)).collect();
    let failed = lines.iter().filter(|line| line["message"] == "a turn failed").count();
    let dropped: u64 = lines.iter().filter_map(|line| line["lines"].as_u64()).sum();
    assert_eq!(dropped, counted, "the log and the metric agree");
    assert!(dropped > 1000, "{dropped} were dropped");
    // Of other lines, one a second at most, some may have been dropped too.
    let others = began.elapsed().as_secs() + 1;
    let told = failed as u64 + dropped;
    let all = FAILED_TURNS as u64;
    assert!((all..=all + others).contains(&told), "{failed} came, {dropped} were dropped");
}

#[test]
fn start_lines_are_json_where_the_log_is() {
    let server = Program::new().arg("--log-format", "json").arg("--workers", 3).admin().start();
    let lines: Vec<serde_json::Value> =
        server.stdout().lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["listening", "admin endpoint", "limits"]);
    assert_eq!(lines[0]["service"], "echo");
    let url = lines[0]["url"].as_str().unwrap();
    let address: SocketAddr = url.strip_prefix("tcp://").unwrap().parse().unwrap();
    Client::connect(address).say("x").hear("x");
    assert_eq!(lines[2]["workers"], 3);
    server.signal(Signal::TERM);
    let (code, stderr) = server.ended();
    assert_eq!(code, Some(0));
    let log: Vec<serde_json::Value> =
        stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(!log.is_empty());
    for line in log.iter().chain(&lines) {
        for field in ["timestamp", "level", "message"] {
            assert!(line[field].is_string(), "{field} is not in {line}");
        }
        assert_eq!(line["timestamp"].as_str().unwrap().len(), "2026-11-25T09:31:16.388312Z".len(), "{line}");
    }
}

/// A gate for HTTP whose only place is held: further requests are refused, and their connections stay.
#[test]
fn requests_that_a_gate_refuses_are_one_line_a_second_for_each_reason() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = format!("proxy:{}", backend.local_addr().unwrap());
    let program = Program::new().without_echo().arg("--listen", format!("{service}=http://127.0.0.1:0"));
    // The one that waits keeps its place, whoever comes.
    let program = program.arg("--queue-order", "fifo").arg("--queue-timeout", "60s").admin();
    let gate = program.arg("--backend-connections", 1).arg("--queue", 1).start();
    let at = gate.listening(&format!("{service} on http"));
    const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let (mut holder, mut waits, mut refused) =
        (Client::connect(at), Client::connect(at), Client::connect(at));
    holder.say(GET);
    let _held = backend.accept().unwrap();
    waits.say(GET);
    eventually("one waits", || {
        (Scrape::of(&gate).sum("tidegate_gate_waiting_clients", &[]) == 1).then_some(())
    });
    eventually("the refusals are in the log", || {
        let reply = refused.ask(GET);
        assert_eq!(reply.status, 503);
        let log = gate.stderr();
        let mut refusals = log.lines().filter(|line| line.contains("requests refused"));
        let line = refusals.find(|line| line.contains("reason=queue_full"))?;
        assert!(line.contains(&at.to_string()) && line.contains("count="), "{line}");
        Some(())
    });
    for _ in 0..100 {
        refused.ask(GET);
    }
    let lines = gate.stderr().lines().filter(|line| line.contains("requests refused")).count();
    assert!(lines < 20, "{lines} lines: {}", gate.stderr());
}

/// Whoever reads that many were refused for their own limits asks who they were. The status page says it for the last minute.
#[test]
fn the_sources_that_are_refused_most_are_named_in_one_line_a_second_and_in_the_status() {
    let server = Program::new().arg("--max-per-source", 1).arg("--refusal-rate", "all").admin().start();
    let at = server.address();
    let sources: Vec<_> = (2..10).map(|n| format!("127.0.0.{n}")).collect();
    let _held: Vec<_> = sources
        .iter()
        .map(|source| {
            let mut client = Client::from(source, at);
            client.say("x").hear("x");
            client
        })
        .collect();
    let began = Instant::now();
    // The last of them the most.
    for (n, source) in sources.iter().enumerate() {
        for _ in 0..=n * 10 {
            Client::from(source, at).mutter("x").heard(&mut [0]);
        }
    }
    let most = "127.0.0.9 (";
    let naming =
        |log: &str| log.lines().filter(|line| line.contains("refused most")).map(str::to_owned).collect();
    let lines: Vec<String> = eventually("the log names the one that was refused most", || {
        let lines: Vec<String> = naming(&server.stderr());
        lines.iter().any(|line| line.contains(most)).then_some(lines)
    });
    assert!(lines.len() as u64 <= began.elapsed().as_secs() + 2, "a line a second: {lines:#?}");
    for line in &lines {
        assert!(line.matches("127.0.0.").count() <= 5, "at most five: {line}");
    }
    let json: serde_json::Value =
        serde_json::from_str(support::admin(&server, "/status.json").text()).unwrap();
    let named = json["refused_sources"].as_array().unwrap();
    assert_eq!(
        (named.len(), &named[0]["source"], &named[0]["count"]),
        (5, &"127.0.0.9".into(), &71.into()),
        "{json:#}"
    );
    assert!(support::admin(&server, "/status").text().contains("127.0.0.9"), "the page names it");
}

/// systemd names the stream that leads to its journal; a line there begins with its level.
#[test]
fn lines_for_the_journal_begin_with_their_level() {
    // The shell makes a name of its own stderr, or of another file.
    let of = |file: &str| format!("export JOURNAL_STREAM=$(stat -L -c %d:%i {file})");
    for (prelude, args, is_journal) in [
        (of("/dev/fd/2"), &[][..], true),
        (of("/dev/null"), &[], false),
        (of("/dev/fd/2"), &["--log-format", "text"], false),
        (of("/dev/null"), &["--log-format", "journald"], true),
    ] {
        let program =
            args.chunks(2).fold(Program::new().prelude(&prelude), |program, arg| program.arg(arg[0], arg[1]));
        let server = program.start();
        server.signal(Signal::TERM);
        let (code, said) = server.ended();
        assert_eq!(code, Some(0));
        let line = said.lines().find(|line| line.contains("drained 0 connections")).expect(&said);
        assert_eq!(line.starts_with("<6>drained 0 connections"), is_journal, "{line}");
        assert_eq!(line.contains(" INFO "), !is_journal, "{line}");
    }
}

/// Each level has its number, and what ends the program is an error.
#[test]
fn the_levels_of_lines_for_the_journal_are_those_of_syslog() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("echo=tcp://{}", taken.local_addr().unwrap());
    let output = support::run(["--listen", &listen, "--admin", "off", "--log-format", "journald"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("<3>tidegate: cannot listen on"), "{said}");
    let config = support::Folder::new("journal");
    let file = config.write("tidegate.toml", "log-format = \"journald\"\n");
    let server = Program::new().arg("--config", &file).start();
    config.write("tidegate.toml", "workers = \"many\"\n");
    server.signal(Signal::HUP);
    support::eventually("the mistake is in the log", || {
        server
            .stderr()
            .lines()
            .any(|line| line.starts_with("<3>the configuration was read again"))
            .then_some(())
    });
}
