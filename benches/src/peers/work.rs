//! What a peer does with a request before it answers.

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::str::FromStr;
use std::time::Duration;

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    /// It goes back.
    Echo,
    /// The time of day is the answer (UDP).
    Time,
    /// It goes back after this much CPU time of the serving thread.
    Cpu(Duration),
    /// It goes back after this much waiting.
    Sleep(Duration),
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let not_a_mode =
            || format!("`{text}` is not a mode: write echo, time, work-cpu:1ms or work-sleep:20ms");
        match text {
            "echo" => return Ok(Mode::Echo),
            "time" => return Ok(Mode::Time),
            _ => {}
        }
        let (kind, amount) = text.split_once(':').ok_or_else(not_a_mode)?;
        let millis: f64 =
            amount.strip_suffix("ms").and_then(|number| number.parse().ok()).ok_or_else(not_a_mode)?;
        let amount = Duration::try_from_secs_f64(millis / 1e3).map_err(|_| not_a_mode())?;
        match kind {
            "work-cpu" => Ok(Mode::Cpu(amount)),
            "work-sleep" => Ok(Mode::Sleep(amount)),
            _ => Err(not_a_mode()),
        }
    }
}

impl Mode {
    /// The work alone. CPU time is the thread's own, so that 32 threads on one core cannot all spend the same
    /// millisecond.
    pub(crate) fn work(self) {
        match self {
            Mode::Echo | Mode::Time => {}
            Mode::Cpu(amount) => burn(amount),
            Mode::Sleep(amount) => std::thread::sleep(amount),
        }
    }
}

fn burn(amount: Duration) {
    let spent = |start: Timespec| clock_gettime(ClockId::ThreadCPUTime) - start;
    let start = clock_gettime(ClockId::ThreadCPUTime);
    let amount = Timespec { tv_sec: amount.as_secs() as i64, tv_nsec: i64::from(amount.subsec_nanos()) };
    let mut value = 1u64;
    while spent(start) < amount {
        // A few microseconds, so that asking for the time is a small part of the work.
        for _ in 0..2_000 {
            value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read() {
        assert_eq!("echo".parse(), Ok(Mode::Echo));
        assert_eq!("work-cpu:1ms".parse(), Ok(Mode::Cpu(Duration::from_millis(1))));
        assert_eq!("work-sleep:0.5ms".parse(), Ok(Mode::Sleep(Duration::from_micros(500))));
        for text in ["", "work", "work-cpu:1", "work-nap:1ms", "work-cpu:-1ms"] {
            assert!(text.parse::<Mode>().is_err(), "{text}");
        }
    }

    #[test]
    fn burning_costs_the_thread_that_much_cpu() {
        let before = clock_gettime(ClockId::ThreadCPUTime);
        Mode::Cpu(Duration::from_millis(5)).work();
        let spent = clock_gettime(ClockId::ThreadCPUTime) - before;
        assert!(spent >= Timespec { tv_sec: 0, tv_nsec: 5_000_000 });
        assert!(spent < Timespec { tv_sec: 0, tv_nsec: 8_000_000 });
    }
}
