//! Gathering what the load threads measured into the seconds of the run. A second is complete when every thread has
//! gone past it.

use super::clock::Clock;
use super::recorder::{FIRST, Interval};
use super::timeline::Timeline;
use super::watch::Watch;
use std::collections::VecDeque;

/// The most seconds that are held back for a thread that has not gone past them. Beyond that the oldest is given out, and
/// what that thread still hands over for it is counted in the next.
const WAITING_MAX: usize = 3;

/// The measurements of all threads.
pub(crate) struct Gathered {
    /// All of the run.
    pub(crate) total: Interval,
    /// Its seconds.
    pub(crate) timeline: Timeline,
    /// Seconds that some thread may still add to, in order.
    waiting: VecDeque<Interval>,
    /// The number of the second that each thread is in.
    threads: Vec<u64>,
    /// The number of the next second to give out, and when it begins.
    next: Option<(u64, u64)>,
}

impl Gathered {
    /// Nothing is gathered yet, of this many threads.
    pub(crate) fn new(clock: Clock, threads: usize, timeline: Timeline) -> Self {
        Self {
            total: Interval::gathering(clock.now()),
            timeline,
            waiting: VecDeque::new(),
            threads: vec![0; threads],
            next: None,
        }
    }

    /// A thread has gone past a second.
    pub(crate) fn take(&mut self, thread: usize, interval: &Interval, watch: &mut dyn Watch) {
        self.threads[thread] = interval.number + 1;
        if interval.end <= interval.begin && interval.is_empty() {
            return self.give_out(watch);
        }
        let late = self.next.filter(|(next, _)| interval.number < *next);
        let (number, begin) = late.unwrap_or((interval.number, interval.begin));
        let at = self.waiting.partition_point(|second| second.number < number);
        if self.waiting.get(at).is_none_or(|second| second.number != number) {
            let mut second = Interval::gathering(begin);
            (second.number, second.begin, second.end) = (number, begin, interval.end.max(begin));
            self.waiting.insert(at, second);
        }
        let second = &mut self.waiting[at];
        let began = second.begin;
        second.add(interval);
        if late.is_some() {
            // This interval is late: its own second was given out without it.
            second.begin = began;
        }
        self.give_out(watch);
    }

    /// A thread has ended.
    pub(crate) fn end(&mut self, thread: usize, watch: &mut dyn Watch) {
        self.threads[thread] = u64::MAX;
        self.give_out(watch);
    }

    /// All threads have ended.
    pub(crate) fn finish(&mut self, watch: &mut dyn Watch) {
        self.threads.fill(u64::MAX);
        self.give_out(watch);
    }

    fn give_out(&mut self, watch: &mut dyn Watch) {
        let complete = self.threads.iter().copied().min().unwrap_or(u64::MAX);
        while let Some(first) = self.waiting.front()
            && (first.number < complete || self.waiting.len() > WAITING_MAX)
        {
            let Some(second) = self.waiting.pop_front() else { return };
            self.fill_gap(&second, watch);
            self.give(&second, watch);
        }
    }

    /// Gives out empty seconds where no thread handed one over.
    fn fill_gap(&mut self, second: &Interval, watch: &mut dyn Watch) {
        let Some((next, mut begin)) = self.next.filter(|(next, _)| *next > FIRST) else { return };
        for number in next..second.number {
            let mut empty = Interval::gathering(begin);
            let length = second.begin.saturating_sub(begin) / (second.number - number);
            (empty.number, empty.begin, empty.end) = (number, begin, begin + length);
            (empty.part, empty.whole) = (second.part, second.whole);
            begin = empty.end;
            self.give(&empty, watch);
        }
    }

    fn give(&mut self, second: &Interval, watch: &mut dyn Watch) {
        self.next = Some((second.number + 1, second.end));
        self.total.add(second);
        self.timeline.push(second);
        watch.second(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;
    use crate::recorder::SECOND;

    #[derive(Default)]
    struct Heard(Vec<(u64, u64, u64, u64)>);

    impl Watch for Heard {
        fn second(&mut self, measured: &Interval) {
            let ok = measured.tally.outcomes[Outcome::Ok];
            self.0.push((measured.number - FIRST, measured.begin / SECOND, measured.end / SECOND, ok));
        }
    }

    fn interval(second: u64, seconds: u64, ok: u64) -> Interval {
        let mut interval = Interval::new(second * SECOND);
        interval.number = FIRST + second;
        interval.end = (second + seconds) * SECOND;
        interval.tally.outcomes[Outcome::Ok] = ok;
        interval
    }

    #[test]
    fn a_second_is_given_out_when_every_thread_has_gone_past_it() {
        let (mut gathered, mut heard) =
            (Gathered::new(Clock::start(), 2, Timeline::default()), Heard::default());
        gathered.take(0, &interval(0, 1, 10), &mut heard);
        gathered.take(0, &interval(1, 1, 20), &mut heard);
        assert!(heard.0.is_empty(), "thread 1 is in the first second");
        gathered.take(1, &interval(0, 1, 3), &mut heard);
        assert_eq!(heard.0, [(0, 0, 1, 13)]);
        gathered.take(1, &interval(1, 1, 4), &mut heard);
        assert_eq!(heard.0[1..], [(1, 1, 2, 24)]);
        // A thread that has ended holds up nobody.
        gathered.end(1, &mut heard);
        gathered.take(0, &interval(2, 1, 7), &mut heard);
        assert_eq!(heard.0[2..], [(2, 2, 3, 7)]);
        assert_eq!(gathered.total.tally.outcomes[Outcome::Ok], 44);
    }

    #[test]
    fn a_second_that_no_thread_looked_at_is_there_and_empty() {
        let (mut gathered, mut heard) =
            (Gathered::new(Clock::start(), 1, Timeline::default()), Heard::default());
        gathered.take(0, &interval(0, 1, 1), &mut heard);
        gathered.take(0, &interval(3, 1, 2), &mut heard);
        assert_eq!(heard.0, [(0, 0, 1, 1), (1, 1, 2, 0), (2, 2, 3, 0), (3, 3, 4, 2)]);
    }

    #[test]
    fn seconds_do_not_pile_up_behind_a_thread_that_is_stuck_and_nothing_of_it_is_lost() {
        let (mut gathered, mut heard) =
            (Gathered::new(Clock::start(), 2, Timeline::default()), Heard::default());
        gathered.take(1, &interval(0, 1, 1), &mut heard);
        for second in 0..20 {
            gathered.take(0, &interval(second, 1, 1), &mut heard);
            assert!(gathered.waiting.len() <= WAITING_MAX);
        }
        gathered.take(1, &interval(1, 1, 100), &mut heard);
        gathered.finish(&mut heard);
        let numbers: Vec<_> = heard.0.iter().map(|second| second.0).collect();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
        assert_eq!(heard.0.iter().map(|second| second.3).sum::<u64>(), 121);
        assert_eq!(gathered.total.tally.outcomes[Outcome::Ok], 121);
    }
}
