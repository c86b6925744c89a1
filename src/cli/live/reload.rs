//! Reads the configuration again. It is checked as a whole, and then either all of it takes effect or nothing.

use crate::cli::args::ServeArgs;
use crate::cli::config;
use crate::cli::plan::Plan;
use crate::limits::{Limits, TABLE};
use crate::server::{Handle, LimitChange, SetLimitsError};

/// What the program was configured with.
pub(crate) struct Configured {
    /// What the command line said. The environment and the file come on top each time.
    pub(crate) given: ServeArgs,
    /// The whole of what is in force.
    pub(crate) args: ServeArgs,
    pub(crate) plan: Plan,
}

/// A configuration that was read again, and is in order in itself.
pub(crate) struct ReadAgain {
    pub(crate) args: ServeArgs,
    pub(crate) plan: Plan,
}

/// One thing that changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ReloadChange {
    /// A limit, or a setting of a listener.
    Setting(LimitChange),
    /// This listener shows another certificate.
    Certificate(String),
}

impl std::fmt::Display for ReloadChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReloadChange::Setting(change) => change.fmt(f),
            ReloadChange::Certificate(listener) => write!(f, "the certificate of {listener}"),
        }
    }
}

/// All changes in one line.
pub(super) fn in_words(changes: &[ReloadChange]) -> String {
    let all: Vec<_> = changes.iter().map(ReloadChange::to_string).collect();
    if all.is_empty() { "nothing has changed".to_owned() } else { all.join(", ") }
}

impl Configured {
    /// Reads everything again, and puts it in force; what has changed. When it fails, nothing has changed, and the text says
    /// why in one line.
    pub(super) fn reload(&mut self, handle: &Handle) -> Result<Vec<ReloadChange>, String> {
        let new = self.read()?;
        let changes = self.changes(&new, handle)?;
        self.take_over(new, handle)?;
        Ok(changes)
    }

    /// Reads everything again.
    pub(crate) fn read(&self) -> Result<ReadAgain, String> {
        let args = config::merge(self.given.clone())?;
        let plan = Plan::new(&args).map_err(|error| error.why)?;
        plan.check().map_err(|error| error.why)?;
        Ok(ReadAgain { args, plan })
    }

    /// What would change if this was in force, or why it cannot be. Nothing changes by the question.
    pub(crate) fn changes(&self, new: &ReadAgain, handle: &Handle) -> Result<Vec<ReloadChange>, String> {
        let fixed = self.fixed(new, &handle.limits());
        if !fixed.is_empty() {
            return Err(SetLimitsError::Fixed(fixed).to_string());
        }
        let limits = handle.would_change(new.plan.limits.clone(), &own_limits(&new.plan));
        let mut changes = limits.map_err(|error| error.to_string())?;
        let both = || self.plan.listeners.iter().zip(&new.plan.listeners);
        for ((old, new), address) in both().zip(handle.addresses()) {
            changes.extend(old.gate_changes(new, &old.url(&address)));
        }
        let changes = changes.into_iter().map(ReloadChange::Setting);
        let shown = both().filter(|(old, new)| old.shows_others_than(new));
        let shown = shown.map(|(old, _)| ReloadChange::Certificate(old.text.clone()));
        Ok(changes.chain(shown).collect())
    }

    /// Puts it in force.
    fn take_over(&mut self, new: ReadAgain, handle: &Handle) -> Result<(), String> {
        let ReadAgain { args, mut plan } = new;
        handle.set_limits_by(plan.limits.clone(), &own_limits(&plan)).map_err(|error| error.to_string())?;
        // From here on nothing can fail. What serves goes on.
        let listeners = std::mem::take(&mut plan.listeners);
        for (position, (old, new)) in self.plan.listeners.iter_mut().zip(listeners).enumerate() {
            if old.take_over(new) {
                handle.call_sessions(position);
            }
        }
        self.plan.limits = plan.limits;
        self.args = args;
        Ok(())
    }

    /// What each listener is configured as, in their order.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.plan.listeners.iter().map(|listener| listener.text.clone()).collect()
    }

    /// The options that are another now and take effect at a restart; `limits` are in force.
    pub(crate) fn fixed(&self, new: &ReadAgain, limits: &Limits) -> Vec<&'static str> {
        let ReadAgain { args, plan } = new;
        let mut fixed = Vec::new();
        let mut look = |name: &'static str, differs: bool| {
            if differs && !fixed.contains(&name) {
                fixed.push(name);
            }
        };
        let (old, new) = (&self.plan, plan);
        let same = old.listeners.len() == new.listeners.len();
        let mut both = old.listeners.iter().zip(&new.listeners);
        look("listen", !same || both.any(|(old, new)| !old.is_the_same_as(new)));
        for (old, new) in old.listeners.iter().zip(&new.listeners) {
            old.fixed(new).into_iter().for_each(|name| look(name, true));
        }
        look("admin", old.admin != new.admin);
        look("agent", old.agent != new.agent);
        look("admin-host", old.admin_hosts != new.admin_hosts);
        look("busy-reply", old.busy_reply != new.busy_reply);
        look("work", old.work != new.work);
        look("log-format", self.args.log_format != args.log_format);
        self.args.access.differing(&args.access).into_iter().for_each(|name| look(name, true));
        let webs = |args: &ServeArgs| -> Vec<_> {
            args.listeners
                .iter()
                .map(|listener| listener.web.clone().or(args.web.clone()))
                .chain([args.web.clone()])
                .collect()
        };
        for (old, new) in webs(&self.args).iter().zip(webs(args)) {
            old.differing(&new).into_iter().for_each(|name| look(name, true));
        }
        for limit in TABLE.iter().filter(|limit| !limit.is_live()) {
            look(limit.name, (limit.get)(limits) != (limit.get)(&plan.limits));
        }
        fixed
    }
}

/// What each listener of a plan makes of the limits of the server, by its position.
fn own_limits(plan: &Plan) -> impl Fn(usize, &Limits) -> Limits + '_ {
    |position, limits| match plan.listeners.get(position) {
        Some(listener) => listener.own.applied_to(Clone::clone(limits)),
        None => Clone::clone(limits),
    }
}
