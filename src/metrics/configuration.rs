//! When the program last applied its configuration, and whether the last attempt succeeded. A process has one
//! configuration, so all its servers share this record. It is empty in a program that uses the library without a
//! configuration.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

static LAST: ConfigurationCell = ConfigurationCell(Mutex::new(None));
/// What is in force: what the sources of options said, in JSON.
static OPTIONS: Mutex<Option<Arc<str>>> = Mutex::new(None);

/// What is known of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigurationState {
    /// When the configuration in force was read, in seconds since the Unix epoch.
    pub read_at: u64,
    /// Why it could not be taken over the last time, if that failed since then.
    pub failure: Option<String>,
}

/// What is known of the configuration; nothing where there is none.
pub fn state() -> Option<ConfigurationState> {
    LAST.get().clone()
}

/// What the configuration in force says, in JSON; nothing where there is none.
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "the admin endpoint shows it"))]
pub(crate) fn options() -> Option<Arc<str>> {
    OPTIONS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// It was read, and is in force; `options` is what it says, in JSON.
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program reads one"))]
pub(crate) fn taken_over(options: String) {
    *OPTIONS.lock().unwrap_or_else(PoisonError::into_inner) = Some(options.into());
    LAST.taken_over(SystemTime::now());
}

/// It was to be read again, and the one before stays in force.
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program reads one"))]
pub(crate) fn not_taken_over(why: &str) {
    LAST.not_taken_over(why);
}

struct ConfigurationCell(Mutex<Option<ConfigurationState>>);

#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program reads one"))]
impl ConfigurationCell {
    fn get(&self) -> MutexGuard<'_, Option<ConfigurationState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken_over(&self, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        *self.get() = Some(ConfigurationState { read_at: now.as_secs(), failure: None });
    }

    fn not_taken_over(&self, why: &str) {
        if let Some(state) = &mut *self.get() {
            state.failure = Some(why.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_failure_is_kept_until_the_configuration_is_taken_over() {
        let cell = ConfigurationCell(Mutex::new(None));
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let state = || cell.get().clone().map(|state| (state.read_at, state.failure));
        cell.not_taken_over("there is none");
        assert_eq!(state(), None);
        cell.taken_over(at(5));
        assert_eq!(state(), Some((5, None)));
        cell.not_taken_over("line 3");
        assert_eq!(state(), Some((5, Some("line 3".to_owned()))));
        cell.taken_over(at(9));
        assert_eq!(state(), Some((9, None)));
    }
}
