//! One direction of a pair: reads bytes from one socket, writes them to the other, and passes the end of the stream on.
//!
//! A direction begins by copying through the worker's buffer. After two large pieces in a row that the reader took whole,
//! it is *in bulk*: it then lets the kernel move pages through a pipe (`splice`), which takes about a third of the
//! processor time but delays small messages. A turn that moved little switches back to copying.

use super::lent::Lent;
use super::pipes::Pipe;
use crate::service::pool::Buffer;
use crate::service::{Decrypted, PassRecords, SocketEvent, SocketTls};
use crate::transport::socket::SEND_NOW;
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, send, shutdown};
use std::io;
use std::os::fd::BorrowedFd;

/// The size from which on a piece counts as large.
const LARGE: usize = 16 * 1024;

/// How many large pieces in a row put a direction in bulk.
const BULK: u8 = 2;

/// A turn that moves less than this ends bulk.
const SMALL: u64 = 4 * 1024;

/// One socket in one turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    pub(crate) socket: BorrowedFd<'a>,
    /// What is read from the socket and written to it goes through this TLS.
    pub(crate) tls: Option<&'a dyn SocketTls>,
    pub(crate) event: SocketEvent,
    /// Whether a read that returns fewer bytes than it had room for has emptied the kernel's buffer. This holds for TCP. On
    /// a Unix socket a read also stops early at descriptors that were sent along.
    pub(crate) short_is_all: bool,
}

/// Which socket failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowFault {
    /// The one that is read from.
    Read,
    /// The one that is written to.
    Write,
    /// Neither socket failed: there is no memory left to keep what the reader does not take.
    Room,
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlowStage {
    Open,
    /// The end of the stream was read. It is passed on after the kept bytes.
    Ending,
    /// The end of the stream was passed on.
    Done,
}

/// Bytes that were read and not written yet.
#[derive(Debug)]
enum Unwritten {
    Nothing,
    Bytes(Box<Buffer>),
    Pipe(Pipe),
}

/// One direction. Between turns it owns memory only while its reader is slow.
#[derive(Debug)]
pub(super) struct Flow {
    kept: Unwritten,
    stage: FlowStage,
    /// The last read emptied the kernel's buffer: there is nothing to read before the next event.
    drained: bool,
    /// The sender has hung up, and no further event will come: read until the kernel says that there is nothing, even
    /// after a short read.
    thorough: bool,
    /// The reader speaks TLS, and was told there that the stream has ended.
    notified: bool,
    /// Large pieces in a row, up to [`BULK`].
    large: u8,
    /// Whether the kernel can splice between these sockets.
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
    /// The turn ended because the direction had moved its share (`turn_bytes`), not because there was nothing left to move.
    pub(super) more: bool,
}

/// The outcome of one step.
enum FlowStep {
    Moved(usize),
    /// There is nothing to read now.
    Empty,
    /// The reader's socket takes nothing now.
    Blocked,
    /// The sender has ended its stream.
    End,
}

impl Flow {
    /// A new direction. It reads for the first time when a turn brings it an event.
    pub(super) fn new() -> Self {
        Self {
            kept: Unwritten::Nothing,
            stage: FlowStage::Open,
            drained: true,
            thorough: false,
            notified: false,
            large: 0,
            spliceable: Spliceable::Untried,
        }
    }

    /// Whether the end of the stream was passed on.
    pub(super) fn is_done(&self) -> bool {
        self.stage == FlowStage::Done
    }

    /// Whether bytes are kept because the reader is slow.
    pub(super) fn is_blocked(&self) -> bool {
        !matches!(self.kept, Unwritten::Nothing)
    }

    /// Whether a turn with this event of the sender finds nothing to do, whatever the reader's socket has had. Most turns
    /// are about one direction only.
    pub(super) fn has_nothing_for(&self, event: SocketEvent) -> bool {
        let rests = match self.stage {
            FlowStage::Open => self.drained && event == SocketEvent::Nothing,
            FlowStage::Ending => false,
            FlowStage::Done => true,
        };
        rests && !self.is_blocked()
    }

