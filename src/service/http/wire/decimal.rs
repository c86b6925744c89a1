//! Numbers as digits, without the machinery of formatting: heads are written for every request.

/// The digits of a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal {
    /// 20 digits are enough for every number.
    bytes: [u8; 20],
    start: usize,
}

/// The digits of this number.
pub(crate) fn decimal(number: u64) -> Decimal {
    let mut digits = Decimal { bytes: [b'0'; 20], start: 20 };
    let mut rest = number;
    loop {
        digits.start -= 1;
        digits.bytes[digits.start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return digits;
        }
    }
}

impl AsRef<[u8]> for Decimal {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_standard_library() {
        for number in [0, 7, 10, 200, 1_005, 65_535, u64::MAX / 10, u64::MAX] {
            assert_eq!(decimal(number).as_ref(), number.to_string().as_bytes());
        }
    }
}
