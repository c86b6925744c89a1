//! The gate in front of programs that other people wrote, with the real program between.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{Client, End, Folder, PATIENCE, Postgres, Program, Running, command, eventually, finish};

/// A child that is ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    #[track_caller]
    fn start(command: &mut Command) -> Self {
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(started.expect("tests/setup.sh installs it"))
    }
}

/// A port that nobody listens at; a program is told to listen there.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until somebody listens at a port.
#[track_caller]
fn listens(port: u16) {
    eventually("the program listens", || TcpStream::connect(("127.0.0.1", port)).ok());
}

fn gate(backends: &str, options: &[(&str, &str)]) -> Running {
    let mut program = Program::new().service(&format!("proxy:{backends}"));
    for (name, value) in options {
        program = program.arg(name, value);
    }
    program.start()
}

fn address(gate: &Running) -> SocketAddr {
    gate.address()
}

/// A request, and the rest of its connection.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut client = Client::connect(address);
    client.say(request);
    let (answer, end) = client.rest();
    assert_eq!(end, End::Fin);
    String::from_utf8_lossy(&answer).into_owned()
}

const THREADING: &str = "
import socketserver, threading, sys
most = now = 0
lock = threading.Lock()
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        global now, most
        with lock:
            now += 1
            most = max(most, now)
        for line in self.rfile:
            if line == b'most\\n':
                self.wfile.write(b'%d\\n' % most)
            else:
                self.wfile.write(line.upper())
        with lock:
            now -= 1
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
with Server(('127.0.0.1', 0), Handler) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
";

#[test]
fn a_threading_server_of_python_never_has_more_threads_than_places() {
    let mut python = command("python3");
    let python = python.args(["-c", THREADING]).stdout(Stdio::piped()).spawn().expect("python3 runs");
    let mut server = Server(python);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let gate = gate(&format!("127.0.0.1:{}", line.trim()), &[("--backend-connections", "5")]);
    let at = address(&gate);
    std::thread::scope(|scope| {
        for number in 0..60 {
            scope.spawn(move || {
                let mut client = Client::connect(at);
                for round in 0..5 {
                    client
                        .say(format!("client {number} {round}\n"))
                        .hear(format!("CLIENT {number} {round}\n"));
                }
                client.finish();
                assert_eq!(client.end(), End::Fin);
            });
        }
    });
    let mut client = Client::connect(at);
    client.say("most\n").finish();
    let most: usize = String::from_utf8(client.rest().0).unwrap().trim().parse().unwrap();
    assert!((1..=5).contains(&most), "{most} threads at once");
}

