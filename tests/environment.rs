//! The environment as it is: variables, pipes, terminals, and systems that give little.

mod support;

use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{Program, command, finish, path, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn check() -> Command {
    let mut check = command(path());
    check.arg("check");
    check
}

/// Asserts that the program ended with this code and one line that says all of this.
#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "stderr: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is not said in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// The variables of all options that have one.
fn variables() -> Vec<String> {
    let limits = tidegate::Limits::default().table().into_iter().map(|row| row.name);
    let others = ["listen", "admin", "work", "busy-reply", "config", "log-format", "log-level", "access-log"];
    let variable = |name: &str| format!("TIDEGATE_{}", name.to_uppercase().replace('-', "_"));
    limits.chain(others).map(variable).collect()
}

#[test]
fn an_empty_variable_is_not_set() {
    let plain = finish(&mut check());
    for empty in ["", "\r", "\n", "\r\n"] {
        for variable in variables() {
            let output = finish(check().env(&variable, empty));
            assert_eq!(output.status.code(), Some(0), "{variable}: {}", text(&output.stderr));
            assert_eq!(text(&output.stdout), text(&plain.stdout), "{variable} {empty:?}");
        }
    }
}

/// A file made on Windows, a variable made by `$(...)` of another system.
#[test]
fn a_line_end_after_a_value_is_cut() {
    for (variable, value) in [
        ("TIDEGATE_QUEUE", "7\r"),
        ("TIDEGATE_IDLE_TIMEOUT", "7s\r\n"),
        ("TIDEGATE_OVERLOAD", "drop-oldest\n"),
        ("TIDEGATE_LISTEN", "time=tcp://127.0.0.1:7\r"),
        ("TIDEGATE_ADMIN", "127.0.0.1:7\r\n"),
    ] {
        let output = finish(check().env(variable, value));
        assert_eq!(output.status.code(), Some(0), "{variable}: {}", text(&output.stderr));
        assert!(
            text(&output.stdout).contains(value.trim_start_matches("time=").trim_end()),
            "{variable}: {}",
            text(&output.stdout)
        );
    }
}

#[test]
fn a_wrong_variable_is_named_and_the_option_is_not() {
    for (variable, value, words) in [
        ("TIDEGATE_QUEUE", "x", &["`x`", "whole number"][..]),
        ("TIDEGATE_WORKERS", "\"7\"", &["`\"7\"`"]),
        ("TIDEGATE_WORKERS", " ", &["whole number"]),
        ("TIDEGATE_IDLE_TIMEOUT", "10", &["`10`", "unit"]),
        ("TIDEGATE_OVERLOAD", "panic", &["reject"]),
        ("TIDEGATE_SOURCE_PREFIX", "33,128", &["33,128"]),
        ("TIDEGATE_LOG_FORMAT", "xml", &["xml", "text", "json"]),
        ("TIDEGATE_WORK", "nothing", &["cpu:1ms"]),
        ("TIDEGATE_MAX_LINE", "64XB", &["size"]),
    ] {
        let output = finish(check().env(variable, value));
        says(&output, 2, words);
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with(&format!("tidegate: {variable}: ")), "{stderr}");
    }
    let not_text = std::ffi::OsStr::from_bytes(b"caf\xe9");
    says(&finish(check().env("TIDEGATE_BUSY_REPLY", not_text)), 2, &["TIDEGATE_BUSY_REPLY", "UTF-8"]);
}

#[test]
fn commands_without_these_options_ignore_their_variables() {
    for args in [&["metrics"][..], &["--version"], &["--help"], &["client", "--help"], &["stress", "--help"]]
    {
        let mut wrong = command(path());
        for variable in variables() {
            wrong.env(variable, "x");
        }
        let output = finish(wrong.args(args));
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    }
    let mut client = command(path());
    client.env("TIDEGATE_QUEUE", "x").args(["client", "--data", "x", "tcp://127.0.0.1:1"]);
    says(&finish(&mut client), 1, &["connection refused"]);
}

/// Kubernetes sets variables for each service: of one that is called `tidegate`, these.
#[test]
fn variables_of_other_names_are_ignored() {
    let mut check = check();
    for (name, value) in [
        ("TIDEGATE_PORT", "tcp://10.0.0.1:5000"),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("TIDEGATE_PORT_5000_TCP", "tcp://10.0.0.1:5000"),
        ("TIDEGATE_ADMIN_PORT", "tcp://10.0.0.1:9464"),
        ("TIDEGATE_VERBOSE", "x"),
        ("TIDEGATE_HELP", "x"),
    ] {
        check.env(name, value);
    }
    assert_eq!(text(&finish(&mut check).stdout), text(&run(["check"]).stdout));
}

