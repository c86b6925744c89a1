//! How long a thread may compute before the kernel looks whether another is to run.

/// The shortest slice that the kernel gives, in nanoseconds.
#[cfg(target_os = "linux")]
const SHORT: u64 = 100_000;

/// `struct sched_attr` of the kernel, as its first version has it.
#[cfg(target_os = "linux")]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

#[cfg(target_os = "linux")]
impl SchedAttr {
    /// Those of the calling thread; `None` where the kernel does not tell.
    fn read() -> Option<Self> {
        let size = size_of::<Self>() as u32;
        let mut attr = Self::default();
        // SAFETY: 0 is the calling thread; the kernel writes at most `size` bytes to `attr`, each of whose bit patterns is valid.
        let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
        (result == 0).then_some(Self { size, ..attr })
    }

    /// Gives them to the calling thread.
    fn apply(&self) {
        // SAFETY: 0 is the calling thread; the kernel reads `size` bytes, which is the size of the struct.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *self, 0) };
    }

    fn is_ordinary(&self) -> bool {
        matches!(self.policy as i32, libc::SCHED_OTHER | libc::SCHED_BATCH)
    }
}

/// Asks for short slices for the calling thread, which computes little and is to run as soon as it is woken. Since Linux 6.12 a
/// thread interrupts one with a longer slice; without that it waits until that one's slice is over, which the kernel may notice
/// at its next tick only. Where the kernel knows of no slices nothing changes.
pub(crate) fn ask_for_short_slices() {
    #[cfg(target_os = "linux")]
    if let Some(attr) = SchedAttr::read().filter(SchedAttr::is_ordinary) {
        SchedAttr { runtime: SHORT, ..attr }.apply();
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_short_slices_and_keeps_its_niceness() {
        let thread = std::thread::spawn(|| {
            let before = SchedAttr::read().expect("Linux tells");
            ask_for_short_slices();
            (before, SchedAttr::read().expect("Linux tells"))
        });
        let (before, after) = thread.join().unwrap();
        assert_eq!((before.policy, before.nice, before.flags), (after.policy, after.nice, after.flags));
        // An older kernel has no slices, and tells of none.
        assert!(
            before.runtime == 0 || !before.is_ordinary() || after.runtime == SHORT,
            "{before:?} {after:?}"
        );
    }
}
