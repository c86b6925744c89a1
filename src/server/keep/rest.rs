//! Whether processors are idle: the share of the last moment in which the processors that this process may use had
//! nothing to do, and whether a quota kept the process from using them.

use super::quota::QuotaMeter;
#[cfg(target_os = "linux")]
use std::fs::File;

/// Processors have rest while at least this part of their time is idle.
const IDLE_LEAST: f64 = 0.1;

/// Times of processors, in the kernel's ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    all: u64,
}

/// Reads `/proc/stat`, where there is one; elsewhere processors are thought to have none.
#[derive(Debug)]
pub(crate) struct RestMeter {
    #[cfg(target_os = "linux")]
    file: Option<File>,
    quota: QuotaMeter,
    last: Option<Ticks>,
}

impl RestMeter {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            file: File::open("/proc/stat").ok(),
            quota: QuotaMeter::new(),
            last: None,
        }
    }

    /// Whether processors had rest since the last call; `None` if nothing can be said yet.
    pub(crate) fn had_rest(&mut self) -> Option<bool> {
        let stopped = self.quota.was_used_up();
        let now = self.read()?;
        let last = self.last.replace(now)?;
        rested(last, now).map(|rested| rested && !stopped)
    }

    /// Forgets the last reading: the time since then is of no interest.
    pub(crate) fn forget(&mut self) {
        self.last = None;
        self.quota.forget();
    }

    #[cfg(target_os = "linux")]
    fn read(&self) -> Option<Ticks> {
        use std::os::unix::fs::FileExt;
        let allowed = rustix::thread::sched_getaffinity(None).ok()?;
        // The lines of processors come first; this holds those of some two hundred.
        let mut text = [0u8; 16 * 1024];
        let read = self.file.as_ref()?.read_at(&mut text, 0).ok()?;
        Some(sum(&text[..read], |processor| allowed.is_set(processor)))
    }

    #[cfg(not(target_os = "linux"))]
    fn read(&self) -> Option<Ticks> {
        None
    }
}

fn rested(last: Ticks, now: Ticks) -> Option<bool> {
    let (idle, all) = (now.idle.saturating_sub(last.idle), now.all.saturating_sub(last.all));
    (all > 0).then_some(idle as f64 >= all as f64 * IDLE_LEAST)
}

/// Sums the lines `cpuN user nice system idle iowait ...` of the processors that are `allowed`.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux has /proc/stat"))]
fn sum(text: &[u8], allowed: impl Fn(usize) -> bool) -> Ticks {
    let mut ticks = Ticks::default();
    // The lines of processors come first. What follows has a number for each interrupt, which would cost more to read
    // than all the rest.
    for line in text.split(|&byte| byte == b'\n').map_while(|line| line.strip_prefix(b"cpu")) {
        let mut numbers = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).map(number);
        // The first line is the sum of all, and has a space before its first number.
        let Some(Some(processor)) = (!line.starts_with(b" ")).then(|| numbers.next().flatten()) else {
            continue;
        };
        if !usize::try_from(processor).is_ok_and(&allowed) {
            continue;
        }
        // Of the eight that follow, the last two (guest times) would be counted twice.
        for (at, n) in numbers.take(8).map(Option::unwrap_or_default).enumerate() {
            ticks.all += n;
            ticks.idle += if matches!(at, 3 | 4) { n } else { 0 };
        }
    }
    ticks
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  90 0 30 300 30 0 0 0 7 7\ncpu0 10 1 20 100 10 2 3 4 7 7\ncpu1 80 0 10 200 20 0 0 0 0 0\n\
                        intr 5 5\nctxt 9\n";

    #[test]
    fn only_the_processors_that_may_be_used_count() {
        assert_eq!(sum(STAT.as_bytes(), |_| true), Ticks { idle: 330, all: 460 });
        assert_eq!(sum(STAT.as_bytes(), |n| n == 0), Ticks { idle: 110, all: 150 });
        assert_eq!(sum(b"", |_| true), Ticks::default());
        assert_eq!(sum(b"cpu3 x y", |_| true), Ticks::default());
    }

    #[test]
    fn a_tenth_of_idle_time_is_rest() {
        let at = |idle, all| Ticks { idle, all };
        assert_eq!(rested(at(100, 1000), at(110, 1100)), Some(true));
        assert_eq!(rested(at(100, 1000), at(109, 1100)), Some(false));
        assert_eq!(rested(at(100, 1000), at(100, 1000)), None, "no time has passed");
    }
}
