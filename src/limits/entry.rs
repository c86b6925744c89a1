//! One entry of the table of limits, and the macro that reads the table.

use super::LimitError;
use super::value::Value;
use crate::reason::WouldDrop;

/// The part of a server that a limit belongs to; `--help` has a heading for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Group {
    /// Where clients connect.
    Listening,
    /// How much there may be of something.
    Limits,
    /// What happens when more comes than the server can do.
    Overload,
    /// How long something may take.
    Timeouts,
    /// How the server ends.
    Draining,
    /// What the server says of itself.
    Output,
}

impl Group {
    /// Its heading.
    pub const fn as_str(self) -> &'static str {
        match self {
            Group::Listening => "Listening",
            Group::Limits => "Limits",
            Group::Overload => "Overload",
            Group::Timeouts => "Timeouts",
            Group::Draining => "Draining",
            Group::Output => "Output",
        }
    }
}

/// When a limit may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// While the server serves.
    Live,
    /// Only with a new start: something was sized by it.
    Fixed,
}

/// Whether a limit can be in a dry run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    /// It can: what it would have turned away is counted by this reason.
    Dry(WouldDrop),
    /// It cannot: why.
    InForce(&'static str),
}

/// What the table says of one limit, a field of `L`.
#[derive(Debug)]
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program reads and writes limits by name"))]
pub(crate) struct Limit<L: 'static> {
    /// The option without `--`, and the key in the configuration file: `max-line`.
    pub(crate) name: &'static str,
    pub(crate) group: Group,
    pub(crate) change: Change,
    pub(crate) default: Value,
    pub(crate) least: Value,
    pub(crate) most: Value,
    /// The lines of its documentation; the first paragraph is its sentence.
    pub(crate) documentation: &'static [&'static str],
    /// Whether each listener can have its own.
    pub(crate) per_listener: bool,
    pub(crate) trial: Trial,
    /// The word that the value 0 stands for.
    pub(crate) zero: Option<&'static str>,
    /// Reads the field.
    pub(crate) get: fn(&L) -> Value,
    /// Writes the field; a value of another unit changes nothing.
    pub(crate) set: fn(&mut L, Value),
}

impl<L> Limit<L> {
    /// What it bounds, in one sentence without its full stop.
    pub(crate) fn sentence(&self) -> String {
        let paragraph: Vec<_> =
            self.documentation.iter().map(|line| line.trim()).take_while(|line| !line.is_empty()).collect();
        paragraph.join(" ").trim_end_matches('.').to_owned()
    }

    /// A value of this limit for people: `off` where 0 is off.
    pub(crate) fn show(&self, value: Value) -> String {
        match self.zero {
            Some(word) if value == value.zero() => word.to_owned(),
            _ => value.to_string(),
        }
    }

    /// Whether it can change while the server serves.
    pub(crate) fn is_live(&self) -> bool {
        self.change == Change::Live
    }

    /// Whether the value of these limits is in range.
    pub(super) fn check(&self, limits: &L) -> Result<(), LimitError> {
        let value = (self.get)(limits);
        if value.within(self.least, self.most) {
            return Ok(());
        }
        let Self { name, least, most, .. } = self;
        Err(LimitError(match value {
            Value::Overload(_) => format!("{name} is {value}: the longest wait is {most}"),
            Value::Refusals(_) => format!("{name} is {value}: it must be auto, all, or from 0/s to {most}"),
            _ => format!("{name} is {value}: it must be from {least} to {most}"),
        }))
    }

    pub(crate) fn row(&self, limits: &L) -> LimitRow {
        LimitRow {
            name: self.name,
            group: self.group,
            value: self.show((self.get)(limits)),
            default: self.show(self.default),
            range: match self.default {
                Value::Overload(_) => "reject, wait:TIME, drop-oldest".to_owned(),
                Value::Refusals(_) => format!("auto, all, 0/s to {}", self.most),
                Value::DryRun(_) => "off, all, or names of limits with commas".to_owned(),
                Value::Order(_) | Value::Fair(_) => format!("{}, {}", self.least, self.most),
                _ => format!("{} to {}", self.show(self.least), self.most),
            },
            live: self.is_live(),
            per_listener: self.per_listener,
            dry_run: matches!(self.trial, Trial::Dry(_)),
            why: self.sentence(),
        }
    }
}

