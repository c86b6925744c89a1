//! Under a supervisor: systemd's protocol over a real socket, sockets that are handed over, and a watchdog that tells a
//! stuck gate from a stuck service.
#![cfg(target_os = "linux")]

#[path = "support/configuration.rs"]
mod configuration;
mod support;

use configuration::{Configuration, reload};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::Permissions;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Client, Folder, PATIENCE, Program, Running, command, eventually, finish, path, throughout};

/// A supervisor that hears what the program says.
struct Supervisor {
    socket: UnixDatagram,
    path: PathBuf,
    heard: std::cell::RefCell<Vec<String>>,
}

impl Supervisor {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-{}-{name}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, path, heard: Vec::new().into() }
    }

    /// Everything so far, one message after the other.
    fn heard(&self) -> Vec<String> {
        let mut message = [0; 4096];
        loop {
            match self.socket.recv(&mut message) {
                Ok(n) => self.heard.borrow_mut().push(String::from_utf8(message[..n].to_vec()).unwrap()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return self.heard.borrow().clone();
                }
            }
        }
    }

    #[track_caller]
    fn hears(&self, words: &str) {
        eventually(&format!("the supervisor hears {words}"), || {
            self.heard()
                .iter()
                .any(|message| message.lines().any(|line| line.starts_with(words)))
                .then_some(())
        });
    }

    fn count(&self, words: &str) -> usize {
        self.heard().iter().filter(|message| message.lines().any(|line| line.starts_with(words))).count()
    }

    fn start(&self, program: Program, more: &str) -> Running {
        program.prelude(&format!("export NOTIFY_SOCKET={} {more}", self.path.display())).start()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn a_supervisor_hears_when_the_server_serves_is_told_to_reload_and_ends() {
    let supervisor = Supervisor::new("life");
    let server = supervisor.start(Program::new(), "");
    supervisor.hears("READY=1");
    supervisor.hears("STATUS=serving: 0 of ");
    server.signal(Signal::HUP);
    supervisor.hears("RELOADING=1");
    eventually("the reload has ended", || (supervisor.count("READY=1") == 2).then_some(()));
    let heard = supervisor.heard();
    let reloading = heard.iter().find(|message| message.starts_with("RELOADING=1")).unwrap();
    let micros: u64 = reloading.split_once("\nMONOTONIC_USEC=").unwrap().1.trim().parse().unwrap();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    assert!((now.tv_sec as u64 * 1_000_000).abs_diff(micros) < 60_000_000, "{micros} is not now");
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
    supervisor.hears("STOPPING=1");
}

/// In Linux's abstract namespace, as systemd's user managers have it.
#[test]
fn a_supervisor_may_be_at_an_abstract_socket() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let name = format!("tidegate-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let _server = Program::new().prelude(&format!("export NOTIFY_SOCKET=@{name}")).start();
    let mut message = [0; 4096];
    let n = socket.recv(&mut message).expect("it says that it serves");
    assert_eq!(&message[..n], b"READY=1");
}

#[test]
fn a_service_that_is_stuck_is_no_reason_to_restart_the_gate() {
    let supervisor = Supervisor::new("stuck");
    let program = Program::new().service("work").arg("--work", "sleep:60s").arg("--workers", 2);
    let server = supervisor.start(program.arg("--drain-timeout", "1ms"), "WATCHDOG_USEC=1000000");
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        client.say("work\n");
    }
    let before = supervisor.count("WATCHDOG=1");
    eventually("the watchdog hears from it while both workers are stuck", || {
        (supervisor.count("WATCHDOG=1") >= before + 10).then_some(())
    });
    support::figure("10 times WATCHDOG=1 while both workers were stuck");
}

#[test]
fn a_watchdog_of_another_process_is_not_answered() {
    let supervisor = Supervisor::new("other");
    let _server = supervisor.start(Program::new(), "WATCHDOG_USEC=100000 WATCHDOG_PID=1");
    supervisor.hears("STATUS=");
    throughout(Duration::from_millis(500), "nothing is said to another's watchdog", || {
        supervisor.count("WATCHDOG=1") == 0
    });
}

