//! Reading a whole file or stream, but never more of it than a bound.

use crate::show_size;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// How long a pipe that was named may have no writer.
const WRITER_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 800_000_000 };

/// Opens a file to read it, and never waits for long: to open a FIFO is to wait for a program that writes to it. Gives what
/// was read of it already.
///
/// # Errors
///
/// It cannot be opened, or it is a FIFO and no program has opened it for writing within a second.
pub fn open_in_time(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let mut first = Vec::new();
    if file.metadata()?.file_type().is_fifo() {
        let ready = poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&WRITER_WAIT))?;
        let mut byte = [0];
        // A program that has it open and has written nothing yet may take its time.
        match if ready == 0 { file.read(&mut byte) } else { Ok(0) } {
            Ok(0) if ready == 0 => {
                return Err(io::Error::other("it is a pipe, and no program has opened it for writing"));
            }
            Ok(n) => first.extend_from_slice(&byte[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let flags = rustix::fs::fcntl_getfl(&file)? - OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&file, flags)?;
    Ok((file, first))
}

/// Reads a whole file, a pipe or a device, up to `bound` bytes; the path `-` is standard input.
///
/// The size that the system reports is not believed: a device reports 0 and never ends. What has more than `bound`
/// bytes is an error, and no more than `bound` bytes and one are ever read.
///
/// # Errors
///
/// It cannot be opened or read, or it has more bytes; the error names the path.
pub fn read_bounded(path: &Path, bound: u64) -> Result<Vec<u8>, String> {
    let name = if is_stdin(path) { "standard input".into() } else { path.display().to_string() };
    let cannot = |error: io::Error| format!("cannot read {name}: {error}");
    let mut bytes = Vec::new();
    let most = bound.saturating_add(1);
    let read = match is_stdin(path) {
        true => io::stdin().lock().take(most).read_to_end(&mut bytes),
        false => {
            let (file, first) = open_in_time(path).map_err(cannot)?;
            bytes = first;
            file.take(most - bytes.len() as u64).read_to_end(&mut bytes)
        }
    };
    read.map_err(cannot)?;
    if bytes.len() as u64 > bound {
        let bound = show_size(usize::try_from(bound).unwrap_or(usize::MAX));
        return Err(format!("cannot read {name}: it has more than {bound}"));
    }
    Ok(bytes)
}

/// Whether a path stands for standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_bound_is_read() {
        let path = std::env::temp_dir().join(format!("tidegate-units-{}", std::process::id()));
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_bounded(&path, 5), Ok(b"12345".to_vec()));
        assert_eq!(read_bounded(&path, u64::MAX), Ok(b"12345".to_vec()));
        let said = read_bounded(&path, 4).unwrap_err();
        assert!(said.contains(path.to_str().unwrap()) && said.ends_with("it has more than 4B"), "{said}");
        std::fs::remove_file(&path).unwrap();
        for (path, bound) in [("/dev/zero", 0), ("/dev/zero", 100_000), ("/proc/version", 3)] {
            let said = read_bounded(Path::new(path), bound).unwrap_err();
            assert!(said.contains(path) && said.contains("more than"), "{said}");
        }
        // A size of 0 says nothing.
        assert!(read_bounded(Path::new("/proc/version"), 10_000).unwrap().starts_with(b"Linux"));
        assert_eq!(read_bounded(Path::new("/dev/null"), 0), Ok(Vec::new()));
        assert!(read_bounded(&std::env::temp_dir(), 10).unwrap_err().contains("cannot read"));
        assert!(read_bounded(Path::new("/no/such/file"), 10).unwrap_err().contains("/no/such/file"));
    }
}
