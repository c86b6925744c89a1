//! Counts of answers over HTTP, by the class of their status.

/// How many classes there are: 1xx to 5xx.
pub(crate) const CLASSES: usize = 5;

/// One answer, as far as it is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// It said when to come again: after how many seconds, 0 where that was no number.
    pub(crate) retry_after: Option<u32>,
    /// The connection ends after it.
    pub(crate) closes: bool,
}

/// Counts of answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answers {
    pub(crate) classes: [u64; CLASSES],
    /// Those that said when to come again, and the longest time that one said, in seconds.
    pub(crate) retry_after: u64,
    pub(crate) retry_after_max: u32,
    /// Those after which the connection ended.
    pub(crate) closed: u64,
}

impl Answers {
    /// Counts one.
    pub(crate) fn count(&mut self, answer: Answer) {
        let class = usize::from(answer.status / 100).clamp(1, CLASSES) - 1;
        self.classes[class] += 1;
        self.closed += u64::from(answer.closes);
        if let Some(seconds) = answer.retry_after {
            self.retry_after += 1;
            self.retry_after_max = self.retry_after_max.max(seconds);
        }
    }

    /// Adds another's.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, n) in self.classes.iter_mut().zip(other.classes) {
            *sum += n;
        }
        self.retry_after += other.retry_after;
        self.retry_after_max = self.retry_after_max.max(other.retry_after_max);
        self.closed += other.closed;
    }
}
