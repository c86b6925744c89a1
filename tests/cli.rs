//! Wrong input of any kind: one clear line on stderr, the right exit code, never a panic.

#[path = "support/refusal.rs"]
mod refusal;
mod support;

use refusal::{says, text};
use rustix::process::Signal;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::{Client, Ending, Program, command, eventually, finish, path, run};

/// Each wrong line of arguments is usage, said in one line that names what is wrong.
#[test]
fn wrong_arguments_are_usage() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["--workers", "many"], &["many", "--workers", "whole number"]),
        (&["--workers", "0"], &["workers is 0", "from 1 to"]),
        (&["--workers", "-1"], &["-1"]),
        (&["--workers", "1.5"], &["1.5", "--workers"]),
        (&["--workers", ""], &["--workers"]),
        (&["--workers", "99999999999999999999999"], &["--workers"]),
        (&["--workers", "5000"], &["workers is 5000", "4096"]),
        (&["--queue", "lots"], &["lots", "--queue"]),
        (&["--queue", "20000"], &["queue is 20000", "max-connections"]),
        (&["--max-connections", "0"], &["max-connections is 0"]),
        (&["--max-connections", "1000000000"], &["max-connections is 1000000000"]),
        (&["--idle-timeout", "10"], &["10", "--idle-timeout", "unit"]),
        (&["--idle-timeout", "10 parsecs"], &["10 parsecs"]),
        (&["--idle-timeout", "0s"], &["idle-timeout is 0s"]),
        (&["--read-timeout", "400d"], &["read-timeout"]),
        (&["--max-line", "64XB"], &["64XB", "--max-line", "size"]),
        (&["--max-line", "0"], &["max-line is 0"]),
        (&["--max-line", "2MiB"], &["max-line", "output-per-connection"]),
        (&["--max-line", "1MiB", "--input-total", "1MiB"], &["max-line", "input-total"]),
        (&["--max-line", "18446744073709551615"], &["max-line", "from 1B to"]),
        (&["--max-line", "16TiB"], &["16TiB"]),
        (&["--output-total", "1KiB"], &["output-total"]),
        (&["--output-total", "18446744073709551615"], &["output-total", "from 1B to"]),
        (&["--refusal-rate", "fast"], &["fast", "--refusal-rate"]),
        (&["--refusal-rate", "-1"], &["-1"]),
        (&["--refusal-rate", "nan"], &["nan"]),
        (&["--source-prefix", "33,128"], &["33,128"]),
        (&["--source-prefix", "24"], &["24"]),
        (&["--overload", "panic"], &["panic", "reject", "drop-oldest"]),
        (&["--overload", "wait:soon"], &["soon"]),
        (&["--worker-nice", "20"], &["worker-nice is 20"]),
        (&["--worker-nice", "nicely"], &["nicely"]),
        (&["--busy-poll", "1s"], &["busy-poll is 1s", "10ms"]),
        (&["--backlog", "9999999999"], &["backlog is 9999999999"]),
        (&["--work", "nothing"], &["nothing", "cpu:1ms"]),
        (&["--work", "sleep:2h"], &["sleep:2h"]),
        (&["--busy-reply", "no\\x"], &["\\x", "escape"]),
        (&["--log-format", "xml"], &["xml", "text", "json"]),
        (&["--quiet", "--verbose"], &["--quiet", "--verbose"]),
        (&["--listen", "tcp://127.0.0.1:0"], &["tcp://127.0.0.1:0", "SERVICE=URL"]),
        (&["--listen", "nothing=tcp://127.0.0.1:0"], &["nothing", "echo"]),
        (&["--listen", "echo=127.0.0.1:0"], &["127.0.0.1:0", "tcp://"]),
        (&["--listen", "echo=http://127.0.0.1:0/x"], &["no path"]),
        (&["--listen", "echo=ws://127.0.0.1:0/x"], &["no path"]),
        (&["--listen", "echo=ws://127.0.0.1:0", "--ws-origin", "example.org"], &["example.org", "https://"]),
        (&["--listen", "time=ws://127.0.0.1:0", "--push-every", "0s"], &["--push-every", "1ms"]),
        (&["--listen", "chat=ws://127.0.0.1:0"], &["chat", "echo"]),
        (&["--max-head", "1"], &["max-head is 1B", "256B"]),
        (&["--max-headers", "0"], &["max-headers is 0"]),
        (&["--ws-ping", "0s"], &["ws-ping is 0s"]),
        (&["--listen", "echo=tcp://127.0.0.1"], &["no port"]),
        (&["--listen", "echo=tcp://127.0.0.1:70000"], &["port"]),
        (&["--listen", "echo=tcp://[::1:0"], &["]"]),
        (&["--listen", ""], &["SERVICE=URL"]),
        (&["--admin", "nonsense"], &["nonsense", "127.0.0.1:9464", "off"]),
        (&["--admin", "127.0.0.1:70000"], &["127.0.0.1:70000"]),
        (&["--admin", ""], &["off"]),
        (&["--works", "3"], &["--works"]),
        (&["dance"], &["dance"]),
        (&["serve", "now"], &["now"]),
        (&["check", "--workers", "0"], &["workers is 0"]),
        (&["check", "--admin", "nonsense"], &["nonsense", "off"]),
    ];
    for (args, words) in cases {
        // The option under test stands beside nothing else that could be wrong.
        says(&run(*args), 2, words);
    }
}

