//! A worker's buffer of records as they come from clients, lent to one turn after the other.

/// Records that were received and not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Made when the first client speaks TLS.
    room: Vec<u8>,
    /// They are from here to `end`.
    at: usize,
    end: usize,
}

#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "there is no engine"))]
impl Records {
    /// How many bytes it takes; touched only as far as data goes. Several whole records fit.
    pub(crate) const BYTES: usize = 64 * 1024;

    /// Empties it, for a connection that has left these bytes in an earlier turn; false if it has no room for them.
    pub(crate) fn load(&mut self, left: &[u8]) -> bool {
        if self.room.is_empty() {
            self.room = vec![0; Self::BYTES];
        }
        (self.at, self.end) = (0, 0);
        let fits = left.len() <= self.room.len();
        if fits {
            self.room[..left.len()].copy_from_slice(left);
            self.end = left.len();
        }
        fits
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.room[self.at..self.end]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.at..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// Room for more.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.at > 0 {
            self.room.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
        }
        &mut self.room[self.end..]
    }

    /// This number of bytes was written into [`space`](Self::space).
    pub(crate) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
        debug_assert!(self.end <= self.room.len());
    }

    /// The first bytes were taken.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.end);
        if self.is_empty() {
            (self.at, self.end) = (0, 0);
        }
    }

    /// Whether the first record is here to its end.
    pub(crate) fn has_whole(&self) -> bool {
        let bytes = self.bytes();
        bytes.len() >= 5 && bytes.len() >= 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_taken_in_order_and_their_room_is_used_again() {
        let mut records = Records::default();
        assert!(records.load(b"ab"));
        records.space()[..3].copy_from_slice(b"cde");
        records.filled(3);
        records.consume(2);
        assert_eq!(records.bytes(), b"cde");
        assert_eq!(records.space().len(), Records::BYTES - 3);
        assert_eq!(records.bytes(), b"cde");
        records.consume(3);
        assert!(records.is_empty());
        assert_eq!(records.space().len(), Records::BYTES);
        assert!(!records.load(&vec![0; Records::BYTES + 1]));
        assert!(records.is_empty());
    }

    #[test]
    fn a_record_is_whole_with_its_last_byte() {
        let mut records = Records::default();
        for (bytes, whole) in [
            (&b""[..], false),
            (&[22, 3, 3, 0], false),
            (&[22, 3, 3, 0, 1], false),
            (&[22, 3, 3, 0, 1, 9], true),
        ] {
            records.load(bytes);
            assert_eq!(records.has_whole(), whole, "{bytes:?}");
        }
    }
}
