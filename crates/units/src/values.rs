//! Numbers with units, such as `10s`, `500us`, `10k`, `64KiB` and `500/s`.

use std::time::Duration;

/// The longest time that is taken: a year, so that sums of times stay far from what a clock can say.
pub const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// The shortest time that a thread keeps.
pub const SHORTEST: Duration = Duration::from_millis(1);

/// A time up to [`LONGEST`]: a number and one of ns, us, ms, s, m, h, d; several may follow each other (`1m30s`).
///
/// # Errors
///
/// The text is no time, or a longer one.
pub fn duration(text: &str) -> Result<Duration, String> {
    match any_duration(text)? {
        time if time > LONGEST => Err(format!("`{text}` is too long a time: a year (365d) at most")),
        time => Ok(time),
    }
}

/// A [`duration`] of at least a millisecond, the shortest that a thread keeps: where a wait of no time makes no sense.
///
/// # Errors
///
/// The text is no time, or a shorter one.
pub fn wait(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < SHORTEST => {
            Err(format!("`{text}` is too short: it must be at least {}", show_time(SHORTEST)))
        }
        time => Ok(time),
    }
}

fn any_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if let Some(parsed) = simple_duration(text) {
        return Ok(parsed);
    }
    humantime::parse_duration(text).map_err(|_| {
        format!(
            "`{text}` is not a time: write a number and a unit (ns, us, ms, s, m, h, d), like `500ms` or `10s`"
        )
    })
}

/// A number, perhaps with a fraction, and one unit: `1.5s`.
fn simple_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * unit).ok()
}

/// A count: a whole number, `k` for thousands and `M` for millions.
///
/// # Errors
///
/// The text is no count, or one beyond 64 bits.
pub fn count(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000),
        None => match text.strip_suffix('M') {
            Some(digits) => (digits, 1_000_000),
            None => (text, 1),
        },
    };
    let not_a_count = || format!("`{text}` is not a count: write a whole number, like `500` or `10k`");
    let number: u64 = digits.parse().map_err(|_| not_a_count())?;
    number.checked_mul(unit).ok_or_else(not_a_count)
}

/// A [`count`] of at least one.
///
/// # Errors
///
/// The text is no count, or it is 0.
pub fn positive(text: &str) -> Result<u64, String> {
    match count(text)? {
        0 => Err(format!("`{text}` is too few: it must be at least 1")),
        n => Ok(n),
    }
}

/// A count of bytes: a whole number, with B, KiB, MiB or GiB (or k, kB, M, MB, G, GB for powers of ten).
///
/// # Errors
///
/// The text is no size, or one beyond 64 bits.
pub fn size(text: &str) -> Result<u64, String> {
    let not_a_size =
        || format!("`{text}` is not a size: write a whole number of bytes, like `64`, `64KiB` or `1MiB`");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| not_a_size())?;
    let unit = match &text[digits..] {
        "" | "B" => 1,
        "k" | "K" | "kB" => 1_000,
        "KiB" => 1 << 10,
        "M" | "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "G" | "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return Err(not_a_size()),
    };
    number.checked_mul(unit).ok_or_else(not_a_size)
}

/// A rate a second: `500`, `500/s`, `10k/s`; a fraction is allowed (`0.5`).
///
/// # Errors
///
/// The text is no rate; a rate is neither negative nor infinite.
pub fn rate(text: &str) -> Result<f64, String> {
    let digits = text.strip_suffix("/s").unwrap_or(text);
    let (digits, unit) = match digits.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000.0),
        None => match digits.strip_suffix('M') {
            Some(digits) => (digits, 1_000_000.0),
            None => (digits, 1.0),
        },
    };
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number * unit),
        _ => Err(format!("`{text}` is not a rate: write how many a second, like `500` or `10k`")),
    }
}

/// A time in a form that people read and that [`duration`] takes: exact, with the largest unit that needs no
/// fraction: `1500ms`, `10s`.
pub fn show_time(time: Duration) -> String {
    if time.is_zero() {
        return "0s".to_owned();
    }
    let nanos = time.as_nanos();
    let day = 86_400 * 1_000_000_000;
    for (unit, name) in [(day, "d"), (1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")] {
        if nanos.is_multiple_of(unit) {
            return format!("{}{name}", nanos / unit);
        }
    }
    format!("{nanos}ns")
}

/// A count of bytes in a form that people read and that [`size`] takes: exact, like `64KiB` or `1000B`.
pub fn show_size(bytes: usize) -> String {
    for (unit, name) in [(1usize << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

/// A number with what it counts: `1 connection`, `2 connections`.
pub fn counted(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown() {
        for (text, time) in [
            ("10s", Duration::from_secs(10)),
            ("500us", Duration::from_micros(500)),
            ("1.5s", Duration::from_millis(1500)),
            ("1m30s", Duration::from_secs(90)),
            ("7d", Duration::from_secs(7 * 86_400)),
            ("0", Duration::ZERO),
        ] {
            assert_eq!(duration(text).as_ref(), Ok(&time), "{text}");
            assert_eq!(duration(&show_time(time)), Ok(time), "{text}");
        }
        assert_eq!(duration("365d"), Ok(LONGEST));
        assert_eq!((duration("1.5d"), wait("1ms")), (Ok(Duration::from_secs(129_600)), Ok(SHORTEST)));
        assert!(wait("0s").unwrap_err().ends_with("at least 1ms") && wait("soon").is_err());
        for text in ["366d", "2y", "18446744073709551615s", "99999999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "10", "s", "10 parsecs", "-1s", "1e3s", "10x"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_sizes_and_rates_are_read() {
        assert_eq!(count("10k"), Ok(10_000));
        let connections = |number| counted(number, "connection");
        assert_eq!([0, 1, 2].map(connections), ["0 connections", "1 connection", "2 connections"]);
        assert!(count("ten").is_err() && count("-1").is_err() && count("99999999999999999999").is_err());
        assert!(positive("0").is_err());
        assert_eq!((size("64KiB"), size("1GB")), (Ok(65_536), Ok(1_000_000_000)));
        assert_eq!((show_size(65_536), show_size(1000)), ("64KiB".to_owned(), "1000B".to_owned()));
        assert!(size("64XB").is_err() && size("KiB").is_err());
        assert_eq!(rate("10k/s"), Ok(10_000.0));
        assert!(rate("nan").is_err() && rate("-1").is_err() && rate("fast").is_err());
    }
}
