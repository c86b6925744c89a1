//! Whether a backend can be reached. A backend that could not be reached is *set aside*: it gets no clients, and is tried
//! again after pauses that grow.

use crate::clock::Nanos;

/// The first pause of a backend that is set aside. Each further pause is twice as long as the last.
pub(super) const FIRST_PAUSE: Nanos = 1_000_000_000;

/// The longest pause.
pub(super) const LONGEST_PAUSE: Nanos = 60_000_000_000;

/// What is known of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Present while it is set aside.
    aside: Option<Aside>,
    /// When it was last reached.
    reached: Option<Nanos>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Aside {
    since: Nanos,
    /// When the last attempt failed.
    failed: Nanos,
    /// The pause from then on, before it is varied by chance.
    pause: Nanos,
    /// When it may be tried again.
    until: Nanos,
    /// An attempt is under way.
    trial: bool,
}

impl Health {
    pub(super) fn is_up(&self) -> bool {
        self.aside.is_none()
    }

    /// For how long it has been set aside.
    pub(super) fn aside_for(&self, now: Nanos) -> Option<Nanos> {
        self.aside.map(|aside| now.saturating_sub(aside.since))
    }

    /// Whether it is set aside and one attempt may be made now. While no backend is up the pauses do not grow: clients have
    /// nowhere else to go.
    pub(super) fn is_due(&self, now: Nanos, any_up: bool) -> bool {
        self.aside.is_some_and(|aside| {
            let until = if any_up { aside.until } else { aside.until.min(aside.failed + FIRST_PAUSE) };
            !aside.trial && now >= until
        })
    }

    /// An attempt begins. If the backend is set aside this is its trial, and there is no other until it has ended. Returns
    /// whether it is a trial.
    pub(super) fn try_now(&mut self) -> bool {
        if let Some(aside) = &mut self.aside {
            aside.trial = true;
        }
        self.aside.is_some()
    }

    /// The trial ended without a result: its client left.
    pub(super) fn trial_over(&mut self) {
        if let Some(aside) = &mut self.aside {
            aside.trial = false;
        }
    }

    pub(super) fn reached(&mut self, now: Nanos) {
        self.aside = None;
        self.reached = Some(now);
    }

    /// An attempt that began at `began` has failed. `luck` is a random number: it varies the pause by up to a quarter, so
    /// that many gates do not all try at the same moment.
    pub(super) fn failed(&mut self, began: Nanos, trial: bool, now: Nanos, luck: u64) {
        let pause = match self.aside {
            // Another attempt has succeeded meanwhile: the backend is busy, not gone.
            None if self.reached.is_some_and(|reached| reached > began) => return,
            None => FIRST_PAUSE,
            Some(aside) if trial => (aside.pause * 2).min(LONGEST_PAUSE),
            // The attempt began before the backend was set aside, so its failure is not news.
            Some(_) => return,
        };
        let until = now + pause / 4 * 3 + luck % (pause / 2);
        let since = self.aside.map_or(now, |aside| aside.since);
        self.aside = Some(Aside { since, failed: now, pause, until, trial: false });
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;

    #[test]
    fn pauses_grow_from_a_second_to_a_minute_with_luck_in_them() {
        for (luck, quarters) in [(0, 3), (u64::MAX / 7, 0), (u64::MAX, 0)] {
            let mut health = Health::default();
            let mut now = 100 * S;
            health.failed(now, false, now, luck);
            for expected in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
                let pause = expected * S;
                assert!(!health.is_due(now + pause / 4 * 3 - 1, true), "{expected} s");
                assert!(health.is_due(now + pause / 4 * 5, true), "{expected} s");
                if quarters > 0 {
                    assert!(health.is_due(now + pause / 4 * quarters, true));
                }
                now += pause / 4 * 5;
                assert!(health.try_now());
                assert!(!health.is_due(now, true), "one tries it, no more");
                health.failed(now, true, now, luck);
            }
            assert_eq!(health.aside_for(now), Some(now - 100 * S));
            health.reached(now);
            assert!(health.is_up() && !health.is_due(now, true));
            health.failed(now, false, now, 0);
            assert!(health.is_due(now + S, true), "from the start again");
        }
    }

    #[test]
    fn where_no_other_is_up_it_is_tried_every_second() {
        let mut health = Health::default();
        health.failed(0, false, 0, 0);
        for _ in 0..5 {
            health.try_now();
            health.failed(0, true, 0, 0);
        }
        assert!(!health.is_due(5 * S, true));
        assert!(health.is_due(S, false));
    }

    #[test]
    fn a_failure_that_is_out_of_date_says_nothing() {
        let mut health = Health::default();
        health.reached(5 * S);
        health.failed(4 * S, false, 6 * S, 0);
        assert!(health.is_up(), "another was connected since that one set out");
        health.failed(6 * S, false, 6 * S, 0);
        let aside = health;
        health.failed(5 * S, false, 7 * S, 0);
        assert_eq!(health, aside, "it had set out before");
        health.try_now();
        health.trial_over();
        assert!(health.is_due(8 * S, true), "a trial whose client left is made again");
    }
}
