//! A process that was paused across a deadline (a container that is frozen, a virtual machine that is moved): what clients
//! had sent in time is read before anybody is judged to be late.

mod support;

use rustix::process::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use support::{Client, End, Program, Running, eventually};

/// Longer than every deadline in these tests.
const PAUSE: Duration = Duration::from_secs(5);

/// Stops the process, lets the clients act, and lets it go on when their deadlines have passed.
fn pause(server: &Running, act: impl FnOnce()) {
    server.signal(Signal::STOP);
    eventually("it has stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
        stat.rsplit_once(')')?.1.trim_start().starts_with('T').then_some(())
    });
    act();
    let began = Instant::now();
    eventually("the deadlines have passed", || (began.elapsed() > PAUSE).then_some(()));
    server.signal(Signal::CONT);
}

fn program() -> Program {
    Program::new()
        .arg("--idle-timeout", "1500ms")
        .arg("--read-timeout", "1500ms")
        .arg("--write-timeout", "1500ms")
}

#[test]
fn idle_clients_that_asked_in_time_are_answered() {
    let server = program().start();
    let mut clients: Vec<Client> = (0..10).map(|_| server.client()).collect();
    for client in &mut clients {
        client.say("x").hear("x");
    }
    let mut silent = server.client();
    silent.say("x").hear("x");
    pause(&server, || {
        for client in &mut clients {
            client.say("once more");
        }
    });
    for client in &mut clients {
        client.hear("once more");
    }
    // The silent one is late, and one that was answered is late again in time.
    assert_eq!(silent.end(), End::Fin);
    assert_eq!(clients[0].end(), End::Fin);
    support::figure(
        "stopped for 5 s (idle-timeout 1.5 s): 10 of 10 that had asked answered, the silent one ended",
    );
}

#[test]
fn half_requests_whose_rest_came_in_time_are_answered() {
    let server = program().service("hello").start();
    let mut clients: Vec<Client> = (0..10).map(|_| server.client()).collect();
    for client in &mut clients {
        client.say("first\nha").hear("hello first\n");
    }
    let (mut half, mut ends) = (server.client(), server.client());
    half.say("first\nha").hear("hello first\n");
    ends.say("first\nlast").hear("hello first\n");
    pause(&server, || {
        for client in &mut clients {
            client.say("lf\n");
        }
        // Still no whole request: it is late when this was read.
        half.say("l");
        ends.finish();
    });
    for client in &mut clients {
        client.hear("hello half\n");
    }
    assert_eq!(half.end(), End::Fin);
    support::figure("stopped for 5 s (read-timeout 1.5 s): 10 of 10 requests whose rest had come answered");
    assert_eq!(ends.rest(), (b"hello last".to_vec(), End::Fin), "the end of input ends a line");
}

#[test]
fn a_reader_that_took_its_replies_in_time_gets_the_rest() {
    let server = program().arg("--output-per-connection", "8MiB").start();
    let client = Client::narrow(server.address());
    let data = vec![b'd'; 4 << 20];
    // Until neither the kernel nor the server takes more.
    client.stream().set_nonblocking(true).unwrap();
    let (mut sent, mut last) = (0, Instant::now());
    while sent < data.len() && last.elapsed() < Duration::from_millis(300) {
        match client.stream().write(&data[sent..]) {
            Ok(n) => (sent, last) = (sent + n, Instant::now()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    client.stream().set_nonblocking(false).unwrap();
    let mut taken = vec![0; 64 * 1024];
    let mut first = 0;
    pause(&server, || {
        // All that the kernel has for it, piece by piece as there is room: that is progress.
        client.stream().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        while let Ok(n) = client.stream().read(&mut taken) {
            first += n;
        }
        client.stream().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    });
    assert!(first > 0, "something had come");
    let mut all = first;
    while all < sent {
        let n = client.stream().read(&mut taken).expect("it is not cut");
        assert!(n > 0, "{all} of {sent} bytes");
        all += n;
    }
}

#[test]
fn http_clients_that_asked_in_time_are_answered() {
    let server = program().without_echo().arg("--listen", "echo=http://127.0.0.1:0").start();
    let text = server.stdout();
    let address: SocketAddr =
        text.lines().find_map(|line| line.split_once("http://")?.1.trim().parse().ok()).unwrap();
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    let answered = |client: &mut Client| {
        let mut heard = Vec::new();
        let mut byte = [0];
        while !heard.ends_with(b"body") {
            assert_eq!(client.stream().read(&mut byte).expect("it answers"), 1, "{heard:?}");
            heard.push(byte[0]);
        }
    };
    let (mut idle, mut half) = (Client::connect(address), Client::connect(address));
    for client in [&mut idle, &mut half] {
        client.say(request);
        answered(client);
    }
    half.say(&request[..20]);
    pause(&server, || {
        idle.say(request);
        half.say(&request[20..]);
    });
    answered(&mut idle);
    answered(&mut half);
}

#[test]
fn a_pair_of_the_gate_that_spoke_in_time_goes_on() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = program()
        .without_echo()
        .arg("--listen", format!("proxy:{}=tcp://127.0.0.1:0", backend.local_addr().unwrap()))
        .start();
    let mut client = server.client();
    client.say("to the backend");
    let (mut far, _) = backend.accept().unwrap();
    far.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut heard = [0; 14];
    far.read_exact(&mut heard).unwrap();
    pause(&server, || {
        client.say("to the backend");
        far.write_all(b"to the client").unwrap();
    });
    client.hear("to the client");
    far.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"to the backend");
}

#[test]
fn a_scrape_whose_rest_came_in_time_is_answered() {
    let server = program().admin().start();
    let mut scrape = Client::connect(server.admin());
    scrape.say("GET /livez HTT");
    pause(&server, || {
        scrape.say("P/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    });
    let (answer, _) = scrape.rest();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