#[test]
fn a_word_misspelt_brings_the_right_one_to_mind() {
    says(&run(["--worker", "3"]), 2, &["--worker", "--workers"]);
}

#[test]
fn a_busy_port_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listen = format!("echo=tcp://{address}");
    says(&run(["--admin", "off", "--listen", &listen]), 1, &[&address, "in use", "another port"]);
}

/// The first thing that a second server on one machine meets.
#[test]
fn a_busy_admin_port_is_said_to_be_the_admin_port_and_how_to_move_it() {
    let first = Program::new().admin().start();
    let taken = first.admin().to_string();
    let output = run(["--admin", &taken, "--listen", "echo=tcp://127.0.0.1:0"]);
    says(&output, 1, &["admin endpoint", &taken, "in use", "--admin 127.0.0.1:", "--admin off"]);
}

/// A supervisor tries again after 1: the network may be late at boot. After 2 a person has to do something.
#[test]
fn a_name_that_does_not_resolve_is_a_failure_and_no_wrong_argument() {
    let host = "no.such.host.invalid";
    let cases: &[&[&str]] = &[
        &["--admin", "off", "--listen", "echo=tcp://no.such.host.invalid:0"],
        &["--admin", "off", "--listen", "echo=udp://no.such.host.invalid:0"],
        &["--admin", "no.such.host.invalid:0"],
        &["check", "--listen", "echo=tcp://127.0.0.1:0", "--listen", "time=tcp://no.such.host.invalid:1"],
    ];
    for args in cases {
        says(&run(*args), 1, &[host, "resolve"]);
    }
    // What a person has to mend is said first.
    says(&run(["--listen", "echo=tcp://no.such.host.invalid:0", "--admin", "nonsense"]), 2, &["nonsense"]);
    says(&run(["--listen", "echo=tcp://no.such.host.invalid:0,dance=tcp://h:1"]), 2, &["dance"]);
}

#[test]
fn the_admin_endpoint_listens_on_an_address_with_a_zone() {
    for zone in ["lo", "1"] {
        let output = run(["check", "--admin", &format!("[fe80::1%{zone}]:9464")]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("[fe80::1%1]:9464"), "{}", text(&output.stdout));
    }
    says(&run(["check", "--admin", "[fe80::1%nolink]:9464"]), 1, &["fe80::1%nolink"]);
}

#[test]
fn an_address_of_another_machine_is_said() {
    says(&run(["--admin", "off", "--listen", "echo=tcp://192.0.2.1:0"]), 1, &["192.0.2.1", "this machine"]);
}

