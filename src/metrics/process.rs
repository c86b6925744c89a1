//! The figures of the process itself, such as memory and open files. They can be read even when the process has no file
//! descriptor left.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// One reading of the process. What the system does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ProcessSnapshot {
    /// Processor time, user and system.
    pub cpu: Duration,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// How many may be open; `None` where there is no limit.
    pub max_fds: Option<u64>,
    /// Virtual memory in bytes.
    pub virtual_bytes: Option<u64>,
    /// The limit of virtual memory in bytes; `None` where there is none.
    pub virtual_bytes_max: Option<u64>,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// When the process started, in seconds since the Unix epoch.
    pub start_time: Option<f64>,
    /// Lines of the log that nobody read fast enough.
    pub log_lines_dropped: u64,
    /// Lines of access logs that could not be written, or not fast enough.
    pub access_log_lines_dropped: u64,
    /// What balancers were told by the agent.
    pub agent: AgentSnapshot,
    /// Whether the configuration could be taken over when it was last read; `None` where there is none.
    pub configuration_taken_over: Option<bool>,
    /// When the configuration in force was read, in seconds since the Unix epoch.
    pub configuration_read_at: Option<u64>,
}

/// Lines of the log that were dropped. There is one log in a process, whoever writes it.
pub(crate) static LOG_LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines of access logs that were dropped.
pub(crate) static ACCESS_LOG_LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// What the agent has told balancers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentSnapshot {
    /// Its answers, by [`WORDS`](Self::WORDS).
    pub answers: [u64; 3],
    /// What of the server was free, in percent, when it last answered: 0 if that was not `up`, or nobody has asked.
    pub free_percent: u8,
}

impl AgentSnapshot {
    /// The words that it answers with.
    pub const WORDS: [&'static str; 3] = ["up", "drain", "down"];
}

/// What agents tell, counted. There is one in a process, or the answers of all are counted together.
#[derive(Debug)]
pub(crate) struct AgentCounts {
    answers: [AtomicU64; 3],
    free_percent: AtomicU8,
}

/// Those of this process.
pub(crate) static AGENT: AgentCounts =
    AgentCounts { answers: [const { AtomicU64::new(0) }; 3], free_percent: AtomicU8::new(0) };

impl AgentCounts {
    /// Counts an answer, by its place in [`AgentSnapshot::WORDS`].
    #[cfg(feature = "admin")]
    pub(crate) fn answered(&self, word: usize) {
        self.answers[word].fetch_add(1, Relaxed);
    }

    /// Remembers what is free.
    #[cfg(feature = "admin")]
    pub(crate) fn says(&self, free_percent: u8) {
        self.free_percent.store(free_percent, Relaxed);
    }

    fn snapshot(&self) -> AgentSnapshot {
        let answers = self.answers.each_ref().map(|count| count.load(Relaxed));
        AgentSnapshot { answers, free_percent: self.free_percent.load(Relaxed) }
    }
}

/// Reads the process. It opens what it needs once, so a reading needs no free descriptor.
#[derive(Debug)]
pub struct ProcessReader {
    #[cfg(target_os = "linux")]
    proc: Option<linux::Proc>,
}

impl ProcessReader {
    /// Opens what it needs; without `/proc` some numbers are missing.
    pub fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            proc: linux::Proc::open().ok(),
        }
    }

    /// Reads everything.
    pub fn read(&self) -> ProcessSnapshot {
        use rustix::process::{Resource, getrlimit};
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let configuration = super::configuration::state();
        #[cfg_attr(not(target_os = "linux"), allow(unused_mut, reason = "only Linux has /proc"))]
        let mut seen = ProcessSnapshot {
            configuration_taken_over: configuration.as_ref().map(|state| state.failure.is_none()),
            configuration_read_at: configuration.map(|state| state.read_at),
            cpu: Duration::new(cpu.tv_sec.max(0) as u64, cpu.tv_nsec.clamp(0, 999_999_999) as u32),
            max_fds: getrlimit(Resource::Nofile).current,
            virtual_bytes_max: getrlimit(Resource::As).current,
            log_lines_dropped: LOG_LINES_DROPPED.load(Relaxed),
            access_log_lines_dropped: ACCESS_LOG_LINES_DROPPED.load(Relaxed),
            agent: AGENT.snapshot(),
            ..ProcessSnapshot::default()
        };
        #[cfg(target_os = "linux")]
        if let Some(proc) = &self.proc {
            proc.read(&mut seen);
        }
        seen
    }
}

impl Default for ProcessReader {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::ProcessSnapshot;
    use rustix::fs::{Dir, Mode, OFlags, fstat, open};
    use std::os::fd::OwnedFd;
    use std::sync::OnceLock;
    use std::time::SystemTime;

    /// When this process started. It is worked out once: the system tells the time since the machine started, and the
    /// step from there to the time of day follows the clock, which people and programs set.
    static STARTED: OnceLock<f64> = OnceLock::new();

