//! Listeners at Unix sockets: who may connect, what becomes of the file, and that all that holds over TCP holds here.
#![cfg(target_os = "linux")]

mod support;

use rustix::fs::Mode;
use rustix::process::{Signal, umask};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Folder, PATIENCE, Program, Running, command, eventually, finish, run};
use tidegate::limits::RefusalRate;
use tidegate::metrics::snapshot::Snapshot;
use tidegate::reason::{CloseReason, DropReason};
use tidegate::service::{Cost, Work};
use tidegate::{
    Address, BuildError, ClientAddress, Echo, Handle, Limits, Listen, Server, Service, UnixName, lines,
};

/// A folder of a test, removed at its end.
fn listen(path: &Path, service: impl Service) -> Listen {
    Listen::unix(UnixName::path(path).unwrap(), service)
}

fn serve(limits: Limits, listen: Listen) -> Handle {
    Server::builder().limits(limits).listener(listen).bind().unwrap().serve().unwrap()
}

#[track_caller]
fn connect(path: &Path) -> UnixStream {
    let client = UnixStream::connect(path).expect("the server can be reached");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client
}

#[track_caller]
fn asks(client: &mut UnixStream, words: &str, answer: &str) {
    client.write_all(words.as_bytes()).unwrap();
    let mut heard = vec![0; answer.len()];
    client.read_exact(&mut heard).expect("the server answers");
    assert_eq!(String::from_utf8_lossy(&heard), answer);
}

/// What a client hears until the end: of an end with unread input on the other side, an error tells.
fn rest(client: &mut UnixStream) -> String {
    let mut text = String::new();
    match client.read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    text
}

#[track_caller]
fn counts(handle: &Handle) -> Snapshot {
    let stats = handle.stats();
    assert!(stats.conserved(), "not conserved: {:?}", stats.listeners);
    stats
}

/// Ends a server in good order: everything that was accepted was dropped or closed.
#[track_caller]
fn ended(handle: Handle) {
    let observe = handle.observe();
    let report = handle.shutdown(Duration::from_secs(10));
    assert!(report.is_clean(), "{report}");
    let stats = observe.snapshot();
    assert!(stats.conserved(), "not conserved: {:?}", stats.listeners);
    for now in &stats.listeners {
        assert_eq!((now.accepted, now.open()), (now.dropped_total() + now.closed_total(), 0), "{now:?}");
    }
}

/// Why the program does not start, in one line.
#[track_caller]
fn refuses(code: i32, args: &[&str]) -> String {
    let Output { status, stderr, .. } = run(["--admin", "off"].iter().chain(args));
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

#[track_caller]
fn started(args: &[(&str, String)]) -> Running {
    let program = Program::new().without_echo();
    args.iter().fold(program, |program, (name, value)| program.arg(name, value)).start()
}

fn at(service: &str, path: &Path) -> (&'static str, String) {
    ("--listen", format!("{service}=unix:{}", path.display()))
}

#[test]
fn a_client_is_known_by_its_user_and_process_and_the_listener_by_its_path() {
    let folder = Folder::new("unix");
    let path = folder.file("who.sock");
    let service = lines("who", |_, reply| {
        let address = reply.peer().address;
        reply.send(format!("{address}\n").as_bytes())
    });
    let handle = serve(Limits::default().workers(2), listen(&path, service));
    let address = handle.addresses()[0];
    assert_eq!(address.unix().and_then(|name| name.as_path().map(Path::to_owned)), Some(path.clone()));
    assert_eq!((address.ip(), address.to_string()), (None, format!("unix:{}", path.display())));
    let uid = rustix::process::getuid().as_raw();
    let mut client = connect(&path);
    asks(&mut client, "?\n", &format!("unix:uid={uid},pid={}\n", std::process::id()));
    assert_eq!(counts(&handle).listeners[0].listener, format!("unix://{}", path.display()));
    drop(client);
    ended(handle);
    assert!(!path.exists(), "the file is removed at the end");
}

#[test]
fn what_is_sent_in_pieces_at_once_or_half_closed_is_answered_as_over_tcp() {
    let folder = Folder::new("unix");
    let path = folder.file("echo.sock");
    let handle = serve(Limits::default().workers(2), listen(&path, Echo));
    let data: Vec<u8> = (0..4_000_000_u32).map(|n| (n >> 3) as u8).collect();
    let client = connect(&path);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&client).write_all(&data).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut heard = Vec::new();
        (&client).read_to_end(&mut heard).unwrap();
        assert!(heard == data, "{} of {} bytes", heard.len(), data.len());
    });
    for _ in 0..100 {
        asks(&mut connect(&path), "again", "again");
    }
    eventually("all have left", || {
        (counts(&handle).listeners[0].closed[CloseReason::Client as usize] == 101).then_some(())
    });
    ended(handle);
}

