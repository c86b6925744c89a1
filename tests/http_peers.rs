//! The same hostile bytes for tidegate, nginx, HAProxy before nginx, and h11: each reads them, and where they differ a
//! reason is given. What matters most is that tidegate takes nothing whose end another would see elsewhere.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{PATIENCE, Running, Site, eventually};
use tidegate::{Limits, http};

/// What follows each case on its connection: it is answered by whoever saw the end of the case where we see it.
const SECOND: &[u8] = b"GET /second HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

/// A name, the bytes, the statuses of tidegate, nginx, HAProxy before nginx, and h11, and why they differ. (Where
/// HAProxy passes a request on, nginx may refuse it, and then HAProxy goes on with its client: `400 200`.)
type Case = (&'static str, &'static [u8], [&'static str; 4], &'static str);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("plain GET", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", ["200 200", "200 200", "200 200", "200 200"], ""),
    ("bare LF lines", b"GET / HTTP/1.1\nHost: h\n\n", ["400", "200 200", "200 200", "200 200"], "RFC 9112, 2.2 lets a recipient take it; readers that differ in it can be played against each other"),
    ("bare LF in a header line", b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", ["400", "200 200", "200 200", "200 200"], "the same"),
    ("bare CR in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", ["400", "400", "400", "400"], ""),
    ("NUL in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", ["400", "400", "400 200", "400"], "HAProxy passed it on, and nginx refused it"),
    ("folded header", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", ["400", "400", "200 200", "200 200"], "RFC 9112, 5.2: refuse it or replace the fold; HAProxy and h11 replace it"),
    ("space before the colon", b"GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n", ["400", "400", "400", "400"], ""),
    ("space before the colon of Content-Length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\nhello", ["400", "400", "400", "400"], ""),
    ("no colon", b"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", ["400", "200 200", "400", "400"], "nginx ignores the line"),
    ("empty name", b"GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n", ["400", "400", "400", "400"], ""),
    ("obs-text in a name", b"GET / HTTP/1.1\r\nHost: h\r\nX\xe9: y\r\n\r\n", ["400", "200 200", "400", "400"], "nginx ignores the line"),
    ("underscore Content_Length", b"POST / HTTP/1.1\r\nHost: h\r\nContent_Length: 5\r\n\r\n", ["200 200", "200 200", "200 200", "200 200"], ""),
    ("two spaces in the first line", b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", ["400", "200 200", "200 200", "400"], "RFC 9112, 3 lets a recipient take it; nginx and HAProxy do"),
    ("lower-case version", b"GET / http/1.1\r\nHost: h\r\n\r\n", ["400", "400", "400", "400"], ""),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", ["505", "200 200", "200 200", "200 200"], "there is no such version; the others read it as 1.1, as RFC 9110, 2.5 recommends for what is to come"),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", ["505", "505", "200 200", "200 200"], "HAProxy and h11 do not look at the version they do not speak"),
    ("HTTP/0.9", b"GET /\r\n", ["400", "-", "400", "400"], "nginx still speaks HTTP/0.9, which has no status"),
    ("lower-case method", b"get / HTTP/1.1\r\nHost: h\r\n\r\n", ["200 200", "400", "400 200", "200 200"], "methods are told apart by case, and unknown ones are the service's to judge; nginx knows capitals only"),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", ["400", "400", "400 200", "400"], "HAProxy passed it on, and nginx refused it"),
    ("two Hosts", b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", ["400", "400", "200 200", "400"], "HAProxy joins two that are equal"),
    ("Host with a space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", ["400", "400", "400 200", "200 200"], "HAProxy passed it on, and nginx refused it; h11 does not look into hosts"),
    ("Host with a slash", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", ["400", "400", "400 200", "200 200"], "HAProxy passed it on, and nginx refused it; h11 does not look into hosts"),
    ("Host with a user", b"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", ["400", "200 200", "200 200", "200 200"], "RFC 9110, 4.2.4 deprecates users; the others do not look"),
    ("empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", ["200 200", "400", "400 200", "200 200"], "RFC 9112, 3.2 allows it where the target has no authority; nginx does not"),
    ("length and chunked", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ["400", "400", "200", "200 200"], "RFC 9112, 6.1: refuse it, or take the coding and close; HAProxy and h11 take it"),
    ("lengths that differ", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", ["400", "400", "400", "400"], ""),
    ("equal lengths", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", ["200 200", "400", "200 200", "200 200"], "RFC 9112, 6.3 lets a recipient take it; nginx does not"),
    ("list of equal lengths", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello", ["200 200", "400", "200 200", "200 200"], "RFC 9112, 6.3 lets a recipient take it; nginx does not"),
    ("length +5", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello", ["400", "400", "400", "400"], ""),
    ("length 0x5", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello", ["400", "400", "400", "400"], ""),
    ("length 5 with junk", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5 x\r\n\r\nhello", ["400", "400", "400", "400"], ""),
    ("empty length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", ["400", "400", "400", "400"], ""),
    ("length of 30 digits", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 000000000000000000000000000005\r\n\r\nhello", ["200 200", "200 200", "200 200", "400"], "a number is a number; h11 takes 20 digits"),
    ("length over 64 bits", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n", ["400", "400", "400", "400"], ""),
    ("gzip", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", ["400", "501", "400", "501"], "RFC 9112, 6.3: 400, since the end of the body is unknown; nginx and h11 say 501 to every coding they do not know"),
    ("gzip, chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", ["501", "501", "422", "501"], "a coding that is not known is 501; HAProxy says 422"),
    ("chunked, gzip", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", ["400", "501", "400", "501"], "as with gzip alone"),
    ("chunked twice", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", ["400", "501", "400", "501"], "as with gzip alone"),
    ("identity", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n", ["400", "501", "400", "501"], "as with gzip alone"),
    ("xchunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", ["400", "501", "400", "501"], "as with gzip alone"),
    ("Chunked in capitals", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", ["200 200", "200 200", "200 200", "200 200"], ""),
    ("empty element, chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", ["400", "501", "422", "501"], "readers differ in whether an empty element counts, so it is refused; with different statuses"),
    ("vertical tab, chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", ["400", "501", "400", "400"], "refused by all, with different statuses"),
    ("chunked in 1.0", b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n", ["400", "400", "400", "200"], "RFC 9112, 6.1: its framing is faulty; h11 takes the coding and closes"),
    ("good chunks", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ["200 200", "200 200", "200 200", "200 200"], ""),
    ("chunk of 17 digits", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000005\r\nhello\r\n0\r\n\r\n", ["400", "200 200", "200 200", "200 200"], "more than 16 digits are never needed; the others skip zeros"),
    ("chunk size with a space", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n", ["400", "200 200", "200 200", "200 200"], "RFC 9112, 7.1 has none there; readers that differ in it can be played against each other"),
    ("chunk size +5", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", ["400", "400", "400", "400"], ""),
    ("chunk size 0x5", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", ["400", "400", "400", "400"], ""),
    ("chunk line with a bare LF", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", ["400", "200 200", "200 200", "400"], "RFC 9112, 2.2 does not let a recipient take it in chunks; nginx and HAProxy do"),
    ("chunk extension", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n", ["200 200", "200 200", "200 200", "200 200"], ""),
    ("bare LF in a chunk extension", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n", ["400", "400", "400", "400"], ""),
    ("chunk longer than its size", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", ["400", "400", "400", "400"], ""),
    ("chunk without its line end", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", ["400", "400", "400", "400"], ""),
    ("trailer", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", ["200 200", "200 200", "200 200", "200 200"], ""),
    ("trailer that is no header", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX y\r\n\r\n", ["400", "200 200", "400", "400"], "nginx does not look into trailers"),
    ("absolute target", b"GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\n", ["200 200", "200 200", "200 200", "200 200"], ""),
    ("absolute target, other Host", b"GET http://other/x HTTP/1.1\r\nHost: h\r\n\r\n", ["200 200", "200 200", "400", "200 200"], "RFC 9112, 3.2.2: the target's host counts; HAProxy refuses what differs"),
    ("target with a user", b"GET http://u:p@h/x HTTP/1.1\r\nHost: h\r\n\r\n", ["400", "400", "400 200", "200 200"], "RFC 9110, 4.2.4 deprecates users; HAProxy passed it on, and nginx refused it"),
    ("target with a fragment", b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", ["400", "200 200", "400", "200 200"], "RFC 9112, 3.2 has none; nginx cuts it off, h11 does not look"),
    ("target without a slash", b"GET x HTTP/1.1\r\nHost: h\r\n\r\n", ["400", "400", "400", "200 200"], "h11 does not look into targets"),
    ("asterisk with GET", b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", ["400", "400", "400 200", "200 200"], "HAProxy passed it on, and nginx refused it; h11 does not look into targets"),
    ("asterisk with OPTIONS", b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", ["200 200", "400", "400 200", "200 200"], "RFC 9112, 3.2.4; nginx does not know it"),
    ("target beyond ASCII", b"GET /\xe9 HTTP/1.1\r\nHost: h\r\n\r\n", ["400", "200 200", "400", "400"], "a target is ASCII; nginx takes bytes"),
    ("target above the root", b"GET /../x HTTP/1.1\r\nHost: h\r\n\r\n", ["400", "400", "400 200", "200 200"], "HAProxy passed it on, and nginx refused it; h11 does not look into targets"),
    ("escaped target above the root", b"GET /%2e%2e/x HTTP/1.1\r\nHost: h\r\n\r\n", ["400", "400", "400 200", "200 200"], "the same"),
    ("escape of NUL", b"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", ["400", "400", "400 200", "200 200"], "the same"),
    ("bad escape", b"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", ["400", "400", "400 200", "200 200"], "the same"),
    ("CONNECT", b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", ["501", "400", "400 200", "501 200"], "it is understood and not offered; nginx says 405, or 400 before it looks, HAProxy passes it on"),
    ("other expectation", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: x\r\n\r\n", ["417", "200 200", "200 200", "200 200"], "RFC 9110, 10.1.1 allows 417; the others ignore it"),
    ("keep-alive and close", b"GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, close\r\n\r\n", ["200", "200", "200", "200"], ""),
    ("close on a second line", b"GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", ["200", "200", "200", "200"], ""),
    ("empty line before", b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", ["200 200", "200 200", "200 200", "400"], "RFC 9112, 2.2: a server should skip one; h11 does not"),
    ("three empty lines before", b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", ["400", "200 200", "200 200", "400"], "RFC 9112, 2.2 asks for one at least; the others skip any number"),
    ("TLS hello", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", ["400", "400", "400", "400"], ""),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ["505", "400", "-", "200 400"], "HAProxy speaks HTTP/2 on the same port; the others have their own ways to refuse it"),
];

const NGINX: &str = "daemon off;
master_process off;
pid DIR/nginx.pid;
error_log DIR/nginx.log;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    server {
        listen unix:DIR/nginx.sock;
        location / { return 200; }
    }
}
";

const HAPROXY: &str = "defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 10s
frontend front
    bind unix@DIR/haproxy.sock
    default_backend back
backend back
    server nginx unix@DIR/nginx.sock
";

/// The peers, and a folder for their sockets.
struct Peers {
    folder: PathBuf,
    _running: Vec<Running>,
}

impl Peers {
    fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("tidegate-peers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let at = folder.to_str().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text.replace("DIR", at)).unwrap();
            path
        };
        let (nginx, haproxy) = (write("nginx.conf", NGINX), write("haproxy.conf", HAPROXY));
        let start = |command: &mut Command| {
            Running::of(
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(),
            )
        };
        let running = vec![
            start(Command::new("nginx").arg("-p").arg(&folder).arg("-c").arg(nginx)),
            start(Command::new("haproxy").arg("-db").arg("-f").arg(haproxy)),
        ];
        for name in ["nginx.sock", "haproxy.sock"] {
            eventually(&format!("{name} is there"), || UnixStream::connect(folder.join(name)).ok());
        }
        Self { folder, _running: running }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The statuses in what a server has said.
fn statuses(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let found: Vec<&str> = text
        .split("HTTP/1.")
        .skip(1)
        .filter_map(|after| after.get(2..5))
        .filter(|it| it.parse::<u16>().is_ok())
        .collect();
    if found.is_empty() { "-".to_owned() } else { found.join(" ") }
}

/// Sends the bytes and reads until the end, which may be a reset behind the answer.
fn converse(mut stream: impl Read + Write, bytes: &[u8]) -> String {
    let _ = stream.write_all(&[bytes, SECOND].concat());
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        said.extend_from_slice(&buffer[..n]);
    }
    statuses(&said)
}

fn ask(address: SocketAddr, bytes: &[u8]) -> String {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    converse(stream, bytes)
}

fn ask_peer(socket: &Path, bytes: &[u8]) -> String {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    converse(stream, bytes)
}

/// What h11 makes of all cases.
fn ask_h11() -> Vec<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines: String = CASES.iter().map(|(_, bytes, ..)| hex(&[bytes, SECOND].concat()) + "\n").collect();
    let mut child = Command::new("target/test-venv/bin/python")
        .arg("tests/python/h11_server.py")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/setup.sh has installed it");
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn hostile_bytes_are_read_as_the_table_says_and_every_difference_has_a_reason() {
    let site = Site::serve(Limits::default().workers(2), http::echo());
    let peers = Peers::start();
    let h11 = ask_h11();
    assert_eq!(h11.len(), CASES.len());
    let mut wrong = Vec::new();
    for ((name, bytes, expected, why), h11) in CASES.iter().zip(h11) {
        let seen = [
            ask(site.address, bytes),
            ask_peer(&peers.folder.join("nginx.sock"), bytes),
            ask_peer(&peers.folder.join("haproxy.sock"), bytes),
            h11,
        ];
        let differ = seen.iter().any(|it| *it != seen[0]);
        if seen != *expected || differ == why.is_empty() {
            wrong.push(format!("{name}: {seen:?}, not {expected:?}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    site.end();
}

/// A client that says only that it will say no more is not answered.
#[test]
fn a_connection_without_a_request_is_not_answered() {
    let site = Site::serve(Limits::default().workers(2), http::echo());
    let mut stream = TcpStream::connect(site.address).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // One that has said so before it was accepted is taken for one that has left, and may be reset.
    match stream.read(&mut [0; 16]) {
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        answered => assert_eq!(answered.unwrap(), 0),
    }
    site.end();
}

const BEGIN: &str = "<!-- peers: generated by `UPDATE=1 cargo test --test http_peers page` -->\n";
const END: &str = "<!-- /peers -->";

/// A row for each case in which the four differ.
fn page() -> String {
    let mut page = String::from(
        "| bytes | tidegate | nginx | HAProxy, nginx | h11 | why |\n|---|---|---|---|---|---|\n",
    );
    let mut last = "";
    for (name, _, [ours, nginx, haproxy, h11], why) in CASES {
        let why = if *why == "the same" { last } else { why };
        if !why.is_empty() {
            page += &format!("| {name} | {ours} | {nginx} | {haproxy} | {h11} | {why} |\n");
            last = why;
        }
    }
    page
}

/// docs/http.md has the differences of the table above, each with its reason.
#[test]
fn the_page_has_every_difference_with_its_reason() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/http.md");
    let text = std::fs::read_to_string(path).unwrap();
    let begin = text.find(BEGIN).expect("the page has a place for it") + BEGIN.len();
    let end = begin + text[begin..].find(END).expect("and an end of it");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, format!("{}{}{}", &text[..begin], page(), &text[end..])).unwrap();
        return;
    }
    assert_eq!(&text[begin..end], page(), "run UPDATE=1 cargo test --test http_peers page");
}
