//! Each option of the gate that says what backends are told and how places are shared, with the real program before programs
//! that other people wrote, and backends that are restarted, slow or silent.

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{
    Client, End, Ending, Folder, PATIENCE, Program, Running, command, eventually, finish, path, throughout,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Whether a gate reads the traffic, or passes bytes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Bytes,
    Http,
}

const KINDS: [Kind; 2] = [Kind::Bytes, Kind::Http];

/// A gate of this kind before these backends.
#[track_caller]
fn gate(kind: Kind, backends: &str, options: &[(&str, &str)]) -> (Running, SocketAddr) {
    let (service, scheme) = match kind {
        Kind::Bytes => (format!("proxy:{backends}"), "tcp"),
        Kind::Http => (format!("proxy:http://{backends}"), "http"),
    };
    let mut program =
        Program::new().without_echo().arg("--listen", format!("{service}={scheme}://127.0.0.1:0"));
    for (name, value) in options {
        program = program.arg(name, value);
    }
    let gate = program.start();
    let at = gate.listening(&format!("{service} on {scheme}"));
    (gate, at)
}

/// A port that nobody listens at; a program is told to listen there.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a program that listens at this port.
#[track_caller]
fn start(command: &mut Command, port: u16) -> Ending {
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let started = Ending(started.expect("tests/setup.sh installs it"));
    eventually("the program listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    started
}

/// nginx with one server of HTTP.
#[track_caller]
fn nginx(folder: &Folder, listen: &str, block: &str) -> (Ending, u16) {
    let (port, root) = (free_port(), folder.path(""));
    let config = format!(
        "daemon off; master_process off; pid {root}pid; error_log {root}error;\n\
         events {{ worker_connections 500; }}\n\
         http {{ access_log off; server {{ listen 127.0.0.1:{port}{listen}; {block} }}\n\
         client_body_temp_path {root}a; proxy_temp_path {root}b; fastcgi_temp_path {root}c;\n\
         uwsgi_temp_path {root}d; scgi_temp_path {root}e; }}\n"
    );
    let config = folder.write("nginx.conf", &config);
    (start(command("nginx").args(["-p", &root, "-c", &config]), port), port)
}

/// HAProxy for HTTP: what follows `bind` and its address, and the lines after that.
#[track_caller]
fn haproxy(folder: &Folder, bind: &str, lines: &str) -> (Ending, u16) {
    let port = free_port();
    let config = format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen a\n  bind 127.0.0.1:{port}{bind}\n{lines}\n"
    );
    let config = folder.write("haproxy.cfg", &config);
    (start(command("haproxy").args(["-db", "-f", &config]), port), port)
}