/// Port 1 needs a privilege wherever the kernel was not told otherwise; as root the test gives it up first.
#[test]
fn port_1_without_rights_is_said() {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .map_or(1024, |text| text.trim().parse::<u32>().expect("a number"));
    let args = ["--admin", "off", "--listen", "echo=tcp://127.0.0.1:1"];
    let root = rustix::process::geteuid().is_root();
    let mut without_rights = if root {
        // The program may lie where only root can read it.
        let copy = Scratch::file("tidegate", &std::fs::read(path()).unwrap());
        copy.make_executable();
        let mut setpriv = command("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
        setpriv.arg("--inh-caps=-all").arg(&copy.path).args(args);
        let output = (first_free > 1).then(|| finish(&mut setpriv));
        drop(copy);
        if let Some(output) = output {
            return says(&output, 1, &["127.0.0.1:1", "permission denied", "1024"]);
        }
        command(path())
    } else {
        command(path())
    };
    if first_free > 1 {
        says(&finish(without_rights.args(args)), 1, &["127.0.0.1:1", "permission denied", "1024"]);
    } else {
        // No port needs a privilege here: then the program must be able to serve there.
        let mut child =
            without_rights.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let served = std::panic::catch_unwind(|| {
            let address = "127.0.0.1:1".parse().unwrap();
            eventually("it serves", || Client::try_connect(address, Duration::from_secs(1)).ok());
        });
        child.kill().unwrap();
        child.wait().unwrap();
        served.unwrap();
    }
}

#[test]
fn more_connections_than_descriptors_allow_are_said() {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let Some(hard) = hard.filter(|&hard| hard < 16_000_000) else {
        // Without a hard limit the number itself is the limit.
        return says(&run(["--max-connections", "1000000000"]), 2, &["max-connections"]);
    };
    let wanted = (hard + 1).to_string();
    for command in ["serve", "check"] {
        let output = run([command, "--admin", "off", "--max-connections", &wanted]);
        says(&output, 1, &[&wanted, "open files", "ulimit -n"]);
    }
}

/// A file or a place for one that goes with the test.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn file(name: &str, content: &[u8]) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-test-{}-{number}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self { path }
    }

    fn make_executable(&self) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn arg(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn a_wrong_configuration_file_is_said_with_its_name() {
    let missing = "/no/such/dir/tidegate.toml";
    says(&run(["--config", missing]), 2, &[missing, "No such file"]);
    says(&run(["check", "--config", missing]), 2, &[missing]);
    let cases: &[(&str, &[&str])] = &[
        ("workers = 0", &["workers is 0"]),
        ("workers = \"many\"", &["many"]),
        ("workers = -3", &["-3"]),
        ("workers = true", &["workers", "number"]),
        ("wokers = 3", &["wokers", "not an option"]),
        ("[serve]\nworkers = 3", &["serve"]),
        ("workers 3", &["line 1"]),
        ("workers = 1\nworkers = 2", &["line 2", "duplicate"]),
        ("idle-timeout = 10", &["10", "unit"]),
        ("listen = \"nothing=tcp://127.0.0.1:0\"", &["nothing"]),
        ("config = \"other.toml\"", &["config"]),
        ("queue = 9\nmax-connections = 3", &["queue is 9"]),
    ];
    for (content, words) in cases {
        let file = Scratch::file("wrong.toml", content.as_bytes());
        says(&run(["check", "--config", file.arg()]), 2, words);
    }
    let file = Scratch::file("not-text.toml", &[0xff, 0xfe, 0x00]);
    says(&run(["check", "--config", file.arg()]), 2, &[file.arg()]);
    let file = Scratch::file("huge.toml", &vec![b'#'; 2 << 20]);
    says(&run(["check", "--config", file.arg()]), 2, &[file.arg(), "bytes"]);
    says(&run(["check", "--config", "/tmp"]), 2, &["/tmp"]);
    says(&run(["check", "--config", "/dev/zero"]), 2, &["/dev/zero"]);
}

/// The effective limit of this name, as `check` prints it.
#[track_caller]
fn effective(command: &mut Command, name: &str) -> String {
    let output = finish(command);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    let line = stdout.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name} in {stdout}")).split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn command_line_beats_environment_beats_file_beats_default() {
    let file = Scratch::file("some.toml", b"workers = 3\nqueue = \"4\"\nidle-timeout = \"5s\"\n");
    let check = || {
        let mut check = command(path());
        check.arg("check");
        check
    };
    assert_eq!(effective(&mut check(), "workers"), "32");
    assert_eq!(effective(check().args(["--config", file.arg()]), "workers"), "3");
    assert_eq!(effective(check().env("TIDEGATE_CONFIG", file.arg()), "queue"), "4");
    let mut env = check();
    env.args(["--config", file.arg()]).env("TIDEGATE_WORKERS", "6");
    assert_eq!(effective(&mut env, "workers"), "6");
    assert_eq!(effective(env.args(["--workers", "7"]), "workers"), "7");
    assert_eq!(effective(&mut env, "idle-timeout"), "5s");
    says(&finish(check().env("TIDEGATE_WORKERS", "some")), 2, &["some", "TIDEGATE_WORKERS"]);
}

