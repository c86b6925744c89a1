//! Printing what the server says. A file or a pipe gets the bytes as they are. A terminal gets control characters as
//! escapes, because they could move its cursor, change its colours, or make it type an answer.

use super::failure::Failure;
use std::io::{self, IsTerminal, Write};
use tidegate_units::Visible;

/// Standard output.
pub(super) struct Printer {
    out: io::Stdout,
    /// On a terminal.
    screen: Option<Visible>,
    /// The last byte was no newline.
    mid_line: bool,
}

impl Printer {
    pub(super) fn new() -> Self {
        let out = io::stdout();
        let screen = out.is_terminal().then(Visible::default);
        Self { out, screen, mid_line: false }
    }

    /// Prints some bytes of a reply.
    pub(super) fn print(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.screen {
            None => self.write(bytes),
            Some(screen) => {
                let shown = screen.show(bytes);
                self.write(shown.as_bytes())
            }
        }
    }

    /// Ends the line, unless it has ended.
    pub(super) fn end_line(&mut self) -> Result<(), Failure> {
        if self.mid_line { self.write(b"\n") } else { Ok(()) }
    }

    /// Nothing more is printed: on a terminal, what comes next begins a line.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let Some(screen) = &mut self.screen else { return Ok(()) };
        let rest = screen.finish();
        self.write(rest.as_bytes())?;
        self.end_line()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(last) = bytes.last() else { return Ok(()) };
        self.mid_line = *last != b'\n';
        match self.out.write_all(bytes).and_then(|()| self.out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::ReaderGone),
            Err(error) => Err(Failure::Failed(format!("cannot write to standard output: {error}"))),
        }
    }
}
