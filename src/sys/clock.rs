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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

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