/// An option that is read and then forgotten would print its default here.
#[test]
fn every_limit_that_is_asked_for_is_in_force() {
    let asked: &[(&str, &str)] = &[
        ("workers", "7"),
        ("workers-ceiling", "8"),
        ("queue", "9"),
        ("max-connections", "77"),
        ("connections-ceiling", "78"),
        ("listeners-ceiling", "4"),
        ("max-per-source", "5"),
        ("source-rate", "3/s"),
        ("datagram-source-rate", "8/s"),
        ("source-prefix", "24,64"),
        ("overload", "wait:15ms"),
        ("queue-timeout", "6s"),
        ("queue-target", "7ms"),
        ("queue-order", "fifo"),
        ("fair", "off"),
        ("refusal-rate", "12/s"),
        ("dry-run", "queue,source-rate"),
        ("read-timeout", "11s"),
        ("write-timeout", "12s"),
        ("idle-timeout", "13s"),
        ("max-line", "1KiB"),
        ("input-total", "3MiB"),
        ("output-per-connection", "2MiB"),
        ("output-total", "5MiB"),
        ("turn-bytes", "6KiB"),
        ("lingering", "8"),
        ("linger-timeout", "14ms"),
        ("linger-bytes", "7KiB"),
        ("drain-delay", "15ms"),
        ("drain-timeout", "16s"),
        ("worker-nice", "3"),
        ("busy-poll", "70us"),
        ("backlog", "33"),
        ("stuck-threshold", "17s"),
        ("fd-reserve", "99"),
        ("max-datagram", "1000B"),
        ("max-head", "2KiB"),
        ("max-headers", "11"),
        ("max-body", "3KiB"),
        ("max-message", "4KiB"),
        ("ws-ping", "18s"),
    ];
    let table = tidegate::Limits::default().table();
    for row in &table {
        assert!(asked.iter().any(|(name, _)| *name == row.name), "{} is not tried", row.name);
    }
    let mut check = command(path());
    check.arg("check").args(asked.iter().map(|(name, value)| format!("--{name}={value}")));
    let output = finish(&mut check);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    for (name, value) in asked {
        let shown = stdout.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>());
        assert!(shown.into_iter().any(|shown| shown == [*name, *value]), "{name} {value}: {stdout}");
    }
}

/// With these limits the numbers are round: (16 + 4 + 20) requests of 10 ms, two listeners with a backlog each.
#[test]
fn check_says_where_it_listens_and_what_the_limits_come_to() {
    let mut check = command(path());
    check.args(["check", "--workers=4", "--queue=16", "--backlog=10", "--work=sleep:10ms", "--admin=off"]);
    check.args([
        "--listen=work=tcp://127.0.0.1:5001,echo=tcp://127.0.0.1:5002",
        "--listen=time=udp://[::1]:5003",
    ]);
    let output = finish(&mut check);
    let stdout = text(&output.stdout);
    for words in [
        "work tcp://127.0.0.1:5001",
        "echo tcp://127.0.0.1:5002",
        "time udp://[::1]:5003",
        "admin off",
        "memory ",
        "descriptors 10384 of the ",
        "wait 100ms for a newcomer with 40 requests before it",
    ] {
        let told = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(words);
        assert!(stdout.lines().any(told), "`{words}` is not in {stdout}");
    }
    assert_eq!(stdout.lines().last(), Some("ok"), "{stdout}");
}

