//! The access log: one line for each HTTP request, which no worker waits for.
//!
//! Workers append lines to a buffer with a bound; one thread writes it out, up to 50 ms later. A disk that is slow or
//! full, and a pipe that nobody reads, cost lines, which are counted, and nothing else.

use crate::metrics::process::ACCESS_LOG_LINES_DROPPED;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that may wait to be written.
const WAITING_MAX: usize = 1 << 20;
/// With this many bytes there is no wait for more.
const WORTH_WRITING: usize = 64 << 10;
/// How long a line may wait for others to be written with.
const GATHER: Duration = Duration::from_millis(50);
/// How long a write may be blocked, where the file says so, before its lines are given up.
const BLOCKED_MAX: Duration = Duration::from_secs(1);
/// How often it is asked whether the file is still where it was.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the log of the server is told that lines are lost.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How lines of the access log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessFormat {
    /// The combined format of other web servers, and the duration in seconds behind it.
    #[default]
    Combined,
    /// An object a line.
    Json,
}

/// Where a line for each HTTP request goes: see [`Builder::access_log`](crate::Builder::access_log).
///
/// What is appended waits in memory (1 MiB at most, and as much that is being written) for a thread of the log's own. Lines past that, and lines that
/// cannot be written, are dropped and counted. When the last clone is dropped, what waits is written out.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: AccessFormat,
    queue: Arc<WorkersEnd>,
}

/// The workers' end of the queue: when the last is dropped, the thread ends.
#[derive(Debug)]
struct WorkersEnd(Arc<LogQueue>);

impl Drop for WorkersEnd {
    fn drop(&mut self) {
        self.0.lines().closing = true;
        self.0.come.notify_one();
    }
}

/// Lines on their way.
#[derive(Debug, Default)]
struct LogQueue {
    lines: Mutex<WaitingLines>,
    /// For the thread: there are lines, or it is wanted.
    come: Condvar,
    /// For those that wait for the thread.
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct WaitingLines {
    bytes: Vec<u8>,
    /// The thread has taken some, and has not written them.
    writing: bool,
    /// Nobody waits for more to come.
    hurry: bool,
    closing: bool,
}

impl LogQueue {
    fn lines(&self) -> MutexGuard<'_, WaitingLines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_lines(&self, lines: u64) {
        self.dropped.fetch_add(lines, Relaxed);
        ACCESS_LOG_LINES_DROPPED.fetch_add(lines, Relaxed);
    }

    /// Puts what waits into `batch`, when there is some and it is worth writing; false at the end.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut lines = self.lines();
        lines.writing = false;
        self.written.notify_all();
        lines = self
            .come
            .wait_while(lines, |lines| lines.bytes.is_empty() && !lines.closing)
            .unwrap_or_else(PoisonError::into_inner);
        let more =
            |lines: &mut WaitingLines| lines.bytes.len() < WORTH_WRITING && !lines.closing && !lines.hurry;
        let gathered = self.come.wait_timeout_while(lines, GATHER, more);
        lines = gathered.unwrap_or_else(PoisonError::into_inner).0;
        batch.clear();
        std::mem::swap(&mut lines.bytes, batch);
        lines.writing = !batch.is_empty();
        lines.hurry = false;
        lines.writing
    }
}

impl AccessLog {
    /// Bytes that the lines which wait take of the machine at most.
    pub(super) const BYTES: usize = 2 * WAITING_MAX;

    /// Appends to a file, which is made if there is none. When it is moved away, as programs that rotate logs do, another
    /// is opened in its place within a second. A pipe with a name must have a reader.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or there is no thread for it.
    pub fn file(path: impl Into<PathBuf>, format: AccessFormat) -> io::Result<Self> {
        let path = path.into();
        let place = LogPlace { file: open(&path)?, path, looked: Instant::now() };
        Self::start(Sink::new(LogTarget::Place(place)), format)
    }

    /// Writes to stdout.
    ///
    /// # Errors
    ///
    /// There is no descriptor or no thread for it.
    pub fn stdout(format: AccessFormat) -> io::Result<Self> {
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Self::start(Sink::new(LogTarget::Other(Box::new(stdout))), format)
    }

