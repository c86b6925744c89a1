//! Progress on stderr: a bar on a terminal, and elsewhere a line every ten seconds. A terminal that is not to be sent
//! control codes (`NO_COLOR`, `TERM=dumb`) gets lines too.

use super::outcome::{Outcome, Outcomes};
use super::plan::Plan;
use super::recorder::Interval;
use super::text;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(10);

/// Shows how a run goes on.
pub(crate) struct Progress {
    form: Form,
    began: Instant,
    outcomes: Outcomes,
    too_late: u64,
    /// Seconds, or requests where their number ends the run; 0 if neither is known.
    whole: u64,
    by_requests: bool,
}

enum Form {
    Off,
    Bar(ProgressBar),
    Lines(Instant),
}

impl Progress {
    /// For a run of this plan; `label` comes first in every line.
    pub(crate) fn new(plan: &Plan, on: bool) -> Self {
        let by_requests = plan.duration.is_none();
        let whole = match (plan.duration, plan.requests) {
            (Some(duration), _) => (plan.warmup + duration).as_secs_f64().ceil() as u64,
            (None, requests) => requests.unwrap_or(0),
        };
        let form = match (on, std::io::stderr().is_terminal() && takes_codes()) {
            (false, _) => Form::Off,
            (true, true) => Form::Bar(bar(whole)),
            (true, false) => Form::Lines(Instant::now()),
        };
        Self { form, began: Instant::now(), outcomes: Outcomes::default(), too_late: 0, whole, by_requests }
    }

    /// A run begins: it is shown from its start.
    pub(crate) fn begin(&mut self) {
        self.began = Instant::now();
        self.outcomes = Outcomes::default();
        self.too_late = 0;
        if let Form::Bar(bar) = &self.form {
            bar.reset();
        }
    }

    /// Takes what one second measured.
    pub(crate) fn second(&mut self, interval: &Interval) {
        if matches!(self.form, Form::Off) {
            return;
        }
        let mut second = interval.tally.outcomes.clone();
        second += &interval.warm.outcomes;
        self.outcomes += &second;
        self.too_late += interval.tally.too_late + interval.warm.too_late;
        let mut state = format!("{:.0}/s", interval.rate());
        let histogram = &interval.response.histogram;
        if !histogram.is_empty() {
            let p99 = histogram.value_at_quantile(0.99).min(histogram.max());
            state += &format!("  p99 {}", text::time(p99 as f64 / 1e9));
        }
        for (outcome, n) in self.outcomes.iter().filter(|(_, n)| *n > 0) {
            state += &format!("  {} {n}", outcome.as_str());
            if outcome == Outcome::Ok && self.too_late > 0 {
                state += &format!(" ({} too late)", self.too_late);
            }
        }
        let elapsed = self.began.elapsed();
        let position = match self.by_requests {
            true => self.outcomes.sent(),
            false => elapsed.as_secs(),
        };
        match &mut self.form {
            Form::Off => {}
            Form::Bar(bar) => {
                bar.set_position(position.min(self.whole));
                bar.set_message(state);
            }
            Form::Lines(last) if last.elapsed() >= LINE => {
                *last = Instant::now();
                let unit = if self.by_requests { "" } else { "s" };
                // Nobody can be told that stderr is closed.
                let _ =
                    writeln!(std::io::stderr(), "stress: {position}{unit} of {}{unit}  {state}", self.whole);
            }
            Form::Lines(_) => {}
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }
}

/// Whether the terminal may be sent codes that move the cursor.
fn takes_codes() -> bool {
    let is = |name: &str, test: fn(&std::ffi::OsStr) -> bool| {
        std::env::var_os(name).is_some_and(|value| test(&value))
    };
    !is("NO_COLOR", |value| !value.is_empty()) && !is("TERM", |value| value == "dumb")
}

fn bar(whole: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(whole), ProgressDrawTarget::stderr_with_hz(4));
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {elapsed}  {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_message("opening connections");
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
