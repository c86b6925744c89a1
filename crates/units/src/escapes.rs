//! Escapes: bytes written as text on a command line, and text that a terminal can show safely.

use std::borrow::Cow;

/// A text with the escapes `\n`, `\r`, `\t`, `\0`, `\\` and `\xHH` as the bytes they stand for.
///
/// # Errors
///
/// There is a backslash with something else behind it.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (byte, used) = match rest {
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b't', ..] => (b'\t', 1),
            [b'0', ..] => (0, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', high, low, ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => return Err(bad_escape(text)),
            },
            _ => return Err(bad_escape(text)),
        };
        bytes.push(byte);
        rest = &rest[used..];
    }
    Ok(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|d| d as u8)
}

fn bad_escape(text: &str) -> String {
    format!("`{text}` has an unknown escape: there are \\n, \\r, \\t, \\0, \\\\ and \\xHH")
}

/// A text with everything that a terminal would obey instead of show written as an escape: control characters (but
/// for the tab and the newline), and marks that reorder a line.
pub fn visible(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    text.chars().for_each(|letter| push_visible(&mut shown, letter));
    Cow::Owned(shown)
}

/// Bytes on their way to a terminal, which may end in the middle of a letter.
#[derive(Clone, Debug, Default)]
pub struct Visible {
    /// The beginning of a letter whose rest has not come.
    rest: Vec<u8>,
}

impl Visible {
    /// The text of the next bytes, as [`visible`] shows it; what is no UTF-8 becomes `\xHH`. A letter that is not
    /// whole is kept for the next call.
    pub fn show(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let mut shown = String::with_capacity(all.len());
        let mut left = &all[..];
        loop {
            match std::str::from_utf8(left) {
                Ok(text) => {
                    shown.push_str(&visible(text));
                    return shown;
                }
                Err(error) => {
                    let (good, bad) = left.split_at(error.valid_up_to());
                    shown.push_str(&visible(std::str::from_utf8(good).unwrap_or_default()));
                    let Some(length) = error.error_len() else {
                        self.rest = bad.to_vec();
                        return shown;
                    };
                    bad[..length].iter().for_each(|byte| push_byte(&mut shown, *byte));
                    left = &bad[length..];
                }
            }
        }
    }

    /// The rest, when no more bytes come.
    pub fn finish(&mut self) -> String {
        let mut shown = String::new();
        self.rest.drain(..).for_each(|byte| push_byte(&mut shown, byte));
        shown
    }
}

fn is_shown(letter: char) -> bool {
    match letter {
        '\n' | '\t' => true,
        // Marks that turn the direction of what follows.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        letter => !letter.is_control(),
    }
}

fn push_visible(shown: &mut String, letter: char) {
    match letter {
        letter if is_shown(letter) => shown.push(letter),
        '\r' => shown.push_str("\\r"),
        '\0'..='\u{7f}' => push_byte(shown, letter as u8),
        letter => shown.extend(letter.escape_unicode()),
    }
}

fn push_byte(shown: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    shown.push_str("\\x");
    for digit in [byte >> 4, byte & 15] {
        shown.push(DIGITS[usize::from(digit)] as char);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_their_bytes() {
        assert_eq!(unescape(r"a\n\r\t\0\\\x7fé"), Ok("a\n\r\t\0\\\x7fé".as_bytes().to_vec()));
        for text in ["\\", "\\q", "\\x1", "\\xgg"] {
            assert!(unescape(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_as_an_escape() {
        for (text, shown) in [
            ("plain, é, 日本, 🦀\tand\n", "plain, é, 日本, 🦀\tand\n"),
            ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("over\rwritten", "over\\rwritten"),
            ("back\x08\x7f\0", "back\\x08\\x7f\\x00"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\u{202e}b\u{2066}c", "a\\u{202e}b\\u{2066}c"),
        ] {
            assert_eq!(visible(text), shown);
            // The same, however it is cut.
            for cut in 0..=text.len() {
                let (mut screen, bytes) = (Visible::default(), text.as_bytes());
                let parts = screen.show(&bytes[..cut]) + &screen.show(&bytes[cut..]) + &screen.finish();
                assert_eq!(parts, shown, "cut at {cut}");
            }
        }
        let mut screen = Visible::default();
        assert_eq!(screen.show(b"a\xff\x9b31m\xc3"), "a\\xff\\x9b31m");
        assert_eq!(screen.show(b"(\xe6\x97"), "\\xc3(");
        assert_eq!((screen.finish(), screen.finish()), ("\\xe6\\x97".to_owned(), String::new()));
    }
}
