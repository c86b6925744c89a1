//! The outputs that are written while a run goes on: progress on stderr, the HDR log, the table.

use super::csv::Csv;
use super::hlog::HistogramLog;
use super::options::Options;
use super::plan::Plan;
use super::progress::Progress;
use super::recorder::Interval;
use super::watch::Watch;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::SystemTime;

/// Everything that hears of the run.
pub(crate) struct Outputs {
    progress: Progress,
    hlog: Option<HistogramLog<BufWriter<File>>>,
    csv: Option<Csv<BufWriter<File>>>,
    /// The first error of a file; it is written to no more.
    error: Option<String>,
}

impl Outputs {
    /// Opens the files, before the run: a path that cannot be written is known at once.
    pub(crate) fn open(plan: &Plan, options: &Options) -> Result<Self, String> {
        let hlog = match &options.hlog {
            None => None,
            Some(path) => Some(
                HistogramLog::new(create(path)?, &plan.headline(), SystemTime::now())
                    .map_err(|error| cannot_write(path, &error))?,
            ),
        };
        let csv = match &options.csv {
            None => None,
            Some(path) => Some(Csv::new(create(path)?).map_err(|error| cannot_write(path, &error))?),
        };
        if let Some(path) = &options.html {
            create(path)?;
        }
        Ok(Self { progress: Progress::new(plan, options.progress), hlog, csv, error: None })
    }

    /// The run is over: the first error of a file.
    pub(crate) fn finish(self) -> Option<String> {
        self.progress.finish();
        self.error
    }

    fn note<T>(error: &mut Option<String>, output: &mut Option<T>, what: &str, result: io::Result<()>) {
        if let Err(why) = result {
            *output = None;
            error.get_or_insert_with(|| format!("cannot write the {what}: {why}"));
        }
    }
}

impl Watch for Outputs {
    fn begin(&mut self) {
        self.progress.begin();
    }

    fn second(&mut self, measured: &Interval) {
        self.progress.second(measured);
        if let Some(hlog) = &mut self.hlog {
            let result = hlog.write(measured);
            Self::note(&mut self.error, &mut self.hlog, "HDR log", result);
        }
        if let Some(csv) = &mut self.csv {
            let result = csv.write(measured);
            Self::note(&mut self.error, &mut self.csv, "table", result);
        }
    }
}

fn create(path: &Path) -> Result<BufWriter<File>, String> {
    let file = File::create(path).map_err(|error| cannot_write(path, &error))?;
    Ok(BufWriter::new(file))
}

/// What is said where a file cannot be written.
pub(crate) fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}
