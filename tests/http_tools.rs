//! The clients that people have: curl, h11, ab, wrk and h2load get from tidegate what they ask for.

mod support;

use std::io;
use std::process::{Command, Output};
use support::{Site, finish};
use tidegate::http::{Answer, Pull, Request, Response};
use tidegate::{Limits, http};

const MIB: usize = 1 << 20;

fn pages(request: &Request<'_>, response: Response<'_, '_>) -> io::Result<Answer> {
    let mut left = MIB;
    let next = move |piece: &mut Vec<u8>| {
        piece.resize(left.min(50_000), b'x');
        left -= piece.len();
        Ok(if left == 0 { Pull::End } else { Pull::More })
    };
    match request.path() {
        "/pulled" => response.pull(next),
        "/sized" => response.pull_sized(MIB as u64, next),
        "/empty" => response.status(204).empty(),
        "/fails" => Err(io::Error::other("as the test wants")),
        "/method" => response.text(request.method()),
        "/version" => response.text(request.version().as_str()),
        "/form" => response.text(&request.form_value("a").unwrap_or_default()),
        _ => match request.header("content-type") {
            Some(kind) => response.header("Content-Type", kind).bytes(request.body()),
            None => response.bytes(request.body()),
        },
    }
}

fn site() -> Site {
    Site::serve(Limits::default().workers(2), http(pages))
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = finish(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(status.success(), "{command:?}: {status}\n{}\n{}", text(&stdout), text(&stderr));
    text(&stdout)
}

#[test]
fn curl_gets_what_it_asks_for() {
    let site = site();
    let curl = |args: &[&str], path: &str| {
        let url = format!("http://{}{path}", site.address);
        run(Command::new("curl").args(["-sS", "--max-time", "20"]).args(args).arg(url))
    };
    assert_eq!(curl(&["--data", "hello"], "/"), "hello");
    assert_eq!(curl(&["--data-urlencode", "a=x & y"], "/form"), "x & y");
    assert_eq!(curl(&[], "/pulled").len(), MIB);
    assert_eq!(curl(&["--http1.0"], "/pulled").len(), MIB);
    assert_eq!(curl(&["--http1.0"], "/version"), "HTTP/1.0");
    assert_eq!(curl(&["-X", "PURGE"], "/method"), "PURGE");
    assert_eq!(curl(&["--path-as-is"], "/a/b/../../method"), "GET");
    assert!(curl(&["-I"], "/sized").contains("Content-Length: 1048576\r\n"));
    assert_eq!(curl(&["-w", "%{http_code}"], "/empty"), "204");
    // An offer to go on with HTTP/2 need not be taken.
    assert_eq!(curl(&["--http2"], "/version"), "HTTP/1.1");
    let folder = std::env::temp_dir().join(format!("tidegate-curl-{}", std::process::id()));
    std::fs::write(&folder, vec![b'y'; MIB]).unwrap();
    let file = folder.to_str().unwrap();
    // In chunks, with `Expect: 100-continue`, and too large.
    assert_eq!(curl(&["-T", file, "-H", "Transfer-Encoding: chunked"], "/").len(), MIB);
    assert_eq!(curl(&["-T", file, "-H", "Expect: 100-continue"], "/").len(), MIB);
    std::fs::write(&folder, vec![b'y'; MIB + 1]).unwrap();
    assert_eq!(
        curl(&["-T", file, "-H", "Expect: 100-continue", "-o", "/dev/null", "-w", "%{http_code}"], "/"),
        "413"
    );
    std::fs::remove_file(&folder).unwrap();
    // One connection is enough for several requests.
    let url = format!("http://{}/method", site.address);
    let connects = run(Command::new("curl").args(["-sS", "-w", "%{num_connects} ", &url, &url, &url]));
    assert_eq!(connects, "GET1 GET0 GET0 ");
    site.end();
}

#[test]
fn h11_a_strict_client_understands_every_answer() {
    let site = site();
    let (host, port) = (site.address.ip().to_string(), site.address.port().to_string());
    let mut python = Command::new("target/test-venv/bin/python");
    assert_eq!(run(python.arg("tests/python/h11_client.py").arg(host).arg(port)), "ok\n");
    site.end();
}

#[test]
fn load_generators_see_no_failure() {
    let site = site();
    let url = format!("http://{}/method", site.address);
    let ab =
        |args: &[&str]| run(Command::new("ab").args(["-q", "-n", "2000", "-c", "16"]).args(args).arg(&url));
    // ab speaks HTTP/1.0: a connection for each request, then the same connections again.
    for (args, kept) in [(&[][..], "0"), (&["-k"][..], "2000")] {
        let said = ab(args);
        let line = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        assert_eq!(
            (line("Complete requests:"), line("Failed requests:")),
            (Some("2000"), Some("0")),
            "{said}"
        );
        assert_eq!(line("Non-2xx responses:"), None, "{said}");
        assert_eq!(line("Keep-Alive requests:").unwrap_or("0"), kept, "{said}");
    }
    let said = run(Command::new("wrk").args(["-t1", "-c32", "-d1s", &url]));
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let said = run(Command::new("h2load").args(["--h1", "-n2000", "-c16", "-m4", &url]));
    assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    assert!(said.contains("status codes: 2000 2xx"), "{said}");
    site.end();
}
