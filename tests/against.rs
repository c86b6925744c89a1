//! `tidegate check --against`: what a reload would change in a running server, and what it then does.
#![cfg(target_os = "linux")]

mod support;

use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Output;
use support::{Folder, Program, Running, admin, command, eventually, finish, path, run};

/// What the program says about this file and the server: its exit code, stdout, stderr.
#[track_caller]
fn against(address: SocketAddr, args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        run([&["check", "--against", &address.to_string()][..], args].concat());
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Has the server read its file again; what the log says of that.
#[track_caller]
fn reload(server: &Running) -> String {
    let said = |server: &Running| -> Vec<String> {
        let log = server.stderr();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole.lines().filter(|line| line.contains("read again")).map(str::to_owned).collect()
    };
    let before = said(server).len();
    server.signal(Signal::HUP);
    eventually("the log speaks of the reload", || said(server).get(before).cloned())
}

const NOTHING: &str = "a reload would change nothing\n";

#[test]
fn it_names_what_a_reload_then_changes_and_after_it_says_that_nothing_would() {
    let folder = Folder::new("against");
    let listen = "listen = \"echo=tcp://127.0.0.1:0\"\n";
    let old = folder.write("tidegate.toml", &format!("idle-timeout = \"1h\"\nmax-line = \"1KiB\"\n{listen}"));
    let server = Program::new().admin().without_echo().arg("--config", &old).start();
    assert_eq!(against(server.admin(), &["--config", &old]), (Some(0), NOTHING.to_owned(), String::new()));
    let text = format!(
        "idle-timeout = \"60m\"\nmax-line = \"2KiB\"\ndry-run = \"source-rate\"\nsource-rate = 5\n\
         busy-reply = \"later\"\nlog-level = \"debug\"\n{listen}"
    );
    let new = folder.write("new.toml", &text);
    let (code, said, _) = against(server.admin(), &["--config", &new]);
    let rows: Vec<_> =
        said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "source-rate off -> 5/s live",
        "max-line 1KiB -> 2KiB live",
        "dry-run off -> source-rate live",
        "busy-reply none -> \"later\" live",
        "log-level info -> debug live",
        "a reload would change this at once",
    ];
    assert_eq!((code, rows), (Some(0), expected.map(str::to_owned).to_vec()));
    std::fs::copy(&new, &old).unwrap();
    let said = reload(&server);
    assert!(
        said.ends_with(
            "source-rate off -> 5/s, max-line 1KiB -> 2KiB, dry-run off -> source-rate, \
             busy-reply none -> \"later\", log-level info -> debug"
        ),
        "{said}"
    );
    assert_eq!(against(server.admin(), &["--config", &new]).1, NOTHING);
    let (code, said, _) = against(server.admin(), &["--max-line", "3KiB"]);
    assert!(code == Some(0) && said.contains("2KiB -> 3KiB"), "{said}");
}

/// For each option that takes effect at a restart, what is said beforehand is what the reload then says.
#[test]
fn what_needs_a_restart_has_an_exit_code_of_its_own_and_the_reload_refuses_it_with_the_same_words() {
    let folder = Folder::new("against-restart");
    let listen = "listen = \"echo=tcp://127.0.0.1:0\"\n";
    let first = format!("worker-nice = 2\nworkers = 4\nadmin-host = \"a\"\n{listen}");
    let old = folder.write("tidegate.toml", &first);
    let server = Program::new().admin().without_echo().arg("--config", &old).start();
    for (text, row) in [
        (
            format!("worker-nice = 3\nworkers = 4\nadmin-host = \"a\"\nidle-timeout = \"2h\"\n{listen}"),
            "worker-nice 2 -> 3 needs a restart",
        ),
        (
            format!("worker-nice = 2\nworkers = 5\nadmin-host = \"a\"\n{listen}"),
            "workers 4 -> 5 needs a restart",
        ),
        (
            format!("worker-nice = 2\nworkers = 4\nadmin-host = \"b\"\n{listen}"),
            "admin-host a -> b needs a restart",
        ),
        (
            format!("worker-nice = 2\nworkers = 4\nadmin-host = \"a\"\nlog-format = \"json\"\n{listen}"),
            "log-format not set -> json needs a restart",
        ),
    ] {
        let new = folder.write("new.toml", &text);
        let (code, said, _) = against(server.admin(), &["--config", &new]);
        let rows = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(rows.clone().any(|line| line == row), "{row} is not in {said}");
        assert_eq!(code, Some(4), "{said}");
        let mut rows = rows;
        let why = rows.next_back().unwrap();
        let why = why.strip_prefix("a reload would change nothing: ").unwrap_or_else(|| panic!("{said}"));
        std::fs::write(&old, &text).unwrap();
        let log = reload(&server);
        assert!(log.ends_with(&format!("nothing has changed: {why}")), "{log}\n{said}");
    }
}

