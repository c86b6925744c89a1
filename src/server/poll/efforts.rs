//! Limits how many workers have turns at once that need a processor. More of them than processors make every turn longer,
//! and no turn ends sooner.
//!
//! When thirty-two workers share one processor, the system gives it to each in slices of some milliseconds. A turn that
//! needs one millisecond may then be interrupted, and wait for the slices of thirty-one others. So while one more
//! worker computes than there are processors, the others sleep. Of those whose turns are cheap, one for each processor
//! is enough. Whether the turns of a service compute is measured (see
//! [`TurnCost`](crate::server::queue::cost::TurnCost)): if they mostly wait, for a disk or a database, all workers take
//! part.

use crate::sys::sync::{AtomicUsize, Ordering, fence};

/// What a worker's turn is expected to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Effort {
    #[default]
    Cheap,
    /// It keeps a processor busy for long.
    Computes,
    /// It is slow, and may wait for something.
    MayWait,
}

/// How many workers are in turns that are slow.
#[derive(Debug)]
pub(crate) struct Efforts {
    computing: AtomicUsize,
    waiting: AtomicUsize,
    processors: usize,
}

impl Efforts {
    pub(crate) fn new(processors: usize) -> Self {
        Self { computing: AtomicUsize::new(0), waiting: AtomicUsize::new(0), processors }
    }

    /// The calling worker begins a turn.
    pub(crate) fn begin(&self, effort: Effort) {
        if let Some(count) = self.count(effort) {
            count.fetch_add(1, Ordering::SeqCst);
            // The caller looks next whether somebody sleeps. A worker that stands back announces that it sleeps, and then
            // looks at the count; this is the other half.
            fence(Ordering::SeqCst);
        }
    }

    /// It has ended. Whether as many others are at it as are worth their while, of as many workers as are `awake`, so
    /// that the caller may rest: each of them asks the same when its turn has ended, and the last of them goes on.
    pub(crate) fn end(&self, effort: Effort, awake: impl FnOnce() -> usize) -> bool {
        match (effort, self.count(effort)) {
            (Effort::Computes, Some(count)) => count.fetch_sub(1, Ordering::SeqCst) > self.enough(),
            (_, Some(count)) => {
                count.fetch_sub(1, Ordering::SeqCst);
                false
            }
            (_, None) => self.cheap(awake(), 0) > self.processors,
        }
    }

    /// Whether another worker that computes would be one too many.
    pub(crate) fn is_enough(&self) -> bool {
        self.computing.load(Ordering::Relaxed) >= self.enough()
    }

    /// Of as many workers as are `awake`, of which `held` have been in one turn for long, whether a processor is left for
    /// one more whose turns are cheap.
    pub(crate) fn has_room(&self, awake: usize, held: usize) -> bool {
        self.cheap(awake, held) < self.processors
    }

    /// As many that compute as are worth their while.
    fn enough(&self) -> usize {
        self.processors + 1
    }

    /// How many workers have cheap turns or look for one, roughly. Those in slow turns mostly are those that are held; a turn
    /// that was expected to be cheap may hold its worker too.
    fn cheap(&self, awake: usize, held: usize) -> usize {
        let slow = self.computing.load(Ordering::SeqCst) + self.waiting.load(Ordering::SeqCst);
        awake.saturating_sub(slow.max(held))
    }

    fn count(&self, effort: Effort) -> Option<&AtomicUsize> {
        match effort {
            Effort::Cheap => None,
            Effort::Computes => Some(&self.computing),
            Effort::MayWait => Some(&self.waiting),
        }
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    fn never() -> usize {
        unreachable!("who is awake is of no interest")
    }

    #[test]
    fn who_leaves_may_rest_while_enough_others_compute() {
        let efforts = Efforts::new(1);
        (0..3).for_each(|_| efforts.begin(Effort::Computes));
        assert!(efforts.is_enough());
        assert!(efforts.end(Effort::Computes, never), "two others compute");
        assert!(efforts.is_enough());
        assert!(!efforts.end(Effort::Computes, never), "one does");
        assert!(!efforts.is_enough());
        assert!(!efforts.end(Effort::Computes, never));
    }

    #[test]
    fn of_cheap_turns_one_for_each_processor_is_enough_whoever_computes_or_waits() {
        let efforts = Efforts::new(2);
        efforts.begin(Effort::Cheap);
        assert!(!efforts.end(Effort::Cheap, || 2) && efforts.end(Effort::Cheap, || 3));
        assert!(efforts.has_room(1, 0) && !efforts.has_room(2, 0));
        assert!(efforts.has_room(6, 5) && !efforts.has_room(6, 4), "held workers take nothing else");
        efforts.begin(Effort::Computes);
        efforts.begin(Effort::MayWait);
        assert!(!efforts.end(Effort::Cheap, || 4) && efforts.end(Effort::Cheap, || 5));
        assert!(efforts.has_room(3, 0) && !efforts.has_room(4, 0));
        assert!(efforts.has_room(3, 2) && !efforts.has_room(4, 2), "the slow ones are held, too");
        assert!(!efforts.end(Effort::MayWait, never), "those that wait are never too many");
        assert!(efforts.end(Effort::Cheap, || 4));
        assert!(
            efforts.has_room(0, 0),
            "those that fall asleep may be counted before they are seen in their turns"
        );
    }
}
