//! The `Date` header: formatted once a second by each thread.

use crate::sys::unix_second;
use std::cell::RefCell;

/// `Date: Sun, 06 Nov 1994 08:49:37 GMT` and a line end.
const LEN: usize = 37;

/// The header line that says who answers. It follows the date in nearly every answer, so both are kept together.
pub(in crate::service) const SERVER: &[u8] = b"Server: tidegate\r\n";

/// Both lines of a second.
struct Stamp {
    second: u64,
    bytes: [u8; LEN + SERVER.len()],
}

thread_local! {
    static LINES: RefCell<Stamp> =
        const { RefCell::new(Stamp { second: u64::MAX, bytes: [b' '; LEN + SERVER.len()] }) };
}

/// Gives `take` the header lines of the present second: `Date`, and `Server` after it.
pub(in crate::service) fn with_lines<T>(take: impl FnOnce(&[u8]) -> T) -> T {
    let now = unix_second();
    LINES.with_borrow_mut(|lines| {
        if lines.second != now {
            lines.second = now;
            lines.bytes[..LEN].copy_from_slice(&format(now));
            lines.bytes[LEN..].copy_from_slice(SERVER);
        }
        take(&lines.bytes)
    })
}

/// The header line `Date` of the present second.
pub(in crate::service) fn line() -> [u8; LEN] {
    with_lines(|lines| lines.first_chunk().copied().unwrap_or([b' '; LEN]))
}

/// The date of a second since 1970, as RFC 9110, 5.6.7 writes it.
fn format(second: u64) -> [u8; LEN] {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, time) = (second / 86_400, second % 86_400);
    let (year, month, day) = civil(days);
    let text = format!(
        "Date: {}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT\r\n",
        WEEKDAYS[(days % 7) as usize],
        MONTHS[month],
        time / 3600,
        time / 60 % 60,
        time % 60,
    );
    let mut line = [b' '; LEN];
    // A year of five digits would be cut; there will be none for a while.
    for (place, byte) in line.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    line
}

/// Year, month (from 0) and day (from 1) of a day since 1970-01-01. Years are counted from March, so that the
/// leap day is the last of its year: 400 of them have 146,097 days.
pub(super) fn civil(days: u64) -> (u64, usize, u64) {
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // The months from March have 31, 30, 31, 30, 31 days, again and again.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = (month as usize + 2) % 12;
    (era * 400 + year + u64::from(month < 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_date_as_the_rfc_writes_it() {
        for (second, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59"),
        ] {
            assert_eq!(String::from_utf8_lossy(&format(second)), format!("Date: {date} GMT\r\n"));
        }
    }

    #[test]
    fn days_follow_each_other() {
        let months = |year: u64| {
            let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
            [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        };
        let (mut year, mut month, mut day) = (1970, 0, 1);
        for days in 0..200_000 {
            assert_eq!(civil(days), (year, month, day));
            day += 1;
            if day > months(year)[month] {
                (month, day) = (month + 1, 1);
            }
            if month == 12 {
                (year, month) = (year + 1, 0);
            }
        }
    }
}