#[test]
fn a_client_that_sends_descriptors_along_is_answered_to_the_end() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::os::fd::AsFd;
    let folder = Folder::new("unix");
    let path = folder.file("echo.sock");
    let handle = serve(Limits::default().workers(1), listen(&path, Echo));
    let mut client = connect(&path);
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // While the worker is at another client's turn, both messages come before one read.
    for round in 0..50 {
        let null = std::fs::File::open("/dev/null").unwrap();
        let fds = [null.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        for words in [&b"first "[..], b"second "] {
            let mut with = SendAncillaryBuffer::new(&mut space);
            assert!(with.push(SendAncillaryMessage::ScmRights(&fds)));
            sendmsg(&client, &[std::io::IoSlice::new(words)], &mut with, SendFlags::empty()).unwrap();
        }
        client.write_all(b"third").unwrap();
        let mut heard = [0; 18];
        client.read_exact(&mut heard).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(&heard, b"first second third");
    }
    let before = open();
    drop(client);
    eventually("it has left", || (counts(&handle).listeners[0].open() == 0).then_some(()));
    assert!(open() <= before, "what was sent along is closed");
    ended(handle);
}

#[test]
fn a_user_is_a_source_and_has_the_limit_of_one() {
    let folder = Folder::new("unix");
    let path = folder.file("echo.sock");
    let limits = Limits::default().workers(2).max_per_source(2);
    let handle = serve(limits, listen(&path, Echo).busy_reply("enough\n"));
    let mut held = [connect(&path), connect(&path)];
    held.iter_mut().for_each(|client| asks(client, "x", "x"));
    assert_eq!(rest(&mut connect(&path)), "enough\n");
    assert_eq!(counts(&handle).listeners[0].dropped[DropReason::PerSource as usize], 1);
    let uid = rustix::process::getuid().as_raw();
    let told = handle.observe().refused_sources();
    assert_eq!(told.first().map(|source| source.source.clone()), Some(format!("unix:uid={uid}")));
    let [first, second] = held;
    drop(first);
    eventually("its place is free", || {
        let mut client = connect(&path);
        client.write_all(b"y").ok()?;
        let mut heard = [0];
        client.read_exact(&mut heard).ok().filter(|()| heard == *b"y")
    });
    drop(second);
    ended(handle);
}

#[test]
fn a_refused_client_is_told_or_sees_the_end() {
    let folder = Folder::new("unix");
    let path = folder.file("echo.sock");
    for (words, heard) in [("full\n", "full\n"), ("", "")] {
        let limits = Limits::default().workers(1).queue(1).max_connections(1);
        let handle = serve(limits, listen(&path, Echo).busy_reply(words));
        let mut only = connect(&path);
        asks(&mut only, "x", "x");
        assert_eq!(rest(&mut connect(&path)), heard);
        asks(&mut only, "still", "still");
        assert_eq!(counts(&handle).listeners[0].dropped[DropReason::MaxConnections as usize], 1);
        drop(only);
        ended(handle);
    }
}

