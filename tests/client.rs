//! `tidegate client`: what it sends, what it prints, and each way it can fail, with the real program
//! and real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

/// Runs the client with this text as its standard input.
fn client(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(TIDEGATE)
        .arg("client")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // It may end without reading its input.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
    child.wait_with_output().expect("the program ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A failure: its code, nothing but one line on stderr, which is returned.
#[track_caller]
fn failure(output: &Output, code: i32) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(said.starts_with("tidegate: "), "{said}");
    said
}

/// A server of one connection.
fn once(serve: impl FnOnce(TcpStream) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || serve(listener.accept().unwrap().0));
    (url, server)
}

/// Answers each line with `re: ` and the line; says what it got.
fn answer_lines(socket: TcpStream) -> Vec<String> {
    let mut got = Vec::new();
    for line in BufReader::new(socket.try_clone().unwrap()).lines() {
        let line = line.unwrap();
        (&socket).write_all(format!("re: {line}\n").as_bytes()).unwrap();
        got.push(line);
    }
    got
}

#[test]
fn lines_from_a_pipe_are_answered_in_turn() {
    let (url, server) = once(|socket| assert_eq!(answer_lines(socket), ["a", "b", "last"]));
    let output = client(&[&url], "a\n\n\r\nb\r\nlast");
    assert_eq!(text(&output.stdout), "re: a\nre: b\nre: last\n");
    let said = text(&output.stderr);
    assert!(said.starts_with("3 messages sent, 3 replies, ") && said.ends_with(" s in all\n"), "{said}");
    assert!(output.status.success());
    server.join().unwrap();
}

#[test]
fn a_file_is_sent_with_time_to_think_between_its_lines() {
    let path = std::env::temp_dir().join(format!("tidegate-client-{}", std::process::id()));
    std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
    let (url, server) = once(|socket| assert_eq!(answer_lines(socket).len(), 3));
    let began = Instant::now();
    let output = client(&[&url, "--file", path.to_str().unwrap(), "--think", "200ms"], "");
    std::fs::remove_file(&path).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Between three lines there are two thoughts.
    assert!(began.elapsed() >= Duration::from_millis(400));
    server.join().unwrap();
}

#[test]
fn replies_are_printed_as_they_come() {
    let (url, server) = once(|socket| {
        answer_lines(socket);
    });
    let mut child = Command::new(TIDEGATE)
        .args(["client", &url, "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for word in ["first", "second"] {
        // Nothing else is written before the reply has been read.
        writeln!(stdin, "{word}").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, format!("re: {word}\n"));
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    server.join().unwrap();
}

#[test]
fn one_message_is_sent_with_its_escapes() {
    let (url, server) = once(|socket| assert_eq!(answer_lines(socket), ["a\tb", "c"]));
    let output = client(&[&url, "--data", r"a\tb\n\x63"], "this is not read\n");
    assert_eq!(text(&output.stdout), "re: a\tb\nre: c\n");
    server.join().unwrap();
}

#[test]
fn a_server_that_speaks_first_is_only_listened_to() {
    for args in [vec!["--data", ""], vec![]] {
        let (url, server) = once(|mut socket| {
            socket.write_all(b"the time\n").unwrap();
            assert_eq!(socket.read(&mut [0; 8]).unwrap(), 0, "it half-closes");
        });
        let args: Vec<&str> = [url.as_str()].into_iter().chain(args).collect();
        let output = client(&args, "");
        assert_eq!(text(&output.stdout), "the time\n", "{}", text(&output.stderr));
        server.join().unwrap();
    }
}

#[test]
fn a_reply_that_the_end_of_the_connection_ends_counts() {
    let (url, server) = once(|mut socket| {
        assert_eq!(socket.read(&mut [0; 64]).unwrap(), 2);
        socket.write_all(b"no newline").unwrap();
    });
    let output = client(&[&url], "x\n");
    assert_eq!(text(&output.stdout), "no newline");
    assert!(text(&output.stderr).starts_with("1 message sent, 1 reply, "), "{}", text(&output.stderr));
    server.join().unwrap();
}

#[test]
fn datagrams_are_sent_and_answered_one_by_one() {
    let socket = UdpSocket::bind("[::1]:0").unwrap();
    let url = format!("udp://{}", socket.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let mut got = Vec::new();
        for _ in 0..2 {
            let (n, peer) = socket.recv_from(&mut buffer).unwrap();
            got.push(text(&buffer[..n]));
            socket.send_to(format!("<{}>", text(&buffer[..n])).as_bytes(), peer).unwrap();
        }
        got
    });
    let output = client(&[&url], "a\nb\n");
    assert_eq!(text(&output.stdout), "<a>\n<b>\n", "{}", text(&output.stderr));
    assert!(output.status.success());
    assert_eq!(server.join().unwrap(), ["a", "b"]);
}