/// A whole process that stands still (SIGSTOP) says nothing, and goes on when it may.
#[test]
fn a_gate_that_stands_still_does_not_answer_the_watchdog() {
    let supervisor = Supervisor::new("still");
    let server = supervisor.start(Program::new(), "WATCHDOG_USEC=200000");
    supervisor.hears("WATCHDOG=1");
    server.signal(Signal::STOP);
    // What was said before it stopped.
    std::thread::sleep(Duration::from_millis(50));
    let before = supervisor.count("WATCHDOG=1");
    throughout(Duration::from_millis(600), "it stands still", || supervisor.count("WATCHDOG=1") == before);
    server.signal(Signal::CONT);
    eventually("it goes on", || (supervisor.count("WATCHDOG=1") > before).then_some(()));
    support::figure(
        "no WATCHDOG=1 in the 600 ms that it stood still (every 100 ms else), and again after it",
    );
    server.client().say("x").hear("x");
}

/// What systemd does between fork and exec, done by a shell: the sockets are descriptors from 3 on, and the number of the
/// process is that of the program.
fn activated(sockets: &[&dyn std::os::fd::AsFd], names: &str, args: &[&str]) -> Command {
    use std::os::fd::AsRawFd;
    // Without the flag, so that the shell has them; moved away from the numbers that they will have.
    let kept: Vec<_> = sockets
        .iter()
        .map(|socket| rustix::io::fcntl_dupfd_cloexec(socket, 100).unwrap())
        .inspect(|fd| rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap())
        .collect();
    let moves: String =
        kept.iter().enumerate().map(|(at, fd)| format!("exec {}<&{}; ", at + 3, fd.as_raw_fd())).collect();
    // They live as long as this process: few, and the tests are short.
    kept.into_iter().for_each(std::mem::forget);
    let line = format!(
        "{moves} LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names} exec \"$0\" \"$@\"",
        sockets.len()
    );
    let mut shell = command("/bin/bash");
    shell.args(["-c", &line, path()]).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

fn serving(mut command: Command) -> Running {
    let running = Running::of(command.spawn().unwrap());
    eventually("it serves", || running.stdout().contains("limits:").then_some(()));
    running
}

#[test]
fn sockets_are_taken_by_name_and_by_address() {
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let by_address = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let echo = format!("echo=tcp://{}", by_address.local_addr().unwrap());
    let args =
        ["--listen", "hello=tcp://127.0.0.1:0", "--listen", &echo, "--listen", "time=udp://127.0.0.1:0"];
    let server = serving(activated(
        &[&web, &admin, &datagrams, &by_address],
        "hello:admin:time:x",
        &[&args[..], &["--admin", "127.0.0.1:0"]].concat(),
    ));
    Client::connect(web.local_addr().unwrap()).say("world\n").hear("hello world\n");
    Client::connect(by_address.local_addr().unwrap()).say("x").hear("x");
    assert_eq!(server.admin(), admin.local_addr().unwrap());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"?", datagrams.local_addr().unwrap()).unwrap();
    assert!(client.recv(&mut [0; 64]).unwrap() > 20, "the time of day");
}

