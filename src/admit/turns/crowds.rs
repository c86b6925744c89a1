//! Which source has the most newcomers waiting, to within a factor of two.
//!
//! When the places for newcomers are taken, one of them has to make room for the next. If that were always the one that
//! has waited longest, a source that sends newcomers faster than workers take them would push out everyone else's: nobody's
//! newcomer would live until a worker comes. So the largest crowd makes room, and whoever comes alone keeps its place.
//!
//! Sources stand in lists by the size of their crowds: 2 or 3, 4 to 7, 8 to 15, and so on. An operation takes the same time
//! however many sources there are.

use super::lists::Lists;

/// One list for each size that a `u32` can count.
const SIZES: u32 = u32::BITS;

#[derive(Debug)]
pub(super) struct Crowds {
    /// For each source how many of its newcomers wait.
    counts: Box<[u32]>,
    lists: Lists,
}

impl Crowds {
    /// Bytes for each source.
    pub(super) const SOURCE_BYTES: usize = size_of::<u32>() + Lists::NODE_BYTES;

    pub(super) fn new(sources: usize) -> Self {
        Self { counts: vec![0; sources].into(), lists: Lists::new(sources + SIZES as usize) }
    }

    /// What it takes of the allocator.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.counts.len() * size_of::<u32>() + self.lists.bytes()
    }

    /// A newcomer of this source waits.
    pub(super) fn came(&mut self, source: u32) {
        self.set(source, self.counts[source as usize] + 1);
    }

    /// A newcomer of this source waits no longer.
    pub(super) fn left(&mut self, source: u32) {
        self.set(source, self.counts[source as usize] - 1);
    }

    fn set(&mut self, source: u32, count: u32) {
        let size = |count: u32| count.checked_ilog2();
        let before = std::mem::replace(&mut self.counts[source as usize], count);
        if size(before) == size(count) {
            return;
        }
        self.lists.unlink(source);
        if let Some(size) = size(count) {
            self.lists.push_last(self.list(size), source);
        }
    }

    /// The source with the largest crowd; `None` if no source has more than one newcomer. Crowds of about the same size
    /// take turns.
    pub(super) fn largest(&mut self) -> Option<u32> {
        let sizes = (1..SIZES).rev().map(|size| self.list(size));
        let (list, source) = sizes.into_iter().find_map(|list| Some((list, self.lists.first(list)?)))?;
        self.lists.unlink(source);
        self.lists.push_last(list, source);
        Some(source)
    }

    fn list(&self, size: u32) -> u32 {
        self.counts.len() as u32 + size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowds(counts: &[u32]) -> Crowds {
        let mut crowds = Crowds::new(counts.len());
        for (source, &count) in counts.iter().enumerate() {
            (0..count).for_each(|_| crowds.came(source as u32));
        }
        crowds
    }

    #[test]
    fn who_comes_alone_is_no_crowd() {
        assert_eq!(crowds(&[]).largest(), None);
        assert_eq!(crowds(&[1, 0, 1]).largest(), None);
    }

    #[test]
    fn the_largest_crowd_gets_smaller_until_others_are_as_large() {
        let mut crowds = crowds(&[1, 9, 4, 0, 2]);
        let mut shrunk = Vec::new();
        while let Some(source) = crowds.largest() {
            crowds.left(source);
            shrunk.push(source);
        }
        assert_eq!(shrunk[..2], [1, 1], "9 and 8 are of another size than 4");
        assert_eq!(crowds.counts[..], [1, 1, 1, 0, 1]);
        assert_eq!(shrunk.iter().filter(|&&source| source == 1).count(), 8);
        (0..4).for_each(|source| crowds.came(source));
        assert_eq!((crowds.largest(), crowds.largest(), crowds.largest()), (Some(0), Some(1), Some(2)));
    }

    #[test]
    fn crowds_of_one_size_take_turns() {
        let mut crowds = crowds(&[5, 6, 7]);
        let turns: Vec<_> = (0..6).filter_map(|_| crowds.largest()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn the_bytes_of_a_source_are_those_that_it_takes() {
        let sizes = SIZES as usize * Lists::NODE_BYTES;
        assert_eq!(Crowds::new(100).bytes(), 100 * Crowds::SOURCE_BYTES + sizes);
    }
}
