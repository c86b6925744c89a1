//! Finds, for each listener of a configuration that was read again, the listener that serves already. Two are the same if
//! they listen at the same address and offer the same service there. Their order in the file does not matter.

use crate::cli::plan::PlannedListener;

/// For each of the new ones the place of the old one that goes on as it, or opens again as it, if one does. Of several that
/// are alike those that are open come first: those with the same text belong together, and the others in their order.
pub(super) fn partners(old: &[PlannedListener], new: &[PlannedListener]) -> Vec<Option<usize>> {
    let same = |before: usize, after: usize| old[before].is_open() && old[before].is_the_same_as(&new[after]);
    let same_text = |before: usize, after: usize| same(before, after) && old[before].text == new[after].text;
    let again = |before: usize, after: usize| old[before].opens_again_as(&new[after]);
    paired(old.len(), new.len(), &[&same_text, &same, &again])
}

/// Whether an old one and a new one belong together.
type Alike<'a> = &'a dyn Fn(usize, usize) -> bool;

/// Pairs what is alike by the first rule, then of what is left what is alike by the next.
fn paired(old: usize, new: usize, rules: &[Alike<'_>]) -> Vec<Option<usize>> {
    let (mut partners, mut is_taken) = (vec![None; new], vec![false; old]);
    for alike in rules {
        for (after, partner) in partners.iter_mut().enumerate().filter(|(_, partner)| partner.is_none()) {
            *partner = (0..old).find(|&before| !is_taken[before] && alike(before, after));
            if let Some(before) = *partner {
                is_taken[before] = true;
            }
        }
    }
    partners
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_most_alike_belongs_together_wherever_it_stands() {
        let (old, new) = (["a1", "a2", "b1"], ["b1", "a2", "a3", "c1"]);
        let equal = |before: usize, after: usize| old[before] == new[after];
        let same_letter = |before: usize, after: usize| old[before][..1] == new[after][..1];
        let found = paired(old.len(), new.len(), &[&equal, &same_letter]);
        assert_eq!(found, [Some(2), Some(1), Some(0), None]);
    }

    proptest! {
        #[test]
        fn each_has_one_partner_at_most_and_nobody_is_left_who_could_have_one(
            old in prop::collection::vec(0u8..4, 0..8),
            new in prop::collection::vec(0u8..4, 0..8),
        ) {
            let alike = |before: usize, after: usize| old[before] == new[after];
            let found = paired(old.len(), new.len(), &[&alike]);
            let mut partners: Vec<_> = found.iter().flatten().collect();
            partners.sort_unstable();
            partners.dedup();
            prop_assert_eq!(partners.len(), found.iter().flatten().count());
            for (after, partner) in found.iter().enumerate() {
                let could_have = |before: usize| alike(before, after) && !found.contains(&Some(before));
                let fits = match *partner {
                    Some(before) => alike(before, after),
                    None => !(0..old.len()).any(could_have),
                };
                prop_assert!(fits, "{after} of {found:?}");
            }
        }
    }
}
