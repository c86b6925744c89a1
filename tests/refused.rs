//! More newcomers than a server that only waits can serve, and more than come in between two looks: while processors have rest,
//! everyone is told at once, and nobody waits in the backlog for the kernel to ask again.

mod support;

use std::sync::{Mutex, PoisonError};
use support::{Program, command, finish, path};

/// They load the machine, so they run one after the other.
static ALONE: Mutex<()> = Mutex::new(());

/// What processors have done since the machine started, in ticks: idle, and in all.
fn ticks() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").expect("Linux tells");
    let line = stat.lines().next().expect("the first line sums all processors");
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).map(|n| n.parse().unwrap()).collect();
    (ticks[3] + ticks[4], ticks.iter().sum())
}

#[test]
fn nobody_hangs_for_a_connect_timeout_where_1500_a_second_meet_four_workers_that_sleep() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    support::raise_open_files();
    let server = Program::new().service("work").arg("--work", "sleep:20ms").arg("--workers", 4).start();
    let url = format!("tcp://{}", server.address());
    let load = ["-c", "1500", "-r", "1500", "--reuse", "never", "-d", "5s", "--warmup", "1s"];
    let patience = ["-t", "1s", "--connect-timeout", "1s", "-o", "json"];
    support::with_processors(|| {
        let before = ticks();
        let output = finish(command(path()).args(["stress", &url]).args(load).args(patience));
        let after = ticks();
        let rest = (after.0 - before.0) as f64 / (after.1 - before.1) as f64;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
        let outcome = |name: &str| report["outcomes"][name].as_u64().unwrap_or(0);
        let (answered, told, hang) = (outcome("ok"), outcome("reset"), outcome("connect_timeout"));
        support::figure(format!(
            "{answered} answered, {told} told, {hang} hang; processors had rest for {:.0} % of the time",
            rest * 100.0
        ));
        assert!(answered > 100 && told > 100, "{:#}", report["outcomes"]);
        // Where the processors have no rest, as many are told as cost 3 % of one: 30 us each is what an unoptimized build
        // takes, and then some hang. Four workers do 200 a second; what is past that is told so.
        let held = answered > 5 * 120 && (rest < 0.3 || hang == 0 && told > 3_000);
        if held { Ok(()) } else { Err(format!("rest for {rest:.2}: {:#}", report["outcomes"])) }
    });
}

#[test]
fn where_turns_take_microseconds_three_hundred_clients_that_connect_anew_wait_no_second_in_the_backlog() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    support::raise_open_files();
    let server = Program::new().start();
    let url = format!("tcp://{}", server.address());
    let load = ["-c", "300", "--reuse", "never", "--close", "rst", "-d", "4s", "--warmup", "1s"];
    let patience = ["-t", "5s", "--connect-timeout", "5s", "-o", "json"];
    support::with_processors(|| {
        let output = finish(command(path()).args(["stress", &url]).args(load).args(patience));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
        assert!(report["done"].as_u64() > Some(1_000), "{:#}", report["outcomes"]);
        // Whom the kernel drops for want of room asks again after a second: one in a hundred did.
        let times = &report["latency"]["connect"];
        let slow = times["p999"].as_f64().expect("they connected");
        let hang = report["outcomes"]["connect_timeout"].as_u64().expect("it is counted");
        let done = report["done"].as_u64().expect("it is counted");
        support::figure(format!("{done} answered; one in a thousand connected after {slow:.3} s"));
        let held = slow < 0.9 && hang == 0 && done > 5_000;
        if held { Ok(()) } else { Err(format!("{times:#} {:#}", report["outcomes"])) }
    });
}
