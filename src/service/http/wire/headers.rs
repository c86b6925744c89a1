//! The headers of a message, in their order.

use super::trim;

/// The headers of a message, in the order they came. Names are compared without regard to case, and a
/// name with `_` is another one than the same with `-`. Values are bytes, without the spaces around them.
#[derive(Clone, Copy)]
pub struct Headers<'h> {
    /// `httparse` leaves no spaces around a value.
    all: &'h [httparse::Header<'h>],
    /// The head that they are in.
    head: &'h [u8],
}

impl<'h> Headers<'h> {
    pub(super) fn new(all: &'h [httparse::Header<'h>], head: &'h [u8]) -> Self {
        Self { all, head }
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'h str, &'h [u8])> + use<'h> {
        self.all.iter().map(|header| (header.name, header.value))
    }

    /// Name and value of each, and the whole line if it came in the usual form: name, colon, one space, value, CR, LF.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&'h str, &'h [u8], Option<&'h [u8]>)> + use<'h> {
        let Self { all, head } = *self;
        all.iter().map(|header| (header.name, header.value, usual_line(head, header)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The value of the first header of this name.
    pub fn get(&self, name: &str) -> Option<&'h [u8]> {
        self.all(name).next()
    }

    /// The values of all headers of this name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        let named = self.all.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value)
    }

    /// Whether a word is in the list that the headers of this name make together, as `close` is in
    /// `Connection: keep-alive, Close`. Without regard to case.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        self.all(name).flat_map(list).any(|element| element.eq_ignore_ascii_case(word.as_bytes()))
    }
}

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))))
            .finish()
    }
}

/// The line of a header, if it is in the usual form.
fn usual_line<'h>(head: &'h [u8], header: &httparse::Header<'_>) -> Option<&'h [u8]> {
    let (name, value) = (header.name, header.value);
    let start = name.as_ptr().addr().checked_sub(head.as_ptr().addr())?;
    let is_one_apart = value.as_ptr().addr() == name.as_ptr().addr() + name.len() + 2;
    let line = head.get(start..start + name.len() + value.len() + 4)?;
    (is_one_apart && line[name.len()..].starts_with(b": ") && line.ends_with(b"\r\n")).then_some(line)
}

/// The elements of a list in a header's value, without the spaces around them; empty ones are left out.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// What the headers say of the message itself, gathered in one pass.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts<'h> {
    pub(super) host: Option<&'h [u8]>,
    pub(super) hosts: u32,
    pub(super) length: Length,
    pub(super) coding: Coding,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    pub(super) expectation: Expectation,
}

/// What all Content-Length headers say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Length {
    #[default]
    None,
    Is(u64),
    Differ,
    Bad,
}

/// What all Transfer-Encoding headers say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coding {
    #[default]
    None,
    Chunked,
    /// Others than chunked, which must be followed by it.
    Unended,
    /// Others, and chunked is the last.
    Others,
    /// Something follows chunked, or an element is empty.
    Bad,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Expectation {
    #[default]
    None,
    Continue,
    Other,
}

impl<'h> Facts<'h> {
    pub(super) fn of(headers: Headers<'h>) -> Self {
        let mut facts = Facts::default();
        for (name, value) in headers.iter() {
            facts.note(name, value);
        }
        facts
    }

    fn note(&mut self, name: &str, value: &'h [u8]) {
        // The length of a name tells most headers apart from these at once.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                self.hosts += 1;
                self.host = Some(value);
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                let continues = value.eq_ignore_ascii_case(b"100-continue");
                self.expectation = match (self.expectation, continues) {
                    (Expectation::Other, _) | (_, false) => Expectation::Other,
                    _ => Expectation::Continue,
                };
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                for word in list(value) {
                    self.close |= word.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
                    self.upgrade |= word.eq_ignore_ascii_case(b"upgrade");
                }
            }
            14 if name.eq_ignore_ascii_case("content-length") => self.length = self.length.and(value),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => self.coding = self.coding.and(value),
            _ => {}
        }
    }
}

impl Length {
    /// With another Content-Length header, which may be a list: some senders join equal lengths.
    fn and(mut self, value: &[u8]) -> Self {
        for element in value.split(|&byte| byte == b',').map(trim) {
            self = match (self, number(element)) {
                (Length::Bad, _) | (_, None) => Length::Bad,
                (Length::None, Some(length)) => Length::Is(length),
                (Length::Is(before), Some(length)) if before == length => self,
                (Length::Is(_) | Length::Differ, Some(_)) => Length::Differ,
            };
        }
        self
    }
}

/// Digits, and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

impl Coding {
    /// With another Transfer-Encoding header. An empty element is not ignored here: recipients differ in it.
    fn and(mut self, value: &[u8]) -> Self {
        for element in value.split(|&byte| byte == b',').map(trim) {
            let chunked = element.eq_ignore_ascii_case(b"chunked");
            self = match self {
                _ if element.is_empty() => Coding::Bad,
                Coding::None if chunked => Coding::Chunked,
                Coding::Unended if chunked => Coding::Others,
                Coding::None | Coding::Unended => Coding::Unended,
                Coding::Chunked | Coding::Others | Coding::Bad => Coding::Bad,
            };
        }
        self
    }
}