/// One limit, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitRow {
    /// Its name: the option without `--`.
    pub name: &'static str,
    /// The part of the server that it belongs to.
    pub group: Group,
    /// The value in force, with its unit.
    pub value: String,
    /// The default, as the option would be given.
    pub default: String,
    /// From the least to the most that it may be.
    pub range: String,
    /// Whether it can change while the server serves, by [`Handle::set_limits`](crate::Handle::set_limits): nothing was
    /// sized by it.
    pub live: bool,
    /// Whether each listener can have its own.
    pub per_listener: bool,
    /// Whether it can be in a dry run, see [`DryRun`](super::DryRun).
    pub dry_run: bool,
    /// What it bounds.
    pub why: String,
}

/// The bytes of an option's name, made of a field's name: `max-line` of `max_line`.
pub(super) const fn kebab<const N: usize>(field: &str) -> [u8; N] {
    let mut name = [0; N];
    let mut at = 0;
    while at < N {
        name[at] = match field.as_bytes()[at] {
            b'_' => b'-',
            letter => letter,
        };
        at += 1;
    }
    name
}

/// A name that [`kebab`] made.
pub(super) const fn spelt(name: &[u8]) -> &str {
    match std::str::from_utf8(name) {
        Ok(name) => name,
        Err(_) => panic!("the name of a field is ASCII"),
    }
}

/// Reads the table of limits: makes the struct `Limits` with its documentation, its defaults and a method for
/// each field that sets it, and the static `TABLE` with a [`Limit`] for each. An entry is
///
/// ```text
/// /// One sentence that says what it bounds.
/// ///
/// /// More for people who read the library's documentation.
/// field_name: its_type = default, Unit(least..=most), Live or Fixed;
/// ```
///
/// where the unit is a variant of `Value`. After `Live` or `Fixed` may come `, 0 is "off"` (the word for 0),
/// `, per listener` if each listener can have its own, and `, dry Reason` (a variant of `WouldDrop`) if it can be in a dry
/// run, or `, hard "why not"` if it cannot though it turns somebody away.
macro_rules! limits {
    ($(
        $group:ident {$(
            #[doc = $sentence:literal]
            $(#[doc = $more:literal])*
            $field:ident: $type:ty = $default:expr, $unit:ident($range:expr), $change:ident
            $(, 0 is $zero:literal)? $(, per $listener:ident)? $(, dry $reason:ident)? $(, hard $hard:literal)?;
        )*}
    )*) => {
        /// Every limit of a server. Start from [`Limits::default`] and change what must differ: assign a field,
        /// or call the method of the same name.
        ///
        /// ```
        /// use std::time::Duration;
        /// let mut limits = tidegate::Limits::default().queue(16).idle_timeout(Duration::from_secs(5));
        /// limits.workers = 4;
        /// assert!(limits.check().is_ok());
        /// ```
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct Limits {$($(
            #[doc = $sentence]
            $(#[doc = $more])*
            #[doc = ""]
            #[doc = concat!("Default: `", stringify!($default), "`.")]
            pub $field: $type,
        )*)*}

        impl Default for Limits {
            fn default() -> Self {
                Self {$($($field: $default,)*)*}
            }
        }

        impl Limits {$($(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
            #[must_use]
            pub const fn $field(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            }
        )*)*}

        /// An entry for each limit, in the order of the table.
        pub(crate) static TABLE: &[Limit<Limits>] = &[$($(
            {
                const FIELD: &str = stringify!($field);
                const NAME: [u8; FIELD.len()] = kebab(FIELD);
                const RANGE: std::ops::RangeInclusive<$type> = $range;
                const ZERO: &[&str] = &[$($zero)?];
                const PER: &[&str] = &[$(stringify!($listener))?];
                const TRIALS: &[Trial] =
                    &[$(Trial::Dry(WouldDrop::$reason),)? $(Trial::InForce($hard),)? Trial::InForce(NOBODY)];
                Limit {
                    name: spelt(&NAME),
                    group: Group::$group,
                    change: Change::$change,
                    default: Value::$unit($default),
                    least: Value::$unit(*RANGE.start()),
                    most: Value::$unit(*RANGE.end()),
                    documentation: &[$sentence, $($more),*],
                    zero: ZERO.first().copied(),
                    per_listener: !PER.is_empty(),
                    trial: TRIALS[0],
                    get: |limits| Value::$unit(limits.$field),
                    set: |limits, value| {
                        if let Value::$unit(value) = value {
                            limits.$field = value;
                        }
                    },
                }
            },
        )*)*];
    };
}
pub(super) use limits;
