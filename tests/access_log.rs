//! The access log: a line for each request, whatever became of it, and nothing that it does holds up a worker.

mod support;

use rustix::process::Signal;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Client, End, PATIENCE, Program, Running, Site, eventually, finish, hush_panics};
use tidegate::http::Pull;
use tidegate::reason::CloseReason;
use tidegate::service::HttpGateConfig;
use tidegate::{AccessFormat, AccessLog, Limits, Server, http, proxy};

/// A directory that is gone after the test.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-access-log-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What was written, for a log in this process.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A site whose access log is JSON.
fn logged(service: impl tidegate::Service) -> (Site, AccessLog, Lines) {
    let lines = Lines::default();
    let log = AccessLog::to(lines.clone(), AccessFormat::Json).unwrap();
    let limits = Limits::default().workers(1).linger_timeout(Duration::from_millis(50));
    let builder = Server::builder().limits(limits).access_log(log.clone());
    (Site::build(builder, service), log, lines)
}

impl Lines {
    /// Waits for this many lines.
    #[track_caller]
    fn wait(&self, log: &AccessLog, count: usize) -> Vec<serde_json::Value> {
        eventually("the lines are there", || {
            assert!(log.finish(PATIENCE));
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            (text.lines().count() >= count).then_some(text)
        })
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
    }
}