    /// How many bytes are kept.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        match &self.kept {
            Unwritten::Nothing => 0,
            Unwritten::Bytes(rest) => rest.len(),
            Unwritten::Pipe(pipe) => pipe.content(),
        }
    }

    /// Discards the kept bytes and ends the direction: its reader is gone.
    pub(super) fn give_up(&mut self) {
        self.kept = Unwritten::Nothing;
        self.stage = FlowStage::Done;
    }

    /// Moves what can be moved without waiting. `pumped` says what was moved, also when the result is an error. `is_last`
    /// says that the other direction has ended already: closing the sockets will then pass this direction's end on.
    pub(super) fn pump(
        &mut self,
        from: End<'_>,
        to: End<'_>,
        is_last: bool,
        lent: &mut Lent<'_>,
        pumped: &mut Pumped,
    ) -> Result<(), FlowFault> {
        if self.stage == FlowStage::Done {
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
        if self.stage == FlowStage::Ending {
            return self.pass_end(to, is_last, lent, pumped);
        }
        self.carry(from, to, lent, pumped)?;
        if self.stage == FlowStage::Ending {
            return self.pass_end(to, is_last, lent, pumped);
        }
        if (1..SMALL).contains(&pumped.bytes) && !self.is_blocked() {
            self.large = 0;
        }
        Ok(())
    }

    /// Reads and writes until there is nothing to read, the reader takes nothing, or the direction has moved its share.
    fn carry(
        &mut self,
        from: End<'_>,
        to: End<'_>,
        lent: &mut Lent<'_>,
        pumped: &mut Pumped,
    ) -> Result<(), FlowFault> {
        let mut budget = lent.turn_bytes;
        while !self.drained {
            if budget == 0 {
                pumped.more = true;
                return Ok(());
            }
            let is_plain = from.tls.is_none() && to.tls.is_none();
            let in_bulk = is_plain && self.large >= BULK && self.spliceable != Spliceable::No;
            let pipe = if in_bulk { lent.pipes.take() } else { None };
            let step = match pipe {
                Some(pipe) => self.splice(pipe, from, to, &mut pumped.bytes)?,
                None => self.copy(from, to, lent, &mut pumped.bytes)?,
            };
            match step {
                FlowStep::Moved(bytes) => budget = budget.saturating_sub(bytes),
                FlowStep::Empty => (self.drained, self.thorough) = (true, false),
                FlowStep::Blocked => return Ok(()),
                FlowStep::End => {
                    self.stage = FlowStage::Ending;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Moves one piece through the worker's buffer.
    fn copy(
        &mut self,
        from: End<'_>,
        to: End<'_>,
        lent: &mut Lent<'_>,
        bytes: &mut u64,
    ) -> Result<FlowStep, FlowFault> {
        let read = match from.tls {
            Some(tls) => match tls.take(from.socket, lent.room_for_record(), &mut self.thorough) {
                Ok(Decrypted::Bytes { bytes, drained }) => {
                    self.drained = drained && !self.thorough;
                    bytes
                }
                Ok(Decrypted::Nothing) => return Ok(FlowStep::Empty),
                Ok(Decrypted::End) => return Ok(FlowStep::End),
                // A stream that was cut short does not end for the backend as a whole one does.
                Err(_) => return Err(FlowFault::Read),
            },
            None => {
                let room = lent.room();
                let Some(read) = read_piece(from.socket, room)? else { return Ok(FlowStep::Empty) };
                self.drained = read < room.len() && from.short_is_all && !self.thorough;
                read
            }
        };
        if read == 0 {
            return Ok(FlowStep::End);
        }
        if to.tls.is_some() {
            let data = &lent.buffer[..read];
            self.seal(to, lent, bytes, |tls, pass| tls.seal(data, pass))?;
            return Ok(if self.is_blocked() { FlowStep::Blocked } else { FlowStep::Moved(read) });
        }
        let written = write(to.socket, &lent.buffer[..read])?;
        *bytes += written as u64;
        if written < read {
            self.large = 0;
            self.kept = lent.keep(written, read).map(Unwritten::Bytes).ok_or(FlowFault::Room)?;
            return Ok(FlowStep::Blocked);
        }
        self.large = if read >= LARGE { (self.large + 1).min(BULK) } else { 0 };
        Ok(FlowStep::Moved(read))
    }

    /// Has the reader's TLS make records, and keeps those that the reader does not take.
    fn seal(
        &mut self,
        to: End<'_>,
        lent: &Lent<'_>,
        bytes: &mut u64,
        make: impl FnOnce(&dyn SocketTls, &mut PassRecords<'_>) -> io::Result<()>,
    ) -> Result<(), FlowFault> {
        let Some(tls) = to.tls else { return Ok(()) };
        let mut kept = match std::mem::replace(&mut self.kept, Unwritten::Nothing) {
            Unwritten::Bytes(kept) => Some(kept),
            Unwritten::Nothing | Unwritten::Pipe(_) => None,
        };
        let mut fault = FlowFault::Write;
        let made = make(tls, &mut |records| {
            let failed = || io::Error::from(io::ErrorKind::BrokenPipe);
            let written = match &kept {
                Some(_) => 0,
                None => write(to.socket, records).map_err(|_| failed())?,
            };
            *bytes += written as u64;
            if written < records.len() && !lent.add(&mut kept, &records[written..]) {
                fault = FlowFault::Room;
                return Err(failed());
            }
            Ok(())
        });
        self.kept = kept.map_or(Unwritten::Nothing, Unwritten::Bytes);
        made.map_err(|_| fault)
    }

    /// Sends the records that the reader's TLS has made by itself, as answers to the reader.
    pub(super) fn answer_tls(
        &mut self,
        to: End<'_>,
        lent: &Lent<'_>,
        pumped: &mut Pumped,
    ) -> Result<(), FlowFault> {
        if self.is_done() {
            // After the end there is nothing to be said.
            return Ok(());
        }
        self.seal(to, lent, &mut pumped.bytes, |tls, pass| tls.seal(&[], pass))
    }

    /// Moves one piece through a pipe.
    fn splice(
        &mut self,
        mut pipe: Pipe,
        from: End<'_>,
        to: End<'_>,
        bytes: &mut u64,
    ) -> Result<FlowStep, FlowFault> {
        if self.spliceable == Spliceable::Untried {
            // `splice` waits on a socket in blocking mode even when it is told not to block.
            for end in [from, to] {
                if rustix::io::ioctl_fionbio(end.socket, true).is_err() {
                    self.spliceable = Spliceable::No;
                    return Ok(FlowStep::Moved(0));
                }
            }
            self.spliceable = Spliceable::Yes;
        }
        let read = loop {
            match pipe.fill(from.socket) {
                Ok(0) => return Ok(FlowStep::End),
                Ok(read) => break read,
                Err(Errno::AGAIN) => return Ok(FlowStep::Empty),
                Err(Errno::INTR) => {}
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    self.spliceable = Spliceable::No;
                    return Ok(FlowStep::Moved(0));
                }
                Err(_) => return Err(FlowFault::Read),
            }
        };
        // The pipe is emptied at once, while the pages are in the processor's cache.
        self.kept = Unwritten::Pipe(pipe);
        self.flush(to, bytes)?;
        Ok(if self.is_blocked() { FlowStep::Blocked } else { FlowStep::Moved(read) })
    }

    /// Writes as many of the kept bytes as the reader takes.
    fn flush(&mut self, to: End<'_>, bytes: &mut u64) -> Result<(), FlowFault> {
        match &mut self.kept {
            Unwritten::Nothing => return Ok(()),
            Unwritten::Bytes(rest) => {
                let written = write(to.socket, rest.bytes())?;
                *bytes += written as u64;
                rest.consume(written);
                if !rest.is_empty() {
                    return Ok(());
                }
            }
            Unwritten::Pipe(pipe) => {
                while pipe.content() > 0 {
                    match pipe.empty(to.socket) {
                        Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                        Ok(written) => *bytes += written as u64,
                        Err(Errno::INTR) => {}
                        Err(_) => return Err(FlowFault::Write),
                    }
                }
            }
        }
        self.kept = Unwritten::Nothing;
        Ok(())
    }

    /// Passes the end of the stream on to the reader.
    fn pass_end(
        &mut self,
        to: End<'_>,
        is_last: bool,
        lent: &Lent<'_>,
        pumped: &mut Pumped,
    ) -> Result<(), FlowFault> {
        if to.tls.is_some() && !is_last && !self.notified {
            self.notified = true;
            self.seal(to, lent, &mut pumped.bytes, |tls, pass| tls.end(pass))?;
            if self.is_blocked() {
                return Ok(());
            }
        }
        self.stage = FlowStage::Done;
        if is_last {
            return Ok(());
        }
        shutdown(to.socket, Shutdown::Write).map_err(|_| FlowFault::Write)
    }
}

/// Reads what has come: `None` for nothing now, 0 for the end.
fn read_piece(from: BorrowedFd<'_>, room: &mut [u8]) -> Result<Option<usize>, FlowFault> {
    loop {
        match recv(from, &mut *room, RecvFlags::DONTWAIT) {
            Ok((read, _)) => return Ok(Some(read)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(_) => return Err(FlowFault::Read),
        }
    }
}

/// Writes as many bytes as the kernel takes without waiting, and says how many.
fn write(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<usize, FlowFault> {
    let all = bytes.len();
    while !bytes.is_empty() {
        match send(to, bytes, SEND_NOW) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(_) => return Err(FlowFault::Write),
        }
    }
    Ok(all - bytes.len())
}
