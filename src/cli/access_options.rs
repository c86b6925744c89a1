//! The options of the access log.

use crate::{AccessFormat, AccessLog};
use clap::Args;
use rustix::fs::{Access, AtFlags, CWD};
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

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
        opened.map_err(|error| self.unopened(&error))
    }

    /// Checks that the log could be opened now, and makes no file.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.to.as_str() {
            "-" => Ok(()),
            path => openable(Path::new(path)).map_err(|error| self.unopened(&error)),
        }
    }

    fn unopened(&self, error: &io::Error) -> String {
        let why = match error.raw_os_error() {
            Some(libc::ENXIO) => "nobody reads this pipe".to_owned(),
            _ => error.to_string(),
        };
        format!("cannot open the access log {}: {why}", self.to)
    }
}

/// Whether lines could be appended to this file, or to a new one in its place.
fn openable(path: &Path) -> io::Result<()> {
    match path.metadata() {
        // Opened and closed again, it would tell its reader that the log has ended.
        Ok(there) if there.file_type().is_fifo() => may(path, Access::WRITE_OK),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            may(folder.unwrap_or(Path::new(".")), Access::WRITE_OK | Access::EXEC_OK)
        }
        _ => OpenOptions::new().append(true).open(path).map(drop),
    }
}

/// Whether the effective user may do this with the file or the folder.
fn may(path: &Path, access: Access) -> io::Result<()> {
    Ok(rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS)?)
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
