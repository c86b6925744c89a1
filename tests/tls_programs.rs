//! Programs that others wrote talk to tidegate inside TLS: load generators, command lines of two libraries of TLS, and a
//! library of WebSockets.
#![cfg(feature = "tls")]

#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/secure_site.rs"]
mod secure_site;
mod support;

use secure_site::SecureSite;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use support::{Running, eventually, finish};

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = finish(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{error}", output.status);
    said
}

/// Sends a line through a program, waits for the answer, and ends the program's input: what it printed.
#[track_caller]
fn greeted(command: &mut Command) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut running = Running::of(child);
    stdin.write_all(b"joe\n").unwrap();
    eventually("the line is answered", || {
        let (said, error) = (running.stdout(), running.stderr());
        assert!(running.is_running() || said.contains("hello joe"), "{said}\n{error}");
        said.contains("hello joe\n").then_some(())
    });
    drop(stdin);
    let status = running.exit();
    assert!(status.success(), "{status}: {}\n{}", running.stdout(), running.stderr());
    running.stdout() + &running.stderr()
}

fn at(address: SocketAddr) -> String {
    format!("localhost:{}", address.port())
}

#[test]
fn openssl_and_gnutls_check_the_certificate_and_are_answered_in_both_versions() {
    let site = SecureSite::serve();
    let (authority, address) = (site.authority_file(), at(site.tls));
    for (version, shown) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-no_ign_eof", "-verify_return_error", "-verify_hostname", "localhost"]);
        openssl.arg("-CAfile").arg(&authority).args(["-connect", &address, version]);
        let said = greeted(&mut openssl);
        assert!(said.contains("Verify return code: 0 (ok)") && said.contains(shown), "{said}");
    }
    for (version, shown) in [("VERS-TLS1.2", "TLS1.2"), ("VERS-TLS1.3", "TLS1.3")] {
        let mut gnutls = Command::new("gnutls-cli");
        let priority = format!("--priority=NORMAL:-VERS-ALL:+{version}");
        let said = greeted(gnutls.arg(priority).arg("--x509cafile").arg(&authority).arg(&address));
        assert!(said.contains("The certificate is trusted.") && said.contains(shown), "{said}");
    }
    site.handle.shutdown(support::PATIENCE);
}

#[test]
fn gnutls_resumes_a_session() {
    let site = SecureSite::serve();
    let mut gnutls = Command::new("gnutls-cli");
    gnutls.args(["--resume", "--waitresumption", "--x509cafile"]).arg(site.authority_file());
    let said = greeted(gnutls.arg(at(site.tls)));
    assert!(said.contains("This is a resumed session"), "{said}");
    site.handle.shutdown(support::PATIENCE);
}

#[test]
fn load_generators_see_no_failure_over_https() {
    let site = SecureSite::serve();
    let url = format!("https://{}/joe", at(site.https));
    let said = run(Command::new("wrk").args(["-t1", "-c16", "-d1s", &url]));
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    for (clients, requests) in [("16", "2000"), ("200", "200")] {
        let n = format!("-n{requests}");
        let said = run(Command::new("h2load").args(["--h1", &n, "-c", clients, "-m4", &url]));
        let good = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(said.contains(&good) && said.contains("TLS Protocol: TLSv1.3"), "{said}");
        assert!(said.contains("Application protocol: http/1.1"), "{said}");
    }
    site.handle.shutdown(support::PATIENCE);
}

#[test]
fn a_library_of_websockets_opens_them_inside_tls() {
    let site = SecureSite::serve();
    let mut python = Command::new("target/test-venv/bin/python");
    python.arg("tests/python/websocket_clients.py").arg("localhost").arg(site.wss.port().to_string());
    assert_eq!(run(python.arg(site.authority_file())), "ok\n");
    site.handle.shutdown(support::PATIENCE);
}
