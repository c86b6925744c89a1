//! When the allocator is told to return memory to the system: after many clients have left.

/// A smaller crowd than this leaves nothing worth the work.
const CROWD: usize = 512;

/// Connections as the timekeeper sees them, second by second.
#[derive(Debug, Default)]
pub(super) struct Trim {
    /// The most that were open since memory was last given back.
    most: usize,
}

impl Trim {
    /// Whether half of a crowd has left; asked once a second.
    pub(super) fn is_due(&mut self, open: usize) -> bool {
        self.most = self.most.max(open);
        let due = self.most >= CROWD && open <= self.most / 2;
        if due {
            self.most = open;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_when_half_of_a_crowd_has_left() {
        let mut trim = Trim::default();
        let due = [100, 0, 10_000, 9_000, 5_001, 5_000, 4_000, 2_500, 2_501, 0, 0, 511, 0]
            .map(|open| trim.is_due(open));
        let times: Vec<usize> = (0..due.len()).filter(|&at| due[at]).collect();
        assert_eq!(times, [5, 7, 9]);
    }
}
