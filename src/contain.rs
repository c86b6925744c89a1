//! Runs code that others wrote, and keeps its panics from going further.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The code panicked; the panic's payload is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Calls `code`; a panic ends the call and nothing else. A payload whose own drop panics is contained too.
#[inline]
pub(crate) fn contain<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(bury)
}

/// Drops the payload of a panic. What its drop throws in turn is leaked: dropping that could go on for ever.
fn bury(payload: Box<dyn Any + Send>) -> Panicked {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
    Panicked
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        assert_eq!(contain(|| 7), Ok(7));
        assert_eq!(contain(|| -> u8 { std::panic::panic_any(Bomb) }), Err(Panicked));
    }
}
