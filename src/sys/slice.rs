//! How long a thread may compute before the kernel looks whether another is to run.

#[cfg(target_os = "linux")]
use std::mem::MaybeUninit;

/// The shortest slice that the kernel gives, in nanoseconds.
#[cfg(target_os = "linux")]
const SHORT: u64 = 100_000;

/// How the kernel schedules the calling thread; `None` where it does not tell.
#[cfg(target_os = "linux")]
fn scheduling() -> Option<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut attr = MaybeUninit::<libc::sched_attr>::zeroed();
    // SAFETY: 0 is the calling thread; the kernel writes at most `size` bytes, which is the size of the struct.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, attr.as_mut_ptr(), size, 0) };
    // SAFETY: it is all numbers, which were zero before the kernel wrote some of them.
    (result == 0).then(|| libc::sched_attr { size, ..unsafe { attr.assume_init() } })
}

#[cfg(target_os = "linux")]
fn is_ordinary(attr: &libc::sched_attr) -> bool {
    matches!(attr.sched_policy as i32, libc::SCHED_OTHER | libc::SCHED_BATCH)
}

/// Asks for short slices for the calling thread, which computes little and is to run as soon as it is woken. Since Linux 6.12 a
/// thread interrupts one with a longer slice; without that it waits until that one's slice is over, which the kernel may notice
/// at its next tick only. Where the kernel knows of no slices nothing changes.
pub(crate) fn ask_for_short_slices() {
    #[cfg(target_os = "linux")]
    if let Some(attr) = scheduling().filter(is_ordinary) {
        let attr = libc::sched_attr { sched_runtime: SHORT, ..attr };
        // SAFETY: 0 is the calling thread; the kernel reads as many bytes as `size` says, which is the size of the struct.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_short_slices_and_keeps_its_niceness() {
        // In a thread of its own, since it stays so.
        let thread = std::thread::spawn(|| {
            let before = scheduling().expect("Linux tells");
            ask_for_short_slices();
            (before, scheduling().expect("Linux tells"))
        });
        let (before, after) = thread.join().unwrap();
        let kept = |attr: &libc::sched_attr| (attr.sched_policy, attr.sched_nice, attr.sched_flags);
        assert_eq!(kept(&before), kept(&after));
        // An older kernel has no slices, and tells of none.
        let slices = (before.sched_runtime, after.sched_runtime);
        assert!(slices.0 == 0 || !is_ordinary(&before) || slices.1 == SHORT, "{slices:?}");
    }
}
