//! More newcomers than a server that only waits can serve: the processors are idle, so everyone is told at once.

mod support;

use support::{Program, command, finish, path};

#[test]
fn nobody_hangs_for_a_connect_timeout_where_1500_a_second_meet_four_workers_that_sleep() {
    support::raise_open_files();
    let server = Program::new().service("work").arg("--work", "sleep:20ms").arg("--workers", 4).start();
    let url = format!("tcp://{}", server.address());
    let load = ["-c", "1500", "-r", "1500", "--reuse", "never", "-d", "5s", "--warmup", "1s"];
    let patience = ["-t", "1s", "--connect-timeout", "1s", "-o", "json"];
    let output = finish(command(path()).args(["stress", &url]).args(load).args(patience));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    let outcome = |name: &str| report["outcomes"][name].as_u64().unwrap_or(0);
    assert_eq!(outcome("connect_timeout"), 0, "{:#}", report["outcomes"]);
    // Four workers do 200 a second; what is past that is told so.
    assert!(outcome("ok") > 5 * 120, "{:#}", report["outcomes"]);
    assert!(outcome("reset") > 3_000, "{:#}", report["outcomes"]);
}