#[test]
fn a_line_larger_than_the_socket_buffers_meets_an_echo() {
    let (url, server) = once(|mut socket| {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = socket.read(&mut buffer) {
            socket.write_all(&buffer[..n]).unwrap();
        }
    });
    let line = "x".repeat(1_000_000);
    let output = client(&[&url, "-q"], &format!("{line}\n"));
    assert_eq!(output.stdout.len(), 1_000_001, "{}", text(&output.stderr));
    server.join().unwrap();
}

/// An address where nothing listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn what_is_wrong_before_the_connection_is_said() {
    let refused = format!("tcp://{}", nobody());
    let said = failure(&client(&[&refused, "--data", "x"], ""), 1);
    assert!(said.contains(&refused) && said.contains("connection refused"), "{said}");
    let refused = format!("udp://{}", UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let said = failure(&client(&[&refused, "--data", "x"], ""), 1);
    assert!(said.contains("nothing listens there"), "{said}");
    let said = failure(&client(&["tcp://no-such-host.invalid:5000"], ""), 1);
    assert!(said.contains("cannot resolve no-such-host.invalid"), "{said}");
    let said = failure(&client(&["tcp://127.0.0.1:5000", "--file", "/no/such/file"], ""), 1);
    assert!(said.contains("cannot read /no/such/file"), "{said}");
    let said = failure(&client(&["127.0.0.1:5000"], ""), 2);
    assert!(said.contains("is not a URL"), "{said}");
    failure(&client(&["tcp://127.0.0.1:0"], ""), 2);
    failure(&client(&["tcp://127.0.0.1:5000", "--timeout", "0"], ""), 2);
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let (url, server) = once(|mut socket| {
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let began = Instant::now();
    let said = failure(&client(&[&url, "--timeout", "300ms"], "x\n"), 1);
    assert!(said.contains("did not answer message 1 within 300ms"), "{said}");
    assert!(began.elapsed() >= Duration::from_millis(300));
    server.join().unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}", silent.local_addr().unwrap());
    let said = failure(&client(&[&url, "--timeout", "300ms"], "x\n"), 1);
    assert!(said.contains("did not answer message 1 within 300ms"), "{said}");
}

#[test]
fn a_server_that_does_not_end_is_given_up() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let (url, server) = once(move |mut socket| {
        socket.write_all(b"hello\n").unwrap();
        let _ = wait.recv();
    });
    let output = client(&[&url, "--timeout", "300ms"], "");
    let said = failure(&output, 1);
    assert!(said.contains("did not end the connection within 300ms"), "{said}");
    assert_eq!(text(&output.stdout), "hello\n", "what was said is printed");
    drop(done);
    server.join().unwrap();
}

#[test]
fn a_connection_closed_early_is_a_failure() {
    let (url, server) = once(|mut socket| {
        let _ = socket.read(&mut [0; 64]);
    });
    let said = failure(&client(&[&url], "x\ny\n"), 1);
    assert!(said.contains("closed the connection before it answered message 1"), "{said}");
    server.join().unwrap();

    let (url, server) = once(|mut socket| {
        let n = socket.read(&mut [0; 64]).unwrap();
        assert_eq!(n, 2);
        socket.write_all(b"bye\n").unwrap();
    });
    let output = client(&[&url, "--think", "100ms"], "x\ny\n");
    let said = failure(&output, 1);
    assert!(said.contains("closed the connection after message 1, before the input ended"), "{said}");
    assert_eq!(text(&output.stdout), "bye\n");
    server.join().unwrap();
}

