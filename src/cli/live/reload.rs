//! Reads the configuration again. It is checked as a whole, and then either all of it takes effect or nothing.

use crate::cli::args::ServeArgs;
use crate::cli::config;
use crate::cli::log;
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
        let addresses = handle.addresses();
        let urls: Vec<_> = both().zip(&addresses).map(|((old, _), address)| old.url(address)).collect();
        for ((old, new), url) in both().zip(&urls) {
            changes.extend(old.gate_changes(new, url));
        }
        changes.extend(self.other_changes(new, &urls));
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
        self.plan.busy_reply = plan.busy_reply;
        for (position, listener) in self.plan.listeners.iter().enumerate() {
            let words = listener.busy_reply.as_ref().or(self.plan.busy_reply.as_ref());
            handle.set_busy_reply(position, words.map(Vec::as_slice));
        }
        log::set_level(args.log_level());
        self.args = args;
        Ok(())
    }

    /// What is another of the text for clients that are not served, for all listeners that have none of their own and for
    /// each that has, and of the log. The listeners are called by these names.
    pub(crate) fn other_changes(&self, new: &ReadAgain, listeners: &[String]) -> Vec<LimitChange> {
        let change = |listener, before: &Option<Vec<u8>>, after: &Option<Vec<u8>>| {
            (before != after).then(|| LimitChange {
                name: "busy-reply",
                listener,
                before: shown(before.as_deref()),
                after: shown(after.as_deref()),
            })
        };
        let of_all = change(None, &self.plan.busy_reply, &new.plan.busy_reply);
        let both = self.plan.listeners.iter().zip(&new.plan.listeners).zip(listeners);
        let own = both
            .filter_map(|((old, new), name)| change(Some(name.clone()), &old.busy_reply, &new.busy_reply));
        let (before, after) = (self.args.log_level(), new.args.log_level());
        let level = (before != after).then(|| {
            let (before, after) = (before.to_string(), after.to_string());
            LimitChange { name: "log-level", listener: None, before, after }
        });
        of_all.into_iter().chain(own).chain(level).collect()
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

/// A text for clients, as the log shows it.
fn shown(words: Option<&[u8]>) -> String {
    /// The log shows this part of a text.
    const CHARACTERS_MAX: usize = 60;
    let Some(words) = words else { return "none".to_owned() };
    let text = String::from_utf8_lossy(words);
    let begin: String = text.chars().take(CHARACTERS_MAX).collect();
    if begin.len() < text.len() { format!("{begin:?}..") } else { format!("{begin:?}") }
}

/// What each listener of a plan makes of the limits of the server, by its position.
fn own_limits(plan: &Plan) -> impl Fn(usize, &Limits) -> Limits + '_ {
    |position, limits| match plan.listeners.get(position) {
        Some(listener) => listener.own.applied_to(Clone::clone(limits)),
        None => Clone::clone(limits),
    }
}
