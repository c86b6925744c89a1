//! The memory ceiling that the program prints at its start is a promise: whatever clients do, what the process holds stays
//! under it, and what they leave behind goes back to the system.

#[cfg(feature = "tls")]
#[path = "support/certificate.rs"]
mod certificate;
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Client, Program, Running, eventually, raise_open_files};

/// A small server, so that its limits are reached within seconds.
fn server() -> Running {
    program("16MiB").start()
}

fn program(input_total: &str) -> Program {
    Program::new()
        .arg("--listen", "hello=tcp://127.0.0.1:0")
        .service("echo")
        .arg("--input-total", input_total)
        .arg("--output-total", "4MiB")
        .arg("--max-connections", 3000)
        .arg("--queue", 2000)
        .arg("--read-timeout", "10m")
        .arg("--write-timeout", "10m")
        .arg("--idle-timeout", "10m")
}

/// The ceiling that it printed, in KiB.
fn ceiling(server: &Running) -> u64 {
    let text = server.stdout();
    let number = text.split_once("at most ").and_then(|(_, rest)| rest.split_once(" MiB"));
    number.and_then(|(number, _)| number.parse::<u64>().ok()).expect("it prints its ceiling") * 1024
}

/// What it has held at most so far, in KiB. Of an unoptimised program the code alone is more than what is promised for it.
fn peak(server: &Running) -> u64 {
    let code = if cfg!(debug_assertions) { server.status("RssFile") } else { 0 };
    server.status("VmHWM") - code
}

/// Clients of one source that never wait for the server.
struct Crowd(Vec<Client>);

impl Crowd {
    fn connect(address: SocketAddr, source: &str, count: usize, narrow: bool) -> Self {
        let connect = |_| {
            let client = if narrow { Client::narrow(address) } else { Client::from(source, address) };
            client.stream().set_nonblocking(true).unwrap();
            client
        };
        Self((0..count).map(connect).collect())
    }

    /// Each sends as much of this as the kernel takes.
    fn send(&self, bytes: usize) {
        let data = vec![b'h'; bytes];
        for client in &self.0 {
            let _ = client.stream().write(&data);
        }
    }

    /// Each reads as much as it is given, up to this; how many bytes that were.
    fn take(&self, bytes: usize) -> usize {
        let mut buffer = vec![0; bytes];
        let mut all = 0;
        for client in &self.0 {
            match client.stream().read(&mut buffer) {
                Ok(n) => all += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The server has ended it.
                Err(_) => {}
            }
        }
        all
    }
}

/// Waits until the server has worked off what it was sent: its processor time stands still.
fn settle(server: &Running) {
    let mut last = -1.0;
    eventually("it has worked off what it was sent", || {
        std::thread::sleep(Duration::from_millis(150));
        let now = server.cpu_seconds();
        let still = now - last < 0.02;
        last = now;
        still.then_some(())
    });
}

fn is_answered(address: SocketAddr) {
    Client::connect(address).say("pol").say("ite\n").hear("hello polite\n");
}

