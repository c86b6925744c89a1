//! One direction of a pair: bytes read from one socket and written to the other, until the end is passed on.
//!
//! It copies first. When two pieces in a row were large and the reader took them whole, the stream is in bulk,
//! and the kernel moves the pages by way of a pipe (about a third of the processor time, and more delay for
//! small messages). A turn that moved little goes back to copying.

use super::lent::{Lent, Rest};
use super::pipes::Pipe;
use crate::service::SocketEvent;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use std::os::fd::BorrowedFd;

/// A piece of at least this size speaks for a stream in bulk.
const LARGE: usize = 16 * 1024;

/// So many large pieces in a row make it one.
const BULK: u8 = 2;

/// A turn in bulk that moved less than this ends the bulk.
const SMALL: u64 = 4 * 1024;

/// One socket in one turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    pub(crate) socket: BorrowedFd<'a>,
    pub(crate) event: SocketEvent,
    /// A read that fills less than its room has emptied the kernel's buffer. Not so on Unix sockets, where it
    /// may also have come upon descriptors that were sent along.
    pub(crate) short_is_all: bool,
}

/// Which socket failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The one that is read from.
    Read,
    /// The one that is written to.
    Write,
    /// None: there is no room to keep what the reader does not take.
    Room,
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The end was read; what is kept goes before it.
    Ending,
    /// The end was passed on.
    Done,
}

/// What was read and not written yet.
#[derive(Debug)]
enum Kept {
    Nothing,
    Bytes(Box<Rest>),
    Pipe(Pipe),
}

/// One direction. Between turns it owns memory only while its reader is slow.
#[derive(Debug)]
pub(super) struct Flow {
    kept: Kept,
    stage: Stage,
    /// The last read emptied the kernel's buffer: without an event there is nothing to read.
    drained: bool,
    /// The end may stand behind what is read, and no event will tell of it: read until there is nothing.
    thorough: bool,
    /// Large pieces in a row, up to [`BULK`].
    large: u8,
    /// The sockets can be spliced, as far as is known.
    spliceable: Spliceable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spliceable {
    Untried,
    Yes,
    No,
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pumped {
    /// Bytes that were written.
    pub(super) bytes: u64,
    /// It stopped because it had moved its share, not because there was nothing to do.
    pub(super) more: bool,
}

/// What one step came to.
enum Step {
    Moved(usize),
    /// There is nothing to read now.
    Empty,
    /// The reader takes nothing now.
    Blocked,
    /// The other side has said all it will say.
    End,
}

impl Flow {
    /// A direction that has seen nothing: it reads when its first turn is told of an event.
    pub(super) fn new() -> Self {
        Self {
            kept: Kept::Nothing,
            stage: Stage::Open,
            drained: true,
            thorough: false,
            large: 0,
            spliceable: Spliceable::Untried,
        }
    }

    /// Whether its end was passed on.
    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Whether something waits for a slow reader.
    pub(super) fn is_blocked(&self) -> bool {
        !matches!(self.kept, Kept::Nothing)
    }

    /// Bytes that it keeps.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        match &self.kept {
            Kept::Nothing => 0,
            Kept::Bytes(rest) => rest.bytes().len(),
            Kept::Pipe(pipe) => pipe.content(),
        }
    }

    /// Gives up what is kept and will move no more: its reader is gone.
    pub(super) fn give_up(&mut self) {
        self.kept = Kept::Nothing;
        self.stage = Stage::Done;
    }

    /// Moves what can be moved without waiting; what it did is in `pumped`, whatever comes of it. With `is_last` the other
    /// direction has ended, and so the sockets are closed when this one does.
    pub(super) fn pump(
        &mut self,
        from: End<'_>,
        to: End<'_>,
        is_last: bool,
        lent: &mut Lent<'_>,
        pumped: &mut Pumped,
    ) -> Result<(), Fault> {
        if self.stage == Stage::Done {
            return Ok(());
        }
        if from.event != SocketEvent::Nothing {
            self.drained = false;
            self.thorough |= from.event == SocketEvent::Hangup;
        }
        if self.is_blocked() && to.event != SocketEvent::Nothing {
            self.flush(to, &mut pumped.bytes)?;
        }
        if self.is_blocked() {
            return Ok(());
        }
        if self.stage == Stage::Ending {
            return self.pass_end(to, is_last);
        }
        self.carry(from, to, lent, pumped)?;
        if self.stage == Stage::Ending {
            return self.pass_end(to, is_last);
        }
        if (1..SMALL).contains(&pumped.bytes) && !self.is_blocked() {
            self.large = 0;
        }
        Ok(())
    }

