//! What a group of clients saw: in each second, and in each stage.

use super::answer::Answer;
use super::plan::Script;
use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longest latency told apart from a longer one.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// A reply within this is one that the client hardly noticed.
const PROMPT: Duration = Duration::from_millis(250);

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Replied,
    /// Reset, by the server or by the kernel.
    Reset,
    /// Closed without a reply.
    Closed,
    /// Answered that it is refused.
    Answered(Answer),
    /// The client's patience ended first.
    Timeout,
    /// The client had no socket for it.
    Unsent,
}

/// One second of a scene.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Requests begun.
    pub(crate) asked: u32,
    /// Replies that came within the client's patience.
    pub(crate) useful: u32,
    /// Requests reset or closed without a reply, or answered with a refusal.
    pub(crate) refused: u32,
    /// Requests whose client gave up.
    pub(crate) timeout: u32,
}

/// The requests that were begun in one stage, whenever they ended; only how long replies took is of those that came in
/// it, as the useful of each second are. Times are in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StageFigures {
    pub(crate) seconds: f64,
    pub(crate) asked: u64,
    pub(crate) useful: u64,
    /// Of the useful, those that came within 250 ms.
    pub(crate) prompt: u64,
    pub(crate) reset: u64,
    pub(crate) closed: u64,
    /// Answered that they are refused (HTTP).
    #[serde(default)]
    pub(crate) answered: u64,
    /// Of these, those that were told when to come back, and the longest that one was told, in seconds.
    #[serde(default)]
    pub(crate) hinted: u64,
    #[serde(default)]
    pub(crate) hint_max: u32,
    pub(crate) timeout: u64,
    pub(crate) unsent: u64,
    /// How long the replies took that came in this stage.
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// How long the refused waited for the news: the p99.
    pub(crate) told_p99: f64,
    /// How much later than due the client itself began one request in a hundred.
    pub(crate) late_p99: f64,
}

impl StageFigures {
    /// The answered share of what was asked; none when nothing was.
    pub(crate) fn share(&self) -> Option<f64> {
        (self.asked > 0).then(|| self.useful as f64 / self.asked as f64)
    }

    /// Requests that were refused in one way or another.
    pub(crate) fn refused(&self) -> u64 {
        self.reset + self.closed + self.answered
    }

    /// The share that was answered within 250 ms.
    pub(crate) fn prompt_share(&self) -> Option<f64> {
        (self.asked > 0).then(|| self.prompt as f64 / self.asked as f64)
    }
}

/// What one group saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GroupFigures {
    pub(crate) name: String,
    /// Clients that had a first reply before the scene began.
    pub(crate) joined: usize,
    /// Connections that the server ended while their client asked nothing.
    pub(crate) dropped_idle: u64,
    pub(crate) seconds: Vec<Second>,
    pub(crate) stages: Vec<StageFigures>,
}

/// One stage, while it is counted.
struct Counted {
    figures: StageFigures,
    latency: Histogram<u64>,
    told: Histogram<u64>,
    late: Histogram<u64>,
}

/// What one group sees, while it is counted.
pub(super) struct Ledger {
    pub(super) joined: usize,
    pub(super) dropped_idle: u64,
    seconds: Vec<Second>,
    stages: Vec<Counted>,
}

