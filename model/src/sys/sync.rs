//! See the server's `sys::sync`.

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
pub(crate) use loom::sync::{Mutex, MutexGuard};

/// Loom takes a `SeqCst` access for one that acquires and releases, and knows the order of `SeqCst` fences only. Here a fence
/// after each such access stands for the order that they have among themselves. There is none before it: an access of
/// another kind that comes before is not in that order.
pub(crate) mod in_order {
    use super::{Ordering, fence};

    /// Runs an access.
    fn ordered<T>(order: Ordering, access: impl FnOnce() -> T) -> T {
        let result = access();
        if order == Ordering::SeqCst {
            fence(Ordering::SeqCst);
        }
        result
    }

    macro_rules! number {
        ($name:ident, $of:ty) => {
            #[derive(Debug)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            impl $name {
                pub(crate) fn new(value: $of) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $of {
                    ordered(order, || self.0.load(order))
                }

                pub(crate) fn store(&self, value: $of, order: Ordering) {
                    ordered(order, || self.0.store(value, order));
                }

                pub(crate) fn fetch_add(&self, value: $of, order: Ordering) -> $of {
                    ordered(order, || self.0.fetch_add(value, order))
                }

                pub(crate) fn fetch_sub(&self, value: $of, order: Ordering) -> $of {
                    ordered(order, || self.0.fetch_sub(value, order))
                }

                pub(crate) fn fetch_or(&self, value: $of, order: Ordering) -> $of {
                    ordered(order, || self.0.fetch_or(value, order))
                }

                pub(crate) fn fetch_and(&self, value: $of, order: Ordering) -> $of {
                    ordered(order, || self.0.fetch_and(value, order))
                }

                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    change: impl FnMut($of) -> Option<$of>,
                ) -> Result<$of, $of> {
                    ordered(set, || self.0.fetch_update(set, fetch, change))
                }
            }
        };
    }

    number!(AtomicU8, u8);
    number!(AtomicUsize, usize);
}
