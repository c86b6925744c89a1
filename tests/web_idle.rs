//! Idle is free: nine thousand connections that keep quiet, over HTTP and as WebSockets, own no thread and no buffer.

mod support;

use std::process::Stdio;
use std::time::Duration;
use support::{Client, Ending, Program, Running, command, eventually, path, raise_open_files, throughout};

const IDLE: u64 = 9_000;
/// What all of them may take: a kibibyte each, and what the allocator keeps of their coming.
const MOST_KIB: u64 = 16 << 10;

/// A number of the metrics.
fn metric(server: &Running, name: &str) -> u64 {
    let mut client = Client::connect(server.admin());
    client.say("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8_lossy(&client.rest().0).into_owned();
    let values =
        text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

fn server() -> Running {
    Program::new()
        .without_echo()
        .arg("--listen", "echo=ws://127.0.0.1:0")
        .arg("--listen", "hello=http://127.0.0.1:0")
        .arg("--idle-timeout", "10m")
        .admin()
        .start()
}

/// Resident memory in KiB and threads of a server that has come to rest: once a page was answered, the HTTP library
/// of the admin endpoint has started the last of its threads.
fn at_rest(server: &Running) -> (u64, u64) {
    metric(server, "tidegate_connections{");
    (server.status("VmRSS"), server.status("Threads"))
}

/// Waits until all clients are idle: what the server has for them, in KiB, beside what it had before.
fn taken(server: &Running, before: u64, threads: u64) -> u64 {
    let open = || metric(server, "tidegate_connections{");
    let idle = || open().saturating_sub(metric(server, "tidegate_connections_active"));
    eventually("all are idle", || (idle() >= IDLE).then_some(()));
    throughout(Duration::from_millis(200), "no thread is theirs", || server.status("Threads") <= threads);
    let pending =
        metric(server, "tidegate_pending_input_bytes") + metric(server, "tidegate_pending_output_bytes");
    assert_eq!(pending, 0, "no buffer is kept for any");
    let after = server.status("VmRSS");
    println!("{IDLE} idle: {before} KiB before, {after} KiB with them, {threads} threads");
    after.saturating_sub(before)
}

#[test]
fn nine_thousand_idle_keep_alive_connections_own_no_thread_and_no_buffer() {
    raise_open_files();
    let server = server();
    let (before, threads) = at_rest(&server);
    let address = server.listening("hello on http");
    let mut clients: Vec<Client> = (0..IDLE)
        .map(|_| {
            let mut client = Client::connect(address);
            assert_eq!(client.get("/x").text(), "hello x");
            client
        })
        .collect();
    let kib = taken(&server, before, threads);
    assert!(kib < MOST_KIB, "{kib} KiB for {IDLE} connections");
    assert_eq!(clients[0].get("/y").text(), "hello y", "and each is there when it is wanted");
}

#[test]
fn nine_thousand_idle_websockets_own_no_thread_and_no_buffer() {
    let server = server();
    let (before, threads) = at_rest(&server);
    let url = format!("ws://{}/x", server.listening("echo on ws"));
    let mut stress = command(path());
    stress.args(["stress", &url, "--mode", "hold", "-d", "2m", "--connect-timeout", "30s"]);
    stress.args(["-c", &IDLE.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let _stress = Ending(stress.spawn().unwrap());
    let kib = taken(&server, before, threads);
    assert!(kib < MOST_KIB, "{kib} KiB for {IDLE} sockets");
}
