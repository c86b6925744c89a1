//! Signals that were ignored when this process was started.

use rustix::process::Signal;

/// Runs `catch`, which sets handlers for these signals, and leaves those ignored that this process was started
/// with ignored: `nohup` does that with SIGHUP, and a shell with SIGINT for `cmd &` in a script.
pub(crate) fn keep_ignored<T>(signals: &[Signal], catch: impl FnOnce() -> T) -> T {
    let ignored: Vec<_> = signals.iter().copied().filter(|&signal| is_ignored(signal)).collect();
    let caught = catch();
    ignored.into_iter().for_each(ignore);
    caught
}

/// Whether this signal does nothing.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes to `now`, which is as large as it has to be.
    let result = unsafe { libc::sigaction(signal.as_raw(), std::ptr::null(), now.as_mut_ptr()) };
    // SAFETY: all zeros are a valid `sigaction` too, should the call have failed.
    result == 0 && unsafe { now.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Has this signal do nothing.
fn ignore(signal: Signal) {
    // SAFETY: SIG_IGN is no handler, so no code of this process runs on the signal.
    unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) };
}