    /// Writes to whatever takes bytes. A write gets many lines; it may take its time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate::{AccessFormat, AccessLog, Server, http};
    ///
    /// let log = AccessLog::to(std::io::stderr(), AccessFormat::Json)?;
    /// let server = Server::builder().listen("127.0.0.1:0", http::echo())?.access_log(log.clone()).bind()?;
    /// assert!(log.finish(Duration::from_secs(1)) && log.dropped() == 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// There is no thread for it.
    pub fn to(writer: impl Write + Send + 'static, format: AccessFormat) -> io::Result<Self> {
        Self::start(Sink::new(LogTarget::Other(Box::new(writer))), format)
    }

    fn start(mut sink: Sink, format: AccessFormat) -> io::Result<Self> {
        let waiting = Arc::new(LogQueue::default());
        let queue = Arc::new(WorkersEnd(waiting.clone()));
        let write = move || {
            let mut batch = Vec::new();
            while waiting.take(&mut batch) {
                let lost = sink.write(&batch);
                if lost > 0 {
                    waiting.drop_lines(lost);
                }
            }
        };
        std::thread::Builder::new().name("tidegate-access".to_owned()).spawn(write)?;
        Ok(Self { format, queue })
    }

    /// How its lines look.
    pub fn format(&self) -> AccessFormat {
        self.format
    }

    /// Lines that were dropped.
    pub fn dropped(&self) -> u64 {
        self.queue.0.dropped.load(Relaxed)
    }

