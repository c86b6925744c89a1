//! The file of a Unix socket that listens: made with its mode, put in the place of one that a dead server has left, and
//! removed at the end if it is still the same.
//!
//! Whoever makes, replaces or removes such a file holds a lock on its directory meanwhile (`flock`), so that of two
//! servers which start at once one finds the other. No lock file is left behind.

use super::socket::new_socket;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat, flock, lstat, open, unlink};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, connect};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the lock is waited for at the start, and at the end.
const LOCK_WITHIN: Duration = Duration::from_secs(2);
const LOCK_AT_END_WITHIN: Duration = Duration::from_millis(100);
const LOCK_EVERY: Duration = Duration::from_millis(5);

/// A socket file of this process. Dropping it removes the file, unless another has taken its place meanwhile. While the
/// socket is open the kernel gives its inode to no other file, so drop this first.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// Binds a socket to a path, and makes it listen, with `mode` for its file.
pub(crate) fn bind_at(
    socket: impl AsFd,
    path: &Path,
    mode: u32,
    listen: impl FnOnce() -> io::Result<()>,
) -> io::Result<SocketFile> {
    let name = SocketAddrUnix::new(path)?;
    let _lock = lock_beside(path, LOCK_WITHIN)?;
    make_way(path, &name)?;
    let mode = Mode::from_raw_mode(mode as rustix::fs::RawMode);
    // Linux makes the file with the mode of the socket, so that it is never open to more than it should be. What the
    // process masks out is added afterwards. Other systems refuse.
    let _ = rustix::fs::fchmod(&socket, mode);
    rustix::net::bind(&socket, &name)?;
    let file = SocketFile::at(path)?;
    rustix::fs::chmod(path, mode)?;
    listen()?;
    Ok(file)
}

/// Removes a socket file at which no server answers. Anything else that is there stays, and is an error.
fn make_way(path: &Path, name: &SocketAddrUnix) -> io::Result<()> {
    let found = match lstat(path) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something else than a socket is there, and stays",
        ));
    }
    match answers(name) {
        Ok(true) => Err(io::ErrorKind::AddrInUse.into()),
        Ok(false) => Ok(unlink(path)?),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(io::Error::new(
            io::Error::from(error).kind(),
            format!(
                "a socket is there, and whether a server answers at it cannot be told: {}",
                io::Error::from(error)
            ),
        )),
    }
}

/// Whether a server answers at a socket.
fn answers(name: &SocketAddrUnix) -> Result<bool, Errno> {
    let probe = new_socket(AddressFamily::UNIX)?;
    loop {
        return match connect(&probe, name) {
            // Its backlog is full; or it is one for datagrams.
            Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE) => Ok(true),
            Err(Errno::CONNREFUSED) => Ok(false),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error),
        };
    }
}

/// Locks the directory of a path until the result is dropped; nothing where a directory cannot be locked.
fn lock_beside(path: &Path, within: Duration) -> io::Result<Option<OwnedFd>> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let until = Instant::now() + within;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match open(directory, flags, Mode::empty()) {
        Ok(directory) => directory,
        // It may be written to and not read.
        Err(Errno::ACCESS) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(directory)),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => std::thread::sleep(LOCK_EVERY),
            Err(Errno::WOULDBLOCK) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "another program holds the lock of its directory",
                ));
            }
            // A network's file system may have no locks.
            Err(_) => return Ok(None),
        }
    }
}

impl SocketFile {
    /// The file that is at this path now, as one of this process.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(&lstat(path)?) })
    }

    /// From now on it is another process's, which has the same socket.
    pub(crate) fn leave(mut self) {
        self.path = PathBuf::new();
    }
}

#[allow(clippy::unnecessary_cast, reason = "the types of both differ from system to system")]
fn identity(file: &Stat) -> (u64, u64) {
    (file.st_dev as u64, file.st_ino as u64)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        // Without the lock, a file that took its place between the look and the removal would be lost.
        let _lock = lock_beside(&self.path, LOCK_AT_END_WITHIN);
        if lstat(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            // It fails where the directory is not to be written to any more; the next start replaces the file.
            let _ = unlink(&self.path);
        }
    }
}