#[test]
fn a_server_that_speaks_first_and_ends_is_told_how_to_be_heard() {
    let hint = "before the input ended (a server that speaks first: --data \"\")";
    // Nothing was typed yet.
    let (url, server) = once(|mut socket| socket.write_all(b"the time\n").unwrap());
    let mut child = Command::new(TIDEGATE)
        .args(["client", &url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let typing = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(typing);
    let said = failure(&output, 1);
    assert!(said.contains(&format!("the server closed the connection {hint}")), "{said}");
    assert_eq!(text(&output.stdout), "the time\n");
    server.join().unwrap();
    // Lines are left.
    let (url, server) = once(|mut socket| {
        assert_eq!(socket.read(&mut [0; 64]).unwrap(), 2);
        socket.write_all(b"the time\n").unwrap();
    });
    let said = failure(&client(&[&url, "--think", "100ms"], "x\ny\n"), 1);
    assert!(said.contains(&format!("closed the connection after message 1, {hint}")), "{said}");
    server.join().unwrap();
}

#[test]
fn what_no_datagram_holds_is_said() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}", socket.local_addr().unwrap());
    let said = failure(&client(&[&url, "--data", &"x".repeat(65_508)], ""), 2);
    assert!(said.contains("--data has 65508 bytes") && said.contains("at most 65507"), "{said}");
    // The end of the line is in the same read as the byte too much.
    let line = format!("{}\n", "x".repeat(65_508));
    let said = failure(&client(&[&url], &line), 1);
    assert!(said.contains("standard input: a line is longer than 65507 bytes"), "{said}");
}

#[test]
fn a_reset_is_told_as_one() {
    let (url, server) = once(|socket| {
        // Unread input makes the close a reset.
        let mut byte = [0; 1];
        (&socket).read_exact(&mut byte).unwrap();
    });
    let said = failure(&client(&[&url], "a longer line\n"), 1);
    assert!(said.contains("reset the connection"), "{said}");
    server.join().unwrap();
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let (url, server) = once(|mut socket| {
        // Until the client has ended.
        while socket.write_all(&[b'x'; 1024]).is_ok() && socket.write_all(b"\n").is_ok() {}
    });
    let mut child = Command::new(TIDEGATE)
        .args(["client", &url])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 100]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    server.join().unwrap();
}

#[test]
fn an_output_that_cannot_be_written_is_a_failure() {
    let (url, server) = once(|mut socket| {
        socket.write_all(b"hello\n").unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output =
        Command::new(TIDEGATE).args(["client", &url]).stdin(Stdio::null()).stdout(full).output().unwrap();
    let said = failure(&output, 1);
    assert!(said.contains("cannot write to standard output"), "{said}");
    server.join().unwrap();
}

/// A server of one connection that sends back what comes, as it comes.
fn echo_once() -> (String, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let (mut buffer, mut got) = ([0; 4096], Vec::new());
        while let Ok(n @ 1..) = socket.read(&mut buffer) {
            got.extend_from_slice(&buffer[..n]);
            socket.write_all(&buffer[..n]).unwrap();
        }
        got
    });
    (url, server)
}

#[test]
fn data_is_sent_exactly_as_it_is() {
    for (data, bytes) in [
        ("x", &b"x"[..]),
        ("x\\n", b"x\n"),
        (r"a\r\n\x00\xff", b"a\r\n\0\xff"),
        ("-x", b"-x"),
        ("é", "é".as_bytes()),
    ] {
        let (url, server) = echo_once();
        let output = client(&[&url, "--data", data], "this is not read\n");
        assert_eq!(output.stdout, bytes, "{data}: {}", text(&output.stderr));
        assert!(text(&output.stderr).starts_with("1 message sent, 1 reply, "), "{}", text(&output.stderr));
        assert_eq!(server.join().unwrap(), bytes, "{data}");
    }
}