#[test]
fn a_drain_answers_what_was_sent_and_accepts_those_that_the_kernel_had_welcomed() {
    let folder = Folder::new("unix");
    let path = folder.file("hello.sock");
    let service = lines("slow", |line, reply| {
        std::thread::sleep(Duration::from_millis(20));
        reply.send(line)
    });
    let handle = serve(Limits::default().workers(1).queue(64), listen(&path, service));
    let mut clients: Vec<_> = (0..20).map(|_| connect(&path)).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"a line\n").unwrap());
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| ended(handle));
        let heard: Vec<_> = clients.iter_mut().map(rest).collect();
        assert!(heard.iter().all(|heard| heard == "a line"), "{heard:?}");
        ending.join().unwrap();
    });
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn the_file_of_a_dead_server_is_replaced_and_that_of_a_live_one_is_in_use() {
    let folder = Folder::new("unix");
    let path = folder.file("x.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "it is left behind");
    let server = started(&[at("echo", &path)]);
    asks(&mut connect(&path), "x", "x");
    let said = refuses(1, &["--listen", &at("echo", &path).1]);
    assert!(
        said.contains(&format!("cannot listen on unix:{}: a server answers there", path.display())),
        "{said}"
    );
    asks(&mut connect(&path), "y", "y");
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
    assert!(!path.exists());
    // One whose backlog is full answers too, only later.
    let full = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let _waits = UnixStream::connect(&path).unwrap();
    assert!(refuses(1, &["--listen", &at("echo", &path).1]).contains("a server answers there"));
    // And so does a server of datagrams.
    let other = folder.file("datagrams.sock");
    let _datagrams = std::os::unix::net::UnixDatagram::bind(&other).unwrap();
    assert!(refuses(1, &["--listen", &at("echo", &other).1]).contains("a server answers there"));
}

#[test]
fn what_is_not_a_socket_stays_and_a_path_that_cannot_be_is_one_clear_line() {
    let folder = Folder::new("unix");
    let path = folder.file("precious.txt");
    std::fs::write(&path, "precious").unwrap();
    let said = refuses(1, &["--listen", &at("echo", &path).1]);
    assert!(said.contains("something else than a socket is there, and stays"), "{said}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    // A link is not followed, wherever it leads.
    let link = folder.file("link.sock");
    std::os::unix::fs::symlink(folder.file("nowhere"), &link).unwrap();
    assert!(refuses(1, &["--listen", &at("echo", &link).1]).contains("something else than a socket"));
    assert!(link.is_symlink());
    let nowhere = folder.file("nowhere/x.sock");
    assert!(refuses(1, &["--listen", &at("echo", &nowhere).1]).contains("its directory is not there"));
    let long = folder.file(&"x".repeat(120));
    assert!(refuses(2, &["--listen", &at("echo", &long).1]).contains("at most 107 bytes"));
    assert!(refuses(2, &["--listen", "echo=unix:@"]).contains("1 to 107 bytes"));
    assert!(refuses(2, &["--listen", "echo=unix:x.sock"]).contains("unix:"));
    assert!(refuses(2, &["--listen", "echo=unix:/x/", "--socket-mode", "rw"]).contains("0660, in octal"));
    let error = Server::builder().listener(listen(&path, Echo)).bind().unwrap_err();
    assert!(matches!(error, BuildError::Bind { address: Address::Unix(_), .. }), "{error:?}");
}

#[test]
fn two_servers_that_start_at_once_never_both_have_the_path() {
    let folder = Folder::new("unix");
    let path = folder.file("x.sock");
    for round in 0..20 {
        drop(UnixListener::bind(&path).unwrap());
        let bind = || Server::builder().listener(listen(&path, Echo)).bind().ok();
        let bound: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
            all.into_iter().filter_map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(bound.len(), 1, "round {round}");
        assert!(UnixStream::connect(&path).is_ok());
        drop(bound);
        assert!(!path.exists(), "it was never served, and its file is removed");
    }
}

#[test]
fn the_mode_is_0660_whatever_the_process_masks_out_or_what_is_asked_for() {
    let folder = Folder::new("unix");
    let mode = |path: &Path| {
        let metadata = path.symlink_metadata().unwrap();
        assert!(metadata.file_type().is_socket());
        metadata.permissions().mode() & 0o7777
    };
    for (args, expected) in [(None, 0o660), (Some("0600"), 0o600), (Some("666"), 0o666)] {
        let path = folder.file("x.sock");
        let mut all = vec![at("echo", &path)];
        all.extend(args.map(|mode| ("--socket-mode", mode.to_owned())));
        let server = started(&all);
        assert_eq!(mode(&path), expected);
        asks(&mut connect(&path), "x", "x");
        drop(server);
    }
    let before = umask(Mode::from_raw_mode(0o777));
    let path = folder.file("masked.sock");
    let bound = Server::builder().listener(listen(&path, Echo).socket_mode(0o640)).bind().unwrap();
    umask(before);
    assert_eq!(mode(&path), 0o640);
    drop(bound);
    // A listener may have a mode of its own.
    let config = folder.file("tidegate.toml");
    let (one, two) = (folder.file("one.sock"), folder.file("two.sock"));
    let text = format!(
        "socket-mode = \"0600\"\nlisten = \"{}\"\n[[listener]]\nlisten = \"{}\"\nsocket-mode = \"0666\"\n",
        at("echo", &one).1,
        at("echo", &two).1
    );
    std::fs::write(&config, text).unwrap();
    let _server = started(&[("--config", config.display().to_string())]);
    assert_eq!((mode(&one), mode(&two)), (0o600, 0o666));
}

#[test]
fn a_file_that_has_been_replaced_meanwhile_is_not_removed() {
    let folder = Folder::new("unix");
    let path = folder.file("x.sock");
    let handle = serve(Limits::default(), listen(&path, Echo));
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    let inode = path.symlink_metadata().unwrap().ino();
    ended(handle);
    assert_eq!(path.symlink_metadata().unwrap().ino(), inode, "it is another server's");
    assert!(UnixStream::connect(&path).is_ok());
}

#[test]
fn an_abstract_name_is_no_file_and_one_server_has_it() {
    let name = format!("tidegate-unix-{}", std::process::id());
    let listener = format!("hello=unix:@{name}");
    let server = started(&[("--listen", listener.clone())]);
    assert!(server.stdout().contains(&format!("hello on unix:@{name}\n")), "{}", server.stdout());
    let talk = || run(["client", "--data", "you\\n", &format!("unix:@{name}")]);
    assert_eq!(String::from_utf8(talk().stdout).unwrap(), "hello you\n");
    assert!(refuses(1, &["--listen", &listener]).contains("a server answers there"));
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn the_client_and_the_stress_client_speak_to_it_and_curl_speaks_http() {
    let folder = Folder::new("unix");
    let (bytes, web, sockets) = (folder.file("b.sock"), folder.file("w.sock"), folder.file("s.sock"));
    let url = |scheme: &str, path: &Path| format!("{scheme}:{}", path.display());
    let server = started(&[
        at("echo", &bytes),
        ("--listen", format!("hello={}", url("http+unix", &web))),
        ("--listen", format!("echo={}", url("ws+unix", &sockets))),
    ]);
    let client = run(["client", "--data", "x", &url("unix", &bytes)]);
    assert_eq!((client.status.code(), client.stdout), (Some(0), b"x".to_vec()));
    let mut curl = command("curl");
    curl.args(["-sS", "--unix-socket"]).arg(&web).args(["http://localhost/bob", "http://localhost/alice"]);
    let curl = finish(&mut curl);
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "hello bobhello alice");
    for (url, places) in
        [(url("unix", &bytes), "20"), (url("http+unix", &web), "5"), (url("ws+unix", &sockets), "5")]
    {
        let output = run(["stress", "-n", "500", "-c", places, &url]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{url}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
    assert!([bytes, web, sockets].iter().all(|path| !path.exists()));
}

#[test]
fn the_gate_listens_there_and_its_backend_hears_every_byte() {
    let folder = Folder::new("unix");
    let path = folder.file("gate.sock");
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = backend.local_addr().unwrap();
    let server = started(&[at(&format!("proxy:{to}"), &path), ("--send-proxy", "v1".to_owned())]);
    let data: Vec<u8> = (0..8_000_000_u32).map(|n| (n >> 5) as u8).collect();
    let client = connect(&path);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut peer, _) = backend.accept().unwrap();
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            let all = all.strip_prefix(b"PROXY UNKNOWN\r\n").expect("a Unix client has no address");
            peer.write_all(all).unwrap();
        });
        scope.spawn(|| {
            (&client).write_all(&data).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut heard = Vec::new();
        (&client).read_to_end(&mut heard).unwrap();
        assert!(heard == data, "{} of {} bytes", heard.len(), data.len());
    });
    drop(client);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_balancer_that_comes_over_a_unix_socket_says_who_its_client_is() {
    let folder = Folder::new("unix");
    let path = folder.file("who.sock");
    let service = || {
        lines("who", |_, reply| {
            let known = match reply.peer().address {
                ClientAddress::Ip(address) => address.to_string(),
                _ => "a user".to_owned(),
            };
            reply.send(known.as_bytes())
        })
    };
    let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let believing = listen(&path, service()).accept_proxy(networks(&["10.0.0.0/8", "unix"]));
    let handle = serve(Limits::default().workers(2), believing);
    let mut client = connect(&path);
    asks(&mut client, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n?\n", "192.0.2.1:1000");
    let mut liar = connect(&path);
    liar.write_all(b"?\n").unwrap();
    assert_eq!(rest(&mut liar), "");
    assert_eq!(counts(&handle).listeners[0].dropped[DropReason::ProxyHeader as usize], 1);
    drop(client);
    ended(handle);
    // Networks say nothing of clients that come over no network.
    let handle =
        serve(Limits::default().workers(2), listen(&path, service()).accept_proxy(networks(&["10.0.0.0/8"])));
    asks(&mut connect(&path), "?\n", "a user");
    ended(handle);
}

#[test]
fn a_new_program_takes_the_socket_over_and_removes_its_file_at_the_end() {
    let folder = Folder::new("unix");
    let path = folder.file("x.sock");
    let mut server = started(&[at("echo", &path)]);
    let inode = path.symlink_metadata().unwrap().ino();
    let mut before = connect(&path);
    asks(&mut before, "x", "x");
    server.signal(Signal::USR2);
    let pid = eventually("the new program serves", || {
        let text = server.stderr();
        let line = text.lines().find(|line| line.contains("the new program serves"))?;
        line.rsplit_once("pid=")?.1.split_whitespace().next()?.parse::<i32>().ok()
    });
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    asks(&mut before, "still", "still");
    drop(before);
    eventually("it ends when its last client has left", || (!server.is_running()).then_some(()));
    asks(&mut connect(&path), "y", "y");
    assert_eq!(path.symlink_metadata().unwrap().ino(), inode, "it is the same socket");
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    eventually("the new one removes the file", || (!path.exists()).then_some(()));
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn systemd_hands_the_socket_over_and_keeps_its_file() {
    let folder = Folder::new("unix");
    let path = folder.file("x.sock");
    let mut activate = command("systemd-socket-activate");
    activate.arg(format!("--listen={}", path.display())).arg("--fdname=x").arg(support::path());
    activate.args(["--admin", "off", "--listen", &at("echo", &path).1]);
    let child =
        activate.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let running = Running::of(child);
    let mut client = eventually("systemd listens", || UnixStream::connect(&path).ok());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    asks(&mut client, "first", "first");
    drop(client);
    running.signal(Signal::TERM);
    assert_eq!(running.ended().0, Some(0));
    assert!(path.exists(), "it is the supervisor's");
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a program that listens at this port, and waits until it does.
#[track_caller]
fn front(program: &mut std::process::Command, port: u16) -> Running {
    let piped = std::process::Stdio::piped;
    let running =
        Running::of(program.stdout(piped()).stderr(piped()).spawn().expect("tests/setup.sh installs it"));
    eventually("it listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    running
}

fn tcp(port: u16) -> TcpStream {
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

#[test]
fn haproxy_connects_to_it_and_says_who_its_client_is() {
    let folder = Folder::new("unix");
    let path = folder.file("who.sock");
    let service = || {
        lines("who", |line, reply| {
            let text = format!("{} {}\n", reply.peer().address, String::from_utf8_lossy(line));
            reply.send(text.as_bytes())
        })
    };
    for version in ["send-proxy", "send-proxy-v2"] {
        let believing = listen(&path, service()).accept_proxy(["unix".parse().unwrap()]);
        let handle = serve(Limits::default().workers(2), believing);
        let (port, config) = (free_port(), folder.file("haproxy.cfg"));
        let text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
             listen front\n bind 127.0.0.1:{port}\n server one unix@{} {version}\n",
            path.display()
        );
        std::fs::write(&config, text).unwrap();
        let haproxy = front(command("haproxy").args(["-db", "-f"]).arg(&config), port);
        for words in ["one", "two"] {
            let mut client = tcp(port);
            let from = client.local_addr().unwrap();
            client.write_all(format!("{words}\n").as_bytes()).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut heard = String::new();
            client.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, format!("{from} {words}\n"), "{version}");
        }
        drop(haproxy);
        ended(handle);
    }
}

#[test]
fn nginx_connects_to_the_gate_and_a_backend_hears_of_the_first_client_alone() {
    let folder = Folder::new("unix");
    let path = folder.file("gate.sock");
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = backend.local_addr().unwrap();
    let server = started(&[
        ("--listen", format!("proxy:http://{to}=http+unix:{}", path.display())),
        ("--trust-forwarded", "unix".to_owned()),
        ("--socket-mode", "0666".to_owned()),
    ]);
    std::thread::spawn(move || {
        for peer in backend.incoming() {
            let mut peer = peer.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if peer.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let body = String::from_utf8(head).unwrap();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            peer.write_all(answer.as_bytes()).unwrap();
        }
    });
    let (port, config) = (free_port(), folder.file("nginx.conf"));
    let text = format!(
        "daemon off; pid {0}/nginx.pid; error_log stderr; worker_processes 1;\nevents {{}}\n\
         http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;\n\
         fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://unix:{1}:/;\n\
         proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header Host example.test; }} }} }}\n",
        folder.0.display(),
        path.display()
    );
    std::fs::write(&config, text).unwrap();
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o755)).unwrap();
    let _nginx = front(command("nginx").arg("-p").arg(&folder.0).arg("-c").arg(&config), port);
    for _ in 0..3 {
        let mut client = tcp(port);
        client.write_all(b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert!(heard.starts_with("HTTP/1.1 200") && heard.contains("GET /page HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains("X-Forwarded-For: 127.0.0.1\r\n"), "{heard}");
        assert!(heard.contains("Host: example.test\r\n"), "{heard}");
    }
    // Nobody says who a client is that comes without a balancer.
    let mut plain = connect(&path);
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    assert!(!rest(&mut plain).contains("X-Forwarded-For"));
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn the_access_log_names_the_user() {
    let folder = Folder::new("unix");
    let (path, log) = (folder.file("web.sock"), folder.file("access.log"));
    let server = started(&[
        ("--listen", format!("hello=http+unix:{}", path.display())),
        ("--access-log", log.display().to_string()),
    ]);
    let mut client = connect(&path);
    client.write_all(b"GET /you HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    assert!(rest(&mut client).ends_with("hello you"));
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
    let text = std::fs::read_to_string(&log).unwrap();
    let uid = rustix::process::getuid().as_raw();
    assert!(text.starts_with(&format!("unix:uid={uid} - - [")) && text.contains("\"GET /you"), "{text}");
}

#[test]
fn whatever_clients_do_every_reading_is_conserved() {
    let folder = Folder::new("unix");
    let path = folder.file("x.sock");
    let limits = Limits::default()
        .workers(2)
        .queue(4)
        .max_connections(24)
        .queue_timeout(Duration::from_millis(20))
        .idle_timeout(Duration::from_millis(200))
        .refusal_rate(RefusalRate::PerSecond(100_000.0));
    let handle = serve(limits, listen(&path, Work(Cost::Sleep(Duration::from_millis(2)))));
    let stop = AtomicBool::new(false);
    let answered: u64 = std::thread::scope(|scope| {
        let live = |mut way: u32| {
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                way += 7;
                let mut client = connect(&path);
                let said = way.is_multiple_of(6) || client.write_all(b"hello").is_ok();
                match way % 6 {
                    0 | 1 => {}
                    2 => drop(client.shutdown(std::net::Shutdown::Write)),
                    _ => answered += u64::from(said && client.read_exact(&mut [0; 5]).is_ok()),
                }
            }
            answered
        };
        let clients: Vec<_> = (0..16).map(|way| scope.spawn(move || live(way))).collect();
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_secs(1) {
            counts(&handle);
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let seen = counts(&handle).listeners.remove(0);
    assert!(answered > 50 && seen.accepted > answered, "{answered} answered, {seen:?}");
    ended(handle);
}
