//! The status page in a real browser: its numbers move, its banner says how the server is and why,
//! and nothing is loaded from elsewhere.

#[path = "support/admin_process.rs"]
mod process;

use process::Tidegate;
use std::path::Path;
use std::process::Command;

#[test]
fn a_person_sees_how_the_server_is_and_why() {
    let listen = ["--listen", "work=tcp://127.0.0.1:0", "--listen", "echo=tcp://127.0.0.1:0"];
    let work = ["--work", "sleep:20ms", "--workers", "4", "--queue", "8", "--refusal-rate", "1000"];
    // Long enough that the page sees the drain before the end.
    let drain = ["--drain-delay", "4s"];
    let server = Tidegate::start(&[&listen[..], &work[..], &drain[..]].concat());
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("status");
    let output = Command::new("node")
        .arg("tests/support/admin_browser.mjs")
        .arg(format!("http://{}", server.admin))
        .arg(&server.listeners[0])
        .arg(env!("CARGO_BIN_EXE_tidegate"))
        .arg(server.pid().to_string())
        .arg(&shots)
        .output()
        .expect("node is there: tests/setup.sh installs it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("as it should be"), "{said}");
    eprintln!("screenshots are in {}", shots.display());
}