/// Python's `http.server`, which says what it was asked.
#[track_caller]
fn http_server(port: u16) -> Ending {
    let script = format!("{}/tests/python/gate_plain.py", env!("CARGO_MANIFEST_DIR"));
    start(
        command("python3").env("PYTHONDONTWRITEBYTECODE", "1").args([&script, &port.to_string(), "HTTP/1.1"]),
        port,
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h:81\r\n\r\n")
}

/// The next connection of the gate.
#[track_caller]
fn accept(backend: &TcpListener) -> TcpStream {
    let (peer, _) = backend.accept().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer
}

/// Whether nobody else has connected.
fn is_left_alone(backend: &TcpListener) -> bool {
    backend.set_nonblocking(true).unwrap();
    let alone = matches!(backend.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock);
    backend.set_nonblocking(false).unwrap();
    alone
}

#[test]
fn nginx_and_haproxy_learn_who_the_client_is_from_either_version_of_the_proxy_header() {
    let (nginx_folder, haproxy_folder) = (Folder::new("who-nginx"), Folder::new("who-haproxy"));
    let told = "location / { return 200 \"$proxy_protocol_addr:$proxy_protocol_port\"; }";
    let (_nginx, behind_nginx) = nginx(&nginx_folder, " proxy_protocol", told);
    let told = "  http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port]\"";
    let (_haproxy, behind_haproxy) = haproxy(&haproxy_folder, " accept-proxy", told);
    for (port, version, kind) in [behind_nginx, behind_haproxy]
        .into_iter()
        .flat_map(|port| ["v1", "v2"].map(|version| (port, version)))
        .flat_map(|(port, version)| KINDS.map(|kind| (port, version, kind)))
    {
        // The gate's own checks say who they are as well.
        let check =
            if kind == Kind::Http { ("--backend-check-path", "/") } else { ("--backend-check", "50ms") };
        let options = [("--send-proxy", version), check, ("--backend-connections", "4")];
        let (gate, at) = gate(kind, &format!("127.0.0.1:{port}"), &options);
        let mut clients = ["127.0.0.9", "127.0.0.10"].map(|source| (source, Client::from(source, at)));
        // A connection to the backend belongs to one client, and is not used again for the other.
        for _ in 0..3 {
            for (source, client) in &mut clients {
                let from = client.stream().local_addr().unwrap().port();
                let reply = client.ask(GET);
                assert_eq!(reply.text(), format!("{source}:{from}"), "{version} {kind:?}");
            }
        }
        assert!(gate.is_running());
    }
}

#[test]
fn what_a_trusted_balancer_says_of_its_client_is_passed_on_and_what_others_say_is_not() {
    let port = free_port();
    let _backend = http_server(port);
    let backend = format!("127.0.0.1:{port}");
    let (trusting, trusts) = gate(Kind::Http, &backend, &[("--trust-forwarded", "10.0.0.0/8,127.0.0.1")]);
    let (plain, trusts_nobody) = gate(Kind::Http, &backend, &[]);
    for (to, expected) in
        [(trusts, "6.6.6.6, 127.0.0.9, 127.0.0.1 https h:81"), (trusts_nobody, "127.0.0.1 http h:81")]
    {
        let folder = Folder::new("balancers");
        let lines = format!(
            "  option forwardfor\n  http-request set-header X-Forwarded-Proto https\n  server gate {to}"
        );
        let (_haproxy, before) = haproxy(&folder, "", &lines);
        let block = format!(
            "location / {{ proxy_pass http://{to}; proxy_http_version 1.1; proxy_set_header Host $http_host; \
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto https; }}"
        );
        let (_nginx, also_before) = nginx(&folder, "", &block);
        for balancer in [before, also_before] {
            let mut client = Client::from("127.0.0.9", SocketAddr::from(([127, 0, 0, 1], balancer)));
            let reply = client.ask("GET /who HTTP/1.1\r\nHost: h:81\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n");
            assert_eq!(reply.text(), expected);
        }
        // A client that is no balancer of the trusting gate is not believed either.
        let mut client = Client::from("127.0.0.9", to);
        let forged =
            "GET /who HTTP/1.1\r\nHost: h:81\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n";
        assert_eq!(client.ask(forged).text(), "127.0.0.9 http h:81");
    }
    assert!(trusting.is_running() && plain.is_running());
}

/// The key of the backend's next request.
#[track_caller]
fn next_key(called: &mut BufReader<TcpStream>) -> String {
    let (mut key, mut line) = (String::new(), String::new());
    while line != "\r\n" {
        line.clear();
        assert!(called.read_line(&mut line).unwrap() > 0, "the gate has a request");
        if let Some(value) = line.strip_prefix("X-Api-Key: ") {
            key = value.trim().to_owned();
        }
    }
    key
}

/// The keys of the requests in the order in which a backend of one place gets them. One request with the key `polite` has
/// waited longest, and twenty with the key `greedy` have come after it.
fn order_of_service(fair: &str) -> Vec<String> {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = backend.local_addr().unwrap().to_string();
    let options = [("--backend-connections", "1"), ("--queue", "200"), ("--backend-fair", fair)];
    let (_gate, at) = gate(Kind::Http, &name, &options);
    let ask = |key: &str| {
        let mut client = Client::connect(at);
        client.say(format!("GET / HTTP/1.1\r\nHost: h\r\nX-Api-Key: {key}\r\n\r\n"));
        client
    };
    let mut clients = vec![ask("greedy")];
    let mut called = BufReader::new(accept(&backend));
    assert_eq!(next_key(&mut called), "greedy");
    clients.push(ask("polite"));
    for _ in 0..20 {
        // So the list stands: the longest wait is above 20 ms for longer than 100 ms.
        throughout(Duration::from_millis(20), "there is one place", || is_left_alone(&backend));
        clients.push(ask("greedy"));
    }
    throughout(Duration::from_millis(20), "there is one place", || is_left_alone(&backend));
    let stream = called.get_ref().try_clone().unwrap();
    let keys = (1..clients.len()).map(|_| {
        (&stream).write_all(OK.as_bytes()).unwrap();
        next_key(&mut called)
    });
    let keys = keys.collect();
    (&stream).write_all(OK.as_bytes()).unwrap();
    for client in &mut clients {
        assert_eq!(client.reply().text(), "ok");
    }
    keys
}

#[test]
fn with_backend_fair_each_key_is_a_source_and_one_with_few_requests_does_not_wait_for_one_with_many() {
    let place = |fair: &str| {
        let order = order_of_service(fair);
        assert_eq!(order.len(), 21);
        order.iter().position(|key| key == "polite").unwrap()
    };
    assert!(place("header:X-Api-Key") <= 1, "its key's turn comes at once");
    // By address all are one source: the freshest is first, and in one of eight turns the oldest.
    assert!(place("address") >= 7);
}

/// 48 clients ask again as soon as they are answered, and four places at a backend serve each in 16 ms, so a round takes 192 ms,
/// and on a busy machine less than 300 ms. With the freshest first half of them take 18 ms, and one in ten 1.2 s and more.
#[test]
fn clients_that_all_fit_and_ask_again_at_once_are_served_in_the_order_in_which_they_come() {
    for (kind, scheme) in [(Kind::Bytes, "tcp"), (Kind::Http, "http")] {
        let backend = Program::new().without_echo().arg("--work", "sleep:16ms");
        let backend = backend.arg("--listen", format!("work={scheme}://127.0.0.1:0")).start();
        let backend_at = backend.listening(&format!("work on {scheme}")).to_string();
        let (_gate, at) = gate(kind, &backend_at, &[("--backend-connections", "4")]);
        let mut stress = command(path());
        let load = ["-c", "48", "-t", "5s", "-d", "6s", "--warmup", "2s", "--reuse", "never"];
        stress.arg("stress").arg(format!("{scheme}://{at}")).args(load).args([
            "-o",
            "json",
            "--progress",
            "off",
        ]);
        let output = stress.stderr(Stdio::null()).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let at = |name: &str| report["latency"]["service"][name].as_f64().unwrap();
        eprintln!(
            "{kind:?}: p50 {} s, p90 {} s, p99 {} s, slowest {} s",
            at("p50"),
            at("p90"),
            at("p99"),
            at("max")
        );
        // One pause of the machine holds up a whole round, which is one in twenty of all.
        assert!(at("p50") > 0.15 && at("p90") < 0.6, "{kind:?}: {report}");
    }
}

#[test]
fn all_backends_together_never_have_more_connections_than_backend_total() {
    for kind in KINDS {
        let backends = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let names = backends.each_ref().map(|backend| backend.local_addr().unwrap().to_string());
        let options = [("--backend-connections", "4"), ("--backend-total", "5"), ("--queue", "50")];
        let (_gate, at) = gate(kind, &names.join(","), &options);
        let mut clients: Vec<Client> = (0..12).map(|_| Client::connect(at)).collect();
        for client in &mut clients {
            client.say(GET);
        }
        let mut peers: Vec<TcpStream> = Vec::new();
        let mut come = |most: usize| {
            eventually("the gate connects", || {
                for backend in &backends {
                    backend.set_nonblocking(true).unwrap();
                    peers.extend(backend.accept().map(|(peer, _)| peer));
                    backend.set_nonblocking(false).unwrap();
                }
                (peers.len() >= most).then_some(())
            });
            throughout(Duration::from_millis(100), "no more come", || backends.iter().all(is_left_alone));
            assert_eq!(peers.len(), most, "{kind:?}");
            // One ends in the middle, which frees its place.
            drop(peers.pop());
        };
        for _ in 0..5 {
            come(5);
        }
    }
}

/// A server at an abstract Unix socket.
const ABSTRACT: &str = "
import http.server, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        text = self.path.encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def address_string(self):
        return 'unix'
    def log_message(self, *args):
        pass
class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
Server('\\0' + sys.argv[1], Handler).serve_forever()
";

#[test]
fn a_backend_may_have_an_abstract_unix_socket() {
    let name = format!("tidegate-{}", std::process::id());
    let spawn = |command: &mut Command| {
        Ending(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let _cat = spawn(command("socat").args([&format!("ABSTRACT-LISTEN:{name}-cat,fork"), "EXEC:cat"]));
    let _http = spawn(command("python3").args(["-c", ABSTRACT, &format!("{name}-http")]));
    eventually("both listen", || {
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        ["cat", "http"].iter().all(|kind| sockets.contains(&format!("@{name}-{kind}"))).then_some(())
    });
    let (_gate, at) = gate(Kind::Bytes, &format!("unix:@{name}-cat"), &[("--backend-connections", "2")]);
    let (_http_gate, http_at) =
        gate(Kind::Http, &format!("unix:@{name}-http"), &[("--backend-connections", "2")]);
    for number in 0..10 {
        let mut client = Client::connect(at);
        client.say(format!("client {number}")).hear(format!("client {number}")).finish();
        assert_eq!(client.end(), End::Fin);
        let path = format!("/{number}");
        assert_eq!(Client::connect(http_at).ask(get(&path)).text(), path);
    }
}

#[test]
fn a_server_that_is_restarted_in_the_middle_ends_its_pairs_and_is_used_again_when_it_is_back() {
    let (folder, port) = (Folder::new("restart"), free_port());
    let redis = || {
        let number = port.to_string();
        let args = ["--port", &number, "--bind", "127.0.0.1", "--save", "", "--dir", &folder.path("")];
        start(command("redis-server").args(args), port)
    };
    let first = redis();
    let (_gate, at) = gate(Kind::Bytes, &format!("127.0.0.1:{port}"), &[("--busy-reply", r"-ERR busy\r\n")]);
    let mut standing = Client::connect(at);
    standing.say("PING\r\n").hear("+PONG\r\n");
    // It is in the middle of a command that has no answer yet.
    standing.say("BLPOP list 0\r\n");
    drop(first);
    let (said, _) = standing.rest();
    assert_eq!(said, b"", "there was no answer");
    let refused = || {
        let mut client = Client::connect(at);
        client.mutter("PING\r\n");
        client.rest().0 == b"-ERR busy\r\n"
    };
    eventually("a client is told that nobody is there", || refused().then_some(()));
    let began = Instant::now();
    assert!(refused() && began.elapsed() < Duration::from_secs(1), "at once: {:?}", began.elapsed());
    let _second = redis();
    eventually("the new one serves", || {
        let mut client = Client::connect(at);
        client.mutter("PING\r\n").finish_quietly();
        (client.rest().0 == b"+PONG\r\n").then_some(())
    });
}

#[test]
fn a_client_of_the_gate_for_http_keeps_its_connection_while_the_server_is_restarted() {
    let port = free_port();
    let first = http_server(port);
    let (_gate, at) = gate(Kind::Http, &format!("127.0.0.1:{port}"), &[("--backend-connections", "2")]);
    let mut client = Client::connect(at);
    assert_eq!(client.ask(get("/hello")).text(), "GET /hello 0");
    drop(first);
    let reply = client.ask(get("/hello"));
    assert_eq!((reply.status, reply.closes()), (502, false));
    let _second = http_server(port);
    eventually("the new one answers on the old connection", || {
        (client.ask(get("/hello")).status == 200).then_some(())
    });
}

#[test]
fn a_server_that_accepts_and_never_answers_costs_a_place_for_its_timeout_and_no_longer() {
    let port = free_port();
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr");
    let _silent = start(command("socat").args([&listen, "EXEC:sleep 600"]), port);
    let backend = format!("127.0.0.1:{port}");
    let (_gate, at) =
        gate(Kind::Bytes, &backend, &[("--backend-connections", "1"), ("--idle-timeout", "300ms")]);
    let (_http_gate, http_at) =
        gate(Kind::Http, &backend, &[("--backend-connections", "1"), ("--backend-timeout", "300ms")]);
    for _ in 0..3 {
        let mut client = Client::connect(at);
        client.say("anybody?\n");
        assert_eq!(client.end(), End::Fin);
        assert_eq!(Client::connect(http_at).ask(GET).status, 504);
    }
}

/// Serves a connection: a request for `/drip` is answered a byte a second, others at once.
fn drip(mut peer: TcpStream) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if !matches!(peer.read(&mut byte), Ok(1)) {
            return;
        }
        asked.extend(byte);
    }
    let slowly = asked.starts_with(b"GET /drip ");
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\n";
    let _ = peer.write_all(head.as_bytes());
    for byte in b"done" {
        if slowly {
            std::thread::sleep(Duration::from_secs(1));
        }
        let _ = peer.write_all(&[*byte]);
    }
}

#[test]
fn servers_that_answer_a_byte_a_second_hold_their_places_and_no_worker() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = backend.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for peer in backend.incoming().flatten() {
            std::thread::spawn(move || drip(peer));
        }
    });
    let shared = [("--backend-connections", "21"), ("--workers", "1")];
    let (_gate, at) = gate(Kind::Bytes, &name, &[&shared[..], &[("--idle-timeout", "3s")]].concat());
    let (_http_gate, http_at) =
        gate(Kind::Http, &name, &[&shared[..], &[("--backend-timeout", "3s")]].concat());
    let began = Instant::now();
    let mut slow: Vec<Client> =
        [at, http_at].iter().flat_map(|at| (0..20).map(move |_| Client::connect(*at))).collect();
    for client in &mut slow {
        client.say(get("/drip"));
    }
    let quick = || {
        [at, http_at].map(|at| {
            let began = Instant::now();
            assert_eq!(Client::connect(at).ask(get("/quick")).text(), "done");
            began.elapsed()
        })
    };
    let fastest = (0..10).map(|_| quick()).min().unwrap();
    assert!(fastest.iter().all(|took| *took < Duration::from_millis(100)), "{fastest:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "the slow ones are still there");
    for client in &mut slow {
        assert_eq!(client.reply().text(), "done");
    }
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
}

