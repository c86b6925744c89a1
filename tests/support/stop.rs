//! Ends the threads of a test that loop until they are told to stop.

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets the flag when it is dropped, so also when an assertion fails: otherwise a scope would wait for its threads for
/// ever, and the test would hang where it should fail.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
