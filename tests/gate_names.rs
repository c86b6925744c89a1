//! Backends that have names: one that changes its address, and a resolver that hangs. The program sees files of the test's
//! own in the place of `/etc/hosts` and `/etc/resolv.conf`.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::{PATIENCE, Program, Running, eventually};

/// What the program takes for the system's files.
struct Names {
    folder: PathBuf,
    /// A name server that takes questions and never answers.
    dns: UdpSocket,
}

impl Names {
    fn new(name: &str, hosts: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // The port of name servers cannot be chosen, so the address is one that nobody else has.
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = format!("127.{}.{high}.{low}", 100 + name.len());
        let dns = UdpSocket::bind((address.as_str(), 53)).expect("the port of name servers is free there");
        let names = Self { folder, dns };
        std::fs::write(
            names.folder.join("resolv.conf"),
            format!("nameserver {address}\noptions timeout:30 attempts:5\n"),
        )
        .unwrap();
        names.set(hosts);
        names
    }

    /// Written in place: the program sees this very file.
    fn set(&self, hosts: &str) {
        let path = self.folder.join("hosts");
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let mut file = file.unwrap();
        file.set_len(0).unwrap();
        file.write_all(hosts.as_bytes()).unwrap();
    }

    fn program(&self, backends: &str) -> Program {
        let folder = self.folder.display();
        let line = format!(
            "exec unshare -m sh -c 'mount --bind {folder}/hosts /etc/hosts && \
             mount --bind {folder}/resolv.conf /etc/resolv.conf && exec \"$0\" \"$@\"' \"$0\" \"$@\""
        );
        Program::new().service(&format!("proxy:{backends}")).prelude(&line)
    }

    /// Whether a question has come since the last look.
    fn was_asked(&self) -> bool {
        self.dns.set_nonblocking(true).unwrap();
        self.dns.recv(&mut [0; 512]).is_ok()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Two backends at the same port of two addresses: as one name may have them.
fn two_backends() -> (TcpListener, TcpListener, u16) {
    for _ in 0..20 {
        let one = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = one.local_addr().unwrap().port();
        if let Ok(two) = TcpListener::bind(("127.0.0.3", port)) {
            return (one, two, port);
        }
    }
    panic!("no port is free at both addresses");
}

fn accept(backend: &TcpListener) -> TcpStream {
    let (peer, _) = backend.accept().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer
}

/// A new client's word arrives here, if this is where new clients go.
fn leads_to(gate: &Running, backend: &TcpListener) -> Option<()> {
    backend.set_nonblocking(true).unwrap();
    let mut client = gate.client();
    client.mutter("new");
    let end = Instant::now() + Duration::from_millis(100);
    let mut found = None;
    while found.is_none() && Instant::now() < end {
        found = backend.accept().ok();
        std::thread::sleep(Duration::from_millis(2));
    }
    backend.set_nonblocking(false).unwrap();
    found.map(|_| ())
}

#[test]
fn a_name_that_changes_its_address_leads_new_clients_there_and_standing_pairs_go_on() {
    let (one, two, port) = two_backends();
    let names = Names::new("changes", "127.0.0.2 backend.test\n");
    let gate = names.program(&format!("backend.test:{port}")).arg("--backend-resolve", "50ms").start();
    let mut client = gate.client();
    client.say("hello");
    let mut peer = accept(&one);
    let mut word = [0; 5];
    peer.read_exact(&mut word).unwrap();
    names.set("127.0.0.3 backend.test\n");
    eventually("new clients reach the new address", || leads_to(&gate, &two));
    peer.write_all(b"still here").unwrap();
    client.hear("still here");
    // Several addresses are several backends.
    names.set("127.0.0.2 backend.test\n127.0.0.3 backend.test\n");
    eventually("the first is back", || leads_to(&gate, &one));
    eventually("and the second is not gone", || leads_to(&gate, &two));
}

#[test]
fn a_resolver_that_hangs_holds_one_thread_and_neither_clients_nor_checks() {
    let (one, _two, port) = two_backends();
    let names = Names::new("hangs", "127.0.0.2 backend.test\n");
    let program = names.program(&format!("backend.test:{port}")).arg("--backend-resolve", "20ms");
    let gate = program.arg("--backend-check", "20ms").start();
    eventually("a check comes", || leads_to(&gate, &one));
    names.set("");
    eventually("the name server is asked", || names.was_asked().then_some(()));
    let threads = gate.threads();
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        assert!(gate.status("Threads") <= threads + 1, "a thread for each time it is resolved");
        assert!(leads_to(&gate, &one).is_some(), "clients are served");
    }
    // The checks go on: what comes without a word is one.
    let mut said = Vec::new();
    accept(&one).read_to_end(&mut said).unwrap();
}

#[test]
fn at_the_start_a_resolver_that_hangs_is_an_error_in_time() {
    let names = Names::new("starting", "");
    let began = Instant::now();
    let mut shell = support::command("unshare");
    let folder = names.folder.display();
    let line = format!(
        "mount --bind {folder}/hosts /etc/hosts && mount --bind {folder}/resolv.conf /etc/resolv.conf && \
         exec \"$0\" --admin off --listen proxy:backend.test:80=tcp://127.0.0.1:0"
    );
    let output = support::finish(shell.args(["-m", "sh", "-c", &line, support::path()]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot resolve backend.test:80: no answer within 10s"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
