//! How much processor time a thread has used.

/// What the calling thread has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadUsage {
    /// Processor time in nanoseconds, brought up to date at the kernel's ticks, some milliseconds apart: right in the
    /// mean of many turns.
    pub(crate) processor: u64,
    /// How often it gave up the processor to wait for something.
    pub(crate) waits: u64,
}

/// Reads what the calling thread has used; `None` where the system does not tell of threads.
pub(crate) fn thread_usage() -> Option<ThreadUsage> {
    #[cfg(target_os = "linux")]
    {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: the pointer is to writable memory of the struct's size, which the call fills.
        let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
        if result != 0 {
            return None;
        }
        // SAFETY: the call succeeded, so the kernel has written the whole struct.
        let usage = unsafe { usage.assume_init() };
        let nanos = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
        let processor = nanos(usage.ru_utime) + nanos(usage.ru_stime);
        Some(ThreadUsage { processor, waits: usage.ru_nvcsw as u64 })
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// The processor time that the calling thread has used so far, in nanoseconds and exactly; `None` where the system does not
/// tell of threads.
pub(crate) fn thread_time() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let mut spent = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a whole `timespec`, which the call fills.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut spent) };
        (result == 0).then_some(spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_computes_is_known_at_once() {
        let before = thread_time().expect("Linux tells");
        let mut rounds = 0u64;
        // Far less than the kernel's tick: a clock that is brought up to date there would stand still mostly.
        while thread_time().expect("Linux tells") - before < 20_000 {
            rounds += 1;
        }
        let spent = thread_time().expect("Linux tells") - before;
        assert!(rounds > 1 && spent < 1_000_000, "{rounds} readings, {spent} ns");
    }
}