#[test]
fn socat_and_its_half_closes_pass_over_tcp_and_unix() {
    let folder = Folder::new("socat");
    let (port, path) = (free_port(), folder.path("cat.sock"));
    let _tcp = Server::start(
        command("socat").args([&format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"), "EXEC:wc -c"]),
    );
    let _unix = Server::start(command("socat").args([&format!("UNIX-LISTEN:{path},fork"), "EXEC:wc -c"]));
    listens(port);
    eventually("the socket is there", || std::path::Path::new(&path).exists().then_some(()));
    for backend in [format!("127.0.0.1:{port}"), format!("unix:{path}")] {
        let gate = gate(&backend, &[]);
        let mut client = Client::connect(address(&gate));
        // It answers when its input has ended, and not before.
        client.say(vec![b'x'; 1_000_000]).finish();
        assert_eq!(client.rest(), (b"1000000\n".to_vec(), End::Fin), "{backend}");
    }
}

#[test]
fn nginx_serves_through_it_and_a_large_file_is_the_same() {
    let folder = Folder::new("nginx");
    let port = free_port();
    let block: Vec<u8> = (0..1_000_003_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let file = block.repeat(40);
    std::fs::write(folder.0.join("large"), &file).unwrap();
    let config = folder.write(
        "nginx.conf",
        &format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error;\n\
             events {{ worker_connections 500; }}\n\
             http {{ access_log off; sendfile on; server {{ listen 127.0.0.1:{port}; root {root}; }}\n\
             client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;\n\
             uwsgi_temp_path {root}/d; scgi_temp_path {root}/e; }}\n",
            root = folder.0.display()
        ),
    );
    let _nginx = Server::start(command("nginx").args(["-p", &folder.path(""), "-c", &config]));
    listens(port);
    let gate = gate(&format!("127.0.0.1:{port}"), &[("--backend-connect", "first-byte")]);
    let mut client = Client::connect(address(&gate));
    client.say("GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (answer, end) = client.rest();
    assert_eq!(end, End::Fin);
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    assert!(answer[head..] == file, "{} of {} bytes", answer.len() - head, file.len());
}

#[test]
fn haproxy_behind_it_learns_who_the_client_is() {
    let folder = Folder::new("behind");
    for version in ["v1", "v2"] {
        let port = free_port();
        let config = folder.write(
            "haproxy.cfg",
            &format!(
                "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n\
                 frontend a\n  bind 127.0.0.1:{port} accept-proxy\n\
                 http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port]\\n\"\n"
            ),
        );
        let _haproxy = Server::start(command("haproxy").args(["-db", "-f", &config]));
        listens(port);
        let gate = gate(&format!("127.0.0.1:{port}"), &[("--send-proxy", version)]);
        let mut client = Client::from("127.0.0.9", address(&gate));
        let port = client.stream().local_addr().unwrap().port();
        client.say("GET / HTTP/1.0\r\n\r\n");
        let answer = String::from_utf8(client.rest().0).unwrap();
        assert!(answer.ends_with(&format!("127.0.0.9:{port}\n")), "{version}: {answer}");
    }
}

#[test]
fn behind_haproxy_the_client_is_who_haproxy_says_it_is() {
    let folder = Folder::new("told");
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    for option in ["send-proxy", "send-proxy-v2"] {
        let options = [("--accept-proxy", "10.0.0.0/8,127.0.0.1"), ("--send-proxy", "v1")];
        let gate = gate(&backend.local_addr().unwrap().to_string(), &options);
        let port = free_port();
        let config = folder.write(
            "haproxy.cfg",
            &format!(
                "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
                 listen a\n  bind 127.0.0.1:{port}\n  server one {} {option}\n",
                address(&gate)
            ),
        );
        let _haproxy = Server::start(command("haproxy").args(["-db", "-f", &config]));
        the_client_is_who_the_balancer_says(port, &gate, &backend);
    }
}

/// nginx passes streams on with a header of version 1. Debian has that part of it in a package of its own, which a configuration
/// has to load.
#[test]
fn behind_nginx_the_client_is_who_nginx_says_it_is() {
    let folder = Folder::new("stream");
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = [("--accept-proxy", "127.0.0.1"), ("--send-proxy", "v1")];
    let gate = gate(&backend.local_addr().unwrap().to_string(), &options);
    let port = free_port();
    let config = folder.write(
        "nginx.conf",
        &format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
             daemon off; master_process off; pid {root}/pid; error_log {root}/error;\n\
             events {{ worker_connections 500; }}\n\
             stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass {}; proxy_protocol on; }} }}\n",
            address(&gate),
            root = folder.0.display()
        ),
    );
    let _nginx = Server::start(command("nginx").args(["-p", &folder.path(""), "-c", &config]));
    the_client_is_who_the_balancer_says(port, &gate, &backend);
}

/// A client of a balancer that passes it on to this gate: the backend, which the gate tells by a header of version 1, learns the
/// client's own address.
#[track_caller]
fn the_client_is_who_the_balancer_says(port: u16, gate: &Running, backend: &TcpListener) {
    // The look whether the balancer listens is a client of the gate too.
    listens(port);
    let mut client = Client::from("127.0.0.9", SocketAddr::from(([127, 0, 0, 1], port)));
    let from = client.stream().local_addr().unwrap().port();
    client.say("hello\n");
    // The port that the balancer listens at, or that of the gate, as the balancer tells it.
    let expected = format!("PROXY TCP4 127.0.0.9 127.0.0.1 {from} ");
    let mut told = String::new();
    while !told.starts_with(&expected) {
        let mut peer = BufReader::new(backend.accept().unwrap().0);
        peer.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        told.clear();
        peer.read_line(&mut told).unwrap();
        assert!(told.starts_with("PROXY TCP4 127.0.0."), "{told}");
        if told.starts_with(&expected) {
            assert!(told.ends_with(&format!(" {}\r\n", address(gate).port())), "{told}");
            let mut words = String::new();
            peer.read_line(&mut words).unwrap();
            assert_eq!(words, "hello\n");
        }
    }
}

