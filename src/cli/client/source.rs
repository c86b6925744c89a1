//! The lines of a file or of standard input, which are the messages to send.

use super::args::ClientArgs;
use super::failure::Failure;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use tidegate_units::{is_stdin, open_in_time};

/// A longer line is not read into memory.
const LINE_MAX: usize = 1024 * 1024;

/// The most bytes that one datagram holds (IPv4: 65,535 less 28 of headers).
pub(super) const DATAGRAM_MAX: usize = 65_507;

/// What there is to send.
pub(super) struct Messages {
    pub(super) input: Option<File>,
    name: String,
    /// Read and not sent yet; at most a line and a read's worth.
    buffer: Vec<u8>,
    line_max: usize,
}

impl Messages {
    pub(super) fn open(args: &ClientArgs, datagrams: bool) -> Result<Self, Failure> {
        let line_max = if datagrams { DATAGRAM_MAX } else { LINE_MAX };
        let mut source = Self { input: None, name: String::new(), buffer: Vec::new(), line_max };
        if args.data.is_some() {
            return Ok(source);
        }
        let file: Option<&Path> = args.file.as_deref().filter(|path| !is_stdin(path));
        source.name = match file {
            Some(path) => path.display().to_string(),
            None => "standard input".to_owned(),
        };
        let opened = match file {
            Some(path) => open_in_time(path),
            None => io::stdin().as_fd().try_clone_to_owned().map(|input| (File::from(input), Vec::new())),
        };
        let (input, first) = opened.map_err(|error| source.failed(&error))?;
        (source.input, source.buffer) = (Some(input), first);
        Ok(source)
    }

    pub(super) fn failed(&self, error: &io::Error) -> Failure {
        Failure::Failed(format!("cannot read {}: {error}", self.name))
    }

    /// The next non-empty line that has been read whole, without its end.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        while !self.buffer.is_empty() {
            let end = self.buffer.iter().position(|&byte| byte == b'\n');
            if end.is_none() && self.input.is_some() {
                return None;
            }
            let mut line: Vec<u8> = self.buffer.drain(..end.map_or(self.buffer.len(), |at| at + 1)).collect();
            while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                line.pop();
            }
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    }

    /// Whether a read could bring the next line.
    pub(super) fn wants_reading(&self) -> bool {
        self.input.is_some() && !self.buffer.contains(&b'\n')
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.input.is_none() && self.buffer.is_empty()
    }

    /// Reads once; waits if there is nothing yet.
    pub(super) fn read(&mut self) -> Result<(), Failure> {
        let Some(input) = &mut self.input else { return Ok(()) };
        let mut piece = [0; 16 * 1024];
        match input.read(&mut piece) {
            Ok(0) => self.input = None,
            Ok(n) => self.buffer.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(self.failed(&error)),
        }
        if self.buffer.split(|&byte| byte == b'\n').any(|line| line.len() > self.line_max) {
            let why = format!("{}: a line is longer than {} bytes", self.name, self.line_max);
            return Err(Failure::Failed(why));
        }
        Ok(())
    }
}