#[test]
fn a_list_of_listeners_may_have_spaces_and_a_comma_at_its_end() {
    for list in ["echo=tcp://127.0.0.1:7,time=udp://[::1]:8", "echo=tcp://127.0.0.1:7, time=udp://[::1]:8,"] {
        let output = finish(check().env("TIDEGATE_LISTEN", list));
        let stdout = text(&output.stdout);
        assert!(stdout.contains("tcp://127.0.0.1:7\n") && stdout.contains("udp://[::1]:8\n"), "{stdout}");
    }
}

/// A place for a file that goes with the test.
struct Place(std::path::PathBuf);

impl Place {
    fn fifo(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-environment-{}-{name}", std::process::id()));
        let made = finish(command("mkfifo").arg(&path));
        assert!(made.status.success(), "{}", text(&made.stderr));
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_fifo_without_a_writer_is_an_error_within_a_second() {
    let fifo = Place::fifo("silent");
    let began = Instant::now();
    let output = finish(check().arg("--config").arg(&fifo.0));
    says(&output, 2, &[fifo.0.to_str().unwrap(), "nothing was written"]);
    // The wait itself, and a busy machine's share.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // A writer that has it open and says nothing is no better.
    let mut writer = std::fs::OpenOptions::new().read(true).write(true).open(&fifo.0).unwrap();
    says(&finish(check().arg("--config").arg(&fifo.0)), 2, &["nothing was written"]);
    // Nor is one that stops in the middle.
    writer.write_all(b"queue = ").unwrap();
    says(&finish(check().arg("--config").arg(&fifo.0)), 2, &["nothing was written"]);
}

#[test]
fn no_file_that_is_read_may_be_a_fifo_that_nobody_writes_to() {
    let fifo = Place::fifo("unwritten");
    let name = fifo.0.to_str().unwrap();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", server.local_addr().unwrap());
    for args in [
        &["client", &url, "--file", name][..],
        &["stress", &url, "-d", "1s", "--data-file", name],
        &["stress", &url, "-d", "1s", "--lines", name],
        &["stress", "report", name],
    ] {
        let began = Instant::now();
        let output = finish(command(path()).args(args));
        let stderr = text(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains("no program has opened it"),
            "{args:?}: {stderr}"
        );
        assert!(began.elapsed() < Duration::from_secs(3), "{args:?}: {:?}", began.elapsed());
    }
}

#[test]
fn the_lines_to_send_may_come_through_a_pipe_as_slowly_as_they_like() {
    let server = Program::new().start();
    let fifo = Place::fifo("lines");
    let lines = fifo.0.clone();
    let writer = std::thread::spawn(move || {
        let mut file = std::fs::OpenOptions::new().write(true).open(lines).unwrap();
        // Longer than a pipe without a writer is waited for.
        std::thread::sleep(Duration::from_millis(1_200));
        file.write_all(b"one\ntw").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        file.write_all(b"o\n").unwrap();
    });
    let url = format!("tcp://{}", server.address());
    let output = finish(command(path()).args(["client", &url, "--file"]).arg(&fifo.0));
    writer.join().unwrap();
    assert_eq!(text(&output.stdout), "one\ntwo\n", "{}", text(&output.stderr));
}

#[test]
fn a_configuration_may_come_through_a_pipe() {
    let fifo = Place::fifo("spoken");
    let config = fifo.0.clone();
    let writer = std::thread::spawn(move || {
        let mut file = std::fs::OpenOptions::new().write(true).open(config).unwrap();
        file.write_all(b"queue = ").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        file.write_all(b"7\n").unwrap();
    });
    let output = finish(check().arg("--config").arg(&fifo.0));
    writer.join().unwrap();
    assert!(text(&output.stdout).contains("queue                  7 "), "{}", text(&output.stdout));
    let line = "echo 'queue = 7' | \"$0\" check --config /dev/stdin";
    let output = finish(command("/bin/sh").args(["-c", line, path()]));
    assert!(text(&output.stdout).contains("queue                  7 "), "{}", text(&output.stderr));
}

/// Threads that the system does not give, whichever it is. Root has no limit of processes, so another user.
#[test]
fn a_thread_that_the_system_does_not_give_is_named_in_one_line() {
    let root = rustix::process::geteuid().is_root();
    let copy = Copy::of_the_program();
    for processes in if root { vec![2, 5, 20, 30, 34, 36] } else { vec![1] } {
        let mut limited = command("prlimit");
        limited.arg(format!("--nproc={processes}:{processes}"));
        if root {
            // A user of their own for each round: threads of the last one may still be counted.
            let user = 31_000 + processes;
            limited.args([
                "setpriv",
                &format!("--reuid={user}"),
                &format!("--regid={user}"),
                "--clear-groups",
            ]);
        }
        limited.arg(&copy.0).args(["--admin", "off", "--listen", "echo=tcp://127.0.0.1:0"]);
        let words: &[&str] =
            if processes < 20 { &["cannot start the thread for "] } else { &["worker ", " of 32"] };
        says(&finish(&mut limited), 1, words);
    }
    // The clients have fewer threads: the first looks the name up.
    for (number, command_line) in
        [&["client", "--data", "x"][..], &["stress", "-n", "1"]].into_iter().enumerate()
    {
        if !root {
            break;
        }
        let mut limited = command("prlimit");
        let (processes, user) = (1 + number, 31_100 + number);
        limited.arg(format!("--nproc={processes}:{processes}"));
        limited.args(["setpriv", &format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        limited.arg(&copy.0).args(command_line).arg("tcp://127.0.0.1:1");
        says(&finish(&mut limited), 1, &["cannot start the thread that resolves 127.0.0.1: "]);
    }
    for kib in [30_000, 50_000, 80_000] {
        let mut limited = command("prlimit");
        limited.arg(format!("--as={}", kib * 1024)).arg(path());
        limited.args(["--admin", "off", "--listen", "echo=tcp://127.0.0.1:0"]);
        says(&finish(&mut limited), 1, &["cannot start the thread for ", "memory"]);
    }
    support::figure("9 limits of threads and of address space: one line that names the thread, exit code 1");
}

/// The program where any user can read it.
struct Copy(std::path::PathBuf);

impl Copy {
    fn of_the_program() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let copy = std::env::temp_dir().join(format!("tidegate-environment-{}-copy", std::process::id()));
        std::fs::copy(path(), &copy).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// On a terminal the log has colours; not where somebody said that they are not wanted.
#[test]
fn the_log_has_colours_only_where_they_are_wanted() {
    let cases: &[(&[(&str, &str)], bool)] = &[
        (&[("TERM", "xterm")], true),
        (&[("TERM", "xterm"), ("NO_COLOR", "")], true),
        (&[("TERM", "xterm"), ("NO_COLOR", "1")], false),
        (&[("TERM", "xterm"), ("NO_COLOR", "0")], false),
        (&[("TERM", "dumb")], false),
    ];
    for (variables, wanted) in cases {
        let (mut control, terminal) = support::terminal();
        let mut server = command(path());
        server.env_remove("NO_COLOR").envs(variables.iter().copied());
        server.args(["--admin", "off", "--listen", "echo=tcp://127.0.0.1:0"]);
        let started = server.stdout(Stdio::piped()).stderr(Stdio::from(terminal)).spawn();
        // It has the terminal open too.
        drop(server);
        let mut server = support::Ending(started.expect("it starts"));
        let stdout = BufReader::new(server.0.stdout.take().expect("piped"));
        assert!(stdout.lines().map_while(Result::ok).any(|line| line.starts_with("limits:")));
        rustix::process::kill_process(rustix::process::Pid::from_child(&server.0), Signal::TERM).unwrap();
        let status = support::eventually("it ends", || server.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        // Reading a terminal that nobody has open any more is an error after what was written.
        let mut log = Vec::new();
        let _ = control.read_to_end(&mut log);
        let log = text(&log);
        assert!(log.contains("drained"), "{log}");
        assert_eq!(log.contains('\x1b'), *wanted, "{variables:?}: {log:?}");
    }
}

/// A run of the stress client shows a bar on a terminal that takes control codes.
#[test]
fn the_progress_of_a_run_has_control_codes_only_where_they_are_wanted() {
    let server = support::Program::new().start();
    let url = format!("tcp://{}", server.address());
    let cases: &[(&[(&str, &str)], bool)] = &[
        (&[("TERM", "xterm")], true),
        (&[("TERM", "xterm"), ("NO_COLOR", "1")], false),
        (&[("TERM", "dumb")], false),
    ];
    for (variables, wanted) in cases {
        let (mut control, terminal) = support::terminal();
        let mut run = command(path());
        run.env_remove("NO_COLOR").envs(variables.iter().copied());
        run.args(["stress", &url, "-c", "1", "-r", "10", "-d", "2s", "--warmup", "0s"]);
        let started = run.stdout(Stdio::null()).stderr(Stdio::from(terminal)).spawn();
        drop(run);
        let mut run = support::Ending(started.expect("it starts"));
        let status = support::eventually("it ends", || run.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        let mut shown = Vec::new();
        let _ = control.read_to_end(&mut shown);
        assert_eq!(text(&shown).contains('\x1b'), *wanted, "{variables:?}: {:?}", text(&shown));
    }
}
