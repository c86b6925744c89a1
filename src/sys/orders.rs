//! Signals that a thread waits for. No handler runs, so no thread is interrupted by one.

use rustix::process::Signal;
use std::mem::MaybeUninit;
use std::time::Duration;

/// Has the calling thread, and every thread that it starts from now on, not be interrupted by these signals: one that
/// comes waits until [`wait_for`] takes it. A signal that this process was started with ignored stays ignored.
pub(crate) fn hold(signals: &[Signal]) {
    let set = set_of(signals);
    // SAFETY: the call reads the set, which lives through it, and changes what this thread is interrupted by.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Takes one of these signals, which must be held; `None` if none came within this time.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn wait_for(signals: &[Signal], time: Duration) -> Option<Signal> {
    let set = set_of(signals);
    let time = libc::timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ };
    // SAFETY: the call reads the set and the time, which live through it; nothing is asked about the signal.
    let taken = unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time) };
    signals.iter().copied().find(|signal| signal.as_raw() == taken)
}

/// Elsewhere there is no wait with an end: looks whether one has come, often enough.
#[cfg(target_vendor = "apple")]
pub(crate) fn wait_for(signals: &[Signal], time: Duration) -> Option<Signal> {
    const LOOK: Duration = Duration::from_millis(50);
    let until = std::time::Instant::now() + time;
    loop {
        let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the call writes the whole set.
        let known = unsafe { libc::sigpending(pending.as_mut_ptr()) } == 0;
        // SAFETY: the set was written when the call succeeded, and is only read here.
        let came = |signal: &Signal| unsafe { libc::sigismember(pending.as_ptr(), signal.as_raw()) } == 1;
        if known && let Some(signal) = signals.iter().copied().find(came) {
            let (set, mut taken) = (set_of(&[signal]), 0);
            // SAFETY: the call reads the set and writes one number; the signal is pending, so it does not wait.
            unsafe { libc::sigwait(&raw const set, &raw mut taken) };
            return Some(signal);
        }
        if std::time::Instant::now() >= until {
            return None;
        }
        std::thread::sleep(LOOK.min(time));
    }
}

fn set_of(signals: &[Signal]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call writes the whole set, and the others change it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
        }
        set.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_held_is_taken_once() {
        // On a thread of its own, so that no other test's thread has the signal held.
        let waiting = std::thread::spawn(|| {
            hold(&[Signal::WINCH]);
            let none = wait_for(&[Signal::WINCH], Duration::from_millis(1));
            // SAFETY: the signal goes to this very thread, which holds it; its default is to do nothing.
            unsafe { libc::pthread_kill(libc::pthread_self(), Signal::WINCH.as_raw()) };
            let one = wait_for(&[Signal::WINCH], Duration::from_secs(10));
            (none, one, wait_for(&[Signal::WINCH], Duration::ZERO))
        });
        assert_eq!(waiting.join().unwrap(), (None, Some(Signal::WINCH), None));
    }
}