    /// Waits until everything so far is written, for this time at most; whether it is.
    pub fn finish(&self, within: Duration) -> bool {
        let waiting = &self.queue.0;
        let mut lines = waiting.lines();
        lines.hurry = true;
        waiting.come.notify_one();
        let busy = |lines: &mut WaitingLines| lines.writing || !lines.bytes.is_empty();
        let waited = waiting.written.wait_timeout_while(lines, within, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Appends a line, which ends with its line end, if there is room.
    pub(super) fn append(&self, line: &[u8]) {
        let waiting = &self.queue.0;
        let mut lines = waiting.lines();
        let before = lines.bytes.len();
        // All of the room is asked for at once, since a vector that grows by itself may take twice as much.
        let more = WAITING_MAX - before;
        if line.len() > more || lines.bytes.try_reserve_exact(more).is_err() {
            drop(lines);
            return waiting.drop_lines(1);
        }
        lines.bytes.extend_from_slice(line);
        let after = lines.bytes.len();
        drop(lines);
        if before == 0 || (before < WORTH_WRITING && after >= WORTH_WRITING) {
            waiting.come.notify_one();
        }
    }
}

/// Opens a file to append to. Without a reader a pipe is an error and not a wait.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Where lines are written.
struct Sink {
    target: LogTarget,
    /// The last thing that was written is not a whole line.
    torn: bool,
    told: Option<Instant>,
}

enum LogTarget {
    Place(LogPlace),
    Other(Box<dyn Write + Send>),
}

/// A file and where it is.
struct LogPlace {
    file: File,
    path: PathBuf,
    looked: Instant,
}

impl LogPlace {
    /// Opens the file anew if another one, or none, is where it was.
    fn look(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        let identity = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let there = std::fs::metadata(&self.path).map(identity).ok();
        if there.is_none() || there != self.file.metadata().map(identity).ok() {
            // Where that fails the old file goes on: it is better than none.
            if let Ok(file) = open(&self.path) {
                self.file = file;
            }
        }
    }
}

impl Sink {
    fn new(target: LogTarget) -> Self {
        Self { target, torn: false, told: None }
    }

    /// Writes lines, and says how many of them were lost.
    fn write(&mut self, batch: &[u8]) -> u64 {
        let out: &mut dyn Write = match &mut self.target {
            LogTarget::Place(place) => {
                place.look();
                &mut place.file
            }
            LogTarget::Other(other) => other,
        };
        let (written, failed) = match self.torn {
            true => match write_some(out, b"\n") {
                (_, None) => write_some(out, batch),
                (_, failed) => (0, failed),
            },
            false => write_some(out, batch),
        };
        if written > 0 {
            self.torn = batch[written - 1] != b'\n';
        }
        let lost = batch[written..].iter().filter(|&&byte| byte == b'\n').count() as u64;
        if let Some(error) = failed.filter(|_| self.told.is_none_or(|at| at.elapsed() > TELL_EVERY)) {
            self.told = Some(Instant::now());
            tracing::warn!(%error, lines = lost, "lines of the access log cannot be written");
        }
        lost
    }
}

/// Writes as much as can be: how much, and why not more.
fn write_some(out: &mut dyn Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let (mut written, mut blocked) = (0, None);
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(n) => {
                written += n;
                blocked = None;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if blocked.get_or_insert_with(Instant::now).elapsed() > BLOCKED_MAX {
                    return (written, Some(error));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return (written, Some(error)),
        }
    }
    (written, out.flush().err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, Sender, bounded};

    const WITHIN: Duration = Duration::from_secs(10);

    /// Takes what it is allowed to, in order, and fails with what it is told.
    struct Scripted {
        script: Receiver<io::Result<usize>>,
        seen: Sender<Vec<u8>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let most = self.script.recv().unwrap_or(Ok(usize::MAX))?;
            let taken = &bytes[..most.min(bytes.len())];
            self.seen.send(taken.to_vec()).unwrap();
            Ok(taken.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scripted() -> (AccessLog, Sender<io::Result<usize>>, Receiver<Vec<u8>>) {
        let ((give, script), (seen, saw)) = (bounded(100), bounded(100));
        let log = AccessLog::to(Scripted { script, seen }, AccessFormat::Combined).unwrap();
        (log, give, saw)
    }

    fn joined(saw: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(saw.try_iter().flatten().collect()).unwrap()
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (log, give, saw) = scripted();
        drop(give);
        (0..1000).for_each(|n| log.append(format!("{n}\n").as_bytes()));
        assert!(log.finish(WITHIN));
        let expected: String = (0..1000).map(|n| format!("{n}\n")).collect();
        assert_eq!((joined(&saw), log.dropped()), (expected, 0));
    }

    #[test]
    fn a_writer_that_takes_nothing_costs_lines_and_no_waits() {
        let (log, give, saw) = scripted();
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let began = Instant::now();
        (0..50_000).for_each(|_| log.append(&line));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let dropped = log.dropped();
        assert!(!log.finish(Duration::from_millis(20)), "nothing was taken");
        // One batch is with the writer, as much again waits.
        let kept = 50_000 - dropped;
        assert!((10_000..=21_000).contains(&kept), "{kept} lines are kept");
        drop(give);
        assert!(log.finish(WITHIN));
        assert_eq!(joined(&saw).lines().count() as u64, kept);
    }

    #[test]
    fn a_full_disk_costs_the_lines_that_were_not_written_and_tears_none() {
        let (log, give, saw) = scripted();
        let full = || Err(io::ErrorKind::StorageFull.into());
        for order in [Ok(6), full(), full(), Ok(1), Ok(usize::MAX)] {
            give.send(order).unwrap();
        }
        log.append(b"first\nsecond\n");
        assert!(log.finish(WITHIN));
        assert_eq!((joined(&saw).as_str(), log.dropped()), ("first\n", 1));
        log.append(b"third\n");
        assert!(log.finish(WITHIN));
        assert_eq!((joined(&saw).as_str(), log.dropped()), ("", 2));
        log.append(b"fourth\n");
        assert!(log.finish(WITHIN));
        assert_eq!((joined(&saw).as_str(), log.dropped()), ("fourth\n", 2));
        // A line of which a part was written is ended before the next one.
        for order in [Ok(3), full(), Ok(1), Ok(usize::MAX)] {
            give.send(order).unwrap();
        }
        log.append(b"fifth\n");
        assert!(log.finish(WITHIN));
        log.append(b"sixth\n");
        assert!(log.finish(WITHIN));
        assert_eq!((joined(&saw).as_str(), log.dropped()), ("fif\nsixth\n", 3));
    }

    #[test]
    fn what_waits_is_written_when_the_last_owner_has_gone() {
        let (log, give, saw) = scripted();
        drop(give);
        let other = log.clone();
        other.append(b"last words\n");
        drop((log, other));
        assert_eq!(saw.recv_timeout(WITHIN).unwrap(), b"last words\n");
    }

    #[test]
    fn a_file_that_is_moved_away_is_made_anew() {
        let directory = std::env::temp_dir().join(format!("tidegate-access-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (path, moved) = (directory.join("access.log"), directory.join("access.log.1"));
        let log = AccessLog::file(&path, AccessFormat::Combined).unwrap();
        log.append(b"before\n");
        assert!(log.finish(WITHIN));
        std::fs::rename(&path, &moved).unwrap();
        let began = Instant::now();
        while !path.exists() {
            assert!(began.elapsed() < WITHIN, "no other file is made");
            log.append(b"after\n");
            assert!(log.finish(WITHIN));
        }
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert!(read(&moved).starts_with("before\nafter\n"), "the old file goes on until then");
        assert_eq!((read(&path).as_str(), log.dropped()), ("after\n", 0));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