/// The library that gives a program another clock.
fn faketime() -> std::path::PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|one| one.path());
    let found =
        folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists());
    found.expect("tests/setup.sh installs it")
}

/// For the program a second is twenty.
#[test]
fn the_kernel_probes_both_sides_of_a_pair_that_has_stood_for_30_seconds() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = backend.local_addr().unwrap().to_string();
    let gate = Program::new()
        .service(&format!("proxy:{name}"))
        .prelude(&format!("export LD_PRELOAD={} FAKETIME='+0 x20'", faketime().display()))
        .start();
    let mut client = gate.client();
    let mut peer = accept(&backend);
    client.say("hello");
    peer.read_exact(&mut [0; 5]).unwrap();
    let (near, far) = (gate.address().to_string(), client.stream().local_addr().unwrap().to_string());
    let probed = || {
        let seen = support::finish(command("ss").args(["-tnoH", "state", "established"]));
        let seen = String::from_utf8(seen.stdout).unwrap();
        let timed = seen.lines().filter(|line| line.contains("timer:(keepalive,"));
        let of = |line: &str| -> Vec<String> {
            line.split_whitespace().skip(2).take(2).map(str::to_owned).collect()
        };
        let ends: Vec<Vec<String>> = timed.map(of).collect();
        let to_client = ends.iter().any(|ends| *ends == [near.clone(), far.clone()]);
        let to_backend = ends.iter().any(|ends| ends[1] == name);
        [to_client, to_backend]
    };
    assert_eq!(probed(), [false, false], "most pairs end sooner and need no probes");
    eventually("it is probed", || (probed() == [true, true]).then_some(()));
    client.say("hello");
    peer.read_exact(&mut [0; 5]).unwrap();
}

/// A thread that checked without a pause would use a processor up.
#[test]
fn backends_are_checked_and_names_resolved_every_ten_milliseconds_at_the_most() {
    let options = ["--backend-check", "1us", "--backend-resolve", "1ms"];
    let listen = ["check", "--listen", "proxy:127.0.0.1:1=tcp://127.0.0.1:0"];
    let output = finish(command(support::path()).args(listen).args(options));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for option in ["backend-check ", "backend-resolve "] {
        let line = said.lines().find(|line| line.trim_start().starts_with(option));
        assert!(line.is_some_and(|line| line.ends_with(" 10ms")), "{said}");
    }
}