impl Ledger {
    pub(super) fn new(plan: &Script) -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX.as_micros() as u64, 3);
        let stages = plan.stages.iter().map(|stage| {
            let figures = StageFigures { seconds: stage.time.as_secs_f64(), ..Default::default() };
            Ok(Counted { figures, latency: histogram()?, told: histogram()?, late: histogram()? })
        });
        Ok(Self {
            joined: 0,
            dropped_idle: 0,
            seconds: vec![Second::default(); plan.time().as_secs_f64().ceil() as usize],
            stages: stages.collect::<Result<_>>()?,
        })
    }

    fn second(&mut self, at: Duration) -> &mut Second {
        let last = self.seconds.len() - 1;
        &mut self.seconds[last.min(at.as_secs() as usize)]
    }

    /// The stage at this time; none after the last one.
    fn stage_at(&self, at: Duration) -> Option<usize> {
        let mut end = 0.0;
        let ends = self.stages.iter().map(|stage| {
            end += stage.figures.seconds;
            end
        });
        let nth = ends.take_while(|&end| end <= at.as_secs_f64()).count();
        (nth < self.stages.len()).then_some(nth)
    }

    /// A request begins `at` after the start, `late` after it was due.
    pub(super) fn asked(&mut self, stage: usize, at: Duration, late: Duration) {
        self.second(at).asked += 1;
        self.stages[stage].figures.asked += 1;
        self.stages[stage].late.saturating_record(micros(late));
    }

    /// A request that was begun in `stage` ends `at` after the start, `waited` after it was begun.
    pub(super) fn ended(&mut self, stage: usize, at: Duration, waited: Duration, ending: Ending) {
        // What ends after the last stage belongs to no second; its stage counts it.
        if (at.as_secs() as usize) < self.seconds.len() {
            let second = self.second(at);
            match ending {
                Ending::Replied => second.useful += 1,
                Ending::Reset | Ending::Closed | Ending::Answered(_) => second.refused += 1,
                Ending::Timeout => second.timeout += 1,
                Ending::Unsent => {}
            }
        }
        if ending == Ending::Replied
            && let Some(came) = self.stage_at(at)
        {
            self.stages[came].latency.saturating_record(micros(waited));
        }
        let Counted { figures, told, .. } = &mut self.stages[stage];
        match ending {
            Ending::Replied => {
                figures.useful += 1;
                figures.prompt += u64::from(waited <= PROMPT);
            }
            Ending::Reset => figures.reset += 1,
            Ending::Closed => figures.closed += 1,
            Ending::Answered(answer) => {
                figures.answered += 1;
                figures.hinted += u64::from(answer.retry_after.is_some());
                figures.hint_max = figures.hint_max.max(answer.retry_after.unwrap_or(0));
            }
            Ending::Timeout => figures.timeout += 1,
            Ending::Unsent => figures.unsent += 1,
        }
        if matches!(ending, Ending::Reset | Ending::Closed | Ending::Answered(_)) {
            told.saturating_record(micros(waited));
        }
    }

    pub(super) fn figures(self, name: &str) -> GroupFigures {
        let stages = self.stages.into_iter().map(|Counted { figures, latency, told, late }| {
            let at = |histogram: &Histogram<u64>, quantile: f64| match histogram.len() {
                0 => 0.0,
                _ => histogram.value_at_quantile(quantile) as f64 / 1e6,
            };
            StageFigures {
                p50: at(&latency, 0.5),
                p90: at(&latency, 0.9),
                p99: at(&latency, 0.99),
                max: at(&latency, 1.0),
                told_p99: at(&told, 0.99),
                late_p99: at(&late, 0.99),
                ..figures
            }
        });
        let (joined, dropped_idle) = (self.joined, self.dropped_idle);
        let stages = stages.collect();
        GroupFigures { name: name.to_owned(), joined, dropped_idle, seconds: self.seconds, stages }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Party, Stage, Wire};
    use super::*;

    fn plan() -> Script {
        let stages = ["calm", "surge"].map(|name| Stage { name, time: Duration::from_secs(1) });
        let groups = vec![Party::standing("all", 1, &[1.0, 1.0])];
        Script { wire: Wire::Stream, stages: stages.to_vec(), groups }
    }

    #[test]
    fn a_request_counts_for_the_stage_that_it_began_in_and_the_second_that_it_ended_in() {
        let mut tally = Ledger::new(&plan()).unwrap();
        let ms = Duration::from_millis;
        tally.asked(0, ms(900), ms(0));
        tally.ended(0, ms(1_100), ms(200), Ending::Replied);
        tally.asked(1, ms(1_200), ms(3));
        tally.ended(1, ms(1_600), ms(400), Ending::Replied);
        tally.asked(1, ms(1_300), ms(3));
        tally.ended(1, ms(2_300), ms(1_000), Ending::Timeout);
        let figures = tally.figures("all");
        assert_eq!(figures.seconds[0], Second { asked: 1, ..Default::default() });
        assert_eq!(figures.seconds[1], Second { asked: 2, useful: 2, ..Default::default() });
        let [calm, surge] = figures.stages[..] else { panic!("two stages") };
        assert_eq!((calm.asked, calm.useful, calm.prompt, calm.timeout), (1, 1, 1, 0));
        assert_eq!((surge.asked, surge.useful, surge.prompt, surge.timeout), (2, 1, 0, 1));
        assert_eq!((surge.share(), surge.prompt_share()), (Some(0.5), Some(0.0)));
        assert!((surge.p99 - 0.4).abs() < 0.001 && (surge.late_p99 - 0.003).abs() < 0.0001);
        assert!(
            (surge.p50 - 0.2).abs() < 0.001 && calm.p99 == 0.0,
            "a reply's time is of the stage in which it came"
        );
    }
}
