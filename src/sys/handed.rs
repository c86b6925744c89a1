//! Descriptors that the parent process has handed over to this one.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes the descriptors of these numbers, once in the life of the process; `None` for a number that is not open.
/// Programs that this one starts do not get them.
pub(crate) fn take_descriptors(numbers: &[RawFd]) -> Vec<Option<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return numbers.iter().map(|_| None).collect();
    }
    numbers.iter().map(|&number| take(number)).collect()
}

fn take(number: RawFd) -> Option<OwnedFd> {
    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
    // The first three belong to the standard library.
    if number < 3 {
        return None;
    }
    // SAFETY: the borrow ends with this function; a number that is not open is an error of the call, which changes nothing.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(borrowed).ok()?;
    // What this process opened itself has the flag: it was not handed over, and has an owner here.
    if flags.contains(FdFlags::CLOEXEC) {
        return None;
    }
    fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open, and was open when this process was started (everything that is opened here has the flag that it
    // lacked), so nothing here owns it; it is taken once, since from now on it has the flag.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
