//! The chunked coding: a strict reader, and the writer.

use super::{Piece, Refused, is_token, is_value};

/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Digits of a size: enough for every u64.
const DIGITS_MAX: u8 = 16;

/// Where in the coding the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the digits of a size: how many there were.
    Size(u8),
    /// In an extension.
    Extension,
    /// Before the LF of a size line.
    SizeLf,
    /// In the data of a chunk, of which `size` bytes are left.
    Data,
    /// Before the CR behind the data.
    DataCr,
    /// Before the LF behind the data.
    DataLf,
    /// At the start of a trailer, or of the empty line that ends all.
    TrailerStart,
    TrailerName,
    TrailerValue,
    /// Before the LF of a trailer.
    TrailerLf,
    /// Before the last LF.
    LastLf,
    End,
}

/// Reads the chunked coding as it comes and keeps no bytes. Sizes have 1 to 16 hexadecimal digits and
/// nothing around them; lines end with CR LF; extensions are skipped and trailers, which must look like
/// headers, dropped. Both together have a limit, since they cost their reader time and bring no data.
#[derive(Clone, Debug)]
pub struct Chunked {
    at: At,
    /// The size of the present chunk so far, then what is left of it.
    size: u64,
    overhead: usize,
}

impl Chunked {
    /// At the start of a body whose extensions and trailers may have this many bytes in all.
    pub fn new(max_overhead: usize) -> Self {
        Self { at: At::Size(0), size: 0, overhead: max_overhead }
    }

    /// Takes some of `input`: how many bytes that were, and what they are. Refuses a chunk with more than
    /// `room` bytes when its size is known, before it is read.
    pub fn next<'b>(&mut self, input: &'b [u8], room: u64) -> Result<(usize, Piece<'b>), Refused> {
        let mut used = 0;
        loop {
            match self.at {
                At::End => return Ok((used, Piece::End)),
                At::Data if used < input.len() => {
                    let rest = &input[used..];
                    let taken = rest.len().min(usize::try_from(self.size).unwrap_or(usize::MAX));
                    self.size -= taken as u64;
                    if self.size == 0 {
                        self.at = At::DataCr;
                    }
                    return Ok((used + taken, Piece::Data(&rest[..taken])));
                }
                _ => {}
            }
            let Some(&byte) = input.get(used) else { return Ok((used, Piece::More)) };
            used += 1;
            self.at = self.step(byte)?;
            if self.at == At::Data && self.size > room {
                return Err(Refused::BodyTooLong);
            }
        }
    }

    /// What follows a byte that is not data.
    fn step(&mut self, byte: u8) -> Result<At, Refused> {
        match (self.at, byte) {
            (At::Size(1..), b'\r') => Ok(At::SizeLf),
            (At::Size(1..), b';') => self.spend(At::Extension, Refused::ChunkExtension),
            (At::Size(digits), _) => {
                let digit = (byte as char).to_digit(16).ok_or(Refused::ChunkSize)?;
                if digits == DIGITS_MAX {
                    return Err(Refused::ChunkSize);
                }
                self.size = self.size << 4 | u64::from(digit);
                Ok(At::Size(digits + 1))
            }
            (At::Extension, b'\r') => Ok(At::SizeLf),
            (At::Extension, _) if is_value(byte) => self.spend(At::Extension, Refused::ChunkExtension),
            (At::Extension, _) => Err(Refused::ChunkExtension),
            (At::SizeLf, b'\n') => Ok(if self.size == 0 { At::TrailerStart } else { At::Data }),
            (At::SizeLf, _) => Err(Refused::ChunkSize),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(At::Size(0)),
            (At::DataCr | At::DataLf, _) => Err(Refused::ChunkEnd),
            (At::TrailerStart, b'\r') => Ok(At::LastLf),
            (At::TrailerStart | At::TrailerName, _) if is_token(byte) => {
                self.spend(At::TrailerName, Refused::Trailer)
            }
            (At::TrailerName, b':') => self.spend(At::TrailerValue, Refused::Trailer),
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerValue, _) if is_value(byte) => self.spend(At::TrailerValue, Refused::Trailer),
            (At::TrailerLf, b'\n') => Ok(At::TrailerStart),
            (At::LastLf, b'\n') => Ok(At::End),
            (At::TrailerStart | At::TrailerName | At::TrailerValue | At::TrailerLf | At::LastLf, _) => {
                Err(Refused::Trailer)
            }
            (at @ (At::Data | At::End), _) => Ok(at),
        }
    }

    fn spend(&mut self, next: At, otherwise: Refused) -> Result<At, Refused> {
        self.overhead = self.overhead.checked_sub(1).ok_or(otherwise)?;
        Ok(next)
    }
}

/// The line before a chunk of this many bytes, which must not be 0: what it says is the last one then. The
/// chunk is followed by CR LF.
pub fn chunk_head(size: usize) -> impl AsRef<[u8]> {
    let mut line = ChunkHead { bytes: *b"0000000000000000\r\n", start: 16 };
    let mut rest = size;
    loop {
        line.start -= 1;
        line.bytes[line.start] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            return line;
        }
    }
}

struct ChunkHead {
    bytes: [u8; 18],
    start: usize,
}

impl AsRef<[u8]> for ChunkHead {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}