#[test]
fn check_prints_every_limit_and_starts_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("echo=tcp://{}", taken.local_addr().unwrap());
    let output = run(["check", "--listen", &listen, "--queue", "0"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    for row in tidegate::Limits::default().table() {
        assert!(stdout.contains(row.name), "{} is not in {stdout}", row.name);
    }
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn a_queue_of_0_serves() {
    let server = Program::new().arg("--queue", 0).start();
    server.client().say("x").hear("x");
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn the_smallest_of_everything_serves() {
    let server = Program::new()
        .arg("--workers", 1)
        .arg("--queue", 1)
        .arg("--max-connections", 1)
        .arg("--refusal-rate", "1e-300")
        .arg("--fd-reserve", 0)
        .arg("--backlog", 1)
        .start();
    let mut only = server.client();
    only.say("x").hear("x");
    // One that is refused, and one for which there is no budget.
    let mut others = [server.client(), server.client()];
    only.say("y").hear("y");
    drop(only);
    let served =
        others.iter_mut().filter_map(|other| other.mutter("z").heard(&mut [0]).then_some(())).count();
    assert_eq!(served, 1, "the one that waited in the kernel");
}

#[test]
fn help_and_version_go_to_stdout() {
    for flag in ["--help", "--version", "-h", "-V"] {
        let output = run([flag]);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

/// Runs a line of shell in which `$0` is the program.
fn shell(line: &str) -> Output {
    finish(command("/bin/sh").args(["-c", line, path()]))
}

#[test]
fn a_closed_stdout_ends_nothing_and_panics_nowhere() {
    for what in ["--help", "check", "--version"] {
        for closed in ["| true", ">&-"] {
            let output = shell(&format!("\"$0\" {what} {closed}"));
            let stderr = text(&output.stderr);
            assert!(!stderr.contains("panicked"), "{what} {closed}: {stderr}");
            assert!(stderr.lines().count() <= 1, "{what} {closed}: {stderr}");
        }
    }
    let output = shell("\"$0\" check > /dev/full");
    says(&output, 1, &["stdout"]);
}

#[test]
fn a_server_serves_without_an_audience() {
    for (stdout, stderr) in [(true, false), (false, true), (true, true)] {
        let port = free_port();
        let mut line = format!("exec \"$0\" --admin off --listen echo=tcp://127.0.0.1:{port}");
        line.push_str(if stdout { " >&-" } else { " >/dev/null" });
        line.push_str(if stderr { " 2>&-" } else { " 2>/dev/null" });
        let child = command("/bin/sh").args(["-c", &line, path()]).spawn().unwrap();
        let mut child = Ending(child);
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        let mut client =
            eventually("it serves", || Client::try_connect(address, Duration::from_secs(1)).ok());
        client.say("x").hear("x");
        drop(client);
        rustix::process::kill_process(rustix::process::Pid::from_child(&child.0), Signal::TERM).unwrap();
        let status = eventually("it ends", || child.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "stdout closed: {stdout}, stderr closed: {stderr}");
    }
}

/// Its owner sees why, and whose turn it was; only when asked for, since clients can make it happen.
#[test]
fn a_turn_that_failed_is_logged_at_v() {
    for verbose in [true, false] {
        let server = Program::new().service("hello").arg("--max-line", 4);
        let server = if verbose { server.flag("-v") } else { server }.start();
        let mut client = server.client();
        client.say("too long\n");
        assert_eq!(client.end(), support::End::Fin);
        let listener = format!("listener=tcp://{}", server.address());
        let peer = format!("peer={}", client.stream().local_addr().unwrap());
        server.signal(Signal::TERM);
        let (code, stderr) = server.ended();
        assert_eq!(code, Some(0), "{stderr}");
        let told: Vec<_> = stderr.lines().filter(|line| line.contains("a turn failed")).collect();
        assert_eq!(told.len(), usize::from(verbose), "{stderr}");
        for word in [&listener, &peer, "a line longer than allowed"] {
            assert!(told.iter().all(|line| line.contains(word)), "`{word}` is not in {told:?}");
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
