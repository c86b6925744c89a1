//! The log: lines on stderr that never hold up who writes them.

use super::args::{LogFormat, ServeArgs};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A line longer than this is cut: a pipe that is writable takes so much without waiting
/// (`PIPE_BUF`).
const LINE_MAX: usize = 4096;

/// Starts the log, and makes panics of the server's threads part of it.
pub(super) fn start(args: &ServeArgs) {
    let level = match (args.quiet, args.verbose) {
        (true, _) => tracing::Level::ERROR,
        (_, 0) => tracing::Level::INFO,
        (_, 1) => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_writer(|| Lossy);
    let set = match args.log_format {
        Some(LogFormat::Json) => log.json().flatten_event(true).try_init(),
        _ => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
    };
    // A second call in one process keeps the first log.
    let _ = set;
    mind_panics();
}

/// Panics of the server's own threads are caught, counted and summed up once a second; of the panics themselves
/// at most one a second is told, in one line, however many there are.
fn mind_panics() {
    static LAST_SECOND: AtomicU64 = AtomicU64::new(0);
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !std::thread::current().name().is_some_and(|name| name.starts_with("tidegate-")) {
            return default(panic);
        }
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        if LAST_SECOND.swap(second, Ordering::Relaxed) == second {
            return;
        }
        let payload = panic.payload();
        let what = payload.downcast_ref::<&str>().copied();
        let what = what.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "{what}");
    }));
}

/// Stderr, as far as it takes lines at once: a reader that has stopped reading (a pager, a full pipe) must not
/// stop the thread that keeps time. What it does not take is lost.
struct Lossy;

impl Write for Lossy {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let writable = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&now));
        if writable.is_ok_and(|ready| ready > 0) {
            let cut = line.len().min(LINE_MAX);
            // Nobody can be told when the log itself fails.
            let _ = rustix::io::write(&stderr, &line[..cut]);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
