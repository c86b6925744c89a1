//! The `Date` header: formatted once a second by each thread.

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use std::cell::Cell;

/// `Date: Sun, 06 Nov 1994 08:49:37 GMT` and a line end.
const LEN: usize = 37;

thread_local! {
    static LINE: Cell<(i64, [u8; LEN])> = const { Cell::new((i64::MIN, [b' '; LEN])) };
}

/// The header line of the present second.
pub(super) fn line() -> [u8; LEN] {
    let now = Timestamp::now();
    let (second, line) = LINE.get();
    if second == now.as_second() {
        return line;
    }
    let line = format(now);
    LINE.set((now.as_second(), line));
    line
}

fn format(at: Timestamp) -> [u8; LEN] {
    // It fails for years that do not have four digits only; the clock of such a machine is wrong anyway.
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap_or_default();
    let mut line = [b' '; LEN];
    for (place, byte) in line.iter_mut().zip(format!("Date: {date:<29}\r\n").bytes()) {
        *place = byte;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_date_as_the_rfc_writes_it() {
        let at = Timestamp::from_second(784_111_777).unwrap();
        assert_eq!(&format(at), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    }
}
