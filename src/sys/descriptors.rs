//! How many files this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to at least `wanted`, as far as the hard one goes, and says
/// what it is then.
pub(crate) fn raise_open_files(wanted: u64) -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    if soft >= wanted {
        return soft;
    }
    let aim = limit.maximum.unwrap_or(u64::MAX).min(wanted);
    limit.current = Some(aim);
    if setrlimit(Resource::Nofile, limit).is_ok() { aim } else { soft }
}
