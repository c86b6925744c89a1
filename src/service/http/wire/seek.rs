//! A byte in a short text.

/// Where a byte stands first. Lines of heads and paths are short: eight bytes at a time need fewer steps than a search that is
/// made for long texts, and chooses among such searches first.
pub(super) fn seek(byte: u8, bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    for (nth, word) in words.iter().enumerate() {
        // The byte that is looked for becomes 0, and the lowest bit that this finds is that of the first such byte.
        let word = u64::from_le_bytes(*word) ^ (ONES * u64::from(byte));
        let found = word.wrapping_sub(ONES) & !word & HIGH;
        if found != 0 {
            return Some(nth * 8 + (found.trailing_zeros() / 8) as usize);
        }
    }
    let at = rest.iter().position(|&it| it == byte)?;
    Some(bytes.len() - rest.len() + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_each_byte_finds(
            bytes in proptest::collection::vec(prop_oneof![Just(9u8), Just(10), Just(11), Just(0x8a), any::<u8>()], 0..40),
            byte in prop_oneof![Just(10u8), any::<u8>()],
        ) {
            prop_assert_eq!(seek(byte, &bytes), bytes.iter().position(|&it| it == byte));
        }
    }
}
