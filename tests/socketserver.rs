//! What a person coming from Python's `socketserver` relies on: plain Python sockets against the real
//! program, and the examples, which must do what they say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn plain_python_sockets_are_served() {
    let output = Command::new("python3")
        .arg(format!("{ROOT}/tests/python/outside.py"))
        .env("TIDEGATE", env!("CARGO_BIN_EXE_tidegate"))
        .output()
        .expect("python3 runs: tests/run.sh installs it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("\nRan 21 tests"), "{said}");
}

/// The directory with the examples, built once: `cargo test --test` alone does not.
fn examples() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // target/<profile>/deps/this-test
        let this = std::env::current_exe().unwrap();
        let directory = this.parent().and_then(|deps| deps.parent()).unwrap().to_owned();
        let profile = match directory.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            other => other,
        };
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(ROOT).args(["build", "--workspace", "--examples", "--profile", profile]);
        build.arg("--target-dir").arg(directory.parent().unwrap());
        // Cargo tells a test about its package in these variables. Build scripts of dependencies ask for them, and would
        // run again, so that half of the workspace would be built anew, and once more after the test.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_") && !is_for_cargo(name)) {
                build.env_remove(name);
            }
        }
        let built = build.output().expect("cargo runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        directory.join("examples")
    })
}

/// Whether somebody set it to tell cargo how to build.
fn is_for_cargo(variable: &str) -> bool {
    ["CARGO_HOME", "CARGO_INCREMENTAL"].contains(&variable)
        || ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_TARGET_"]
            .iter()
            .any(|prefix| variable.starts_with(prefix))
}

/// A server program that says its addresses, one a line; ended when dropped.
struct Program {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    address: SocketAddr,
}

impl Program {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line.trim().parse().unwrap_or_else(|_| panic!("{line:?} is not an address"));
        Self { child, out, address }
    }

    fn example(name: &str) -> Self {
        let mut command = Command::new(examples().join(name));
        command.arg("127.0.0.1:0");
        Self::start(command)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Sends this, half-closes, and gives all that is said.
    fn talk(&self, words: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(words).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }

    fn ask(&self, request: &[u8]) -> String {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.send_to(request, self.address).unwrap();
        let mut buffer = [0; 4096];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_closure_echoes() {
    assert_eq!(Program::example("echo").talk(b"one\ntwo\n"), "one\ntwo\n");
}

#[test]
fn in_the_chat_one_says_and_all_hear() {
    let chat = Program::example("chat");
    assert!(chat.talk(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").contains("new WebSocket"));
    let join = || tungstenite::client(format!("ws://{}/chat", chat.address), chat.connect()).unwrap().0;
    let mut members: Vec<_> = (0..10).map(|_| join()).collect();
    // The last one's own words say that it is in the room, and so are those before it.
    members[9].send("hello".into()).unwrap();
    for member in &mut members {
        let said = member.read().unwrap().into_text().unwrap();
        assert!(said.ends_with(": hello"), "{said}");
    }
}

#[test]
fn the_site_has_its_pages() {
    let site = Program::example("site");
    let ask = |first: &str, body: &str| {
        let kind = "application/x-www-form-urlencoded";
        let length = body.len();
        let head = format!(
            "{first} HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        site.talk((head + body).as_bytes())
    };
    assert!(ask("GET /", "").contains("<form method=post action=/hello>"));
    assert!(ask("GET /sum?of=1,2,3.5", "").ends_with("{\"of\":[1.0,2.0,3.5],\"sum\":6.5}"));
    assert!(ask("POST /hello", "name=J%C3%B6rg").ends_with("hello J\u{f6}rg\n"));
    assert!(ask("GET /numbers", "").ends_with("9999999\n\r\n0\r\n\r\n"));
    for (head, status) in
        [("POST /hello", 400), ("GET /hello", 405), ("GET /other", 404), ("HEAD /numbers", 200)]
    {
        let said = ask(head, "");
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {said}");
    }
}

#[test]
fn the_session_keeps_its_sum() {
    let program = Program::example("sum");
    assert_eq!(program.talk(b"1\n2\n-10\n"), "1\n3\n-7\n");
    // Another connection has a sum of its own, and what is no number ends it.
    assert_eq!(program.talk(b"5\n"), "5\n");
    assert_eq!(program.talk(b"5\nfive\n6\n"), "5\n");
}

#[test]
fn the_port_does_what_the_python_server_does() {
    let mut python = Command::new("python3");
    python.arg(format!("{ROOT}/tests/python/upper.py")).arg("127.0.0.1:0");
    let (theirs, ours) = (Program::start(python), Program::example("upper"));
    let long = [b"x".repeat(3000), b"\n".to_vec()].concat();
    for words in [&b"hello\nWorld\n"[..], b"no newline", b"", b"\n\n", &long] {
        assert_eq!(ours.talk(words), theirs.talk(words));
    }
}

#[test]
fn the_time_is_said_over_both() {
    let mut program = Program::example("time");
    assert_eq!(program.talk(b"").len(), 25);
    let mut line = String::new();
    program.out.read_line(&mut line).unwrap();
    program.address = line.trim().parse().unwrap();
    assert_eq!(program.ask(b"").len(), 24);
}

#[test]
fn datagrams_come_back_in_upper_case() {
    assert_eq!(Program::example("udp").ask(b"hello"), "HELLO");
}

#[test]
fn the_server_with_signals_answers_what_has_come_and_ends_with_success() {
    let mut program = Program::example("signals");
    let mut client = program.connect();
    client.write_all(b"one\n").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    let pid = rustix::process::Pid::from_child(&program.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut said = String::new();
    assert_eq!(client.read_to_string(&mut said).expect("an end and no reset"), 0);
    program.out.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("drained 1 connection") && said.contains("cut 0"), "{said}");
    assert!(program.child.wait().unwrap().success());
}

#[test]
fn every_hook_is_called() {
    let mut program = Program::example("hooks");
    let mut said = String::new();
    while !said.ends_with("tick\n") {
        assert!(program.out.read_line(&mut said).unwrap() > 0, "it ended: {said}");
    }
    assert_eq!(program.talk(b"hello\n"), "welcome\n");
    let mut second = program.connect();
    second.write_all(b"fail\n").unwrap();
    assert!(
        matches!(second.read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
    );
    // It ends by itself.
    program.out.read_to_string(&mut said).unwrap();
    let lines: Vec<_> = said.lines().filter(|line| *line != "tick").collect();
    let expected = [
        "set up: 127.0.0.1",
        "finished: server",
        "set up: 127.0.0.1",
        "failed: as asked",
        "finished: error",
        "ended: clean is true",
    ];
    assert_eq!(lines, expected);
    assert!(program.child.wait().unwrap().success());
}
