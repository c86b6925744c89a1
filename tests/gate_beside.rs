//! A database behind one listener of a gate, and a flood of another service behind a second: the programs on both sides are
//! those that other people wrote. The limits are the defaults.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use support::{Ending, Postgres, Program, Running, Scrape, admin, command, eventually, path};

/// A server that starts a thread for each connection; a line costs it a millisecond of a processor.
const THREADING: &str = "
import socketserver, time
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            until = time.thread_time() + 0.001
            while time.thread_time() < until:
                pass
            self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
with Server(('127.0.0.1', 0), Handler) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
";

/// Six times what the flooded server can do.
const FLOOD: [&str; 10] =
    ["--reuse", "never", "--data", "ping\\n", "-r", "4500", "-c", "2000", "--progress", "off"];
/// What the server answers to each of the flood's clients.
const ANSWER: u64 = "ping\n".len() as u64;

/// A Python server with its port.
#[track_caller]
fn threading_server() -> (Ending, String) {
    let mut python = command("python3");
    let python = python.args(["-c", THREADING]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut python = Ending(python.spawn().expect("python3 runs"));
    let mut port = String::new();
    BufReader::new(python.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    (python, port.trim().to_owned())
}

/// All transactions were made, and none has failed.
#[track_caller]
fn assert_whole(output: &Output, transactions: u32) {
    let said = String::from_utf8_lossy(&output.stdout);
    let all = format!("{transactions}/{transactions}");
    assert!(output.status.success() && said.contains(&all), "{output:?}");
    assert!(said.contains("failed transactions: 0 "), "{said}");
}

struct Seen {
    scrape: Scrape,
    at: Instant,
}

impl Seen {
    #[track_caller]
    fn now(gate: &Running) -> Self {
        let scrape = Scrape::of(gate);
        scrape.assert_conserved();
        let sum = |metric: &str| scrape.sum(metric, &[]);
        let there = sum("tidegate_backend_places_given_back_total") + sum("tidegate_backend_places");
        assert_eq!(sum("tidegate_backend_places_taken_total"), there);
        Self { scrape, at: Instant::now() }
    }

    /// Lines that the flooded server has answered.
    fn answered(&self, listener: &str) -> u64 {
        self.scrape.sum("tidegate_backend_received_bytes_total", &[listener]) / ANSWER
    }

    fn dropped(&self, listener: &str) -> u64 {
        self.scrape.sum("tidegate_connections_dropped_total", &[listener])
    }
}

#[test]
fn pgbench_loses_nothing_beside_a_flood_of_another_service_and_that_one_stays_useful() {
    let postgres = Postgres::start();
    let (_python, python_port) = threading_server();
    let gate = Program::new()
        .without_echo()
        .admin()
        .arg("--backend-connections", 20)
        .arg("--listen", format!("proxy:127.0.0.1:{python_port}=tcp://127.0.0.1:0"))
        .arg("--listen", format!("proxy:127.0.0.1:{}=tcp://127.0.0.1:0", postgres.port))
        .start();
    let [flooded, database] = gate.addresses()[..] else { panic!("{}", gate.stdout()) };
    let [at_flooded, at_database] = [flooded, database].map(|at| format!("listener=\"tcp://{at}\""));
    let mut flood = command(path());
    flood.args(["stress", &format!("tcp://{flooded}"), "-d", "120s"]).args(FLOOD);
    let mut flood = Ending(flood.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    eventually("the flood is more than the server can do", || {
        (Seen::now(&gate).dropped(&at_flooded) > 1_000).then_some(())
    });
    let before = Seen::now(&gate);
    let kept = postgres.bench(database.port(), &["-S", "-c", "4", "-j", "2", "-t", "250"]);
    assert_whole(&kept, 1_000);
    let anew = postgres.bench(database.port(), &["-S", "-C", "-c", "4", "-j", "2", "-t", "15"]);
    assert_whole(&anew, 60);
    let after = Seen::now(&gate);
    assert!(flood.0.try_wait().unwrap().is_none(), "the flood lasts");
    assert_eq!(after.dropped(&at_database), 0, "nobody is refused at the database");
    let seconds = (after.at - before.at).as_secs_f64();
    let answered = (after.answered(&at_flooded) - before.answered(&at_flooded)) as f64 / seconds;
    let refused = (after.dropped(&at_flooded) - before.dropped(&at_flooded)) as f64 / seconds;
    println!("{seconds:.1} s: {answered:.0}/s answered and {refused:.0}/s refused at the flooded server");
    assert!(answered > 50.0 && refused > answered, "{answered:.0}/s answered, {refused:.0}/s refused");
    let status = admin(&gate, "/status");
    for backend in [format!("127.0.0.1:{python_port}"), format!("127.0.0.1:{}", postgres.port)] {
        assert!(status.text().contains(&backend), "{backend} is not on the page");
    }
    drop(flood);
    eventually("all has ended", || {
        let seen = Seen::now(&gate).scrape;
        (seen.sum("tidegate_connections", &[]) + seen.sum("tidegate_backend_places", &[]) == 0).then_some(())
    });
    assert!(Duration::from_secs_f64(seconds) < Duration::from_secs(40));
}
