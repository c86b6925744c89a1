//! gunicorn, a server of Python web applications that many people have: two workers, each of which serves one request at a
//! time, and 10 ms for each.

use super::front::free_address;
use crate::measure::Bench;
use crate::server::{Place, Server};
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Its workers.
pub(super) const WORKERS: usize = 2;
/// Clients that wait for each answer, when its best is measured: one more than its workers.
const CLIENTS: usize = WORKERS + 1;
const BEST_TIME: Duration = Duration::from_secs(3);
/// Workers look so often whether the process that started them is still there.
const TIMEOUT: &str = "4";
const PATIENCE: Duration = Duration::from_secs(5);

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Says where gunicorn is; the first word counts.
pub(crate) fn set_gunicorn(path: PathBuf) {
    let _ = PROGRAM.set(path);
}

/// The one of the tests' environment, or the one that is installed.
fn program() -> PathBuf {
    let of_tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-venv/bin/gunicorn");
    PROGRAM.get().cloned().unwrap_or(if of_tests.is_file() { of_tests } else { "gunicorn".into() })
}

/// Starts one.
pub(super) fn start(bench: &Bench) -> Result<Server> {
    let addr = free_address()?;
    let mut command = Command::new(program());
    command.args(["-w", &WORKERS.to_string(), "-t", TIMEOUT, "-b", &addr.to_string()]);
    command.args(["--chdir", concat!(env!("CARGO_MANIFEST_DIR"), "/http_gate"), "work:app"]);
    let server = Server::launch(command, Place::Told(addr), &bench.client_cpus);
    let server =
        server.context("gunicorn did not start; say where it is with --gunicorn, or run tests/setup.sh")?;
    // It listens before its workers are there.
    ask(addr).context("gunicorn does not answer")?;
    Ok(server)
}

/// What it does a second at most.
pub(super) fn best(bench: &Bench) -> Result<f64> {
    let server = start(bench)?;
    let addr = server.addr;
    let until = Instant::now() + BEST_TIME;
    let client = move || -> Result<u32> {
        let mut answers = 0;
        while Instant::now() < until {
            ask(addr)?;
            answers += 1;
        }
        Ok(answers)
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| std::thread::spawn(client)).collect();
    let mut answers = 0;
    for client in clients {
        answers += client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    Ok(f64::from(answers) / BEST_TIME.as_secs_f64())
}

fn ask(addr: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: scene\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "it answered `{}`", String::from_utf8_lossy(&answer));
    Ok(())
}
