//! Checks at the start whether the system lets the server have all the threads it needs.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long threads that have ended may still count against a limit of the system.
const GONE_WITHIN: Duration = Duration::from_millis(200);

/// Starts this many threads of each name at once and ends them again. The error says which one the system did
/// not give: a thread that cannot be started later, deep in a library, would be a panic.
pub(super) fn rehearse(cast: &[(&'static str, usize)]) -> Result<(), String> {
    let before = count();
    let curtain = Arc::new((Mutex::new(false), Condvar::new()));
    let mut actors = Vec::with_capacity(cast.iter().map(|(_, threads)| threads).sum());
    let result = cast.iter().try_for_each(|&(name, threads)| {
        (1..=threads).try_for_each(|number| {
            actors.push(wait_for(&curtain).map_err(|error| refused(name, number, threads, &error))?);
            Ok(())
        })
    });
    *curtain.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    curtain.1.notify_all();
    for actor in actors {
        let _ = actor.join();
    }
    let began = Instant::now();
    while count() > before && began.elapsed() < GONE_WITHIN {
        std::thread::yield_now();
    }
    result
}

/// What a thread takes of the address space: its stack of 2 MiB, and the signal stack that it maps for itself. If it
/// cannot map that one, the standard library ends the process, so there must be room before a thread is started.
const THREAD_BYTES: usize = 3 * 1024 * 1024;

/// A thread that does nothing until the curtain falls.
fn wait_for(curtain: &Arc<(Mutex<bool>, Condvar)>) -> std::io::Result<JoinHandle<()>> {
    let no_room = |_| std::io::Error::from_raw_os_error(libc::ENOMEM);
    Vec::<u8>::new().try_reserve_exact(THREAD_BYTES).map_err(no_room)?;
    let curtain = curtain.clone();
    std::thread::Builder::new().spawn(move || {
        let fallen = curtain.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _fallen = curtain.1.wait_while(fallen, |fallen| !*fallen);
    })
}

fn refused(name: &str, number: usize, threads: usize, error: &std::io::Error) -> String {
    let which = if threads == 1 { name.to_owned() } else { format!("{name} {number} of {threads}") };
    format!(
        "cannot start the thread for {which}: {error}: raise the limit of threads or of memory \
         (ulimit -u, ulimit -v, pids.max), or lower --workers"
    )
}

/// The threads of this process, 0 where the system does not say.
fn count() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_says_which_thread_it_was() {
        let error = std::io::Error::from_raw_os_error(libc::EAGAIN);
        assert!(
            refused("a worker", 7, 32, &error).starts_with("cannot start the thread for a worker 7 of 32: ")
        );
        assert!(refused("the log", 1, 1, &error).starts_with("cannot start the thread for the log: "));
        assert_eq!(rehearse(&[("the log", 1), ("worker", 8)]), Ok(()));
    }
}
