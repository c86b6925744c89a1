//! The options that set a limit: one for each entry of the table of limits.

use crate::limits::entry::Limit;
use crate::limits::{DryRunError, Fair, Limits, Overload, QueueOrder, RefusalRate, TABLE, Value};
use clap::{Arg, ArgMatches, Command};
use tidegate_units as units;

/// The limits that were given, each with its value.
#[derive(Clone, Debug, Default)]
pub(super) struct LimitOptions(Vec<(&'static Limit<Limits>, Value)>);

impl LimitOptions {
    /// These limits, and the others' where these say nothing.
    pub(super) fn or(mut self, other: Self) -> Self {
        for (limit, value) in other.0 {
            if !self.names(limit.name) {
                self.0.push((limit, value));
            }
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this limit was given.
    pub(super) fn names(&self, name: &str) -> bool {
        self.0.iter().any(|(limit, _)| limit.name == name)
    }

    /// These limits, with what was given in their place.
    pub(super) fn applied_to(&self, mut limits: Limits) -> Limits {
        for (limit, value) in &self.0 {
            (limit.set)(&mut limits, *value);
        }
        limits
    }
}

impl clap::Args for LimitOptions {
    fn augment_args(command: Command) -> Command {
        command.args(TABLE.iter().map(option))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for LimitOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |limit: &'static Limit<Limits>| Some((limit, *matches.get_one::<Value>(limit.name)?));
        Ok(Self(TABLE.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?.or(std::mem::take(self));
        Ok(())
    }
}

fn option(limit: &'static Limit<Limits>) -> Arg {
    Arg::new(limit.name)
        .long(limit.name)
        .value_name(limit.default.placeholder())
        .help(format!("{} [default: {}]", limit.sentence(), limit.show(limit.default)))
        .help_heading(limit.group.as_str())
        .value_parser(move |text: &str| parse(limit, text))
}

/// Reads the value of a limit in its unit.
pub(super) fn parse(limit: &Limit<Limits>, text: &str) -> Result<Value, String> {
    if limit.zero.is_some_and(|word| word == text) {
        return Ok(limit.default.zero());
    }
    let fits = |number: u64| usize::try_from(number).map_err(|_| format!("{number} is too large"));
    match limit.default {
        Value::Count(_) => units::count(text).and_then(fits).map(Value::Count),
        Value::Bytes(_) => units::size(text).and_then(fits).map(Value::Bytes),
        Value::Time(_) => units::duration(text).map(Value::Time),
        Value::Rate(_) => units::rate(text).map(Value::Rate),
        Value::Prefix(_) => prefix(text).map(Value::Prefix),
        Value::Nice(_) => niceness(text).map(Value::Nice),
        Value::Overload(_) => overload(text).map(Value::Overload),
        Value::Refusals(_) => refusals(text).map(Value::Refusals),
        Value::Order(_) => choice(text, [QueueOrder::Fresh, QueueOrder::Fifo]).map(Value::Order),
        Value::DryRun(_) => text.parse().map(Value::DryRun).map_err(|error: DryRunError| error.to_string()),
        Value::Fair(_) => choice(text, [Fair::Source, Fair::Off]).map(Value::Fair),
    }
}

fn overload(text: &str) -> Result<Overload, String> {
    match text {
        "reject" => Ok(Overload::Reject),
        "drop-oldest" => Ok(Overload::DropOldest),
        _ => match text.strip_prefix("wait:") {
            Some(time) => units::wait(time).map(Overload::Wait),
            None => Err(format!("`{text}` is not known: write reject, wait:100ms or drop-oldest")),
        },
    }
}

fn refusals(text: &str) -> Result<RefusalRate, String> {
    match text {
        "auto" => Ok(RefusalRate::Auto),
        "all" => Ok(RefusalRate::All),
        _ => units::rate(text).map(RefusalRate::PerSecond).map_err(|why| format!("{why}; or auto, or all")),
    }
}

/// The one of two values that is shown as this text.
fn choice<T: Copy + std::fmt::Display>(text: &str, all: [T; 2]) -> Result<T, String> {
    let known = all.into_iter().find(|value| value.to_string() == text);
    known.ok_or_else(|| format!("`{text}` is not known: write {} or {}", all[0], all[1]))
}

fn prefix(text: &str) -> Result<(u8, u8), String> {
    let form = || {
        format!(
            "`{text}` is not two prefix lengths, of IPv4 and of IPv6 with a comma between: write one like 32,64"
        )
    };
    let (v4, v6) = text.split_once(',').ok_or_else(form)?;
    let bits = |text: &str| text.trim().trim_start_matches('/').parse::<u8>().map_err(|_| form());
    match (bits(v4)?, bits(v6)?) {
        (v4, _) if v4 > 32 => Err(format!("`{text}`: an IPv4 address has 32 bits, and {v4} is more")),
        (_, v6) if v6 > 128 => Err(format!("`{text}`: an IPv6 address has 128 bits, and {v6} is more")),
        lengths => Ok(lengths),
    }
}

fn niceness(text: &str) -> Result<i32, String> {
    text.parse().map_err(|_| format!("`{text}` is not a niceness: write a whole number from 0 to 19"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    fn given(args: &[&str]) -> LimitOptions {
        let command = LimitOptions::augment_args(Command::new("test").no_binary_name(true));
        LimitOptions::from_arg_matches(&command.try_get_matches_from(args).unwrap()).unwrap()
    }

    /// What `check` and the help print can be given back.
    #[test]
    fn every_value_is_read_in_the_form_in_which_it_is_shown() {
        for limit in TABLE {
            for value in [limit.default, limit.least, limit.most] {
                let text = limit.show(value);
                assert_eq!(parse(limit, &text), Ok(value), "--{} {text}", limit.name);
            }
        }
    }

    #[test]
    fn what_is_said_first_wins() {
        let options = given(&["--workers=3"]).or(given(&["--workers=4", "--queue=5"]));
        assert_eq!(options.applied_to(Limits::default()), Limits::default().workers(3).queue(5));
        assert!(options.names("queue") && !options.names("backlog"));
    }
}