#[test]
fn without_newlines_a_reply_is_what_has_come_when_it_is_quiet() {
    let (url, server) = echo_once();
    let output = client(&[&url, "--no-newline"], "one\n\ntwo\r\nthree");
    assert_eq!(text(&output.stdout), "onetwothree", "{}", text(&output.stderr));
    assert!(text(&output.stderr).starts_with("3 messages sent, 3 replies, "), "{}", text(&output.stderr));
    assert_eq!(server.join().unwrap(), b"onetwothree");

    // Each message is sent when its predecessor's reply, which comes in two pieces, is whole.
    let (url, server) = once(|mut socket| {
        for expected in [b"a", b"b"] {
            let mut message = [0; 2];
            assert_eq!(socket.read(&mut message).unwrap(), 1, "one message at a time");
            assert_eq!(&message[..1], expected);
            socket.write_all(b"<").unwrap();
            std::thread::sleep(Duration::from_millis(100));
            socket.write_all(b">").unwrap();
        }
        assert_eq!(socket.read(&mut [0; 2]).unwrap(), 0);
    });
    let output = client(&[&url, "--no-newline", "--quiet", "600ms"], "a\nb\n");
    assert_eq!(text(&output.stdout), "<><>", "{}", text(&output.stderr));
    assert!(text(&output.stderr).starts_with("2 messages sent, 2 replies, "), "{}", text(&output.stderr));
    server.join().unwrap();
}

#[test]
fn a_server_that_is_never_quiet_is_asked_again_when_the_time_to_think_is_over() {
    let (url, server) = once(|socket| {
        let heard = socket.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            (&heard).read_to_end(&mut got).unwrap();
            got
        });
        while !reader.is_finished() {
            (&socket).write_all(b".").unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(reader.join().unwrap(), b"abc");
    });
    let began = Instant::now();
    let output = client(&[&url, "--no-newline", "--think", "300ms"], "a\nb\nc\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).starts_with("3 messages sent, 3 replies, "), "{}", text(&output.stderr));
    assert!(began.elapsed() >= Duration::from_millis(600));
    server.join().unwrap();
}

#[test]
fn lines_can_be_sent_to_a_server_whose_replies_are_no_lines() {
    let (url, server) = once(|socket| {
        for line in BufReader::new(socket.try_clone().unwrap()).lines() {
            (&socket).write_all(format!("[{}]", line.unwrap()).as_bytes()).unwrap();
        }
    });
    let output = client(&[&url, "--quiet", "50ms"], "a\nb\n");
    assert_eq!(text(&output.stdout), "[a][b]", "{}", text(&output.stderr));
    server.join().unwrap();
    // Without it the client says what to do.
    let (url, server) = once(|socket| {
        for line in BufReader::new(socket.try_clone().unwrap()).lines() {
            (&socket).write_all(format!("[{}]", line.unwrap()).as_bytes()).unwrap();
        }
    });
    let said = failure(&client(&[&url, "--timeout", "300ms"], "a\n"), 1);
    assert!(said.contains("did not end its reply to message 1") && said.contains("--no-newline"), "{said}");
    server.join().unwrap();
}

#[test]
fn a_message_without_a_newline_that_nobody_answers_is_explained() {
    let (url, server) = once(|socket| {
        answer_lines(socket);
    });
    let said = failure(&client(&[&url, "--data", "hello", "--timeout", "300ms"], ""), 1);
    assert!(said.contains("it was sent without a newline at its end"), "{said}");
    server.join().unwrap();
    failure(&client(&["tcp://127.0.0.1:5000", "--quiet", "0"], ""), 2);
}

#[test]
fn a_server_that_never_stops_sending_is_given_up_in_time() {
    for (args, input) in [
        (&["--data", "x\\n"][..], ""),
        (&["--data", ""], ""),
        (&["--data", "x"], ""),
        (&["--no-newline"], "a\nb\n"),
    ] {
        let (url, server) = once(|mut socket| while socket.write_all(b"more\n").is_ok() {});
        let began = Instant::now();
        let output = client(&[&[&url[..], "--timeout", "1s"], args].concat(), input);
        let took = began.elapsed();
        let said = failure(&output, 1);
        assert!(said.contains("within 1s"), "{args:?}: {said}");
        assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&took), "{args:?}: {took:?}");
        server.join().unwrap();
    }
}

#[test]
fn standard_input_can_be_named() {
    let (url, server) = once(|socket| assert_eq!(answer_lines(socket), ["a"]));
    let output = client(&[&url, "--file", "-"], "a\n");
    assert_eq!(text(&output.stdout), "re: a\n", "{}", text(&output.stderr));
    server.join().unwrap();
}

