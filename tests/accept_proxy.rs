//! PROXY headers of balancers: who the client is, and what becomes of those who send none.

mod support;

use std::time::Duration;
use support::{Client, End, Program, Site, run};
use tidegate::reason::{CloseReason, DropReason};
use tidegate::service::Network;
use tidegate::{Limits, Listen, Server, lines_with};

/// The signature of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2: a command, a family, and what follows.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend((rest.len() as u16).to_be_bytes());
    header.extend(rest);
    header
}

/// Serves balancers, and answers each line with its client's address, as `connect` and as the turn saw it. Nobody from
/// 192.0.2.66 is wanted.
fn site(limits: Limits, balancers: &[&str]) -> Site {
    let service = lines_with(
        "who",
        |peer| peer.address,
        |opened, line, reply| {
            assert_eq!(*opened, reply.peer().address);
            reply.send(format!("{opened} {}\n", String::from_utf8_lossy(line)).as_bytes())
        },
    )
    .verify(|peer| peer.address.ip() != Some([192, 0, 2, 66].into()));
    let balancers = balancers.iter().map(|text| text.parse::<Network>().unwrap());
    let listen = Listen::new("127.0.0.1:0", service).unwrap().accept_proxy(balancers);
    Site::build(Server::builder().limits(limits).listener(listen), tidegate::Echo)
}

fn trusting(limits: Limits) -> Site {
    site(limits, &["127.0.0.1"])
}