#[test]
fn each_request_has_one_line_with_what_became_of_it() {
    hush_panics();
    let (site, log, lines) = logged(http(|request, response| match request.path() {
        "/panic" => panic!("a test's panic"),
        "/gone" => Err(http::status(410)),
        "/pull" => {
            let mut left = 3;
            response.pull(move |piece| {
                left -= 1;
                piece.extend_from_slice(b"12345");
                Ok(if left == 0 { Pull::End } else { Pull::More })
            })
        }
        _ => response.bytes(request.body()),
    }));
    let mut client = site.client();
    client.say(b"POST /echo?x=1 HTTP/1.1\r\nHost: h\r\nUser-Agent: test/1\r\nContent-Length: 4\r\n\r\n");
    client.say(b"body");
    assert_eq!(client.reply().text(), "body");
    assert_eq!(client.get("/pull").body.len(), 15);
    assert_eq!(client.get("/gone").status, 410);
    assert_eq!(client.ask("HEAD /echo HTTP/1.0\r\n\r\n").status, 200);
    let unread = site.client().ask("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(unread.status, 400);
    let mut big = site.client();
    big.say(b"POST /big HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n");
    assert_eq!(big.reply().status, 400);
    let mut panics = site.client();
    panics.say(b"GET /panic HTTP/1.1\r\nHost: h\r\n\r\n");
    site.until_closed(CloseReason::Panic, 1);
    let mut leaves = site.client();
    leaves.say(b"POST /leaves HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc");
    site.until("it has begun", |now| now.idle >= 1 && now.received_bytes > 0);
    drop(leaves);
    let seen = lines.wait(&log, 8);
    let of = |target: &str| {
        let mut found = seen.iter().filter(|line| line["target"] == target);
        let line = found.next().unwrap_or_else(|| panic!("{target} is not in {seen:?}"));
        assert!(found.next().is_none(), "two lines of {target}");
        (line["method"].as_str().unwrap(), line["status"].as_u64().unwrap(), line["bytes"].as_u64().unwrap())
    };
    assert_eq!(of("/echo?x=1"), ("POST", 200, 4));
    assert_eq!(of("/pull"), ("GET", 200, 15));
    assert_eq!(of("/gone"), ("GET", 410, "410 Gone\n".len() as u64));
    assert_eq!(of("/echo"), ("HEAD", 200, 0));
    assert_eq!((of("/big").0, of("/big").1), ("POST", 400));
    assert_eq!(of("/panic"), ("GET", 500, 0));
    assert_eq!(of("/leaves"), ("POST", 499, 0));
    let unread = seen.iter().find(|line| line["target"].is_null()).expect("one could not be read");
    assert_eq!(unread["status"], 400);
    let first = &seen[0];
    assert_eq!((&first["user_agent"], &first["protocol"]), (&"test/1".into(), &"HTTP/1.1".into()));
    assert_eq!(first["listener"], format!("http://{}", site.address));
    assert!(first["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{first}");
    assert_eq!((seen.len(), log.dropped()), (8, 0), "{seen:?}");
    site.end();
}

#[test]
fn an_answer_that_breaks_off_has_a_line_with_what_was_sent() {
    let (site, log, lines) = logged(http(|_, response| {
        let mut pieces = 0;
        response.pull(move |piece| {
            pieces += 1;
            if pieces == 3 {
                return Err(io::Error::other("the source is gone"));
            }
            piece.extend_from_slice(b"12345");
            Ok(Pull::Later(Duration::from_millis(1)))
        })
    }));
    let mut client = site.client();
    client.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.rest().1, End::Reset);
    let seen = lines.wait(&log, 1);
    assert_eq!((&seen[0]["status"], &seen[0]["bytes"], seen.len()), (&200.into(), &10.into(), 1));
    assert!(seen[0]["seconds"].as_f64().unwrap() >= 0.002, "{seen:?}");
    site.end();
}

/// A gate logs what its clients got, also where no backend was asked.
#[test]
fn a_gate_logs_and_counts_what_its_clients_got() {
    let limits = Limits::default().workers(1).linger_timeout(Duration::from_millis(50));
    let backend = Site::serve(
        limits,
        http(|request, response| match request.path() {
            "/missing" => Err(http::status(404)),
            _ => response.bytes(request.body()),
        }),
    );
    let to = |address: String| proxy([address]).unwrap().http(HttpGateConfig::default()).build().unwrap();
    let (site, log, lines) = logged(to(backend.address.to_string()));
    let mut client = site.client();
    client.say(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.reply().text(), "body");
    assert_eq!(client.get("/missing").status, 404);
    assert_eq!(site.client().ask("GET / HTTP/1.1\r\n\r\n").status, 400);
    let (nowhere, other_log, other_lines) = logged(to("127.0.0.1:1".to_owned()));
    assert_eq!(nowhere.client().get("/nobody").status, 502);
    let mut seen = lines.wait(&log, 3);
    seen.extend(other_lines.wait(&other_log, 1));
    let what = |line: &serde_json::Value| format!("{} {} {}", line["target"], line["status"], line["bytes"]);
    let seen: Vec<_> = seen.iter().map(what).collect();
    assert_eq!(seen[..2], ["\"/echo\" 200 4", "\"/missing\" 404 14"]);
    assert!(seen[2].starts_with("null 400 ") && seen[3].starts_with("\"/nobody\" 502 "), "{seen:?}");
    let counted = |site: &Site| site.counts().web.unwrap().requests;
    assert_eq!((counted(&site), counted(&nowhere)), ([0, 1, 0, 2, 0], [0, 0, 0, 0, 1]));
    assert_eq!(site.counts().web.unwrap().duration.count(), 2);
    drop(client);
    site.end();
    nowhere.end();
    backend.end();
}

fn program(log: &str) -> Program {
    Program::new().without_echo().arg("--listen", "echo=http://127.0.0.1:0").arg("--access-log", log).admin()
}

fn ask(server: &Running, path: &str) {
    let mut client = Client::connect(server.listening("echo on http"));
    assert_eq!(client.get(path).status, 200);
}

fn metric(server: &Running, name: &str) -> u64 {
    let mut scrape = Client::connect(server.admin());
    scrape.say("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let metrics = String::from_utf8(scrape.rest().0).unwrap();
    let found = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("{name} is not there"))
}

#[test]
fn the_program_writes_lines_that_others_read_and_goes_on_where_a_file_was_moved() {
    let room = Room::new("combined");
    let (path, moved) = (room.path("access.log"), room.path("access.log.1"));
    let server = program(&path).start();
    let lines = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    ask(&server, "/one");
    let text = eventually("the line is there", || Some(lines(&path)).filter(|text| text.ends_with('\n')));
    assert!(
        text.starts_with("127.0.0.1 - - [") && text.contains("] \"GET /one HTTP/1.1\" 200 0 \"-\" \"-\" 0."),
        "{text}"
    );
    std::fs::rename(&path, &moved).unwrap();
    eventually("another file is made", || {
        ask(&server, "/two");
        lines(&path).contains("/two").then_some(())
    });
    assert!(!lines(&moved).contains("HTTP/1.1\" 4"));
    // What waits when the program ends is written.
    ask(&server, "/last");
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
    assert!(lines(&path).contains("/last"), "{}", lines(&path));
}

#[test]
fn a_full_disk_costs_lines_which_are_counted_and_nothing_else() {
    let server = program("/dev/full").start();
    for _ in 0..20 {
        ask(&server, "/");
    }
    let dropped = "tidegate_access_log_lines_dropped_total ";
    eventually("the lines are counted", || (metric(&server, dropped) == 20).then_some(()));
    let told = || server.stderr().contains("lines of the access log cannot be written").then_some(());
    eventually("the log of the server says so", told);
    ask(&server, "/");
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn stdout_that_nobody_reads_any_more_costs_lines_and_nothing_else() {
    let mut command = support::command(support::path());
    command.args(["--listen", "echo=http://127.0.0.1:0", "--admin", "off", "--access-log", "-"]);
    command.args(["--access-log-format", "json"]);
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut stdout = io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let address = line.trim().strip_prefix("echo on http://").unwrap().parse().unwrap();
    let get = |path: &str| {
        let mut client = Client::connect(address);
        assert_eq!(client.get(path).status, 200);
    };
    get("/read");
    let mut seen = String::new();
    while !seen.contains("\"target\":\"/read\"") {
        io::BufRead::read_line(&mut stdout, &mut seen).unwrap();
    }
    // The reader is stopped, and then gone.
    let mut client = Client::connect(address);
    for _ in 0..40 {
        client.say("GET /pipelined HTTP/1.1\r\nHost: h\r\n\r\n".repeat(50));
        (0..50).for_each(|_| assert_eq!(client.reply().status, 200));
    }
    drop(stdout);
    (0..5).for_each(|_| get("/unread"));
    drop(client);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let status = eventually("it ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_log_that_cannot_be_opened_is_one_line() {
    let room = Room::new("wrong");
    let (fifo, missing) = (room.path("fifo"), room.path("no/such/access.log"));
    assert!(finish(std::process::Command::new("mkfifo").arg(&fifo)).status.success());
    for (args, code, words) in [
        (&["--access-log", &missing][..], 1, &["cannot open the access log", &missing, "No such file"][..]),
        (&["--access-log", &fifo], 1, &["cannot open the access log", "nobody reads this pipe"]),
        (&["--access-log-format", "json"], 2, &["--access-log-format needs --access-log FILE"]),
    ] {
        let output = serve_or_check("serve", args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(code), 1), "{stderr}");
        words.iter().for_each(|word| assert!(stderr.contains(word), "`{word}` is not in {stderr}"));
    }
}

fn serve_or_check(command: &str, args: &[&str]) -> std::process::Output {
    let mut program = support::command(support::path());
    program.args([command, "--listen", "echo=http://127.0.0.1:0", "--admin", "off"]).args(args);
    finish(&mut program)
}

#[test]
fn check_says_that_a_log_cannot_be_opened_and_makes_no_file() {
    let room = Room::new("check");
    let (fresh, fifo, folder) = (room.path("fresh.log"), room.path("fifo"), room.path(""));
    let (missing, below) = (room.path("no/such/access.log"), room.path("there.log/access.log"));
    std::fs::write(room.path("there.log"), "before\n").unwrap();
    assert!(finish(std::process::Command::new("mkfifo").arg(&fifo)).status.success());
    for (path, why) in [
        (&*fresh, None),
        (&*room.path("there.log"), None),
        ("/dev/null", None),
        ("-", None),
        // A reader may come before the server does.
        (&*fifo, None),
        (&*missing, Some("No such file")),
        (&*folder, Some("Is a directory")),
        (&*below, Some("Not a directory")),
    ] {
        let output = serve_or_check("check", &["--access-log", path]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(i32::from(why.is_some())), "{path}: {stderr}");
        let told = format!("cannot open the access log {path}: {}", why.unwrap_or_default());
        assert_eq!(stderr.contains(&told), why.is_some(), "`{told}` is not in {stderr}");
    }
    assert!(!std::path::Path::new(&fresh).exists());
    assert_eq!(std::fs::read_to_string(room.path("there.log")).unwrap(), "before\n");
}

#[test]
fn what_is_noted_for_the_log_is_part_of_the_memory_that_check_promises() {
    let memory = |options: &[&str]| -> u64 {
        let output = support::run([&["check", "--max-connections", "10000"], options].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let row = text
            .lines()
            .find(|row| row.trim_start().starts_with("memory"))
            .unwrap_or_else(|| panic!("{text}"));
        row.split_whitespace().nth(1).unwrap().strip_suffix("MiB").unwrap().parse().unwrap()
    };
    // 2 MiB of lines, and 2 KiB for the request under way on each connection.
    let more = memory(&["--access-log", "-"]) - memory(&[]);
    assert!((2 + 19..2 + 25).contains(&more), "{more} MiB");
}
