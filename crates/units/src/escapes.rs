//! Bytes as people type them: text with escapes.

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
}
