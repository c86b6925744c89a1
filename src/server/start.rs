//! Starts worker threads: those that a server begins with, and more when `workers` is raised while it serves.

use super::error::BuildError;
use super::shared::Shared;
use super::turn::worker;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Starts the workers of these numbers: a pool that each is one job of, which ends with the server.
pub(super) fn start_workers(shared: &Arc<Shared>, numbers: Range<usize>) -> Result<(), BuildError> {
    let count = numbers.len();
    if count == 0 {
        return Ok(());
    }
    let builder = threadpool::Builder::new().num_threads(count).thread_name("tidegate-worker".to_owned());
    // The pool panics when the system has no thread for it.
    let pool = std::panic::catch_unwind(|| builder.build()).map_err(|_| BuildError::Start {
        what: "the workers",
        source: io::Error::other(format!("the system does not give {count} threads")),
    })?;
    for me in numbers {
        let shared = shared.clone();
        pool.execute(move || worker::run(&shared, me));
    }
    Ok(())
}
