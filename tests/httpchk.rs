//! HAProxy asks the admin endpoint of each tidegate behind it whether it may have clients (`option httpchk GET /readyz`), and
//! follows what it is told: docs/gate.md.
#![cfg(target_os = "linux")]

mod support;

use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use support::{Ending, Folder, PATIENCE, Program, Running, command, eventually};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A gate behind HAProxy that can be started again where it was, and its backend.
struct Node {
    port: u16,
    admin: u16,
    backend: SocketAddr,
}

impl Node {
    fn new(backend: SocketAddr) -> Self {
        Self { port: free_port(), admin: free_port(), backend }
    }

    fn start(&self) -> Running {
        Program::new()
            .without_echo()
            .drop_first_admin()
            .arg("--listen", format!("proxy:{}=tcp://127.0.0.1:{}", self.backend, self.port))
            .arg("--admin", format!("127.0.0.1:{}", self.admin))
            .flag("--ready-needs-backend")
            .arg("--backend-check", "100ms")
            .arg("--drain-delay", "1s")
            .start()
    }

    /// Its line in HAProxy's configuration.
    fn line(&self, name: &str) -> String {
        let Self { port, admin, .. } = self;
        format!(
            "  server {name} 127.0.0.1:{port} check inter 100ms fall 2 rise 2 addr 127.0.0.1 port {admin}\n"
        )
    }
}

/// HAProxy before these nodes; it runs until it is dropped.
struct Balancer {
    at: SocketAddr,
    folder: Folder,
    _running: Ending,
}

impl Balancer {
    fn before(nodes: &[Node; 2]) -> Self {
        let folder = Folder::new("httpchk");
        let (port, control) = (free_port(), folder.file("control"));
        let lines: String = nodes.iter().zip(["a", "b"]).map(|(node, name)| node.line(name)).collect();
        let config = format!(
            "global\n  stats socket {} level admin\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
             timeout client 30s\n  timeout server 30s\n  timeout check 2s\n  retries 3\n  option redispatch\n\
             listen nodes\n  bind 127.0.0.1:{port}\n  balance roundrobin\n  option httpchk GET /readyz\n{lines}",
            control.display()
        );
        let file = folder.write("haproxy.cfg", &config);
        let mut haproxy = command("haproxy");
        haproxy.arg("-db").arg("-f").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Ending(haproxy.spawn().expect("tests/setup.sh installs it"));
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("HAProxy listens", || TcpStream::connect(at).ok());
        Self { at, folder, _running: running }
    }

    /// HAProxy's word for what a server is, and the status that its last check was answered with.
    fn state(&self, server: &str) -> (String, String) {
        let mut stream = UnixStream::connect(self.folder.file("control")).unwrap();
        stream.write_all(b"show stat\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line =
            text.lines().find(|line| line.starts_with(&format!("nodes,{server},"))).unwrap_or_default();
        let fields: Vec<_> = line.split(',').collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or_default().to_owned();
        (field(17), field(37))
    }

    #[track_caller]
    fn until(&self, server: &str, word: &str, status: &str) {
        let what = format!("HAProxy takes {server} for {word}, after an answer {status}");
        eventually(&what, || {
            let (said, code) = self.state(server);
            (said == word && (status.is_empty() || code == status)).then_some(())
        });
    }
}

const CLIENTS: usize = 8;

/// Clients that each ask, are answered by a name, and come again over a new connection.
#[derive(Default)]
struct Crowd {
    stop: AtomicBool,
    answered: [AtomicU64; 2],
    /// How often each has asked and has been told something.
    asked: [AtomicU64; CLIENTS],
    lost: Mutex<Vec<String>>,
}

impl Crowd {
    fn ask_again_and_again(&self, client: usize, at: SocketAddr) {
        while !self.stop.load(Relaxed) {
            self.asked[client].fetch_add(1, Relaxed);
            match ask(at) {
                Ok(name) => drop(self.answered[usize::from(name == b'b')].fetch_add(1, Relaxed)),
                Err(error) => self.lost.lock().unwrap().push(error.to_string()),
            }
        }
    }

