//! What a thread has used of the machine.

/// What the calling thread has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadUsage {
    /// Processor time in nanoseconds.
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
