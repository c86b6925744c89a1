//! Where a thread of a model sleeps until it is woken: a wake that comes before it sleeps is not lost, and one that never comes is a
//! deadlock, which loom reports.

use loom::sync::{Condvar, Mutex};

#[derive(Default)]
pub(crate) struct Bed {
    told: Mutex<bool>,
    wakes: Condvar,
}

impl Bed {
    pub(crate) fn wake(&self) {
        *self.told.lock().unwrap() = true;
        self.wakes.notify_one();
    }

    pub(crate) fn sleep(&self) {
        let mut told = self.told.lock().unwrap();
        while !*told {
            told = self.wakes.wait(told).unwrap();
        }
        *told = false;
    }
}