#[test]
fn the_printed_ceiling_holds_whatever_clients_leave_half_done() {
    raise_open_files();
    let server = server();
    let [hello, echo] = server.addresses()[..] else { panic!("two listeners") };
    let ceiling = ceiling(&server);
    assert!(ceiling < 56 * 1024, "a small server: {ceiling} KiB");
    let check = |what: &str| {
        settle(&server);
        let peak = peak(&server);
        support::figure(format!("{what}: at most {peak} of {ceiling} KiB"));
        assert!(peak <= ceiling, "{what}: {peak} KiB where {ceiling} are promised");
    };
    // Half lines that grow; more in all than may be held.
    let halves = Crowd::connect(hello, "127.0.0.2", 2500, false);
    for (bytes, sum) in [(8, 8), (8, 16), (16, 32)] {
        halves.send(bytes * 1024);
        check(&format!("2,500 half lines of {sum} KiB"));
        is_answered(hello);
    }
    drop(halves);
    check("they have left");
    // Small ones, which an allocator keeps among others.
    let halves = Crowd::connect(hello, "127.0.0.3", 2500, false);
    for bytes in [40, 60, 100, 250, 500, 3000] {
        halves.send(bytes);
        settle(&server);
    }
    check("2,500 half lines that grow from 40 bytes to 4 KB");
    drop(halves);
    // Replies that are taken in part, and then no more.
    let mut deaf = Crowd::connect(echo, "", 100, true);
    for _ in 0..16 {
        deaf.send(512 * 1024);
        settle(&server);
    }
    check("100 clients that take no replies");
    let taken = (0..4).map(|_| deaf.take(20 * 1024)).sum::<usize>();
    assert!(taken > 0, "some are connected still");
    for _ in 0..4 {
        deaf.send(256 * 1024);
        deaf.take(20 * 1024);
    }
    check("that have taken a part of them");
    // Both at once, and what kernel buffers add to it.
    let halves = Crowd::connect(hello, "127.0.0.4", 1500, false);
    halves.send(16 * 1024);
    check("and 1,500 half lines of 16 KiB");
    let newlines = Crowd::connect(hello, "", 200, true);
    for client in &newlines.0 {
        let _ = client.stream().write(&[b'\n'; 64 * 1024]);
    }
    check("and 200 clients that send 64 KiB of newlines and take no replies");
    is_answered(hello);
    deaf.0.truncate(50);
    drop((halves, newlines));
    check("most have left");
    drop(deaf);
    eventually("what they held has gone back", || (server.status("RssAnon") < 9 * 1024).then_some(()));
}

#[test]
fn a_server_without_address_space_ends_connections_and_not_itself() {
    raise_open_files();
    let roomy = server();
    let start = roomy.status("VmSize");
    drop(roomy);
    // A fifth of what the half lines want.
    let server = program("256MiB").prelude(&format!("ulimit -v {}", start + 20 * 1024)).start();
    let [hello, _] = server.addresses()[..] else { panic!("two listeners") };
    let halves = Crowd::connect(hello, "127.0.0.2", 2500, false);
    for _ in 0..4 {
        halves.send(10 * 1024);
        settle(&server);
        assert!(server.is_running(), "it ended: {}", server.stderr());
        is_answered(hello);
    }
    let resident = server.status("RssAnon");
    assert!(resident > 8 * 1024, "it used what it could have: {resident} KiB");
    drop(halves);
    settle(&server);
    // It recovers, and others come.
    let halves = Crowd::connect(hello, "127.0.0.3", 2500, false);
    halves.send(1000);
    settle(&server);
    is_answered(hello);
    support::figure(format!(
        "20 MiB of address space for 2,500 halves of 40 KiB: it serves on, with {} KiB",
        resident
    ));
    drop(halves);
}

/// A control group whose processes have so much memory and no more: a container.
struct Container(PathBuf);

impl Container {
    /// `None` where this system lets nobody make one.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("tidegate-memory-{}", std::process::id());
        for (root, file) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let place = Path::new(root).join(&name);
            if std::fs::create_dir(&place).is_err() {
                continue;
            }
            let container = Self(place);
            if std::fs::write(container.0.join(file), bytes.to_string()).is_ok() {
                // Without swap, where there is any: what does not fit is to be seen.
                let _ = std::fs::write(container.0.join("memory.swap.max"), "0");
                return Some(container);
            }
        }
        None
    }

    /// What a shell does to be in it.
    fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.0.display())
    }

    /// What its processes and the kernel on their behalf held at most, in KiB.
    fn peak(&self) -> u64 {
        let number = |file: &str| std::fs::read_to_string(self.0.join(file)).ok()?.trim().parse::<u64>().ok();
        number("memory.max_usage_in_bytes").or_else(|| number("memory.peak")).unwrap_or(0) / 1024
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let began = Instant::now();
        // It is empty once the kernel has taken its last process away.
        while std::fs::remove_dir(&self.0).is_err() && began.elapsed() < support::PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Every kind of thing that clients can make a server hold.
fn every_kind(backend: SocketAddr) -> Program {
    program("16MiB")
        .arg("--listen", "echo=udp://127.0.0.1:0")
        .arg("--listen", "echo=http://127.0.0.1:0")
        .arg("--listen", format!("proxy:{backend}=tcp://127.0.0.1:0"))
        .arg("--backend-connections", 500)
        .arg("--max-per-source", 3000)
        .arg("--datagram-source-rate", "off")
        .arg("--max-datagram", "8KiB")
}

/// The address of a listener, by its service and scheme.
fn address_of(server: &Running, what: &str, scheme: &str) -> SocketAddr {
    let text = server.stdout();
    let line = text.lines().find(|line| line.trim_start().starts_with(what) && line.contains(scheme));
    let line = line.unwrap_or_else(|| panic!("{what} {scheme} in {text}"));
    line.split_once(scheme).unwrap().1.split_whitespace().next().unwrap().parse().expect("an address")
}

/// A backend that takes connections and never reads.
fn deaf_backend() -> (SocketAddr, Arc<AtomicBool>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, over) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let stop = over.clone();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            held.push(stream);
        }
    });
    (address, over)
}

