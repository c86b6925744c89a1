//! A value that many threads read and that another one takes the place of now and then: settings that change while they
//! are used. A value is never changed itself, so a reader sees a whole one.
//!
//! A thread or a session that needs it at every turn keeps a [`CurrentView`] and compares one number at each look. That is a
//! read of a cache line which is written only when the value changes, and costs two instructions. Others ask for the value
//! of the moment.

use std::ops::Deref;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, PoisonError, RwLock};

/// Where the value of this moment is found.
#[derive(Debug)]
pub(crate) struct Current<T> {
    /// Where the value is in memory. It stands for the value: no other can be there while somebody has a view of it.
    place: AtomicUsize,
    value: RwLock<Arc<T>>,
}

fn place<T>(value: &Arc<T>) -> usize {
    Arc::as_ptr(value) as usize
}

impl<T> Current<T> {
    pub(crate) fn new(first: T) -> Self {
        let first = Arc::new(first);
        Self { place: AtomicUsize::new(place(&first)), value: RwLock::new(first) }
    }

    /// The value of this moment.
    pub(crate) fn get(&self) -> Arc<T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A view that begins with the value of this moment.
    pub(crate) fn view(&self) -> CurrentView<T> {
        CurrentView(self.get())
    }

    /// Another value takes the place of this one.
    pub(crate) fn replace(&self, new: T) {
        let new = Arc::new(new);
        let mut value = self.value.write().unwrap_or_else(PoisonError::into_inner);
        self.place.store(place(&new), Release);
        *value = new;
    }
}

/// The value as somebody last saw it.
#[derive(Debug)]
pub(crate) struct CurrentView<T>(Arc<T>);

impl<T> CurrentView<T> {
    /// Looks whether the value is another one since the last look, and sees that one if so; what it saw before then.
    #[inline]
    pub(crate) fn look(&mut self, current: &Current<T>) -> Option<Arc<T>> {
        if current.place.load(Acquire) == place(&self.0) {
            return None;
        }
        self.look_again(current)
    }

    #[cold]
    fn look_again(&mut self, current: &Current<T>) -> Option<Arc<T>> {
        Some(std::mem::replace(&mut self.0, current.get()))
    }
}

impl<T> Deref for CurrentView<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_sees_a_change_once_and_what_was_before_it() {
        let current = Current::new(1);
        let (mut view, mut other) = (current.view(), current.view());
        assert_eq!((view.look(&current), *view), (None, 1));
        current.replace(2);
        assert_eq!(*view, 1, "until it looks");
        assert_eq!(view.look(&current).as_deref(), Some(&1));
        assert_eq!((view.look(&current), *view), (None, 2));
        current.replace(3);
        assert_eq!(other.look(&current).as_deref(), Some(&1), "it has not seen the one between");
        assert_eq!((*other, *current.get()), (3, 3));
    }

    /// Threads that look while another one changes see whole values only, never an older one, and at last the last one.
    #[test]
    fn threads_never_see_half_of_a_change() {
        let (current, last) = (Current::new([0; 16]), 2_000);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let (mut view, mut seen) = (current.view(), 0);
                    while seen < last {
                        view.look(&current);
                        let value = *view;
                        assert_eq!(value, [value[0]; 16]);
                        assert!(value[0] >= seen, "never an older one");
                        seen = value[0];
                    }
                });
            }
            (1..=last).for_each(|n| current.replace([n; 16]));
        });
    }
}
