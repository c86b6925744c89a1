//! The gate for HTTP before servers that other people wrote, with the real program between: what passes, who is served
//! while others abuse it, and that both agree on where each request ends.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use support::{Client, Ending, Program, Running, command, eventually, finish};

/// A server behind the gate.
struct Server {
    _child: Ending,
    port: u16,
    /// Where nginx writes what it was asked.
    log: Option<PathBuf>,
}

/// The servers, and what each can do.
const SERVERS: [&str; 9] = [
    "gunicorn sync",
    "gunicorn gthread",
    "flask",
    "django",
    "waitress",
    "cheroot",
    "granian",
    "http.server",
    "http.server 1.0",
];

/// One test at a time: they keep the machine busy, and one of them measures.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn python(script: &str) -> String {
    format!("{}/tests/python/{script}", env!("CARGO_MANIFEST_DIR"))
}

fn installed(program: &str) -> Command {
    let mut command = command(&format!("{}/target/test-venv/bin/{program}", env!("CARGO_MANIFEST_DIR")));
    command.current_dir(format!("{}/tests/python", env!("CARGO_MANIFEST_DIR")));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

impl Server {
    /// Starts one of [`SERVERS`] with 4 threads, or what it has.
    #[track_caller]
    fn start(name: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let number = port.to_string();
        let bind = format!("127.0.0.1:{port}");
        let gunicorn = |rest: &[&str]| {
            let mut command = installed("gunicorn");
            command.args(["-b", &bind, "-w", "1", "--no-control-socket"]).args(rest);
            command
        };
        let script = |arguments: &[&str]| {
            let mut command = installed("python");
            command.arg(python(arguments[0])).args(&arguments[1..]);
            command
        };
        let mut command = match name {
            "gunicorn sync" => gunicorn(&["gate_app:app"]),
            "gunicorn gthread" => gunicorn(&["-k", "gthread", "--threads", "4", "gate_app:app"]),
            "flask" => gunicorn(&["-k", "gthread", "--threads", "4", "gate_flask:app"]),
            "django" => gunicorn(&["-k", "gthread", "--threads", "4", "gate_django:app"]),
            "waitress" => {
                let mut command = installed("waitress-serve");
                command.args(["--host", "127.0.0.1", "--port", &number, "--threads", "4"]);
                // It believes nobody by default.
                command.args(["--no-clear-untrusted-proxy-headers", "gate_app:app"]);
                command
            }
            "granian" => {
                let mut command = installed("granian");
                command.args(["--interface", "wsgi", "--host", "127.0.0.1", "--port", &number]);
                command.args(["--backpressure", "4", "--no-log", "gate_app:app"]);
                command
            }
            "cheroot" => script(&["gate_app.py", &number]),
            "http.server" => script(&["gate_plain.py", &number, "HTTP/1.1"]),
            "http.server 1.0" => script(&["gate_plain.py", &number, "HTTP/1.0"]),
            "websockets" => script(&["gate_socket.py", "serve", &number]),
            _ => panic!("there is no server {name}"),
        };
        Self::run(&mut command, port, None)
    }

    #[track_caller]
    fn run(command: &mut Command, port: u16, log: Option<PathBuf>) -> Self {
        // Some have processes of their own, which would outlive them.
        command.process_group(0);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = Ending(child.expect("tests/setup.sh installs it"));
        eventually("the server listens", || listens(port).then_some(()));
        Self { _child: child, port, log }
    }

    /// nginx, which answers all by itself and writes down what it was asked.
    fn nginx(folder: &std::path::Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = folder.display();
        std::fs::write(
            folder.join("nginx.conf"),
            format!(
                "daemon off; master_process off; pid {root}/pid; error_log {root}/error;\n\
                 events {{ worker_connections 500; }}\n\
                 http {{ log_format l '$request_method $uri $status'; access_log {root}/log l; keepalive_requests 1000000;\n\
                 server {{ listen 127.0.0.1:{port}; location / {{ add_header X-App 1; return 200 'ok'; }} }}\n\
                 client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;\n\
                 uwsgi_temp_path {root}/d; scgi_temp_path {root}/e; }}\n"
            ),
        )
        .unwrap();
        let mut command = command("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
        Self::run(&mut command, port, Some(folder.join("log")))
    }

    /// A gate before it, and where that listens.
    #[track_caller]
    fn gate(&self, options: &[(&str, &str)]) -> (Running, SocketAddr) {
        let service = format!("proxy:http://127.0.0.1:{}", self.port);
        let mut program =
            Program::new().without_echo().arg("--listen", format!("{service}=http://127.0.0.1:0"));
        for (name, value) in options {
            program = program.arg(name, value);
        }
        let gate = program.start();
        let at = gate.listening(&format!("{service} on http"));
        (gate, at)
    }
}

/// Whether somebody listens at a port. (A connection to one where nobody does may reach itself, and take the port away.)
fn listens(port: u16) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (near, state) = (fields.next(), fields.nth(1));
        near.is_some_and(|near| near.ends_with(&format!(":{port:04X}"))) && state == Some("0A")
    })
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h:81\r\n\r\n")
}