    /// Waits until what was under way for any client is over.
    #[track_caller]
    fn until_each_has_asked_again(&self) {
        let before = self.asked.each_ref().map(|asked| asked.load(Relaxed));
        eventually("each has asked again", || {
            let again = self.asked.iter().zip(before).all(|(now, before)| now.load(Relaxed) >= before + 2);
            again.then_some(())
        });
    }

    /// Waits until 20 more have been answered by this node.
    #[track_caller]
    fn until_answered_by(&self, node: usize) {
        let before = self.answered[node].load(Relaxed);
        eventually("clients are answered by it", || {
            (self.answered[node].load(Relaxed) >= before + 20).then_some(())
        });
    }
}

fn ask(at: SocketAddr) -> std::io::Result<u8> {
    let mut client = TcpStream::connect(at)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.write_all(b"?")?;
    let mut name = [0];
    client.read_exact(&mut name)?;
    Ok(name[0])
}

/// Ends what waits for it, also when the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A backend that answers each connection with its name, until it is told to end.
struct Named {
    address: SocketAddr,
    ended: std::sync::Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Named {
    fn at(address: &str, name: u8) -> Self {
        let listener = eventually("its address is free", || TcpListener::bind(address).ok());
        let (address, ended) = (listener.local_addr().unwrap(), std::sync::Arc::new(AtomicBool::new(false)));
        let told = ended.clone();
        let thread = std::thread::spawn(move || {
            for mut peer in listener.incoming().map(Result::unwrap) {
                if told.load(Relaxed) {
                    return;
                }
                std::thread::spawn(move || {
                    if matches!(peer.read(&mut [0]), Ok(1)) {
                        let _ = peer.write_all(&[name]);
                    }
                });
            }
        });
        Self { address, ended, thread: Some(thread) }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One gate drains, ends and returns, and then the backend of the other one does. HAProxy hears of each before a client does.
#[test]
fn haproxy_follows_readyz_of_gates_that_drain_and_of_gates_without_a_backend() {
    let backends = [Named::at("127.0.0.1:0", b'a'), Named::at("127.0.0.1:0", b'b')];
    let nodes = [0, 1].map(|at| Node::new(backends[at].address));
    let mut running: Vec<Running> = nodes.iter().map(Node::start).collect();
    let haproxy = Balancer::before(&nodes);
    for name in ["a", "b"] {
        haproxy.until(name, "UP", "200");
    }
    let crowd = Crowd::default();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (crowd, at) = (&crowd, haproxy.at);
            scope.spawn(move || crowd.ask_again_and_again(client, at));
        }
        let stop = StopAtEnd(&crowd.stop);
        crowd.until_answered_by(0);
        crowd.until_answered_by(1);

        let began = Instant::now();
        running[0].signal(Signal::TERM);
        haproxy.until("a", "DOWN", "503");
        let noticed = began.elapsed();
        let (code, log) = running.remove(0).ended();
        assert_eq!(code, Some(0), "HAProxy noticed after {noticed:?}: {log}");
        crowd.until_answered_by(1);
        running.insert(0, nodes[0].start());
        haproxy.until("a", "UP", "200");
        crowd.until_answered_by(0);
        assert_eq!(*crowd.lost.lock().unwrap(), Vec::<String>::new(), "no client noticed");

        // A gate that serves and whose backend is gone is no place for clients.
        let [kept, gone] = backends;
        let address = gone.address.to_string();
        drop(gone);
        haproxy.until("b", "DOWN", "503");
        // Those that had been sent there before: each of them has asked twice since then.
        crowd.until_each_has_asked_again();
        crowd.lost.lock().unwrap().clear();
        crowd.until_answered_by(0);
        assert_eq!(*crowd.lost.lock().unwrap(), Vec::<String>::new(), "they all go to the other one");
        let back = Named::at(&address, b'b');
        haproxy.until("b", "UP", "200");
        crowd.until_answered_by(1);
        assert_eq!(*crowd.lost.lock().unwrap(), Vec::<String>::new());
        drop(stop);
        drop((kept, back));
    });
    for server in running {
        server.signal(Signal::TERM);
        assert_eq!(server.ended().0, Some(0));
    }
}