/// A server of mail, which speaks first, and Python's client of it.
const MAIL: &str = "
import smtplib, socketserver, sys, threading
class Mail(socketserver.StreamRequestHandler):
    def say(self, line):
        self.wfile.write(line + b'\\r\\n')
    def handle(self):
        self.say(b'220 mail')
        for line in self.rfile:
            word = line[:4].upper()
            if word == b'DATA':
                self.say(b'354 go on')
                while self.rfile.readline() not in (b'.\\r\\n', b''):
                    pass
            self.say(b'221 bye' if word == b'QUIT' else b'250 ok')
            if word == b'QUIT':
                return
if sys.argv[1] == 'serve':
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
    with Server(('127.0.0.1', 0), Mail) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
def send():
    with smtplib.SMTP('127.0.0.1', int(sys.argv[2]), timeout=20) as client:
        print(client.sendmail('a@example.org', ['b@example.org'], 'Subject: x\\r\\n\\r\\nhello'))
send()
held = smtplib.SMTP('127.0.0.1', int(sys.argv[2]), timeout=20)
try:
    smtplib.SMTP('127.0.0.1', int(sys.argv[2]), timeout=20)
except smtplib.SMTPConnectError as error:
    print(error.smtp_code, error.smtp_error)
held.quit()
send()
";

#[test]
fn mail_is_sent_through_it_and_a_refused_client_is_told_to_try_again() {
    let mut python = command("python3");
    let python = python.args(["-c", MAIL, "serve"]).stdout(Stdio::piped()).spawn().expect("python3 runs");
    let mut server = Server(python);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let options = [
        ("--backend-connections", "1"),
        ("--queue-timeout", "300ms"),
        ("--busy-reply", "421 busy, try again later\\r\\n"),
    ];
    let gate = gate(&format!("127.0.0.1:{}", line.trim()), &options);
    let port = address(&gate).port().to_string();
    let output = finish(command("python3").args(["-c", MAIL, "send", &port]));
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "{}\n421 b'busy, try again later'\n{}\n", "{errors}");
}

/// HAProxy as the balancer before two gates: its clients are spread, and a gate that drains is told apart by its checks.
#[test]
fn haproxy_before_it_passes_clients_on_and_takes_the_other_when_one_ends() {
    let folder = Folder::new("before");
    let mut backend = command("socat");
    let behind = free_port();
    let _backend =
        Server::start(backend.args([&format!("TCP-LISTEN:{behind},bind=127.0.0.1,fork"), "EXEC:cat"]));
    listens(behind);
    let backends = format!("127.0.0.1:{behind}");
    let (one, two) = (gate(&backends, &[]), gate(&backends, &[]));
    let port = free_port();
    let config = folder.write(
        "haproxy.cfg",
        &format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  retries 2\n  option redispatch\n\
             listen a\n  bind 127.0.0.1:{port}\n  server one {} check inter 100ms\n  server two {} check inter 100ms\n",
            address(&one),
            address(&two)
        ),
    );
    let _haproxy = Server::start(command("haproxy").args(["-db", "-f", &config]));
    listens(port);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let talk = |words: &str| {
        let mut client = Client::connect(at);
        client.say(words).hear(words).finish();
        assert_eq!(client.rest(), (Vec::new(), End::Fin));
    };
    for number in 0..20 {
        talk(&format!("client {number}"));
    }
    let mut standing = Client::connect(at);
    standing.say("hello").hear("hello");
    drop(one);
    for number in 0..20 {
        talk(&format!("after {number}"));
    }
}