/// What every server answers through the gate as it does alone.
#[track_caller]
fn behaves(name: &str, at: SocketAddr) {
    let mut client = Client::connect(at);
    for _ in 0..20 {
        assert_eq!(client.ask(get("/hello?x=1")).text(), "GET /hello 0", "{name}");
    }
    assert_eq!(client.ask(get("/who")).text(), "127.0.0.1 http h:81", "{name}");
    let reply = client.ask("HEAD /hello HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((reply.status, reply.body.len()), (200, 0), "{name}");
    let long = "y".repeat(300_000);
    for body in ["", "hello", &long] {
        let post = format!("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(client.ask(post).text(), format!("POST /p {}", body.len()), "{name}");
    }
    let chunks = "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    assert_eq!(client.ask(chunks).text(), "POST /p 11", "{name}");
    let expect = "POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    client.say(expect).hear("HTTP/1.1 100 Continue\r\n\r\n").say("hello");
    assert_eq!(client.reply().text(), "POST /p 5", "{name}");
    assert_eq!(client.ask(get("/large")).body.len(), 3_000_000, "{name}");
    // Neither http.server nor Django knows chunks.
    if !name.starts_with("http.server") && name != "django" {
        let chunk = format!("{:x}\r\n{long}\r\n", long.len());
        let post = format!(
            "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
        );
        assert_eq!(client.ask(post).text(), "POST /p 600000", "{name}: it streams");
    }
    if !name.starts_with("http.server") {
        let streamed = client.ask(get("/stream"));
        assert_eq!(streamed.text(), "token 0\ntoken 1\ntoken 2\ntoken 3\ntoken 4\n", "{name}");
    }
    let mut old = Client::connect(at);
    old.say("GET /old HTTP/1.0\r\nHost: h\r\n\r\n");
    let answer = String::from_utf8(old.rest().0).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("GET /old 0"), "{name}: {answer}");
    std::thread::scope(|scope| {
        for number in 0..20 {
            scope.spawn(move || {
                let mut client = Client::connect(at);
                for round in 0..10 {
                    let path = format!("/{number}/{round}");
                    let reply = client.ask(get(&path));
                    assert_eq!(
                        (reply.status, reply.text()),
                        (200, format!("GET {path} 0").as_str()),
                        "{name}"
                    );
                }
            });
        }
    });
}

#[test]
fn real_servers_answer_through_it_as_they_do_alone() {
    let _alone = alone();
    std::thread::scope(|scope| {
        for name in SERVERS {
            scope.spawn(move || {
                let server = Server::start(name);
                let places = if name.ends_with("sync") { "1" } else { "2" };
                let (_gate, at) = server.gate(&[("--backend-connections", places)]);
                behaves(name, at);
            });
        }
    });
}

/// gunicorn has four threads and 10 ms of work a request: 400 a second. It is offered four times that.
#[test]
fn health_checks_are_answered_while_a_flood_is_turned_away() {
    let _alone = alone();
    let server = Server::start("gunicorn gthread");
    let options = [("--backend-connections", "4"), ("--queue", "64"), ("--priority-path", "/hello,/healthz")];
    let (gate, at) = server.gate(&options);
    assert_eq!(Client::connect(at).ask(get("/hello")).status, 200);
    let url = format!("http://{at}/slow");
    let mut flood = command(env!("CARGO_BIN_EXE_tidegate"));
    flood.args(["stress", &url, "-r", "1600", "-c", "200", "-t", "1s", "-d", "60s", "--warmup", "0s"]);
    let flood = Ending(flood.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    // The flood is there when others are turned away.
    eventually("a client is turned away", || {
        (Client::connect(at).ask(get("/slow")).status == 503).then_some(())
    });
    let mut times: Vec<Duration> = (0..100)
        .map(|_| {
            let began = Instant::now();
            let reply = Client::connect(at).ask(get("/hello"));
            assert_eq!((reply.status, reply.text()), (200, "GET /hello 0"));
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    eventually("others are still turned away", || {
        (Client::connect(at).ask(get("/slow")).status == 503).then_some(())
    });
    println!("health checks under a flood: p50 {:?}, the slowest {:?}", times[50], times[99]);
    assert!(times[50] < Duration::from_millis(50), "{times:?}");
    drop((flood, gate));
}

#[test]
fn a_websocket_of_another_library_passes_through_it() {
    let _alone = alone();
    let server = Server::start("websockets");
    let (_gate, at) = server.gate(&[("--backend-connections", "2")]);
    let port = at.port().to_string();
    let output = finish(installed("python").arg(python("gate_socket.py")).args(["ask", &port]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What a healthy request takes while others do this, each within the limits that the server has alone.
#[track_caller]
fn healthy(name: &str, abusers: usize, words: &str) -> Duration {
    let server = Server::start(name);
    let places = if name == "cheroot" { "2" } else { "4" };
    let (_gate, at) = server.gate(&[("--backend-connections", places)]);
    // The server has imported what it needs.
    assert_eq!(Client::connect(at).ask(get("/hello")).status, 200, "{name}");
    let mut abuse: Vec<Client> = (0..abusers).map(|_| Client::connect(at)).collect();
    for client in &mut abuse {
        client.mutter(words);
    }
    // On a busy machine one attempt may be unlucky.
    let attempt = || {
        let began = Instant::now();
        let reply = Client::connect(at).ask(get("/hello"));
        assert_eq!((reply.status, reply.text()), (200, "GET /hello 0"), "{name}");
        began.elapsed()
    };
    let best = (0..5).map(|_| attempt()).min().unwrap();
    println!("{name}, {abusers} that say {words:?}: {best:?}");
    best
}

/// The servers that one silent or slow client in each place stops, alone: docs/gate.md has what was measured there.
#[test]
fn silent_and_half_sent_requests_of_others_do_not_delay_a_healthy_one() {
    let _alone = alone();
    for (name, abusers) in [("gunicorn gthread", 4), ("granian", 4), ("waitress", 100), ("cheroot", 4)] {
        for words in [
            "",
            "POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf",
            "GET /hello HTTP/1.1\r\nHo",
        ] {
            let took = healthy(name, abusers, words);
            assert!(took < Duration::from_millis(50), "{name} after {words:?}: {took:?}");
        }
    }
}

/// Framings that two readers may see differently; each is followed by another request on its connection.
fn hostile() -> Vec<Vec<u8>> {
    let framings = [
        "Content-Length: 5",
        "Content-Length: 05",
        "Content-Length : 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: 5\r\n ",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: Chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding:\r\n chunked",
        "Transfer_Encoding: chunked",
        "Content_Length: 38",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X\0: y\r\nTransfer-Encoding: chunked",
        "Connection: Content-Length\r\nContent-Length: 5",
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
        "Expect: 100-continue\r\nContent-Length: 5",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5",
    ];
    let evil = "GET /evil HTTP/1.1\r\nHost: h\r\n\r\n";
    let bodies = [
        String::new(),
        "hello".to_owned(),
        "0\r\n\r\n".to_owned(),
        "5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "5;x=\"\r\"\r\nhello\r\n0\r\n\r\n".to_owned(),
        "5\nhello\r\n0\r\n\r\n".to_owned(),
        "0x5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "5\r\nhello0\r\n\r\n".to_owned(),
        "5\r\nhello\r\n0\r\nContent-Length: 38\r\n\r\n".to_owned(),
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n".to_owned(),
        evil.to_owned(),
        format!("0\r\n\r\n{evil}"),
        format!("{:x}\r\n{evil}\r\n0\r\n\r\n", evil.len()),
    ];
    let mut all = Vec::new();
    for framing in framings {
        for body in &bodies {
            for (method, version) in
                [("POST", "1.1"), ("GET", "1.1"), ("POST", "1.0\r\nConnection: keep-alive")]
            {
                all.push(
                    format!("{method} /first HTTP/{version}\r\nHost: h\r\n{framing}\r\n\r\n{body}")
                        .into_bytes(),
                );
            }
        }
    }
    all
}

/// Sends one hostile request with another behind it, and counts the answers that the server gave.
fn answers(at: SocketAddr, hostile: &[u8]) -> usize {
    let mut client = Client::connect(at);
    client.mutter(hostile).mutter("GET /second HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8_lossy(&client.rest().0).to_ascii_lowercase();
    text.matches("x-app: 1\r\n").count()
}

/// The gate's answers and the server's count of what it was asked are the same number, whatever the clients sent; and
/// meanwhile nobody gets the answer of another.
#[track_caller]
fn agrees(name: &str, server: &Server) {
    let (gate, at) = server.gate(&[
        ("--backend-connections", "2"),
        ("--read-timeout", "150ms"),
        ("--queue-timeout", "60s"),
    ]);
    let (cases, next, answered) = (hostile(), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    answered.fetch_add(answers(at, case), Ordering::SeqCst);
                }
            });
        }
        scope.spawn(|| {
            let mut client = Client::connect(at);
            for round in 0.. {
                if next.load(Ordering::SeqCst) > cases.len() {
                    break;
                }
                let path = format!("/healthy/{round}");
                let reply = client.ask(get(&path));
                answered.fetch_add(1, Ordering::SeqCst);
                let is_own = server.log.is_some() || reply.text() == format!("GET {path} 0");
                assert!(reply.status == 200 && is_own, "{name}: {reply:?}, {}", gate.stderr());
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    });
    let answered = answered.load(Ordering::SeqCst);
    assert!(answered > cases.len() / 4, "{name}: {answered} answers to {} cases", cases.len());
    let seen = match &server.log {
        Some(log) => eventually("nginx has written", || {
            let text = std::fs::read_to_string(log).unwrap();
            // It refuses methods that it does not know, as `helloGET`.
            Some(text.lines().filter(|line| line.ends_with(" 200")).count())
                .filter(|lines| *lines >= answered)
        }),
        None => Client::connect(at).ask(get("/count")).text().parse::<usize>().unwrap() - 1,
    };
    assert_eq!(seen, answered, "{name} saw other requests than the gate");
}

#[test]
fn the_gate_and_each_server_agree_on_where_every_request_ends() {
    let _alone = alone();
    std::thread::scope(|scope| {
        for name in ["gunicorn sync", "gunicorn gthread", "waitress", "cheroot", "granian", "http.server"] {
            scope.spawn(move || agrees(name, &Server::start(name)));
        }
        scope.spawn(|| {
            let folder = std::env::temp_dir().join(format!("tidegate-http-gate-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            agrees("nginx", &Server::nginx(&folder));
            std::fs::remove_dir_all(&folder).unwrap();
        });
    });
}
