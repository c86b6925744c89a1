//! The options of the access log.

use crate::{AccessFormat, AccessLog};
use clap::Args;
use std::fmt;

/// Options of the access log.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct AccessOptions {
    /// File that gets a line for each HTTP request, or - for stdout; a file that is moved away is made anew [default:
    /// none]
    #[arg(long, value_name = "FILE", help_heading = "Output", allow_hyphen_values = true)]
    access_log: Option<String>,
    /// Form of the access log's lines [default: combined]
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Output")]
    access_log_format: Option<AccessLines>,
}

/// How lines of the access log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum AccessLines {
    Combined,
    Json,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AccessPlan {
    to: String,
    format: AccessFormat,
}

impl AccessOptions {
    /// These options, and the others' where these say nothing.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            access_log: self.access_log.or(other.access_log),
            access_log_format: self.access_log_format.or(other.access_log_format),
        }
    }

    /// The names of the options that are others there.
    pub(super) fn differing(&self, other: &Self) -> Vec<&'static str> {
        let names = ["access-log", "access-log-format"];
        let differs =
            [self.access_log != other.access_log, self.access_log_format != other.access_log_format];
        names.into_iter().zip(differs).filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// What they come to, if there is to be a log.
    pub(super) fn plan(&self) -> Result<Option<AccessPlan>, &'static str> {
        let format = match self.access_log_format {
            Some(AccessLines::Json) => AccessFormat::Json,
            Some(AccessLines::Combined) | None => AccessFormat::Combined,
        };
        match &self.access_log {
            Some(to) => Ok(Some(AccessPlan { to: to.clone(), format })),
            None if self.access_log_format.is_some() => Err("--access-log-format needs --access-log FILE"),
            None => Ok(None),
        }
    }
}

impl AccessPlan {
    /// Opens the log, and starts its thread.
    pub(super) fn open(&self) -> Result<AccessLog, String> {
        let opened = match self.to.as_str() {
            "-" => AccessLog::stdout(self.format),
            path => AccessLog::file(path, self.format),
        };
        opened.map_err(|error| {
            let why = match error.raw_os_error() {
                Some(libc::ENXIO) => "nobody reads this pipe".to_owned(),
                _ => error.to_string(),
            };
            format!("cannot open the access log {}: {why}", self.to)
        })
    }
}

impl fmt::Display for AccessPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.to == "-" { "stdout" } else { &self.to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_without_a_log_is_a_mistake() {
        let only = AccessOptions { access_log: None, access_log_format: Some(AccessLines::Json) };
        assert!(only.plan().unwrap_err().contains("--access-log FILE"));
        let both = only.or(AccessOptions { access_log: Some("x".to_owned()), access_log_format: None });
        let plan = both.plan().unwrap().unwrap();
        assert_eq!((plan.to.as_str(), plan.format), ("x", AccessFormat::Json));
    }
}