    #[derive(Debug)]
    pub(super) struct Proc {
        stat: OwnedFd,
        fds: OwnedFd,
        page_bytes: u64,
    }

    impl Proc {
        pub(super) fn open() -> rustix::io::Result<Self> {
            let file = OFlags::RDONLY | OFlags::CLOEXEC;
            let proc = Self {
                stat: open("/proc/self/stat", file, Mode::empty())?,
                fds: open("/proc/self/fd", file | OFlags::DIRECTORY, Mode::empty())?,
                page_bytes: rustix::param::page_size() as u64,
            };
            // As early as can be: no clock has been set since.
            proc.read(&mut ProcessSnapshot::default());
            Ok(proc)
        }

        pub(super) fn read(&self, seen: &mut ProcessSnapshot) {
            seen.open_fds = self.open_fds();
            let mut buffer = [0; 1024];
            let Ok(len) = rustix::io::pread(&self.stat, &mut buffer, 0) else {
                return;
            };
            let text = String::from_utf8_lossy(&buffer[..len]);
            // The name, in parentheses, may hold anything; the third field follows the last `)`.
            let Some((_, rest)) = text.rsplit_once(')') else {
                return;
            };
            let fields: Vec<_> = rest.split_ascii_whitespace().collect();
            let field = |number: usize| fields.get(number - 3).and_then(|f| f.parse::<u64>().ok());
            seen.threads = field(20);
            seen.start_time = field(22).and_then(|ticks| once(&STARTED, || start_time(ticks)));
            seen.virtual_bytes = field(23);
            seen.resident_bytes = field(24).map(|pages| pages * self.page_bytes);
        }

        /// The size of `/proc/self/fd` is how many there are since Linux 6.2; before, they are
        /// counted.
        fn open_fds(&self) -> Option<u64> {
            match fstat(&self.fds) {
                Ok(stat) if stat.st_size > 0 => Some(stat.st_size as u64),
                _ => self.count_fds(),
            }
        }

        fn count_fds(&self) -> Option<u64> {
            rustix::fs::seek(&self.fds, rustix::fs::SeekFrom::Start(0)).ok()?;
            // `Dir` reads a descriptor of its own, so one must be free; it is not counted.
            let dir = Dir::read_from(&self.fds).ok()?;
            let entries =
                dir.filter(|entry| entry.as_ref().is_ok_and(|e| !e.file_name().to_bytes().starts_with(b".")));
            Some((entries.count() as u64).saturating_sub(1))
        }
    }

    /// What was found the first time.
    fn once(found: &OnceLock<f64>, find: impl FnOnce() -> Option<f64>) -> Option<f64> {
        match found.get() {
            Some(&value) => Some(value),
            None => find().map(|value| *found.get_or_init(|| value)),
        }
    }

    /// The start is told in ticks since the machine started.
    fn start_time(ticks: u64) -> Option<f64> {
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let booted = now.as_secs_f64() - (up.tv_sec as f64 + up.tv_nsec as f64 * 1e-9);
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        // To a hundredth, which is what a tick is.
        Some(((booted + ticks as f64 / ticks_per_second) * 100.0).round() / 100.0)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_start_stays_where_it_was_when_the_clock_is_set() {
            let found = OnceLock::new();
            assert_eq!(once(&found, || None), None, "the system may tell the next time");
            for clock in [1_000.0, 1_000.02, 999.98, 50_000.0] {
                assert_eq!(once(&found, || Some(clock)), Some(1_000.0));
            }
        }

        #[test]
        fn counted_descriptors_are_those_the_kernel_tells() {
            let proc = Proc::open().unwrap();
            // Other tests of this process open and close some meanwhile.
            let close = |a: u64, b: u64| a.abs_diff(b) <= 64;
            let told = proc.open_fds().unwrap();
            assert!(told > 2 && close(told, proc.count_fds().unwrap()));
            assert!(close(proc.count_fds().unwrap(), proc.count_fds().unwrap()));
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::{Instant, SystemTime};

    #[test]
    fn the_process_is_seen() {
        let reader = ProcessReader::new();
        let before = reader.read();
        let began = Instant::now();
        let mut after = reader.read();
        // Until it is seen, or for a time that is enough even on a busy machine.
        while after.cpu - before.cpu < Duration::from_millis(5) && began.elapsed() < Duration::from_secs(10) {
            after = reader.read();
        }
        let spent = after.cpu - before.cpu;
        assert!(spent >= Duration::from_millis(5), "{spent:?} is a fraction of a second, and seen");
        assert!(after.threads.unwrap() >= 1);
        assert!(after.resident_bytes.unwrap() > 100_000);
        assert!(after.virtual_bytes.unwrap() > after.resident_bytes.unwrap());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - after.start_time.unwrap();
        assert!((-1.0..3600.0).contains(&age), "started {age} s ago");
        assert_eq!(before.start_time, after.start_time, "one value for the life of the process");
        assert_eq!(ProcessReader::new().read().start_time, after.start_time, "whoever reads it");
    }
}
