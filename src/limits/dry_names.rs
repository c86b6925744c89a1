//! Limits in a dry run by their names, as they are written and shown.

use super::entry::Trial;
use super::{DryRun, TABLE};
use std::fmt;
use std::str::FromStr;

impl DryRun {
    /// The names of the limits that are.
    fn names(self) -> impl Iterator<Item = &'static str> {
        TABLE.iter().filter_map(move |limit| match limit.trial {
            Trial::Dry(reason) if self.has(reason) => Some(limit.name),
            _ => None,
        })
    }
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            DryRun::OFF => f.write_str("off"),
            DryRun::ALL => f.write_str("all"),
            some => f.write_str(&some.names().collect::<Vec<_>>().join(",")),
        }
    }
}

/// Why limits cannot be in a dry run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DryRunError {
    /// No limit has this name.
    #[error("`{name}` is not a limit: write all, or names like {}", DryRun::ALL.names().collect::<Vec<_>>().join(", "))]
    Unknown {
        /// What was written.
        name: String,
    },
    /// The limit with this name stays in force.
    #[error("`{name}` cannot be in a dry run: {why}")]
    InForce {
        /// Its name.
        name: &'static str,
        /// What depends on it.
        why: &'static str,
    },
}

impl FromStr for DryRun {
    type Err = DryRunError;

    fn from_str(text: &str) -> Result<Self, DryRunError> {
        match text {
            "off" => return Ok(DryRun::OFF),
            "all" => return Ok(DryRun::ALL),
            _ => {}
        }
        text.split(',').map(str::trim).try_fold(DryRun::OFF, |tried, name| {
            let limit = TABLE.iter().find(|limit| limit.name == name);
            match limit.map(|limit| (limit.name, limit.trial)) {
                Some((_, Trial::Dry(reason))) => Ok(tried.with(reason)),
                Some((name, Trial::InForce(why))) => Err(DryRunError::InForce { name, why }),
                None => Err(DryRunError::Unknown { name: name.to_owned() }),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::WouldDrop;

    #[test]
    fn each_reason_is_that_of_one_limit() {
        for &reason in WouldDrop::ALL {
            let limits = TABLE.iter().filter(|limit| limit.trial == Trial::Dry(reason));
            assert_eq!(limits.count(), 1, "{reason}");
        }
        assert_eq!(DryRun::ALL.names().count(), WouldDrop::COUNT);
    }

    #[test]
    fn what_is_shown_is_read_again() {
        let some = DryRun::OFF.with(WouldDrop::Rate).with(WouldDrop::QueueFull);
        assert_eq!(some.to_string(), "queue,source-rate", "in the order of the table");
        for tried in [DryRun::OFF, DryRun::ALL, some] {
            assert_eq!(tried.to_string().parse(), Ok(tried));
        }
        assert_eq!(" source-rate , queue,queue".parse(), Ok(some));
        assert!(some.has(WouldDrop::Rate) && !some.has(WouldDrop::PerSource));
        let all = DryRun::ALL.names().collect::<Vec<_>>().join(",");
        assert_eq!(all.parse(), Ok(DryRun::ALL));
    }

    #[test]
    fn a_limit_that_stays_in_force_says_why() {
        let why = |text: &str| text.parse::<DryRun>().unwrap_err().to_string();
        assert_eq!(
            why("queue,max-connections"),
            "`max-connections` cannot be in a dry run: memory and file descriptors are calculated from it"
        );
        assert_eq!(why("turn-bytes"), "`turn-bytes` cannot be in a dry run: it turns nobody away");
        assert!(why("queue,,rate").starts_with("`` is not a limit: write all, or names like queue, "));
        for limit in TABLE {
            match limit.trial {
                Trial::Dry(_) => assert!(limit.name.parse::<DryRun>().is_ok()),
                Trial::InForce(said) => assert!(why(limit.name).ends_with(said)),
            }
        }
    }
}