const PAGE: &str = "
import os, time
def app(environ, start):
    body = environ['wsgi.input'].read(int(environ.get('CONTENT_LENGTH') or 0)) or str(os.getpid()).encode()
    time.sleep(0.02)
    start('200 OK', [('Content-Length', str(len(body)))])
    return [body]
";

const BUSY: &str =
    r"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Two workers that serve one connection each: at most two are with it, a few wait, the others are told 503.
#[test]
fn gunicorn_has_as_many_connections_as_workers_and_the_others_are_told_503() {
    let folder = Folder::new("gunicorn");
    folder.write("page.py", PAGE);
    let socket = folder.path("app.sock");
    let gunicorn = format!("{}/target/test-venv/bin/gunicorn", env!("CARGO_MANIFEST_DIR"));
    let mut gunicorn = command(&gunicorn);
    gunicorn.current_dir(&folder.0).args([
        "-w",
        "2",
        "-b",
        &format!("unix:{socket}"),
        "--no-control-socket",
        "page:app",
    ]);
    let _gunicorn = Server::start(&mut gunicorn);
    eventually("gunicorn listens", || std::os::unix::net::UnixStream::connect(&socket).ok());
    let options = [
        ("--backend-connections", "2"),
        ("--backend-connect", "first-byte"),
        ("--queue", "10"),
        ("--refusal-rate", "10000"),
        ("--busy-reply", BUSY),
    ];
    let gate = gate(&format!("unix:{socket}"), &options);
    let at = address(&gate);
    let answers: Vec<String> = std::thread::scope(|scope| {
        let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        let clients: Vec<_> = (0..60).map(|_| scope.spawn(move || ask(at, request))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let served =
        answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"));
    let (served, told) = (served.count(), answers.iter().filter(|a| a.starts_with("HTTP/1.1 503 ")).count());
    assert_eq!(served + told, 60, "{answers:?}");
    assert!(served >= 12, "{served} served");
}

#[test]
fn redis_and_its_own_client_talk_through_it() {
    let port = free_port();
    let folder = Folder::new("redis");
    let _redis = Server::start(command("redis-server").args([
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        &folder.path(""),
    ]));
    listens(port);
    let gate = gate(&format!("127.0.0.1:{port}"), &[("--backend-connections", "4")]);
    let port = address(&gate).port().to_string();
    let cli = |args: &[&str]| {
        let output = finish(command("redis-cli").args(["-h", "127.0.0.1", "-p", &port]).args(args));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(cli(&["set", "key", "value"]), "OK\n");
    assert_eq!(cli(&["get", "key"]), "value\n");
    // A gate whose backend is gone says so in the words of the protocol.
    let refusing = self::gate("127.0.0.1:1", &[("--busy-reply", r"-ERR busy\r\n")]);
    let refused = address(&refusing).port().to_string();
    let output = finish(command("redis-cli").args(["-h", "127.0.0.1", "-p", &refused, "get", "key"]));
    assert!(String::from_utf8_lossy(&output.stdout).contains("ERR busy"), "{output:?}");
    // As many clients as places: each keeps its connection to the end.
    let benchmark = ["-p", &port, "-c", "4", "-n", "2000", "-q", "-t", "set,get"];
    let output = finish(command("redis-benchmark").args(benchmark));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn postgresql_serves_pgbench_through_it() {
    let postgres = Postgres::start();
    let gate = gate(&format!("127.0.0.1:{}", postgres.port), &[("--backend-connections", "3")]);
    // More clients than places: those who wait have their turn when others have ended.
    let output = postgres.bench(address(&gate).port(), &["-c", "6", "-j", "6", "-t", "25", "-C"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("150/150"), "{output:?}");
}

/// A backend that stops in the middle, one that never answers, and one that answers a byte a second.
#[test]
fn backends_that_misbehave_cost_their_own_clients_only() {
    let stopped = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = stopped.local_addr().unwrap().to_string();
    let gate = gate(&name, &[("--idle-timeout", "300ms"), ("--backend-connections", "2")]);
    let at = address(&gate);
    // It stops in the middle of its answer.
    let mut client = Client::connect(at);
    client.say("GET\n");
    let (mut peer, _) = stopped.accept().unwrap();
    peer.write_all(b"half an ans").unwrap();
    drop(peer);
    let (said, _) = client.rest();
    assert_eq!(said, b"half an ans");
    // It accepts and never answers: the pair is closed, and its place comes free.
    let mut client = Client::connect(at);
    client.say("GET\n");
    let (mut silent, _) = stopped.accept().unwrap();
    assert_eq!(client.end(), End::Fin);
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = Vec::new();
    silent.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"GET\n");
    // It answers by drops, each before the pair is quiet for too long.
    let mut client = Client::connect(at);
    let (mut slow, _) = stopped.accept().unwrap();
    for byte in b"slowly" {
        std::thread::sleep(Duration::from_millis(100));
        slow.write_all(&[*byte]).unwrap();
        client.hear([*byte]);
    }
    drop(slow);
    assert_eq!(client.end(), End::Fin);
    assert_eq!(ask_again(at, &stopped), "again");
}

fn ask_again(at: SocketAddr, backend: &TcpListener) -> String {
    std::thread::scope(|scope| {
        let answer = scope.spawn(move || ask(at, "once more"));
        let (mut peer, _) = backend.accept().unwrap();
        peer.write_all(b"again").unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = peer.read_to_end(&mut rest);
        answer.join().unwrap()
    })
}

/// Each has been used once, and both sides are silent since.
#[test]
fn thousands_of_quiet_pairs_own_no_thread_and_no_buffer() {
    // As many as 20,000 open files allow, two for each pair here and there.
    const PAIRS: usize = 9_000;
    support::raise_open_files();
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = backend.local_addr().unwrap().to_string();
    let places = PAIRS.to_string();
    let gate = gate(&name, &[("--backend-connections", &places), ("--max-connections", &places)]);
    let at = address(&gate);
    let mut before = gate.status("VmRSS");
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        let mut client = Client::connect(at);
        let (mut peer, _) = backend.accept().unwrap();
        let mut request = [0; 64];
        client.say([number as u8; 64]);
        peer.read_exact(&mut request).unwrap();
        peer.write_all(&request).unwrap();
        client.hear(request);
        pairs.push((client, peer));
        if number == 10 {
            before = gate.status("VmRSS");
        }
    }
    let grown = (gate.status("VmRSS") - before) * 1024 / PAIRS as u64;
    assert!(grown < 2_048, "{grown} bytes for each pair");
    assert!(gate.status("Threads") <= 32 + 10);
    let all = gate.status("VmRSS");
    assert!(all < 32 * 1024, "{all} KiB for {PAIRS} pairs and a program that is not optimized");
    // Each is still there.
    for (number, (client, peer)) in pairs.iter_mut().enumerate().step_by(100) {
        client.say([!(number as u8)]);
        let mut byte = [0];
        peer.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [!(number as u8)]);
    }
}

/// Two descriptors for each pair and two for each pipe: the start says when they are too many, and nobody meets it later.
#[test]
fn descriptors_are_counted_at_the_start() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = format!("proxy:{}", backend.local_addr().unwrap());
    let limits = |most: u64| {
        let program = Program::new().service(&service).open_files(most);
        program.arg("--max-connections", 300).arg("--backend-connections", 300).arg("--fd-reserve", 20)
    };
    let mut shell = command("sh");
    let line = format!(
        "ulimit -n 600 && exec \"$0\" --admin off --max-connections 300 --backend-connections 300 --fd-reserve 20 \
         --listen {service}=tcp://127.0.0.1:0"
    );
    let output = finish(shell.args(["-c", &line, support::path()]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("open files") && said.lines().count() == 1, "{said}");
    let gate = limits(1_300).start();
    let pairs: Vec<_> = (0..300)
        .map(|_| {
            let mut client = gate.client();
            let (mut peer, _) = backend.accept().unwrap();
            peer.write_all(b"hello").unwrap();
            client.hear("hello");
            (client, peer)
        })
        .collect();
    assert_eq!(pairs.len(), 300);
}