    /// Reads and writes until one of both does not go on.
    fn carry(
        &mut self,
        from: End<'_>,
        to: End<'_>,
        lent: &mut Lent<'_>,
        pumped: &mut Pumped,
    ) -> Result<(), Fault> {
        let mut budget = lent.turn_bytes;
        while !self.drained {
            if budget == 0 {
                pumped.more = true;
                return Ok(());
            }
            let in_bulk = self.large >= BULK && self.spliceable != Spliceable::No;
            let pipe = if in_bulk { lent.pipes.take() } else { None };
            let step = match pipe {
                Some(pipe) => self.splice(pipe, from, to, &mut pumped.bytes)?,
                None => self.copy(from, to, lent, &mut pumped.bytes)?,
            };
            match step {
                Step::Moved(bytes) => budget = budget.saturating_sub(bytes),
                Step::Empty => (self.drained, self.thorough) = (true, false),
                Step::Blocked => return Ok(()),
                Step::End => {
                    self.stage = Stage::Ending;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Moves one piece by way of the worker's buffer.
    fn copy(
        &mut self,
        from: End<'_>,
        to: End<'_>,
        lent: &mut Lent<'_>,
        bytes: &mut u64,
    ) -> Result<Step, Fault> {
        let room = lent.room();
        let read = loop {
            match recv(from.socket, &mut *room, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Ok(Step::End),
                Ok((read, _)) => break read,
                Err(Errno::AGAIN) => return Ok(Step::Empty),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Fault::Read),
            }
        };
        self.drained = read < room.len() && from.short_is_all && !self.thorough;
        let written = write(to.socket, &room[..read])?;
        *bytes += written as u64;
        if written < read {
            self.large = 0;
            let rest = &lent.buffer[written..read];
            self.kept = lent.keep.keep(rest).map(Kept::Bytes).ok_or(Fault::Room)?;
            return Ok(Step::Blocked);
        }
        self.large = if read >= LARGE { (self.large + 1).min(BULK) } else { 0 };
        Ok(Step::Moved(read))
    }

    /// Moves one piece by way of a pipe.
    fn splice(&mut self, mut pipe: Pipe, from: End<'_>, to: End<'_>, bytes: &mut u64) -> Result<Step, Fault> {
        if self.spliceable == Spliceable::Untried {
            // Splicing waits in a socket that may block, whatever its own flags say.
            for end in [from, to] {
                if rustix::io::ioctl_fionbio(end.socket, true).is_err() {
                    self.spliceable = Spliceable::No;
                    return Ok(Step::Moved(0));
                }
            }
            self.spliceable = Spliceable::Yes;
        }
        let read = loop {
            match pipe.fill(from.socket) {
                Ok(0) => return Ok(Step::End),
                Ok(read) => break read,
                Err(Errno::AGAIN) => return Ok(Step::Empty),
                Err(Errno::INTR) => {}
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    self.spliceable = Spliceable::No;
                    return Ok(Step::Moved(0));
                }
                Err(_) => return Err(Fault::Read),
            }
        };
        // At once, while the pages are in the processor's cache.
        self.kept = Kept::Pipe(pipe);
        self.flush(to, bytes)?;
        Ok(if self.is_blocked() { Step::Blocked } else { Step::Moved(read) })
    }

    /// Writes what is kept, as much as the reader takes.
    fn flush(&mut self, to: End<'_>, bytes: &mut u64) -> Result<(), Fault> {
        match &mut self.kept {
            Kept::Nothing => return Ok(()),
            Kept::Bytes(rest) => {
                let written = write(to.socket, rest.bytes())?;
                *bytes += written as u64;
                rest.sent(written);
                if !rest.bytes().is_empty() {
                    return Ok(());
                }
            }
            Kept::Pipe(pipe) => {
                while pipe.content() > 0 {
                    match pipe.empty(to.socket) {
                        Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                        Ok(written) => *bytes += written as u64,
                        Err(Errno::INTR) => {}
                        Err(_) => return Err(Fault::Write),
                    }
                }
            }
        }
        self.kept = Kept::Nothing;
        Ok(())
    }

    /// Tells the reader that there will be no more.
    fn pass_end(&mut self, to: End<'_>, is_last: bool) -> Result<(), Fault> {
        self.stage = Stage::Done;
        if is_last {
            return Ok(());
        }
        shutdown(to.socket, Shutdown::Write).map_err(|_| Fault::Write)
    }
}

/// Writes without waiting, as much as the kernel takes.
fn write(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<usize, Fault> {
    let all = bytes.len();
    while !bytes.is_empty() {
        match send(to, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(_) => return Err(Fault::Write),
        }
    }
    Ok(all - bytes.len())
}