#[test]
fn the_command_line_and_the_environment_of_the_server_come_first_as_at_a_reload() {
    let folder = Folder::new("against-first");
    let old = folder.write("tidegate.toml", "idle-timeout = \"1h\"\nread-timeout = \"1h\"\n");
    let program = Program::new().admin().arg("--config", &old).arg("--idle-timeout", "7s");
    let server = program.prelude("export TIDEGATE_READ_TIMEOUT=8s").start();
    let new =
        folder.write("new.toml", "idle-timeout = \"2h\"\nread-timeout = \"2h\"\nwrite-timeout = \"9s\"\n");
    let (code, said, _) = against(server.admin(), &["--config", &new]);
    assert_eq!((code, said.lines().count()), (Some(0), 2), "{said}");
    assert!(said.contains("write-timeout          10s -> 9s  live\n"), "{said}");
    let mut check = command(path());
    check.args(["check", "--against", &server.admin().to_string(), "--config", &new]);
    let said = finish(check.env("TIDEGATE_QUEUE", "3"));
    assert!(
        !String::from_utf8(said.stdout).unwrap().contains("queue"),
        "its own environment is not the server's"
    );
}

#[test]
fn a_listener_with_a_limit_of_its_own_is_named() {
    let folder = Folder::new("against-own");
    let text = |time: &str| {
        format!(
            "listen = \"echo=tcp://127.0.0.1:0\"\n[[listener]]\nlisten = \"hello=tcp://127.0.0.1:0\"\nidle-timeout = \"{time}\"\n"
        )
    };
    let old = folder.write("tidegate.toml", &text("1h"));
    let server = Program::new().admin().without_echo().arg("--config", &old).start();
    let new = folder.write("new.toml", &text("5s"));
    let (code, said, _) = against(server.admin(), &["--config", &new]);
    assert_eq!(code, Some(0));
    assert!(
        said.starts_with("  idle-timeout           3600s -> 5s at hello=tcp://127.0.0.1:0  live\n"),
        "{said}"
    );
}

#[test]
fn a_file_with_a_mistake_is_a_mistake_of_usage_in_one_line() {
    let folder = Folder::new("against-broken");
    let server = Program::new().admin().start();
    for (text, why) in [
        ("max-line = \n", "new.toml: line 1: "),
        (
            "idle_timeout = \"3h\"\n",
            "new.toml: line 1: `idle_timeout` is not an option: did you mean `idle-timeout`?",
        ),
        ("idle-timeout = \"0s\"\n", "new.toml: line 1: idle-timeout is 0s: it must be from 1ms to 30d"),
    ] {
        let (code, said, error) = against(server.admin(), &["--config", &folder.write("new.toml", text)]);
        assert_eq!((code, said.as_str(), error.lines().count()), (Some(2), "", 1), "{error}");
        assert!(error.contains(why), "{error}");
    }
}

/// Answers each client with these bytes.
fn answering(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        }
    });
    address
}

#[test]
fn who_is_not_there_or_is_no_tidegate_or_an_older_one_is_told_in_one_line() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let older = "HTTP/1.1 404 Not Found\r\nContent-Length: 75\r\n\r\nnot here; there are /metrics, /livez, /readyz, /status and /status.json    \n";
    let echo = Program::new().start();
    for (address, why) in [
        (nobody, "nothing listens at "),
        (echo.address(), "is not the admin endpoint of a tidegate"),
        (answering(b""), "is not the admin endpoint of a tidegate"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), "is no tidegate"),
        (
            answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"),
            "is not the admin endpoint of a tidegate (it answers 404)",
        ),
        (answering(older.as_bytes()), "is older than this one"),
    ] {
        let (code, said, error) = against(address, &[]);
        assert_eq!((code, said.as_str(), error.lines().count()), (Some(1), "", 1), "{error}");
        assert!(error.contains(why), "{error}");
    }
    let ended = run(["check", "--against", "nonsense"]);
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
}

#[test]
fn the_endpoint_says_what_is_in_force_and_what_was_said() {
    let folder = Folder::new("against-json");
    let file = folder.write("tidegate.toml", "max-line = \"1KiB\"\n");
    let server = Program::new().admin().arg("--config", &file).arg("--queue", 7).start();
    let answer: serde_json::Value =
        serde_json::from_slice(&admin(&server, "/configuration.json").body).unwrap();
    assert_eq!((&answer["format"], &answer["limits"]["queue"]), (&1.into(), &"7".into()));
    assert_eq!(answer["options"]["command_line"]["queue"], serde_json::json!(["7"]));
    assert_eq!(answer["options"]["file"], serde_json::json!({ "max-line": "1KiB" }));
    assert_eq!(answer["listeners"][0]["service"], "echo");
}

#[test]
fn a_gate_that_goes_on_with_other_backends_says_which() {
    let folder = Folder::new("against-gate");
    let text = |backend: &str, most: u32| {
        format!("listen = \"proxy:{backend}=tcp://127.0.0.1:0\"\nbackend-connections = {most}\n")
    };
    let old = folder.write("tidegate.toml", &text("127.0.0.1:1", 7));
    let server = Program::new().admin().without_echo().arg("--config", &old).start();
    let new = folder.write("new.toml", &text("127.0.0.1:2", 9));
    let (code, said, _) = against(server.admin(), &["--config", &new]);
    assert_eq!(code, Some(0), "{said}");
    let rows: Vec<_> =
        said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let at = "at proxy:127.0.0.1:1=tcp://127.0.0.1:0 live";
    assert!(rows.contains(&format!("backends 127.0.0.1:1 -> 127.0.0.1:2 {at}")), "{said}");
    assert!(rows.contains(&format!("backend-connections 7 -> 9 {at}")), "{said}");
    std::fs::copy(&new, &old).unwrap();
    assert!(reload(&server).contains("backend-connections 7 -> 9"));
    assert_eq!(against(server.admin(), &["--config", &new]).1, NOTHING);
}
