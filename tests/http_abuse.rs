//! Clients that hold up servers of HTTP elsewhere, few and many: they are silent, or stop in the middle of what they send.
//! Whatever they leave undone, somebody who behaves is answered at once. The measurements at other servers are in README.md.

mod support;

use std::time::{Duration, Instant};
use support::{Client, PATIENCE, Site, figure, raise_open_files};
use tidegate::{Limits, http, websocket};

/// How soon somebody who behaves is answered, with the connection.
const AT_ONCE: Duration = Duration::from_millis(50);

/// The crowds of clients that leave something undone.
const CROWDS: [usize; 2] = [4, 1000];

/// As few workers as the servers had that were measured.
fn limits() -> Limits {
    raise_open_files();
    // All of a crowd may wait for their first turn, and nobody is ended while somebody else is timed.
    let limits = Limits::default().workers(4).queue(2 * CROWDS[1]);
    limits.read_timeout(2 * PATIENCE).idle_timeout(2 * PATIENCE)
}

/// Somebody who behaves comes nine times beside a crowd that has said this: the median time to an answer is short, and
/// nobody was ended for it.
#[track_caller]
fn delay_nobody(site: &Site, (what, said): (&str, &[u8]), ask: impl Fn(&mut Client)) {
    for crowd in CROWDS {
        let clients: Vec<Client> = (0..crowd)
            .map(|_| {
                let mut client = site.client();
                if !said.is_empty() {
                    client.say(said);
                }
                client
            })
            .collect();
        site.until("all are parked", |now| (now.idle, now.active, now.queued) == (crowd as u64, 0, 0));
        let mut times: Vec<Duration> = (0..9)
            .map(|_| {
                let began = Instant::now();
                ask(&mut site.client());
                began.elapsed()
            })
            .collect();
        times.sort();
        figure(format!("{crowd} {what}: answered in {:.1?}, {:.1?} at most", times[4], times[8]));
        assert!(times[4] < AT_ONCE, "{crowd} {what}: answered after {times:?}");
        assert!(site.counts().open() >= crowd as u64, "nobody was ended for it");
        drop(clients);
        site.until("they have left", |now| now.open() == 0);
    }
}

#[test]
fn clients_that_are_silent_or_stop_within_a_request_delay_nobody() {
    let site = Site::serve(limits(), http(|request, response| response.text(request.path())));
    for (what, said) in [
        ("silent", ""),
        ("within their first line", "GET /unfin"),
        ("within their head", "GET / HTTP/1.1\r\nHost: h\r\n"),
        ("within a body with a length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx"),
        ("within a chunk", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nx"),
        (
            "within their trailers",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\n",
        ),
        (
            "that were told to go on",
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        ),
    ] {
        delay_nobody(&site, (what, said.as_bytes()), |client| assert_eq!(client.get("/healthy").status, 200));
    }
    site.end();
}

#[test]
fn clients_that_stop_within_a_handshake_or_a_frame_of_a_websocket_delay_nobody() {
    const OPEN: &str = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let site = Site::serve(limits(), websocket::echo());
    // A text of nine bytes, of which two have come.
    let frame = [OPEN.as_bytes(), &[0x81, 0x89, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2]].concat();
    let half = &OPEN.as_bytes()[..OPEN.len() - 2];
    for (what, said) in [
        ("within the handshake of a WebSocket", half),
        ("silent WebSockets", OPEN.as_bytes()),
        ("within a frame", &frame),
    ] {
        delay_nobody(&site, (what, said), |client| assert_eq!(client.ask(OPEN).status, 101));
    }
    site.end();
}