/// A supervisor keeps its sockets: those who come while no program runs wait for the next one.
#[test]
fn the_sockets_of_a_supervisor_go_on_taking_clients_after_the_end() {
    let folder = std::env::temp_dir().join(format!("tidegate-kept-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("kept.sock");
    let (tcp, unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(&path).unwrap());
    let (at, echo) = (tcp.local_addr().unwrap(), format!("echo=unix:{}", path.display()));
    let (hello, time) = ("hello=tcp://127.0.0.1:0", "time=udp://127.0.0.1:0");
    let listen = ["--listen", hello, "--listen", &echo, "--listen", time, "--admin", "off"];
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let asks = UdpSocket::bind("127.0.0.1:0").unwrap();
    asks.connect(udp.local_addr().unwrap()).unwrap();
    asks.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..2 {
        let server = serving(activated(&[&tcp, &unix, &udp], "hello:x:time", &listen));
        Client::connect(at).say("world\n").hear("hello world\n");
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        drop(client);
        asks.send(b"?").unwrap();
        assert!(asks.recv(&mut [0; 64]).unwrap() > 20, "the time of day");
        server.signal(Signal::TERM);
        assert_eq!(server.ended().0, Some(0));
        asks.send(b"early").unwrap();
        let mut early = Client::connect(at);
        let mut local = UnixStream::connect(&path).expect("the supervisor has it still");
        early.say("early\n");
        local.write_all(b"early").unwrap();
        let next = serving(activated(&[&tcp, &unix, &udp], "hello:x:time", &listen));
        early.hear("hello early\n");
        local.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut heard = [0; 5];
        local.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"early");
        assert!(asks.recv(&mut [0; 64]).unwrap() > 20, "the time of day");
        drop((early, local));
        next.signal(Signal::TERM);
        assert_eq!(next.ended().0, Some(0));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Clients could still connect to it, and nobody would accept them.
#[test]
fn a_listener_whose_socket_is_a_supervisors_too_does_not_close_at_a_reload() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = |listeners: &str| format!("listen = [{listeners}]\n");
    let both = "\"echo=tcp://127.0.0.1:0\", \"hello=tcp://127.0.0.1:0\", \"time=udp://127.0.0.1:0\"";
    let file = Configuration::new("supervisors", &listen(both));
    let args = ["--config", &file.0.display().to_string(), "--admin", "off"];
    let server = serving(activated(&[&socket, &datagrams], "hello:time", &args));
    for (left, gone) in [("time=udp", "hello=tcp"), ("hello=tcp", "time=udp")] {
        file.write(&listen(&format!("\"echo=tcp://127.0.0.1:0\", \"{left}://127.0.0.1:0\"")));
        let said = reload(&server);
        let why = format!(
            "nothing has changed: the socket of listener `{gone}://127.0.0.1:0` is a supervisor's too"
        );
        assert!(said.contains(&why), "{said}");
    }
    Client::connect(socket.local_addr().unwrap()).say("you\n").hear("hello you\n");
    file.write(&listen("\"hello=tcp://127.0.0.1:0\", \"time=udp://127.0.0.1:0\""));
    assert!(reload(&server).ends_with("echo=tcp://127.0.0.1:0 closes"));
}

/// A program that is called by the name of a script: the one that takes its place starts once the file `go` is there.
fn slow_to_start(folder: &Folder) -> String {
    let (script, go) = (folder.path("tidegate"), folder.path("go"));
    let text =
        format!("#!/bin/bash\nuntil [ -e {go} ]; do sleep 0.02; done\nexec -a {script} {} \"$@\"\n", path());
    folder.write("tidegate", &text);
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    format!("exec bash -c 'exec -a {script} \"$0\" \"$@\"' \"$0\" \"$@\"")
}

/// A process that is not our child, ended when the test is over.
struct Successor(Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// A new program may have names to look up before it serves.
#[test]
fn a_program_that_is_replaced_answers_the_watchdog_meanwhile_and_is_silent_afterwards() {
    let (supervisor, folder) = (Supervisor::new("replaced"), Folder::new("slow-to-start"));
    let program = Program::new().arg("--drain-timeout", "20s");
    let server = supervisor.start(program, &format!("WATCHDOG_USEC=200000; {}", slow_to_start(&folder)));
    let mut standing = server.client();
    standing.say("x").hear("x");
    server.signal(Signal::USR2);
    let before = supervisor.count("WATCHDOG=1");
    eventually("the watchdog hears from it while the new program starts", || {
        (supervisor.count("WATCHDOG=1") >= before + 10).then_some(())
    });
    // One more order is the same order.
    server.signal(Signal::USR2);
    assert_eq!(supervisor.count("READY=1"), 1);
    folder.write("go", "");
    let pid = eventually("the new program serves", || {
        let heard = supervisor.heard();
        let pids: Vec<_> = heard.iter().filter_map(|message| message.strip_prefix("MAINPID=")).collect();
        assert!(pids.len() < 2, "{heard:?}");
        pids.first()?.parse::<i32>().ok()
    });
    let _new = Successor(Pid::from_raw(pid).unwrap());
    assert_eq!(supervisor.count("READY=1"), 2, "it says so itself");

    server.signal(Signal::USR2);
    server.signal(Signal::HUP);
    for order in ["another program has taken this one's place already", "the configuration is not read again"]
    {
        eventually(order, || server.stderr().contains(order).then_some(()));
    }
    standing.say("still").hear("still");
    server.client().say("y").hear("y");
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
    for words in ["STOPPING=1", "RELOADING=1"] {
        assert_eq!(supervisor.count(words), 0, "the service goes on: {:?}", supervisor.heard());
    }
}

#[test]
fn an_order_to_end_comes_before_one_to_be_replaced() {
    let folder = Folder::new("ends-first");
    let server = Program::new().prelude(&slow_to_start(&folder)).start();
    let address = server.address();
    server.signal(Signal::USR2);
    eventually("the new program is there", || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let children = threads.map(|thread| {
            std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default()
        });
        children.into_iter().any(|children| !children.trim().is_empty()).then_some(())
    });
    server.signal(Signal::TERM);
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
    folder.write("go", "");
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_socket_that_no_listener_wants_is_an_error_in_one_line() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let output =
        finish(&mut activated(&[&socket], "web", &["--listen", "echo=tcp://127.0.0.1:0", "--admin", "off"]));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(&format!("the socket `web` ({address}) was handed over")), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn sockets_that_were_handed_to_another_process_are_left_alone() {
    let server = Program::new().prelude("export LISTEN_PID=1 LISTEN_FDS=3").start();
    server.client().say("x").hear("x");
}

/// systemd's own program starts it when the first client comes, and that client is served.
#[test]
fn systemd_socket_activate_hands_over_the_first_client() {
    let address = free_port();
    let args = ["--listen", &format!("echo=tcp://{address}"), "--admin", "off"];
    let mut activate = command("systemd-socket-activate");
    activate.arg(format!("--listen={address}")).arg("--fdname=echo").arg(path()).args(args);
    let child = activate.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let running = Running::of(child.expect("tests/setup.sh installs systemd"));
    let mut client = eventually("systemd listens", || TcpStream::connect(address).ok());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"first").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"first");
    drop(client);
    running.signal(Signal::TERM);
    assert_eq!(running.ended().0, Some(0));
}

/// A port that is free now: it was just used and is given back.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The unit files are right in systemd's own eyes, and a service that is broken into can do little.
#[test]
fn the_units_are_hardened_as_systemd_itself_sees_it() {
    let units = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd");
    let service = format!("{units}/tidegate.service");
    let folder = std::env::temp_dir().join(format!("tidegate-units-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    // The program is not installed where the tests run: the units are looked at with the one that was built.
    for unit in ["tidegate.service", "tidegate.socket"] {
        let text = std::fs::read_to_string(format!("{units}/{unit}")).unwrap();
        std::fs::write(folder.join(unit), text.replace("/usr/bin/tidegate", path())).unwrap();
    }
    let verify = finish(
        Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .args(["tidegate.service", "tidegate.socket"].map(|u| folder.join(u))),
    );
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(verify.status.success(), "{said}");
    assert!(!said.contains("tidegate."), "systemd-analyze verify: {said}");
    let security = finish(
        Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20"]).arg(&service),
    );
    let said = String::from_utf8_lossy(&security.stdout);
    let last = said.lines().last().unwrap_or_default();
    assert!(
        security.status.success(),
        "more than 2.0 of exposure: {last}\n{}",
        String::from_utf8_lossy(&security.stderr)
    );
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn the_limit_of_open_files_of_the_unit_is_enough_for_the_default_limits() {
    let unit = include_str!("../packaging/systemd/tidegate.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("LimitNOFILE=")).expect("it has a limit");
    let files: usize = line.parse().unwrap();
    let limits = tidegate::Limits::default();
    assert!(files >= limits.max_connections + limits.lingering + limits.fd_reserve + 16, "{files}");
}
