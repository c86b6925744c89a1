//! The log: lines on stderr that never delay the thread that writes them.
//!
//! A stopped terminal, a pager and a full pipe take no more lines, and a write to them blocks. So one thread does
//! nothing but write, and the others put their lines into a queue with a bound. A line that finds the queue full is
//! dropped. As soon as the log is read again, a line says how many were dropped.

use super::args::{LogFormat, LogLevel, ServeArgs};
use crate::metrics::process::LOG_LINES_DROPPED;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// Lines that may wait to be written.
const LINES_MAX: usize = 1024;
/// A line longer than this is cut.
const LINE_MAX: usize = 4096;
/// The part of a panic's message that is logged.
const PANIC_MAX: usize = 1000;
/// How long the end of the program waits for the last lines to be written.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(500);

/// The queue to the thread that writes, once the log is started.
static QUEUE: OnceLock<Sender<LogItem>> = OnceLock::new();
/// Changes the level, once the log is started.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();
/// Lines begin with their level, for the journal.
static JOURNAL: AtomicBool = AtomicBool::new(false);
/// Lines that found the queue full and were not reported yet.
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum LogItem {
    Line(Vec<u8>),
    /// Everything before it has been written when this is dropped.
    Flush(#[allow(dead_code, reason = "dropping it is the message")] Sender<()>),
}

/// Starts the log, and makes panics of the server's threads part of it.
pub(super) fn start(args: &ServeArgs) -> io::Result<()> {
    let (sender, receiver) = bounded(LINES_MAX);
    std::thread::Builder::new().name("tidegate-log".to_owned()).spawn(move || write_all(&receiver))?;
    // A second call in one process keeps the first log.
    let _ = QUEUE.set(sender);
    let (level, handle) = reload::Layer::new(filter(args.log_level()));
    let _ = LEVEL.set(handle);
    let log = tracing_subscriber::fmt::layer().with_target(false).with_writer(|| Queued);
    let registry = tracing_subscriber::registry().with(level);
    let unsaid = || if is_journal(io::stderr()) { LogFormat::Journald } else { LogFormat::Text };
    let _ = match args.log_format.unwrap_or_else(unsaid) {
        LogFormat::Json => registry.with(log.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry.with(log.with_ansi(wants_colour())).try_init(),
        LogFormat::Journald => {
            JOURNAL.store(true, Ordering::Relaxed);
            let log = log.without_time().with_level(false).with_ansi(false).with_writer(Journal);
            registry.with(log).try_init()
        }
    };
    mind_panics();
    Ok(())
}

/// Logs lines of this level and of more serious ones from now on.
pub(super) fn set_level(level: LogLevel) {
    if let Some(Err(error)) = LEVEL.get().map(|handle| handle.reload(filter(level))) {
        tracing::error!(%error, "the log level stays as it was");
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Waits, for a short time, until all lines have been written.
pub(super) fn finish() {
    let Some(queue) = QUEUE.get() else {
        return;
    };
    let (written, is_written) = bounded(0);
    if queue.send_timeout(LogItem::Flush(written), LAST_WORDS).is_ok() {
        let _ = is_written.recv_timeout(LAST_WORDS);
    }
}

/// Writes one line to stderr, through the queue if there is one.
pub(super) fn say(line: &str) {
    if QUEUE.get().is_some() {
        let priority = if JOURNAL.load(Ordering::Relaxed) { priority(&Level::ERROR) } else { "" };
        let _ = Queued.write(format!("{priority}{line}\n").as_bytes());
        return finish();
    }
    // Nobody can be told when stderr is closed; the exit code still says it.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether this is systemd's journal, as `systemd.exec(5)` says how to know: the environment names the device and the inode of
/// the stream that leads there.
fn is_journal(stream: impl AsFd) -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(stream).is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The level as the journal reads it at the beginning of a line (`sd-daemon(3)`).
fn priority(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Makes of each line one for the journal.
struct Journal;

/// One line, behind its level.
struct JournalLine(&'static str);

impl MakeWriter<'_> for Journal {
    type Writer = JournalLine;

    fn make_writer(&self) -> JournalLine {
        JournalLine(priority(&Level::INFO))
    }

    fn make_writer_for(&self, line: &Metadata<'_>) -> JournalLine {
        JournalLine(priority(line.level()))
    }
}

impl Write for JournalLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        Queued.write(&[self.0.as_bytes(), line].concat())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether stderr takes colours: a terminal that is not a dumb one, and nobody who has set `NO_COLOR`.
fn wants_colour() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    io::stderr().is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// Panics of the server's own threads are caught, counted and summed up once a second. Of the panics themselves
/// at most one a second is logged, in one line, however many there are.
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
        tracing::error!(place, "{}", what.chars().take(PANIC_MAX).collect::<String>());
    }));
}

/// The thread that writes.
fn write_all(queue: &Receiver<LogItem>) {
    for piece in queue {
        let LogItem::Line(line) = piece else {
            continue;
        };
        // Nobody can be told when the log itself fails.
        let _ = io::stderr().write_all(&line);
        // The report is a line too, so there must be room for it.
        if queue.len() < LINES_MAX / 2 {
            report_dropped();
        }
    }
}

fn report_dropped() {
    let lines = DROPPED.swap(0, Ordering::Relaxed);
    if lines > 0 {
        tracing::warn!(lines, "the log was not read fast enough, and lines were dropped");
    }
}

/// The end of the queue that the log's lines are written to.
struct Queued;

impl Write for Queued {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut kept = line[..line.len().min(LINE_MAX)].to_vec();
        if kept.len() < line.len() {
            kept[LINE_MAX - 1] = b'\n';
        }
        if let Some(Err(TrySendError::Full(_))) = QUEUE.get().map(|queue| queue.try_send(LogItem::Line(kept)))
        {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            LOG_LINES_DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