/// Runs the client with a terminal as its stdout: what the terminal is sent.
fn on_terminal(args: &[&str]) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let line = std::fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut child = Command::new(TIDEGATE)
        .arg("client")
        .args(args)
        .stdin(Stdio::null())
        .stdout(line.try_clone().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        // A terminal whose other side is closed is an error, not an end.
        let _ = std::fs::File::from(terminal).read_to_end(&mut said);
        text(&said)
    });
    child.wait().unwrap();
    drop(line);
    reader.join().unwrap()
}

#[test]
fn what_a_terminal_would_obey_is_shown_there_and_goes_as_it_is_into_a_pipe() {
    let hostile = b"\x1b]0;owned\x07\x1b[2Jred \xe2\x80\xae\xc2\x9b31m\xff tab\tend\r\n";
    let say = |mut socket: TcpStream| {
        // A letter is cut in two.
        let (one, two) = hostile.split_at(17);
        socket.write_all(one).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        socket.write_all(two).unwrap();
    };
    let (url, server) = once(say);
    let output = client(&[&url, "--data", ""], "");
    assert_eq!(output.stdout, hostile, "{}", text(&output.stderr));
    server.join().unwrap();
    let (url, server) = once(say);
    let shown = on_terminal(&[&url, "--data", ""]);
    // The terminal itself ends a line with both characters.
    let expected = "\\x1b]0;owned\\x07\\x1b[2Jred \\u{202e}\\u{9b}31m\\xff tab\tend\\r\r\n";
    assert_eq!(shown, expected);
    server.join().unwrap();
    // The next prompt begins a line.
    let (url, server) = once(|mut socket| socket.write_all(b"no newline").unwrap());
    assert_eq!(on_terminal(&[&url, "--data", ""]), "no newline\r\n");
    server.join().unwrap();
}

/// A Unix socket of its own, which is removed at the end.
struct Socket(std::path::PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn url(&self) -> String {
        format!("unix://{}", self.0.display())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_server_at_a_unix_socket_is_talked_to_as_one_at_a_port() {
    use std::os::unix::net::UnixListener;
    let socket = Socket::new("client");
    let said = failure(&client(&[&socket.url()], ""), 1);
    assert!(said.contains("there is no such socket"), "{said}");
    let listener = UnixListener::bind(&socket.0).unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        for line in BufReader::new(stream.try_clone().unwrap()).lines() {
            (&stream).write_all(format!("re: {}\n", line.unwrap()).as_bytes()).unwrap();
        }
    });
    let output = client(&[&socket.url()], "a\nb\n");
    assert_eq!(text(&output.stdout), "re: a\nre: b\n", "{}", text(&output.stderr));
    assert!(text(&output.stderr).starts_with("2 messages sent, 2 replies, "), "{}", text(&output.stderr));
    server.join().unwrap();
    // The file is there, and nothing listens.
    let said = failure(&client(&[&socket.url()], ""), 1);
    assert!(said.contains("nothing listens there"), "{said}");
    let said = failure(&client(&["unix://run/x.sock"], ""), 2);
    assert!(said.contains("unix://"), "{said}");
}

#[test]
fn a_unix_socket_whose_backlog_is_full_is_waited_for() {
    let socket = Socket::new("full");
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&socket.0).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let first = std::os::unix::net::UnixStream::connect(&socket.0).unwrap();
    let began = Instant::now();
    let said = failure(&client(&[&socket.url(), "--timeout", "300ms", "--data", "x"], ""), 1);
    assert!(said.contains("no answer within 300ms"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let url = socket.url();
    let waiting = std::thread::spawn(move || client(&[&url, "--timeout", "20s", "--data", "x"], ""));
    std::thread::sleep(Duration::from_millis(100));
    drop(first);
    for expected in [&b""[..], b"x"] {
        let (accepted, _) = listener.accept().unwrap();
        let mut buffer = [0; 8];
        let n = (&accepted).read(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], expected);
        (&accepted).write_all(&buffer[..n]).ok();
    }
    let output = waiting.join().unwrap();
    assert_eq!(text(&output.stdout), "x", "{}", text(&output.stderr));
}
