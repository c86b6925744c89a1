//! What the tests of the server share: a server in this process, the real program as a child, clients, and waits
//! that have a deadline.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

mod client;
mod figure;
mod folder;
mod http;
#[cfg(target_os = "linux")]
mod ordeal;
mod postgres;
mod processors;
mod program;
mod scrape;
mod services;
mod site;
mod stop;
mod terminal;

pub(crate) use client::{Client, End};
pub(crate) use figure::{FIGURES, figure};
pub(crate) use folder::Folder;
pub(crate) use http::{Reply, head};
#[cfg(target_os = "linux")]
pub(crate) use ordeal::Ordeal;
pub(crate) use postgres::Postgres;
pub(crate) use processors::with_processors;
pub(crate) use program::{Ending, Program, Running, command, finish, path, run};
pub(crate) use scrape::{Scrape, admin};
pub(crate) use services::{Gate, Held};
pub(crate) use site::Site;
pub(crate) use stop::Stop;
pub(crate) use terminal::{fill, terminal};

use std::time::{Duration, Instant};

/// How long a test waits for what must happen: long, since the machine may be busy, and nothing is lost by it when
/// all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `probe` finds something, and fails with `what` if it does not in time.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

/// The same, for what takes its time on a busy machine.
#[track_caller]
pub(crate) fn within<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(began.elapsed() < patience, "it did not happen within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Looks again and again for so long, and fails with `what` if `holds` does not hold once.
#[track_caller]
pub(crate) fn throughout(time: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < time {
        assert!(holds(), "after {:?} no more: {what}", began.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Lets this process open as many files as the system allows it.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit can be raised to the hard one");
}

/// The panics that a test provokes are not worth a backtrace each.
pub(crate) fn hush_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !std::thread::current().name().is_some_and(|name| name.starts_with("tidegate-")) {
                default(panic);
            }
        }));
    });
}
