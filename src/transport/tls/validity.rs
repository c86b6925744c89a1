//! When a certificate is valid: the one thing of X.509 that is read here, since nothing else tells it.
//!
//! A certificate is DER: elements of a tag, a length and a content, one inside the other. The validity is the fifth
//! element of the part that is signed (RFC 5280, 4.1), and has two times in it.

/// Seconds since the Unix epoch between which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: i64,
    pub(super) until: i64,
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The tag of the version, which a certificate of version 1 does not have.
const VERSION: u8 = 0xa0;

impl Validity {
    /// Reads the validity of a certificate; `None` if it is not built as one.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (mut signed, _) = content(certificate, SEQUENCE)?;
        (signed, _) = content(signed, SEQUENCE)?;
        if signed.first() == Some(&VERSION) {
            signed = element(signed)?.2;
        }
        // The serial number, the algorithm of the signature, the issuer.
        for _ in 0..3 {
            signed = element(signed)?.2;
        }
        let (times, _) = content(signed, SEQUENCE)?;
        let (from, until) = time(times)?;
        Some(Self { from, until: time(until)?.0 })
    }
}

/// The first element: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut len = usize::from(first);
    if first >= 0x80 {
        let digits = usize::from(first & 0x7f);
        if digits == 0 || digits > 3 {
            return None;
        }
        let (length, after) = rest.split_at_checked(digits)?;
        len = length.iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

fn content(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// Reads `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`, and what follows.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (tag, text, rest) = element(bytes)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, text) = match tag {
        UTC_TIME => (text.get(..2)?, text.get(2..)?),
        GENERALIZED_TIME => (text.get(..4)?, text.get(4..)?),
        _ => return None,
    };
    let mut year: i64 = year.parse().ok()?;
    if tag == UTC_TIME {
        year += if year < 50 { 2000 } else { 1900 };
    }
    let number = |at: usize| text.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (number(0)?, number(2)?);
    if !(1..=12).contains(&month) {
        return None;
    }
    let seconds = number(4)? * 3600 + number(6)? * 60 + number(8)?;
    Some((days(year, month, day) * 86_400 + seconds, rest))
}

/// Days from the Unix epoch to this day of the Gregorian calendar. A year is taken to begin in March here, so that the
/// day that some years have more is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let in_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + in_year - 719_468
}

/// The day of a time, as `2026-11-25`.
pub(super) fn date(seconds: i64) -> String {
    // The year is guessed, never too late, and corrected.
    let day = seconds.div_euclid(86_400);
    let mut year = 1970 + day.div_euclid(366);
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    let month = (1..=12).rev().find(|&month| days(year, month, 1) <= day).unwrap_or(1);
    format!("{year:04}-{month:02}-{:02}", day - days(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn certificate(until: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1970, 1, 2);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_times_of_a_certificate_are_read_in_both_forms() {
        for (until, seconds) in [
            ((2026, 11, 25), 1_795_564_800),
            ((2049, 12, 31), 2_524_521_600),
            ((2050, 1, 1), 2_524_608_000),
            ((2100, 3, 1), 4_107_542_400),
        ] {
            let validity = Validity::of(&certificate(until)).unwrap();
            assert_eq!(validity, Validity { from: 86_400, until: seconds }, "{until:?}");
            assert_eq!(date(seconds), format!("{:04}-{:02}-{:02}", until.0, until.1, until.2));
        }
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!((date(0), date(-1)), ("1970-01-01".to_owned(), "1969-12-31".to_owned()));
    }

    #[test]
    fn what_is_cut_short_is_no_certificate() {
        let whole = certificate((2030, 1, 1));
        for len in 0..whole.len() {
            assert_eq!(Validity::of(&whole[..len]), None);
        }
    }

    proptest! {
        /// Whatever stands in a file, reading it ends.
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..400usize) {
            let _ = Validity::of(&bytes);
            let mut whole = certificate((2030, 1, 1));
            let at = at % whole.len();
            bytes.truncate(whole.len() - at);
            whole[at..at + bytes.len()].copy_from_slice(&bytes);
            let _ = Validity::of(&whole);
        }
    }
}
