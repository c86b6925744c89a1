//! Reads the configuration again. It is checked as a whole, and then either all of it takes effect or nothing.

use super::pairs::partners;
use crate::cli::args::ServeArgs;
use crate::cli::config;
use crate::cli::log;
use crate::cli::plan::{Plan, PlannedListener};
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
    /// For each of its listeners the position of the one that serves and goes on as it, if there is one.
    partners: Vec<Option<usize>>,
}

impl ReadAgain {
    /// The listener that the one at this position goes on as.
    fn partner(&self, position: usize) -> Option<&PlannedListener> {
        let at = self.partners.iter().position(|partner| *partner == Some(position))?;
        self.plan.listeners.get(at)
    }
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
        Ok(self.compared_with(args, plan))
    }

    /// A new configuration, beside this one.
    pub(crate) fn compared_with(&self, args: ServeArgs, plan: Plan) -> ReadAgain {
        let partners = partners(&self.plan.listeners, &plan.listeners);
        ReadAgain { args, plan, partners }
    }

    /// The listeners that go on: each by its position, as it is and as it will be.
    pub(crate) fn both<'a>(
        &'a self,
        new: &'a ReadAgain,
    ) -> impl Iterator<Item = (usize, &'a PlannedListener, &'a PlannedListener)> {
        let old = self.plan.listeners.iter().enumerate();
        old.filter_map(|(position, old)| Some((position, old, new.partner(position)?)))
    }

    /// What would change if this was in force, or why it cannot be. Nothing changes by the question.
    pub(crate) fn changes(&self, new: &ReadAgain, handle: &Handle) -> Result<Vec<ReloadChange>, String> {
        let fixed = self.fixed(new, &handle.limits());
        if !fixed.is_empty() {
            return Err(SetLimitsError::Fixed(fixed).to_string());
        }
        let limits = handle.would_change(new.plan.limits.clone(), &self.own_limits(new));
        let mut changes = limits.map_err(|error| error.to_string())?;
        let addresses = handle.addresses();
        let urls: Vec<_> = self
            .plan
            .listeners
            .iter()
            .zip(&addresses)
            .map(|(listener, address)| listener.url(address))
            .collect();
        for (position, old, new) in self.both(new) {
            changes.extend(old.gate_changes(new, &urls[position]));
        }
        changes.extend(self.other_changes(new, &urls));
        let changes = changes.into_iter().map(ReloadChange::Setting);
        let shown = self.both(new).filter(|(_, old, new)| old.shows_others_than(new));
        let shown = shown.map(|(_, old, _)| ReloadChange::Certificate(old.text.clone()));
        Ok(changes.chain(shown).collect())
    }

    /// Puts it in force.
    fn take_over(&mut self, new: ReadAgain, handle: &Handle) -> Result<(), String> {
        let changed = handle.set_limits_by(new.plan.limits.clone(), &self.own_limits(&new));
        changed.map_err(|error| error.to_string())?;
        // From here on nothing can fail. What serves goes on.
        let ReadAgain { args, plan, partners } = new;
        for (listener, partner) in plan.listeners.into_iter().zip(partners) {
            if let Some(position) = partner
                && self.plan.listeners[position].take_over(listener)
            {
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
        let own = self.both(new).filter_map(|(position, old, new)| {
            change(Some(listeners[position].clone()), &old.busy_reply, &new.busy_reply)
        });
        let (before, after) = (self.args.log_level(), new.args.log_level());
        let level = (before != after).then(|| {
            let (before, after) = (before.to_string(), after.to_string());
            LimitChange { name: "log-level", listener: None, before, after }
        });
        of_all.into_iter().chain(own).chain(level).collect()
    }

    /// What each listener makes of the limits of the server, by its position.
    fn own_limits<'a>(&'a self, new: &'a ReadAgain) -> impl Fn(usize, &Limits) -> Limits + 'a {
        |position, limits| match new.partner(position).or(self.plan.listeners.get(position)) {
            Some(listener) => listener.own.applied_to(Clone::clone(limits)),
            None => Clone::clone(limits),
        }
    }

    /// What each listener is configured as, in their order.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.plan.listeners.iter().map(|listener| listener.text.clone()).collect()
    }

    /// The options that are another now and take effect at a restart; `limits` are in force.
    pub(crate) fn fixed(&self, new: &ReadAgain, limits: &Limits) -> Vec<&'static str> {
        let ReadAgain { args, plan, partners } = new;
        let mut fixed = Vec::new();
        let mut look = |name: &'static str, differs: bool| {
            if differs && !fixed.contains(&name) {
                fixed.push(name);
            }
        };
        let old = &self.plan;
        look("listen", partners.contains(&None) || partners.len() != old.listeners.len());
        for (_, old, new) in self.both(new) {
            old.fixed(new).into_iter().for_each(|name| look(name, true));
        }
        look("admin", old.admin != plan.admin);
        look("agent", old.agent != plan.agent);
        look("admin-control", old.admin_control != plan.admin_control);
        look("admin-host", old.admin_hosts != plan.admin_hosts);
        look("work", old.work != plan.work);
        look("log-format", self.args.log_format != args.log_format);
        self.args.access.differing(&args.access).into_iter().for_each(|name| look(name, true));
        self.args.web.differing(&args.web).into_iter().for_each(|name| look(name, true));
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