#[test]
fn in_a_container_of_its_ceiling_and_16_mib_nothing_is_killed_whatever_it_is_made_to_hold() {
    raise_open_files();
    let (backend, over) = deaf_backend();
    let roomy = every_kind(backend).start();
    let ceiling = ceiling(&roomy);
    drop(roomy);
    let container = Container::new((ceiling + 16 * 1024) * 1024);
    if container.is_none() {
        println!("no control group can be made here: the resident size is what is measured");
    }
    let server = match &container {
        Some(container) => every_kind(backend).prelude(&container.enter()).start(),
        None => every_kind(backend).start(),
    };
    let check = |what: &str| {
        settle(&server);
        let (peak, contained) = (peak(&server), container.as_ref().map_or(0, Container::peak));
        support::figure(format!("{what}: at most {peak} of {ceiling} KiB, {contained} with the kernel's"));
        assert!(peak <= ceiling, "{what}: {peak} KiB where {ceiling} are promised");
    };
    let (hello, echo) = (address_of(&server, "hello", "tcp://"), address_of(&server, "echo", "tcp://"));
    let (web, gate) = (address_of(&server, "echo", "http://"), address_of(&server, "proxy", "tcp://"));
    let datagrams = address_of(&server, "echo", "udp://");
    check("it has started");
    // Connections that say nothing, of as many sources as there are.
    let crowd: Vec<_> = (0..2900u32)
        .filter_map(|n| Client::try_from(&format!("127.1.{}.{}", n / 250, n % 250 + 1), echo).ok())
        .collect();
    assert!(crowd.len() > 2500, "{} came in", crowd.len());
    check("2,900 sources");
    // From here on all of it at once.
    let crowd: Vec<_> = crowd.into_iter().step_by(5).collect();
    let halves = Crowd::connect(hello, "127.0.0.2", 900, false);
    halves.send(16 * 1024);
    check("half lines");
    let heads = Crowd::connect(web, "127.0.0.3", 500, false);
    for client in &heads.0 {
        let _ = client.stream().write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n");
    }
    heads.send(60 * 1024);
    heads.send(60 * 1024);
    check("half bodies");
    let deaf = Crowd::connect(echo, "", 200, true);
    for _ in 0..8 {
        deaf.send(512 * 1024);
        settle(&server);
    }
    check("replies that nobody reads");
    let pairs = Crowd::connect(gate, "127.0.0.4", 400, false);
    for _ in 0..6 {
        pairs.send(512 * 1024);
        settle(&server);
    }
    check("pairs whose backend does not read");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..5_000 {
        let _ = socket.send_to(&[b'd'; 8192], datagrams);
    }
    check("datagrams");
    is_answered(hello);
    drop((crowd, halves, heads, deaf, pairs));
    over.store(true, Ordering::SeqCst);
    let _ = std::net::TcpStream::connect(backend);
    drop(server);
}

