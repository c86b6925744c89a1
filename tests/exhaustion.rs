//! Out of descriptors: nothing ends, nothing spins, and service is normal once they are free again.

#[path = "support/admin_http.rs"]
mod http;
mod support;

use rustix::process::{Resource, Rlimit, prlimit};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::{Client, End, Program, Running, eventually, figure, raise_open_files, throughout};

/// How many cores the program uses over a while.
fn cores_used(server: &Running, over: Duration, mut meanwhile: impl FnMut()) -> f64 {
    let (began, before) = (Instant::now(), server.cpu_seconds());
    while began.elapsed() < over {
        meanwhile();
    }
    (server.cpu_seconds() - before) / began.elapsed().as_secs_f64()
}

/// The metrics, within a second.
#[track_caller]
fn scrape(server: &Running) -> String {
    let began = Instant::now();
    let reply = http::get(server.admin(), "/metrics").expect("/metrics answers");
    assert_eq!(reply.status, 200);
    assert!(began.elapsed() < Duration::from_secs(1), "/metrics took {:?}", began.elapsed());
    reply.body
}

/// The sum of all samples of a counter that have this label.
fn counted(scrape: &str, name: &str, label: &str) -> f64 {
    let of_it = scrape.lines().filter(|line| line.starts_with(name) && line.contains(label));
    of_it.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Clients that connect and stay, whatever becomes of them; those that the kernel does not take are left out.
fn crowd(address: SocketAddr, count: usize) -> Vec<Client> {
    let connect = |_| Client::try_connect(address, Duration::from_millis(20)).ok();
    (0..count).filter_map(connect).collect()
}

/// Waits until newcomers are served at once again, many in a row.
#[track_caller]
fn serves_normally(server: &Running) {
    eventually("service is normal", || {
        let began = Instant::now();
        let answered = (0..20).all(|_| {
            let client = Client::try_connect(server.address(), Duration::from_secs(1));
            client.is_ok_and(|mut client| client.mutter("hi").heard(&mut [0; 2]))
        });
        (answered && began.elapsed() < Duration::from_secs(2)).then_some(())
    });
}

#[test]
fn a_small_limit_of_open_files_makes_a_small_server() {
    raise_open_files();
    let server = Program::new().admin().open_files(256).start();
    let told = eventually("it says what the limit of open files means", || {
        server.stderr().lines().find(|line| line.contains("open files")).map(str::to_owned)
    });
    let connections: usize = told
        .split("max_connections=")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .unwrap_or_else(|| panic!("the number of connections stands in `{told}`"));
    assert!((64..256).contains(&connections), "{connections} connections with 256 descriptors");

    // As many as it said are served at the same time, then newcomers are refused, and nothing else happens.
    let mut open: Vec<Client> = (0..connections).map(|_| server.client()).collect();
    for client in &mut open {
        client.say("in").hear("in");
    }
    assert_eq!(server.client().end(), End::Reset);
    let more = crowd(server.address(), 1000 - connections);
    let cores = cores_used(&server, Duration::from_secs(2), || {
        open[0].say("still").hear("still");
        scrape(&server);
        std::thread::sleep(Duration::from_millis(100));
    });
    support::figure(format!(
        "{connections} connections with 256 descriptors; with 1,000 clients {cores:.3} of a core"
    ));
    assert!(cores < 0.1, "{cores:.3} of a core with nothing to do");
    assert!(
        !server.stderr().contains("emfile"),
        "it refuses before descriptors run out: {}",
        server.stderr()
    );
    drop((open, more));
    serves_normally(&server);
}

#[test]
fn descriptors_that_run_out_below_it_neither_end_it_nor_make_it_spin() {
    raise_open_files();
    let server = Program::new().admin().arg("--max-connections", 2000).start();
    let mut open: Vec<Client> = (0..60).map(|_| server.client()).collect();
    for client in &mut open {
        client.say("in").hear("in");
    }
    // What it has is allowed, and nothing more.
    let used = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as u64;
    let limit = Rlimit { current: Some(used), maximum: Some(used) };
    prlimit(Some(server.rustix_pid()), Resource::Nofile, limit).expect("a child's limit can be lowered");

    let crowd = crowd(server.address(), 1000);
    eventually("errors of accept are counted", || {
        (counted(&scrape(&server), "tidegate_accept_errors_total", "emfile") > 0.0).then_some(())
    });
    eventually("some are refused on a spare one", || {
        (counted(&scrape(&server), "tidegate_connections_dropped_total", "fd_reserve") > 0.0).then_some(())
    });
    // Measured with those that wait, and with newcomers that come all the time.
    let cores = cores_used(&server, Duration::from_secs(3), || {
        open[0].say("still").hear("still");
        let _ = Client::try_connect(server.address(), Duration::from_millis(20));
        scrape(&server);
        std::thread::sleep(Duration::from_millis(100));
    });
    support::figure(format!("out of descriptors with 1,000 clients: {cores:.3} of a core"));
    assert!(cores < 0.1, "{cores:.3} of a core");

    drop(crowd);
    // The places of those that leave are there for newcomers, though the limit stays.
    drop(open);
    serves_normally(&server);
    let errors = server.stderr().lines().filter(|line| line.contains("emfile")).count();
    assert!((1..=60).contains(&errors), "{errors} lines say the same: one a second is enough");
}

#[test]
fn out_of_descriptors_it_does_not_back_off_from_nobody() {
    raise_open_files();
    let server = Program::new().admin().arg("--max-connections", 2000).start();
    let mut open: Vec<Client> = (0..60).map(|_| server.client()).collect();
    for client in &mut open {
        client.say("in").hear("in");
    }
    let used = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as u64;
    let limit = Rlimit { current: Some(used), maximum: Some(used) };
    prlimit(Some(server.rustix_pid()), Resource::Nofile, limit).expect("a child's limit can be lowered");
    // Some numbers below the limit may be free.
    eventually("the last one is taken", || {
        let mut client = server.client();
        let served = client.mutter("in").heard(&mut [0; 2]);
        open.extend(served.then_some(client));
        (!served).then_some(())
    });
    // One after the other: before each there is nobody.
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(server.client().end(), End::Reset);
    }
    assert!(began.elapsed() < Duration::from_secs(4), "20 refusals took {:?}", began.elapsed());
    let errors = || counted(&scrape(&server), "tidegate_accept_errors_total", "emfile");
    let before = errors();
    assert!((21.0..=25.0).contains(&before), "{before} errors for 21 that came");
    throughout(Duration::from_millis(500), "no error where nobody waits", || errors() == before);
}

