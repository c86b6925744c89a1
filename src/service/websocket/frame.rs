//! Frames (RFC 6455, 5): a strict reader that keeps no payload, and the writer.

use super::violation::Violation;

/// What a frame is. RFC 6455 reserves other values, and the reader refuses them. No other case will be added, so a `match` needs no wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of a message that was begun.
    Continuation,
    /// A message of text, or its beginning.
    Text,
    /// A message of bytes, or its beginning.
    Binary,
    /// The end.
    Close,
    /// To be answered with a pong.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    fn of(bits: u8) -> Result<Self, Violation> {
        Ok(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(Violation::Opcode),
        })
    }

    fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    fn is_control(self) -> bool {
        self.bits() >= 8
    }
}

/// The longest payload of a control frame.
pub const CONTROL_MAX: usize = 125;

/// The head of a frame without a mask, as a server sends it.
pub fn frame_head(opcode: Opcode, length: usize) -> impl AsRef<[u8]> {
    let mut head = FrameHead { bytes: [0; 10], length: 2 };
    head.bytes[0] = 0x80 | opcode.bits();
    match length {
        0..=125 => head.bytes[1] = length as u8,
        126..=0xffff => {
            head.bytes[1] = 126;
            head.bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            head.length = 4;
        }
        _ => {
            head.bytes[1] = 127;
            head.bytes[2..].copy_from_slice(&(length as u64).to_be_bytes());
            head.length = 10;
        }
    }
    head
}

struct FrameHead {
    bytes: [u8; 10],
    length: usize,
}