/// The headers of a client at 192.0.2.1:1000 or [2001:db8::1]:1000.
fn headers() -> [(Vec<u8>, &'static str); 4] {
    let four = [192, 0, 2, 1, 127, 0, 0, 1, 3, 232, 0, 80];
    let (mut six, one) = ([0; 36], [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    six[..16].copy_from_slice(&one);
    six[16..32].copy_from_slice(&one);
    six[32..].copy_from_slice(&[3, 232, 0, 80]);
    [
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 1000 80\r\n".to_vec(), "192.0.2.1:1000"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::1 1000 80\r\n".to_vec(), "[2001:db8::1]:1000"),
        (v2(0x21, 0x11, &four), "192.0.2.1:1000"),
        (v2(0x21, 0x21, &six), "[2001:db8::1]:1000"),
    ]
}

#[test]
fn the_client_is_who_the_header_says_in_either_version() {
    let site = trusting(Limits::default());
    for (header, address) in headers() {
        let mut client = site.client();
        // With the header or later, a line is a line.
        client.say([&header[..], b"one\n"].concat()).hear(format!("{address} one\n"));
        client.say("two\n").hear(format!("{address} two\n"));
        let mut client = site.client();
        client.say(&header).say("three\n").hear(format!("{address} three\n"));
    }
    assert!(site.end().is_clean());
}

#[test]
fn a_header_may_come_in_pieces() {
    let site = trusting(Limits::default());
    for (header, address) in headers() {
        let mut client = site.client();
        for byte in &header {
            client.say([*byte]);
            // Each has its turn before the next comes, but for some that the kernel puts together.
            std::thread::yield_now();
        }
        client.say("x\n").hear(format!("{address} x\n"));
        drop(client);
        site.until("nobody is left", |now| now.open() == 0);
        let mut client = site.client();
        let (first, rest) = header.split_at(header.len() / 2);
        client.say(first);
        site.until("it waits for the rest", |now| now.idle == 1);
        client.say(rest).say("y\n").hear(format!("{address} y\n"));
        drop(client);
        site.until("nobody is left", |now| now.open() == 0);
    }
}

#[test]
fn without_an_address_in_the_header_the_balancer_is_the_client() {
    let site = trusting(Limits::default());
    for header in
        [v2(0x20, 0, b""), v2(0x20, 0x11, &[7; 12]), v2(0x21, 0, b""), b"PROXY UNKNOWN\r\n".to_vec()]
    {
        let mut client = site.client();
        let own = client.stream().local_addr().unwrap();
        client.say(header).say("x\n").hear(format!("{own} x\n"));
    }
}

#[test]
fn a_malformed_or_missing_header_ends_the_connection_and_reaches_no_service() {
    let site = trusting(Limits::default());
    let wrong: [&[u8]; 5] = [
        b"hello\n",
        b"PROXY TCP4 1.2.3 127.0.0.1 1 2\r\n",
        b"PROXY nonsense\r\n",
        b"\r\n\r\n\0\r\nQUIT\nx",
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for (number, words) in wrong.iter().enumerate() {
        let mut client = site.client();
        client.say(words);
        assert_eq!(client.rest(), (Vec::new(), End::Reset), "{number}");
        site.until_dropped(DropReason::ProxyHeader, number as u64 + 1);
    }
    let mut client = site.client();
    client.say("PROXY TC").finish();
    assert_eq!(client.rest(), (Vec::new(), End::Reset), "it ends within the header");
    site.until_dropped(DropReason::ProxyHeader, wrong.len() as u64 + 1);
    drop(site.client());
    site.until_dropped(DropReason::ClientGone, 1);
    assert_eq!(site.counts().closed_total(), 0);
}

#[test]
fn who_the_service_does_not_want_is_told_apart_by_the_header() {
    let site = trusting(Limits::default());
    let mut client = site.client();
    client.say("PROXY TCP4 192.0.2.66 127.0.0.1 1000 80\r\nx\n");
    assert_eq!(client.rest().0, b"");
    site.until_dropped(DropReason::Denied, 1);
}

#[test]
fn nobody_but_a_balancer_is_taken() {
    let site = site(Limits::default(), &["10.0.0.0/8", "127.0.0.3"]);
    let header = "PROXY TCP4 192.0.2.1 127.0.0.1 1000 80\r\n";
    for number in 1..=3 {
        let mut client = Client::from("127.0.0.4", site.address);
        client.mutter(header).mutter("x\n");
        assert_eq!(client.rest(), (Vec::new(), End::Reset));
        site.until_dropped(DropReason::ProxyHeader, number);
    }
    let mut client = Client::from("127.0.0.3", site.address);
    client.say(header).say("x\n").hear("192.0.2.1:1000 x\n");
}

#[test]
fn a_header_has_the_time_of_a_request() {
    let site = trusting(Limits::default().workers(1).read_timeout(Duration::from_millis(100)));
    let (silent, mut half) = (site.client(), site.client());
    half.say("PROXY TCP4 192.0.2.1");
    site.until_closed(CloseReason::ReadTimeout, 2);
    // Many that say nothing hold no worker.
    let silents: Vec<_> = (0..50).map(|_| site.client()).collect();
    site.client().say(&headers()[0].0).say("x\n").hear("192.0.2.1:1000 x\n");
    drop((silent, silents));
}

#[test]
fn a_drain_does_not_wait_for_headers_beyond_their_time() {
    let site = trusting(Limits::default().read_timeout(Duration::from_millis(300)));
    let mut half = site.client();
    half.say("PROXY TCP4 192.0.2.1");
    site.until("it waits for the rest", |now| now.idle == 1);
    assert!(site.end().elapsed < Duration::from_secs(5));
}

#[test]
fn the_option_holds_for_all_listeners_or_for_one() {
    let program = Program::new().arg("--accept-proxy", "10.0.0.0/8,127.0.0.1").start();
    program.client().say("PROXY TCP4 192.0.2.1 127.0.0.1 1000 80\r\nx").hear("x");
    let mut other = Client::from("127.0.0.2", program.address());
    assert_eq!(other.end(), End::Reset);
    let path = std::env::temp_dir().join(format!("tidegate-accept-{}.toml", std::process::id()));
    let text = "listen = [\"echo=tcp://127.0.0.1:7001\", \"echo=udp://127.0.0.1:7001\"]\n\
                [[listener]]\nlisten = \"hello=tcp://127.0.0.1:7002\"\naccept-proxy = [\"10.0.0.0/8\", \"::1\"]\n";
    std::fs::write(&path, text).unwrap();
    let output = run(["check", "--config", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("hello tcp://127.0.0.1:7002 accept-proxy 10.0.0.0/8,::1/128"), "{shown}");
    assert_eq!(shown.matches("accept-proxy").count(), 1, "{shown}");
    let wrong = run(["check", "--accept-proxy", "10.0.0.0/33"]);
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("is not a network"));
}