#[test]
fn whom_the_acceptor_admits_by_itself_finds_the_free_worker_at_once() {
    raise_open_files();
    let server = Program::new()
        .admin()
        .service("echo")
        .service("work")
        .arg("--work", "sleep:60s")
        .arg("--workers", 2)
        .arg("--refusal-rate", 0)
        .start();
    let mut holder = Client::connect(server.addresses()[1]);
    holder.say("x");
    eventually("one of two workers is held", || {
        (counted(&scrape(&server), "tidegate_workers{", "busy") == 1.0).then_some(())
    });
    let accepted = || counted(&scrape(&server), "tidegate_connections_accepted_total{", "");
    let mut waited = Duration::ZERO;
    let failed = || server.stderr().lines().filter(|line| line.contains("emfile")).count();
    for _ in 0..5 {
        let (before, before_accepted) = (failed(), accepted());
        // Below what it has already.
        let limit = Rlimit { current: Some(8), maximum: Some(20_000) };
        let old = prlimit(Some(server.rustix_pid()), Resource::Nofile, limit).unwrap();
        let mut client = server.client();
        eventually("it cannot be accepted", || (failed() > before).then_some(()));
        // Nothing else happens: the thread that keeps time sleeps too.
        let since = Instant::now();
        eventually("all is quiet", || (since.elapsed() > Duration::from_millis(100)).then_some(()));
        prlimit(Some(server.rustix_pid()), Resource::Nofile, old).unwrap();
        client.say("hi");
        eventually("it is accepted", || (accepted() > before_accepted).then_some(()));
        let admitted = Instant::now();
        client.hear("hi");
        waited += admitted.elapsed();
    }
    // Where nobody but the clock wakes the free worker, each waits for an eighth of a second on average.
    println!("five newcomers waited for {waited:?} in all once they were accepted");
    assert!(waited < Duration::from_millis(200), "five newcomers waited for {waited:?}, with a worker free");
}

#[test]
fn a_limit_that_comes_and_goes_leaves_nothing_behind() {
    raise_open_files();
    let server = Program::new().arg("--max-connections", 2000).start();
    let used = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as u64;
    serves_normally(&server);
    let before = eventually("clients have left", || Some(used()).filter(|&used| used < 64));
    for _ in 0..3 {
        let limit = Rlimit { current: Some(used()), maximum: Some(20_000) };
        let old = prlimit(Some(server.rustix_pid()), Resource::Nofile, limit).unwrap();
        let crowd = crowd(server.address(), 100);
        prlimit(Some(server.rustix_pid()), Resource::Nofile, old).unwrap();
        drop(crowd);
        serves_normally(&server);
    }
    eventually("it holds as many descriptors as before", || (used() <= before).then_some(()));
    // Beside the workers: main, the acceptor, the timekeeper, the log's, and two for signals: those that end the program and
    // those that ask for something.
    assert_eq!(server.status("Threads"), 32 + 6);
    figure(format!(
        "3 times none left, each time served again; {before} descriptors before, {} after, 38 threads",
        used()
    ));
}
