//! The configuration file: reads it as a table, and knows in which line each key is.

use crate::limits::show_time;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::{DeTable, DeValue};

/// A configuration file larger than this is a mistake.
const SIZE_MAX: u64 = 1024 * 1024;
/// The name of the tables of listeners that have something of their own.
pub(super) const LISTENER: &str = "listener";
/// How long a configuration that comes through a pipe may be silent.
const SILENCE_MAX: Duration = Duration::from_millis(800);

/// Where something is in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FilePlace {
    /// The table of a listener, from 0, if it is in one.
    pub(super) table: Option<usize>,
    /// The key, if it is about one.
    pub(super) key: Option<String>,
}

/// What is wrong in the file, and where.
#[derive(Debug)]
pub(super) struct FileMistake {
    pub(super) place: FilePlace,
    pub(super) why: String,
}

impl std::fmt::Display for FileMistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place.table {
            Some(table) => write!(f, "[[{LISTENER}]] number {}: {}", table + 1, self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// The lines of the keys of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyLines {
    path: PathBuf,
    keys: Vec<(FilePlace, usize)>,
}

impl KeyLines {
    fn of(path: &Path, text: &str, root: &DeTable<'_>) -> Self {
        let line = |at: usize| line_of(text, at);
        let mut keys = Vec::new();
        let place = |table, key: &str| FilePlace { table, key: Some(key.to_owned()) };
        for (key, value) in root {
            keys.push((place(None, key.get_ref()), line(key.span().start)));
            let DeValue::Array(tables) = value.get_ref() else { continue };
            for (index, table) in tables.iter().enumerate().filter(|_| key.get_ref() == LISTENER) {
                keys.push((FilePlace { table: Some(index), key: None }, line(table.span().start)));
                if let DeValue::Table(table) = table.get_ref() {
                    let own =
                        table.keys().map(|key| (place(Some(index), key.get_ref()), line(key.span().start)));
                    keys.extend(own);
                }
            }
        }
        Self { path: path.to_owned(), keys }
    }

    /// A mistake with the file and the line before it; without them where the file is another program's.
    pub(super) fn told(&self, mistake: &FileMistake) -> String {
        match self.place(&mistake.place) {
            Some(place) => format!("{place}: {}", mistake.why),
            None => mistake.to_string(),
        }
    }

    /// The file and the line.
    pub(super) fn place(&self, place: &FilePlace) -> Option<String> {
        let (_, line) = self.keys.iter().find(|(known, _)| known == place)?;
        Some(format!("{}: line {line}", self.path.display()))
    }
}

/// The table of a file, and its lines.
pub(super) type ReadFile = (toml::Table, KeyLines);

pub(super) fn told(path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{}: {why}", path.display())
}

/// The configuration file as a table, and its lines.
pub(super) fn table(path: &Path) -> Result<ReadFile, String> {
    let text = read(path).map_err(|why| told(path, &why))?;
    let wrong = |error| told(path, &wrong_toml(&text, &error));
    let table = toml::from_str(&text).map_err(wrong)?;
    let lines = KeyLines::of(path, &text, DeTable::parse(&text).map_err(wrong)?.get_ref());
    Ok((table, lines))
}

fn read(path: &Path) -> Result<String, String> {
    // Non-blocking, since opening a FIFO waits for a program that writes to it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| io::Error::from(error).to_string())?;
    let text = read_within(&File::from(file), SILENCE_MAX)?;
    if text.len() as u64 > SIZE_MAX {
        return Err(format!("it has more than {SIZE_MAX} bytes, the most a configuration may have"));
    }
    String::from_utf8(text).map_err(|_| "it is not text in UTF-8".to_owned())
}

/// Reads to the end, or to one byte more than [`SIZE_MAX`]; a pipe that is silent for this time is an error.
fn read_within(file: &File, silence_max: Duration) -> Result<Vec<u8>, String> {
    let (mut text, mut rest) = (Vec::new(), file.take(SIZE_MAX + 1));
    loop {
        // Before a program has opened a pipe for writing, a read would say that it has ended.
        if !is_readable_within(file, silence_max).map_err(|error| error.to_string())? {
            return Err(format!("nothing was written to it for {}", show_time(silence_max)));
        }
        match rest.read_to_end(&mut text) {
            Ok(_) => return Ok(text),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Waits until there is something to read, or the end.
fn is_readable_within(file: &File, time: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(time).map_err(io::Error::other)?;
    loop {
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            polled => return Ok(polled? > 0),
        }
    }
}

/// What is wrong with a text that is not TOML, and in which line.
fn wrong_toml(text: &str, error: &toml::de::Error) -> String {
    let line = line_of(text, error.span().map_or(0, |span| span.start));
    let message = error.message().to_string();
    format!("line {line}: {}", message.lines().next().unwrap_or_default())
}

/// The number of the line in which this byte is.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_line() {
        let text = "# first\nqueue = 3\nlisten = [\n \"a\",\n]\n\n[[listener]]\nlisten = \"b\"\nqueue = 4\n[[listener]]\nqueue = 5\n";
        let lines = KeyLines::of(Path::new("x"), text, DeTable::parse(text).unwrap().get_ref());
        let at = |table, key: Option<&str>| lines.place(&FilePlace { table, key: key.map(str::to_owned) });
        for (table, key, line) in [
            (None, Some("queue"), 2),
            (None, Some("listen"), 3),
            (Some(0), Some("queue"), 9),
            (Some(1), None, 10),
            (Some(1), Some("queue"), 11),
        ] {
            assert_eq!(at(table, key), Some(format!("x: line {line}")));
        }
        assert_eq!(at(None, Some("workers")), None);
    }
}
