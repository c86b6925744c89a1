//! The words for a client that cannot be served now.

use std::borrow::Cow;
use std::time::Duration;

/// The placeholder for the number of seconds after which a client may come again.
const PLACE: &[u8] = b"{retry-after}";

/// A busy reply. `{retry-after}` in it stands for the number of seconds that the server needs to work off its queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// The text before the placeholder, if there is one.
    before: Option<Box<[u8]>>,
    /// The text after it; all of the text if there is none.
    rest: Box<[u8]>,
}

impl Words {
    pub(crate) fn new(text: &[u8]) -> Self {
        match text.windows(PLACE.len()).position(|window| window == PLACE) {
            Some(at) => Self { before: Some(text[..at].into()), rest: text[at + PLACE.len()..].into() },
            None => Self { before: None, rest: text.into() },
        }
    }

    /// The reply with this time in it.
    pub(crate) fn say(&self, wait: Duration) -> Cow<'_, [u8]> {
        match &self.before {
            None => Cow::Borrowed(&self.rest),
            Some(before) => {
                let seconds = wait.as_secs().to_string();
                Cow::Owned([before, seconds.as_bytes(), &self.rest].concat())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_stands_where_the_words_want_it() {
        let told = |text: &str, wait| {
            String::from_utf8(Words::new(text.as_bytes()).say(Duration::from_secs(wait)).into_owned())
                .unwrap()
        };
        assert_eq!(told("busy\n", 3), "busy\n");
        assert_eq!(told("come in {retry-after} s", 12), "come in 12 s");
        assert_eq!(told("{retry-after}", 120), "120");
        assert_eq!(told("", 1), "");
        assert!(matches!(Words::new(b"busy").say(Duration::ZERO), Cow::Borrowed(_)));
    }
}