impl AsRef<[u8]> for FrameHead {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What a [`FrameReader`] makes of its input. No other case will be added, so a `match` needs no wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramePiece<'b> {
    /// More must come; all that was given is used.
    More,
    /// Some of a message's payload, never none, and still masked: with [`unmask`] and this key it is as it was
    /// sent.
    Payload(&'b [u8], [u8; 4]),
    /// The message is whole: text or binary.
    Message(Opcode),
    /// A control frame, whole: [`FrameReader::control`] has its payload.
    Control(Opcode),
}

/// Takes the mask off bytes, or puts it on.
pub fn unmask(bytes: &mut [u8], key: [u8; 4]) {
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(key)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// Reads frames as they come, and checks that they may follow each other. It keeps no payload but the one of a
/// control frame.
#[derive(Clone, Debug)]
pub struct FrameReader {
    /// Frames of clients are masked, those of servers are not.
    masked: bool,
    max_message: u64,
    /// The bytes of the present frame's head, or the payload of a control frame.
    buffer: [u8; CONTROL_MAX],
    filled: u8,
    /// What is in the buffer is the payload of a control frame that was handed out.
    spent: bool,
    /// The present frame, once its head is whole.
    frame: Option<Frame>,
    /// The message that was begun: what it is, and how long it is so far.
    message: Option<(Opcode, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    last: bool,
    left: u64,
    /// The mask, turned to where the next byte stands.
    key: [u8; 4],
}

impl FrameReader {
    /// Reads what a client sends; a message may have this many bytes.
    pub const fn of_client(max_message: u64) -> Self {
        Self::new(true, max_message)
    }

    /// Reads what a server sends.
    pub const fn of_server(max_message: u64) -> Self {
        Self::new(false, max_message)
    }

    const fn new(masked: bool, max_message: u64) -> Self {
        Self {
            masked,
            max_message,
            buffer: [0; CONTROL_MAX],
            filled: 0,
            spent: false,
            frame: None,
            message: None,
        }
    }

    /// Whether nothing was begun, no frame and no message.
    pub fn is_between(&self) -> bool {
        (self.filled == 0 || self.spent) && self.frame.is_none() && self.message.is_none()
    }

    /// How long the present message will be, at most `most`: known once its last frame has begun.
    pub(super) fn message_max(&self, most: usize) -> usize {
        match (&self.frame, &self.message) {
            (Some(Frame { last: true, .. }), Some((_, length))) => {
                usize::try_from(*length).unwrap_or(most).min(most)
            }
            _ => most,
        }
    }

    /// The payload of the control frame that was just read.
    pub fn control(&self) -> &[u8] {
        &self.buffer[..usize::from(self.filled)]
    }

    /// Takes some of `input`: how many bytes that were, and what they are.
    pub fn next<'b>(&mut self, input: &'b [u8]) -> Result<(usize, FramePiece<'b>), Violation> {
        let mut used = 0;
        loop {
            if let Some(frame) = self.frame {
                let (n, piece) = self.payload(frame, &input[used..]);
                used += n;
                if let Some(piece) = piece {
                    return Ok((used, piece));
                }
            }
            let Some(&byte) = input.get(used) else { return Ok((used, FramePiece::More)) };
            used += 1;
            self.head(byte)?;
        }
    }

    /// Takes a byte of a frame's head, and judges what can be judged by it.
    fn head(&mut self, byte: u8) -> Result<(), Violation> {
        if std::mem::take(&mut self.spent) {
            self.filled = 0;
        }
        let at = usize::from(self.filled);
        self.buffer[at] = byte;
        self.filled += 1;
        match at {
            0 => self.judge_first(byte)?,
            1 => self.judge_second(byte)?,
            _ => {}
        }
        let extended = match self.buffer[1] & 0x7f {
            _ if at == 0 => return Ok(()),
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let length_end = 2 + extended;
        let whole = length_end + if self.masked { 4 } else { 0 };
        if at + 1 == length_end {
            self.judge_length(self.length(extended)?)?;
        }
        if at + 1 == whole {
            self.begin(self.length(extended)?, length_end);
        }
        Ok(())
    }

    /// Reserved bits, the opcode, and whether such a frame may come now.
    fn judge_first(&self, byte: u8) -> Result<(), Violation> {
        if byte & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let (opcode, last) = (Opcode::of(byte & 0x0f)?, byte & 0x80 != 0);
        match (opcode, self.message) {
            _ if opcode.is_control() && !last => Err(Violation::ControlFragmented),
            (Opcode::Continuation, None) => Err(Violation::ContinuesNothing),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(Violation::MessageInMessage),
            _ => Ok(()),
        }
    }

    fn judge_second(&self, byte: u8) -> Result<(), Violation> {
        if (byte & 0x80 != 0) != self.masked {
            return Err(if self.masked { Violation::NotMasked } else { Violation::Masked });
        }
        if Opcode::of(self.buffer[0] & 0x0f)?.is_control() && usize::from(byte & 0x7f) > CONTROL_MAX {
            return Err(Violation::ControlTooLong);
        }
        Ok(())
    }

    /// The length of the payload, which must be written as short as possible.
    fn length(&self, extended: usize) -> Result<u64, Violation> {
        let bytes = &self.buffer[2..2 + extended];
        let (length, least) = match extended {
            0 => (u64::from(self.buffer[1] & 0x7f), 0),
            _ => {
                let length = bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
                (length, if extended == 2 { 126 } else { 0x1_0000 })
            }
        };
        if length < least || length >> 63 == 1 { Err(Violation::Length) } else { Ok(length) }
    }

    fn judge_length(&self, length: u64) -> Result<(), Violation> {
        let before = self.message.map_or(0, |(_, before)| before);
        let control = Opcode::of(self.buffer[0] & 0x0f)?.is_control();
        if !control && before.saturating_add(length) > self.max_message {
            return Err(Violation::MessageTooLong);
        }
        Ok(())
    }

    /// The head is whole.
    fn begin(&mut self, length: u64, length_end: usize) {
        let Ok(opcode) = Opcode::of(self.buffer[0] & 0x0f) else { return };
        let last = self.buffer[0] & 0x80 != 0;
        let mut key = [0; 4];
        if self.masked {
            key.copy_from_slice(&self.buffer[length_end..length_end + 4]);
        }
        self.filled = 0;
        self.frame = Some(Frame { opcode, last, left: length, key });
        match opcode {
            Opcode::Text | Opcode::Binary => self.message = Some((opcode, length)),
            Opcode::Continuation => {
                self.message = self.message.map(|(opcode, before)| (opcode, before + length));
            }
            _ => {}
        }
    }

    /// Takes some of the present frame's payload; no piece if a frame has ended and its message goes on.
    fn payload<'b>(&mut self, mut frame: Frame, input: &'b [u8]) -> (usize, Option<FramePiece<'b>>) {
        let taken = input.len().min(usize::try_from(frame.left).unwrap_or(usize::MAX));
        let (bytes, key) = (&input[..taken], frame.key);
        frame.left -= taken as u64;
        frame.key.rotate_left(taken % 4);
        self.frame = Some(frame);
        if frame.opcode.is_control() {
            self.fill(bytes, key);
        } else if taken > 0 {
            return (taken, Some(FramePiece::Payload(bytes, key)));
        }
        if frame.left > 0 {
            return (taken, Some(FramePiece::More));
        }
        self.frame = None;
        if frame.opcode.is_control() {
            self.spent = true;
            return (taken, Some(FramePiece::Control(frame.opcode)));
        }
        let message = self.message.take_if(|_| frame.last);
        (taken, message.map(|(opcode, _)| FramePiece::Message(opcode)))
    }

    /// Keeps payload of a control frame.
    fn fill(&mut self, bytes: &[u8], key: [u8; 4]) {
        let start = usize::from(self.filled);
        let room = &mut self.buffer[start..start + bytes.len()];
        room.copy_from_slice(bytes);
        unmask(room, key);
        self.filled += bytes.len() as u8;
    }
}
