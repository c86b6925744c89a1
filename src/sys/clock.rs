//! The server's clock, which never goes back.

use crate::clock::Nanos;
use std::time::Duration;

/// Time since the server's start as one number. It is read three times in a turn, so it is the kernel's number less
/// another: a difference of two of the standard library's instants takes a hundred instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(u64);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(monotonic())
    }

    pub(crate) fn now(&self) -> Nanos {
        monotonic().saturating_sub(self.0).max(1)
    }

    /// What this clock shows when another clock of this process shows `time`.
    pub(crate) fn when(&self, other: Clock, time: Nanos) -> Nanos {
        (other.0 + time).saturating_sub(self.0).max(1)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now())
    }
}

/// Nanoseconds since some moment before the process began: 584 years fit.
fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole `timespec`, which the call fills. It fails only for a clock that the system does not
    // have, and POSIX has this one.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Seconds since 1970, as the kernel noted them some milliseconds ago at most: a header's date needs no more, and the
/// processor's own clock is not read for it.
pub(crate) fn unix_second() -> u64 {
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_REALTIME_COARSE;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_REALTIME;
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above. If the system does not have the clock, `now` stays what it is.
    unsafe { libc::clock_gettime(CLOCK, &raw mut now) };
    // A clock before 1970 is wrong, and so is whatever is said then.
    u64::try_from(now.tv_sec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn the_second_is_that_of_the_standard_library() {
        let second = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let before = second();
        let now = unix_second();
        assert!((before.saturating_sub(1)..=second()).contains(&now), "{before}, {now}");
    }

    #[test]
    fn a_time_of_one_clock_is_that_of_another_less_what_lies_between_their_starts() {
        let (early, late) = (Clock(1_000), Clock(1_400));
        assert_eq!((late.when(early, 500), early.when(late, 100)), (100, 500));
        assert_eq!(late.when(early, 300), 1, "never 0, which means \"no time\"");
    }

    #[test]
    fn it_goes_on_as_the_instants_of_the_standard_library_do() {
        let clock = Clock::start();
        let outer = Instant::now();
        let began = clock.now();
        let inner = Instant::now();
        while inner.elapsed().as_millis() < 5 {}
        let (passed, most) = (clock.now() - began, outer.elapsed());
        assert!(passed >= 5_000_000 && u128::from(passed) <= most.as_nanos(), "{passed} ns, {most:?}");
    }
}
