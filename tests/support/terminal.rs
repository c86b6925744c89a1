//! A terminal that a test holds the other end of.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// A pseudo-terminal: the side of its emulator, and the side that a program writes to.
#[track_caller]
pub(crate) fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};
    let control = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&control).unwrap();
    unlockpt(&control).unwrap();
    let terminal = open(&name(&control), 0);
    (control.into(), terminal)
}

/// Writes to a terminal whose emulator does not read until it takes no more.
#[track_caller]
pub(crate) fn fill(control: &File) {
    let mut terminal = open(&name(control), libc::O_NONBLOCK);
    loop {
        match terminal.write(&[b'.'; 512]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn name(control: &impl std::os::fd::AsFd) -> PathBuf {
    let name = rustix::pty::ptsname(control, Vec::new()).unwrap();
    PathBuf::from(name.into_string().unwrap())
}

fn open(name: &PathBuf, flags: i32) -> File {
    // It is not to become this process's own terminal.
    OpenOptions::new().read(true).write(true).custom_flags(flags | libc::O_NOCTTY).open(name).unwrap()
}