/// A backend that sends this to each connection, and then bytes without end if it is to.
fn talkative_backend(first: &str, endless: bool) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (address, over) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let (stop, first) = (over.clone(), first.to_owned());
    std::thread::spawn(move || {
        let (mut held, more) = (Vec::new(), [b'm'; 32 * 1024]);
        while !stop.load(Ordering::SeqCst) {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(first.as_bytes());
                stream.set_nonblocking(true).unwrap();
                held.push(stream);
            }
            if endless {
                for mut stream in &held {
                    while stream.write(&more).is_ok_and(|n| n > 0) {}
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    (address, over)
}

/// Clients that speak TLS to a server of this program.
/// The beginning of a client's frame of more than 125 bytes. The key is zeros, so what follows goes as it is.
fn frame(opcode: u8, length: u16) -> Vec<u8> {
    [&[0x80 | opcode, 0x80 | 126][..], &length.to_be_bytes(), &[0; 4]].concat()
}

/// WebSockets of one source that never wait for the server once they are open.
fn sockets(address: SocketAddr, source: &str, count: usize, narrow: bool) -> Crowd {
    const OPEN: &str = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let open = |_| {
        let mut client = if narrow { Client::narrow(address) } else { Client::from(source, address) };
        client.say(OPEN);
        let head = support::head(&mut client.stream());
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client.stream().set_nonblocking(true).unwrap();
        client
    };
    Crowd((0..count).map(open).collect())
}

impl Crowd {
    fn send_each(&self, bytes: &[u8]) {
        for client in &self.0 {
            let _ = client.stream().write(bytes);
        }
    }
}

#[test]
fn the_printed_ceiling_holds_for_websockets_whose_messages_do_not_end_and_whose_clients_do_not_read() {
    raise_open_files();
    let server = program("16MiB").arg("--listen", "echo=ws://127.0.0.1:0").arg("--ws-ping", "10m").start();
    let (hello, echo) = (address_of(&server, "hello", "tcp://"), address_of(&server, "echo", "ws://"));
    let promised = ceiling(&server);
    let check = |what: &str| {
        settle(&server);
        let peak = peak(&server);
        support::figure(format!("{what}: at most {peak} of {promised} KiB"));
        assert!(peak <= promised, "{what}: {peak} KiB where {promised} are promised");
    };
    check("it has started");
    let halves = sockets(echo, "127.0.0.2", 2_000, false);
    check("2,000 WebSockets that say nothing");
    let before = server.status("RssAnon");
    halves.send_each(&frame(2, 60_000));
    for (bytes, sum) in [(50, "50 bytes"), (2_000, "2 KB"), (8_000, "10 KB"), (16_000, "26 KB")] {
        halves.send(bytes);
        check(&format!("{sum} each of a message that does not end"));
    }
    let held = server.status("RssAnon");
    assert!(held > before + 8 * 1024, "they are held: {held} KiB, {before} before");
    let pings = sockets(echo, "127.0.0.3", 200, true);
    let ping = [&[0x89, 0x80 | 100, 0, 0, 0, 0][..], &[b'p'; 100]].concat().repeat(600);
    for _ in 0..6 {
        pings.send_each(&ping);
        settle(&server);
    }
    check("200 that send pings and read no answer");
    let deaf = sockets(echo, "", 200, true);
    let message = [frame(2, 64_000), vec![b'm'; 64_000]].concat();
    for _ in 0..8 {
        deaf.send_each(&message);
        settle(&server);
    }
    check("200 that do not read what is sent back");
    is_answered(hello);
    drop((halves, pings, deaf));
    check("they have left");
    eventually("what they held has gone back", || (server.status("RssAnon") < 9 * 1024).then_some(()));
}

#[cfg(feature = "tls")]
mod secured {
    use super::*;
    use certificate::{Certificate, Files};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    pub(super) fn certificate() -> Files {
        Certificate::new(&["localhost"], 4000).files()
    }

    /// Few workers, so that nearly all that is promised is for connections, and little of it for threads.
    pub(super) fn program(backend: SocketAddr, files: &Files, log: &Path) -> Program {
        Program::new()
            .service("echo")
            .arg("--workers", 4)
            .arg("--queue", 2000)
            .arg("--max-connections", 2500)
            .arg("--input-total", "8MiB")
            .arg("--output-total", "4MiB")
            .arg("--read-timeout", "10m")
            .arg("--write-timeout", "10m")
            .arg("--idle-timeout", "10m")
            .arg("--listen", "echo=tls://127.0.0.1:0")
            .arg("--listen", "hello=tls://127.0.0.1:0")
            .arg("--listen", "echo=https://127.0.0.1:0")
            .arg("--listen", format!("proxy:http://{backend}=http://127.0.0.1:0"))
            .arg("--tls-cert", files.certificate.display())
            .arg("--tls-key", files.key.display())
            .arg("--access-log", log.display())
            .arg("--backend-connections", 200)
            .arg("--max-per-source", 3000)
    }

    /// Each has sent a part of its request's body.
    pub(super) fn half_bodies(mut clients: Vec<Secret>) -> Vec<Secret> {
        for secret in &mut clients {
            secret.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n");
            secret.send(120 * 1024);
        }
        clients
    }

    /// Each has sent requests of which a log has much to say.
    pub(super) fn logged(mut clients: Vec<Secret>) -> Vec<Secret> {
        let (path, agent) = ("p".repeat(3000), "a".repeat(3000));
        let request = format!("GET /{path} HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n");
        for _ in 0..40 {
            clients.iter_mut().for_each(|secret| secret.say(request.as_bytes()));
        }
        clients
    }

    /// `names` protocols of 250 bytes each are offered, which makes the first message as long.
    pub(super) fn config(files: &Files, names: usize) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = (0..names).map(|n| format!("{n:0250}").into_bytes()).collect();
        Arc::new(config)
    }

    /// One client: its TLS, and its connection.
    pub(super) struct Secret {
        tls: ClientConnection,
        pub(super) client: Client,
        /// What it has yet to send of its last record.
        rest: Vec<u8>,
    }

    impl Secret {
        fn new(config: &Arc<ClientConfig>, client: Client) -> Self {
            let name = ServerName::try_from("localhost").unwrap();
            Self { tls: ClientConnection::new(config.clone(), name).unwrap(), client, rest: Vec::new() }
        }

        /// One that has sent the first message of its handshake, and sends no more.
        pub(super) fn begun(config: &Arc<ClientConfig>, client: Client) -> Self {
            let mut secret = Self::new(config, client);
            let _ = secret.tls.write_tls(&mut secret.client.stream());
            secret
        }

        /// One whose handshake is done; it never waits for the server from then on.
        pub(super) fn shaken(config: &Arc<ClientConfig>, client: Client) -> Self {
            let mut secret = Self::new(config, client);
            while secret.tls.is_handshaking() {
                secret.tls.complete_io(&mut secret.client.stream()).unwrap();
            }
            secret.client.stream().set_nonblocking(true).unwrap();
            secret
        }

        /// Sends as much of this as the kernel takes, in records.
        pub(super) fn send(&mut self, bytes: usize) {
            let data = vec![b'h'; 16 * 1024];
            for _ in 0..bytes.div_ceil(data.len()) {
                let _ = self.tls.writer().write(&data);
                while self.tls.wants_write()
                    && self.tls.write_tls(&mut self.client.stream()).is_ok_and(|n| n > 0)
                {}
            }
        }

        /// Sends these bytes in records.
        pub(super) fn say(&mut self, words: &[u8]) {
            let _ = self.tls.writer().write(words);
            let _ = self.tls.write_tls(&mut self.client.stream());
        }

        /// Sends what it kept of the last record, and this in one of which it keeps the last byte.
        pub(super) fn send_half(&mut self, bytes: usize) {
            let mut record = std::mem::take(&mut self.rest);
            let _ = self.tls.writer().write(&vec![b'h'; bytes]);
            self.tls.write_tls(&mut record).unwrap();
            self.rest = record.split_off(record.len() - 1);
            let _ = self.client.stream().write(&record);
        }
    }
}

/// A pipe in the file system that somebody has open and does not read.
fn unread_pipe() -> (PathBuf, std::fs::File) {
    use std::os::unix::fs::OpenOptionsExt;
    let path = std::env::temp_dir().join(format!("tidegate-memory-{}.pipe", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let reader = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
    (path, reader)
}

#[cfg(feature = "tls")]
#[test]
fn the_printed_ceiling_counts_handshakes_tls_with_full_buffers_and_an_access_log_that_nobody_reads() {
    use secured::Secret;
    raise_open_files();
    let (backend, over) = deaf_backend();
    let (pipe, reader) = unread_pipe();
    let files = secured::certificate();
    let program = || secured::program(backend, &files, &pipe);
    let promised = ceiling(&program().start());
    let container = Container::new((promised + 16 * 1024) * 1024);
    let server = match &container {
        Some(container) => program().prelude(&container.enter()).start(),
        None => program().start(),
    };
    let check = |what: &str| {
        settle(&server);
        let (peak, contained) = (peak(&server), container.as_ref().map_or(0, Container::peak));
        println!("{what}: at most {peak} of {promised} KiB, {contained} with the kernel's");
        assert!(server.is_running() && peak <= promised, "{what}: {peak} KiB where {promised} are promised");
    };
    let (config, wordy) = (secured::config(&files, 0), secured::config(&files, 50));
    let (echo, hello) = (address_of(&server, "echo", "tls://"), address_of(&server, "hello", "tls://"));
    let (web, gate) = (address_of(&server, "echo", "https://"), address_of(&server, "proxy", " on http://"));
    check("it has started");
    let start = server.status("RssAnon");
    let begin = |config, count| -> Vec<_> {
        (0..count).map(|_| Secret::begun(config, Client::from("127.0.0.2", hello))).collect()
    };
    let mut halves = begin(&config, 800);
    check("800 handshakes that wait for the client");
    let handshakes = server.status("RssAnon");
    assert!(handshakes > start + 800, "{handshakes} KiB, {start} before: they have begun");
    halves.extend(begin(&wordy, 800));
    check("and 800 whose first message was long");
    let shaken = |source: &str, address| Secret::shaken(&config, Client::from(source, address));
    let mut records: Vec<_> = (0..400).map(|_| shaken("127.0.0.3", hello)).collect();
    check("and 400 connections that say nothing after it");
    records.iter_mut().for_each(|secret| secret.send_half(4_000));
    check("then a half record of 4 KB each");
    records.iter_mut().for_each(|secret| secret.send_half(16_000));
    check("then a half line and a half record of 16 KB each");
    let mut deaf: Vec<_> = (0..100).map(|_| Secret::shaken(&config, Client::narrow(echo))).collect();
    for _ in 0..8 {
        deaf.iter_mut().for_each(|secret| secret.send(512 * 1024));
        settle(&server);
    }
    check("replies that nobody reads");
    let bodies = secured::half_bodies((0..100).map(|_| shaken("127.0.0.4", web)).collect());
    check("half bodies");
    let logged = secured::logged((0..50).map(|_| shaken("127.0.0.5", web)).collect());
    check("an access log that nobody reads");
    let pairs = Crowd::connect(gate, "127.0.0.6", 200, false);
    for client in &pairs.0 {
        let _ = client.stream().write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000000\r\n\r\n");
    }
    for _ in 0..4 {
        pairs.send(256 * 1024);
        settle(&server);
    }
    check("requests whose backend does not read");
    let mut polite = shaken("127.0.0.7", hello);
    polite.say(b"polite\n");
    eventually("somebody polite is answered", || {
        polite.client.stream().peek(&mut [0; 1]).is_ok_and(|n| n > 0).then_some(())
    });
    drop((halves, records, deaf, bodies, logged, pairs, polite, reader));
    over.store(true, Ordering::SeqCst);
    let _ = std::net::TcpStream::connect(backend);
    drop(server);
    let _ = std::fs::remove_file(pipe);
}

/// Backends of each kind that costs a gate memory, and the gates in front of them.
#[cfg(feature = "tls")]
struct SecuredGates {
    deaf: (SocketAddr, Arc<AtomicBool>),
    flood: (SocketAddr, Arc<AtomicBool>),
    answers: (SocketAddr, Arc<AtomicBool>),
    heads: (SocketAddr, Arc<AtomicBool>),
}

#[cfg(feature = "tls")]
impl SecuredGates {
    fn new() -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(60_000));
        Self {
            deaf: deaf_backend(),
            flood: talkative_backend("welcome\n", true),
            answers: talkative_backend("HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n", true),
            heads: talkative_backend(&head, false),
        }
    }

    /// Each gate has a list of waiting clients for the whole queue, so a long queue makes a difference.
    fn program(&self, files: &certificate::Files) -> Program {
        let gate = |to: String, scheme: &str| format!("proxy:{to}={scheme}://127.0.0.1:0");
        Program::new()
            .without_echo()
            .arg("--workers", 16)
            .arg("--queue", 3000)
            .arg("--max-connections", 3000)
            .arg("--input-total", "8MiB")
            .arg("--output-total", "4MiB")
            .arg("--read-timeout", "10m")
            .arg("--write-timeout", "10m")
            .arg("--idle-timeout", "10m")
            .arg("--queue-timeout", "10m")
            .arg("--backend-timeout", "10m")
            .arg("--listen", gate(self.deaf.0.to_string(), "tls"))
            .arg("--listen", gate(self.flood.0.to_string(), "tls"))
            .arg("--listen", gate(format!("http://{}", self.answers.0), "https"))
            .arg("--listen", gate(format!("http://{}", self.heads.0), "https"))
            .arg("--listen", gate(format!("http://{}", self.deaf.0), "https"))
            .arg("--tls-cert", files.certificate.display())
            .arg("--tls-key", files.key.display())
            .arg("--backend-connections", 700)
            .arg("--max-per-source", 3000)
    }

    /// Where the gate to this backend listens.
    fn at(server: &Running, backend: &(SocketAddr, Arc<AtomicBool>), scheme: &str) -> SocketAddr {
        let http = if scheme == "https" { "http://" } else { "" };
        address_of(server, &format!("proxy:{http}{}", backend.0), &format!(" {scheme}://"))
    }

    fn end(self) {
        for (address, over) in [self.deaf, self.flood, self.answers, self.heads] {
            over.store(true, Ordering::SeqCst);
            let _ = std::net::TcpStream::connect(address);
        }
    }
}

#[cfg(feature = "tls")]
#[test]
fn the_printed_ceiling_holds_for_gates_whose_clients_speak_tls_and_do_not_read_or_send_by_halves() {
    use secured::Secret;
    raise_open_files();
    let (gates, files) = (SecuredGates::new(), secured::certificate());
    let promised = ceiling(&gates.program(&files).start());
    let container = Container::new((promised + 16 * 1024) * 1024);
    let program = gates.program(&files);
    let server = match &container {
        Some(container) => program.prelude(&container.enter()).start(),
        None => program.start(),
    };
    let check = |what: &str| {
        settle(&server);
        let (peak, contained) = (peak(&server), container.as_ref().map_or(0, Container::peak));
        support::figure(format!("{what}: at most {peak} of {promised} KiB, {contained} with the kernel's"));
        assert!(server.is_running() && peak <= promised, "{what}: {peak} KiB where {promised} are promised");
    };
    let config = secured::config(&files, 0);
    let shaken = |source: &str, at| Secret::shaken(&config, Client::from(source, at));
    let narrow = |at| Secret::shaken(&config, Client::narrow(at));
    check("it has started");
    let [deaf, flood] = [&gates.deaf, &gates.flood].map(|backend| SecuredGates::at(&server, backend, "tls"));
    let pairs: Vec<_> = (0..600).map(|_| shaken("127.0.0.2", deaf)).collect();
    check("600 quiet pairs");
    let mut senders: Vec<_> = (0..100).map(|_| shaken("127.0.0.3", deaf)).collect();
    for _ in 0..6 {
        senders.iter_mut().for_each(|secret| secret.send(512 * 1024));
        settle(&server);
    }
    check("100 pairs whose backend does not read");
    let readers: Vec<_> = (0..150).map(|_| narrow(flood)).collect();
    check("150 pairs whose client does not read");
    let [answers, heads, silent] = [&gates.answers, &gates.heads, &gates.deaf]
        .map(|backend| SecuredGates::at(&server, backend, "https"));
    let ask = |at, request: &str| {
        let mut client = narrow(at);
        client.say(request.as_bytes());
        client
    };
    let slow: Vec<_> = (0..100).map(|_| ask(answers, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    check("100 answers that nobody reads");
    let long: Vec<_> = (0..100).map(|_| ask(heads, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    check("100 answers whose heads are long and do not end");
    let half = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(12_000));
    let halves: Vec<_> = (0..300).map(|_| ask(silent, &half)).collect();
    check("300 half heads");
    let mut uploads: Vec<_> = (0..200)
        .map(|_| ask(silent, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65000\r\n\r\n"))
        .collect();
    uploads.iter_mut().for_each(|secret| secret.send(48 * 1024));
    check("200 uploads that are collected");
    uploads.iter_mut().for_each(|secret| secret.send(32 * 1024));
    check("and wait for their answers");
    let asks: Vec<_> = (0..900).map(|_| ask(silent, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    check("and 900 requests, for many of which there is no place");
    drop((pairs, senders, readers, slow, long, halves, uploads, asks));
    check("they have left");
    gates.end();
    drop(server);
}
