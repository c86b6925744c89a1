//! The value of a limit, whatever its unit: how it is shown, and when it is in range.

use super::{DryRun, Fair, Overload, QueueOrder, RefusalRate};
use std::time::Duration;

/// A value with its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    /// A number of things.
    Count(usize),
    /// A number of bytes.
    Bytes(usize),
    /// A length of time.
    Time(Duration),
    /// How many in a second.
    Rate(f64),
    /// Leading bits of an IPv4 and of an IPv6 address.
    Prefix((u8, u8)),
    /// A niceness.
    Nice(i32),
    /// What happens when the queue is full.
    Overload(Overload),
    /// How many clients are turned away.
    Refusals(RefusalRate),
    /// In which order requests are served.
    Order(QueueOrder),
    /// What takes turns while the queue stands.
    Fair(Fair),
    /// Limits in a dry run.
    DryRun(DryRun),
}

impl Value {
    /// What stands for a value of this unit in `--help`.
    #[cfg(feature = "cli")]
    pub(crate) fn placeholder(self) -> &'static str {
        match self {
            Value::Count(_) | Value::Nice(_) => "N",
            Value::Bytes(_) => "SIZE",
            Value::Time(_) => "TIME",
            Value::Rate(_) => "N/s",
            Value::Prefix(_) => "V4,V6",
            Value::Overload(_) => "HOW",
            Value::Refusals(_) => "N/s|auto|all",
            Value::Order(_) => "fresh|fifo",
            Value::Fair(_) => "source|off",
            Value::DryRun(_) => "LIMIT,...|all",
        }
    }

    /// The value of this unit that many limits read as "off".
    pub(crate) fn zero(self) -> Value {
        match self {
            Value::Count(_) => Value::Count(0),
            Value::Bytes(_) => Value::Bytes(0),
            Value::Time(_) => Value::Time(Duration::ZERO),
            Value::Rate(_) => Value::Rate(0.0),
            Value::Prefix(_) => Value::Prefix((0, 0)),
            Value::Nice(_) => Value::Nice(0),
            Value::Overload(_) => Value::Overload(Overload::Reject),
            Value::Refusals(_) => Value::Refusals(RefusalRate::PerSecond(0.0)),
            Value::Order(_) => Value::Order(QueueOrder::Fresh),
            Value::Fair(_) => Value::Fair(Fair::Source),
            Value::DryRun(_) => Value::DryRun(DryRun::OFF),
        }
    }

    /// Whether this is from `least` to `most`; false for two values of different units.
    pub(crate) fn within(self, least: Value, most: Value) -> bool {
        match (self, least, most) {
            (Value::Count(n), Value::Count(least), Value::Count(most))
            | (Value::Bytes(n), Value::Bytes(least), Value::Bytes(most)) => (least..=most).contains(&n),
            (Value::Time(time), Value::Time(least), Value::Time(most)) => (least..=most).contains(&time),
            (Value::Rate(rate), Value::Rate(least), Value::Rate(most)) => (least..=most).contains(&rate),
            (Value::Nice(nice), Value::Nice(least), Value::Nice(most)) => (least..=most).contains(&nice),
            (Value::Prefix((v4, v6)), Value::Prefix(least), Value::Prefix(most)) => {
                (least.0..=most.0).contains(&v4) && (least.1..=most.1).contains(&v6)
            }
            (Value::Overload(Overload::Wait(time)), _, Value::Overload(Overload::Wait(most))) => time <= most,
            (Value::Overload(_), Value::Overload(_), Value::Overload(_)) => true,
            (
                Value::Refusals(RefusalRate::PerSecond(rate)),
                _,
                Value::Refusals(RefusalRate::PerSecond(most)),
            ) => (0.0..=most).contains(&rate),
            (Value::Refusals(_), Value::Refusals(_), Value::Refusals(_)) => true,
            (Value::Order(_), Value::Order(_), Value::Order(_)) => true,
            (Value::Fair(_), Value::Fair(_), Value::Fair(_)) => true,
            (Value::DryRun(_), Value::DryRun(_), Value::DryRun(_)) => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Count(n) => write!(f, "{n}"),
            Value::Bytes(n) => f.write_str(&show_size(*n)),
            Value::Time(time) => f.write_str(&show_time(*time)),
            Value::Rate(rate) => write!(f, "{rate}/s"),
            Value::Prefix((v4, v6)) => write!(f, "{v4},{v6}"),
            Value::Nice(nice) => write!(f, "{nice}"),
            Value::Overload(overload) => write!(f, "{overload}"),
            Value::Refusals(rate) => write!(f, "{rate}"),
            Value::Order(order) => write!(f, "{order}"),
            Value::Fair(fair) => write!(f, "{fair}"),
            Value::DryRun(tried) => write!(f, "{tried}"),
        }
    }
}

pub use tidegate_units::{show_size, show_time};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_shown_exactly() {
        let times =
            [(1_500, "1500ms"), (90_000, "90s"), (86_400_000, "1d"), (86_401_000, "86401s"), (0, "0s")];
        for (millis, shown) in times {
            assert_eq!(show_time(Duration::from_millis(millis)), shown);
        }
        assert_eq!((show_size(65_536), show_size(1000)), ("64KiB".to_owned(), "1000B".to_owned()));
    }

    #[test]
    fn a_value_out_of_range_is_told_from_one_in_range() {
        let second = Duration::from_secs(1);
        let wait = |time| Value::Overload(Overload::Wait(time));
        let reject = Value::Overload(Overload::Reject);
        for (value, least, most, within) in [
            (Value::Count(1), Value::Count(1), Value::Count(4), true),
            (Value::Count(5), Value::Count(1), Value::Count(4), false),
            (Value::Bytes(0), Value::Bytes(1), Value::Bytes(4), false),
            (Value::Rate(f64::NAN), Value::Rate(0.0), Value::Rate(1e18), false),
            (Value::Rate(f64::INFINITY), Value::Rate(0.0), Value::Rate(1e18), false),
            (Value::Prefix((33, 0)), Value::Prefix((0, 0)), Value::Prefix((32, 128)), false),
            (Value::Prefix((24, 64)), Value::Prefix((0, 0)), Value::Prefix((32, 128)), true),
            (Value::Nice(-1), Value::Nice(0), Value::Nice(19), false),
            (wait(second * 2), reject, wait(second), false),
            (wait(second), reject, wait(second), true),
            (reject, reject, wait(second), true),
            (Value::Count(1), Value::Bytes(1), Value::Bytes(4), false),
        ] {
            assert_eq!(value.within(least, most), within, "{value} from {least} to {most}");
        }
    }
}
