//! Reads the configuration again. It is checked as a whole, and then either all of it takes effect or nothing.

use super::pairs::partners;
use super::relisten::{KnownListener, Relistened};
use crate::AccessLog;
use crate::cli::args::ServeArgs;
use crate::cli::checked;
use crate::cli::config;
use crate::cli::log;
use crate::cli::plan::{Plan, PlannedListener};
use crate::limits::{Limits, TABLE};
use crate::server::{Around, Handle, LimitChange, Opening, SetLimitsError, check_descriptors};

/// What the program was configured with.
pub(crate) struct Configured {
    /// What the command line said. The environment and the file come on top each time.
    pub(crate) given: ServeArgs,
    /// The whole of what is in force.
    pub(crate) args: ServeArgs,
    /// Its listeners are by their positions, those that were closed among them.
    pub(crate) plan: Plan,
    /// Where HTTP requests are logged.
    pub(crate) access: Option<AccessLog>,
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
    pub(super) fn partner(&self, position: usize) -> Option<&PlannedListener> {
        let at = self.partners.iter().position(|partner| *partner == Some(position))?;
        self.plan.listeners.get(at)
    }

    /// The listeners that the server never had.
    pub(super) fn without_partner(&self) -> impl Iterator<Item = &PlannedListener> {
        let both = self.plan.listeners.iter().zip(&self.partners);
        both.filter(|(_, partner)| partner.is_none()).map(|(listener, _)| listener)
    }
}

/// One thing that changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ReloadChange {
    /// A limit, or a setting of a listener.
    Setting(LimitChange),
    /// This listener shows another certificate.
    Certificate(String),
    /// This listener opens.
    Opens(String),
    /// This listener closes.
    Closes(String),
}

impl std::fmt::Display for ReloadChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReloadChange::Setting(change) => change.fmt(f),
            ReloadChange::Certificate(listener) => write!(f, "the certificate of {listener}"),
            ReloadChange::Opens(listener) => write!(f, "{listener} opens"),
            ReloadChange::Closes(listener) => write!(f, "{listener} closes"),
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
        let plan = checked::plan(&args).map_err(|error| error.why)?;
        Ok(self.compared_with(args, plan))
    }

    /// A new configuration, beside this one.
    pub(crate) fn compared_with(&self, args: ServeArgs, plan: Plan) -> ReadAgain {
        let partners = partners(&self.plan.listeners, &plan.listeners);
        ReadAgain { args, plan, partners }
    }

    /// The listeners that open and close.
    pub(crate) fn relistened<'a>(&'a self, new: &'a ReadAgain) -> Relistened<'a> {
        Relistened::between(&self.plan.listeners, &new.plan.listeners, &new.partners)
    }

    /// The listeners that go on: each by its position, as it is and as it will be.
    pub(crate) fn both<'a>(
        &'a self,
        new: &'a ReadAgain,
    ) -> impl Iterator<Item = (usize, &'a PlannedListener, &'a PlannedListener)> {
        let old = self.plan.listeners.iter().enumerate().filter(|(_, listener)| listener.is_open());
        old.filter_map(|(position, old)| Some((position, old, new.partner(position)?)))
    }

    /// What would change if this was in force, or why it cannot be. Nothing changes by the question.
    pub(crate) fn changes(&self, new: &ReadAgain, handle: &Handle) -> Result<Vec<ReloadChange>, String> {
        let fixed = self.fixed(new, &handle.limits());
        if !fixed.is_empty() {
            return Err(SetLimitsError::Fixed(fixed).to_string());
        }
        let relistened = self.relistened(new);
        self.look_for_obstacles(&relistened, new, handle)?;
        let limits =
            handle.would_change(new.plan.limits.clone(), &self.own_limits(new), new.plan.takes_datagrams());
        let mut changes = limits.map_err(|error| error.to_string())?;
        let urls: Vec<_> = known(handle).into_iter().map(|known| known.url).collect();
        for (position, old, new) in self.both(new) {
            changes.extend(old.gate_changes(new, &urls[position]));
        }
        changes.extend(self.other_changes(new, &urls));
        let changes = changes.into_iter().map(ReloadChange::Setting);
        let shown = self.both(new).filter(|(_, old, new)| old.shows_others_than(new));
        let shown = shown.map(|(_, old, _)| ReloadChange::Certificate(old.text.clone()));
        let opens = relistened.opening().map(|text| ReloadChange::Opens(text.to_owned()));
        let closes = relistened.closing().map(|text| ReloadChange::Closes(text.to_owned()));
        Ok(opens.chain(closes).chain(changes).chain(shown).collect())
    }

    /// Why listeners cannot open and close, as far as it is known before they do.
    fn look_for_obstacles(
        &self,
        relistened: &Relistened<'_>,
        new: &ReadAgain,
        handle: &Handle,
    ) -> Result<(), String> {
        let known = known(handle);
        let going: Vec<_> = self.both(new).map(|(position, ..)| known[position].url.clone()).collect();
        if let Some(why) = relistened.obstacle(&known, &going, handle.observe().ceilings().listeners) {
            return Err(why);
        }
        for (position, listener) in &relistened.gone {
            if handle.is_shared(*position) {
                return Err(format!(
                    "the socket of listener `{}` is a supervisor's too, which would go on listening there: it closes at a \
                     restart",
                    listener.text
                ));
            }
        }
        // What was closed may have its last clients.
        let last = self.plan.listeners.iter().enumerate().filter(|(at, _)| new.partner(*at).is_none());
        let of_last: usize = last.map(|(_, listener)| listener.descriptors()).sum();
        let (limits, listeners) = (&new.plan.limits, new.plan.listeners.len());
        let checked = check_descriptors(limits, listeners, new.plan.of_services() + of_last);
        checked.map_err(|error| error.to_string())
    }

    /// Puts it in force.
    fn take_over(&mut self, new: ReadAgain, handle: &Handle) -> Result<(), String> {
        let relistened = self.relistened(&new);
        let gone: Vec<_> = relistened.gone.iter().map(|(position, _)| *position).collect();
        let (neighbours, of_datagrams) = (new.plan.neighbours(), new.plan.datagram_addresses());
        let around = Around {
            neighbours: &neighbours,
            of_datagrams: &of_datagrams,
            reuse_address: true,
            busy_reply: new.plan.busy_reply.clone().map(Into::into),
            access_log: self.access.clone(),
        };
        let openings = openings(&relistened, handle);
        let (limits, datagrams) = (new.plan.limits.clone(), new.plan.takes_datagrams());
        let relistening = handle.relisten(limits, &self.own_limits(&new), openings, datagrams, &around);
        let relistening = relistening.map_err(|error| error.to_string())?;
        // From here on nothing can fail. What serves goes on.
        for warning in new.plan.warnings.iter().filter(|warning| !self.plan.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        let ReadAgain { args, plan, partners } = new;
        for (listener, partner) in plan.listeners.into_iter().zip(partners) {
            let Some(position) = partner else {
                self.plan.listeners.push(listener);
                continue;
            };
            if self.plan.listeners[position].take_over(listener) {
                handle.call_sessions(position);
            }
        }
        let addresses = handle.addresses();
        gone.iter().for_each(|&position| self.plan.listeners[position].close(addresses[position]));
        self.plan.limits = plan.limits;
        (self.plan.busy_reply, self.plan.warnings) = (plan.busy_reply, plan.warnings);
        for (position, listener) in self.plan.listeners.iter().enumerate() {
            let words = listener.busy_reply.as_ref().or(self.plan.busy_reply.as_ref());
            handle.set_busy_reply(position, words.map(Vec::as_slice));
        }
        relistening.finish(&gone);
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

    /// What each listener makes of the limits of the server, by its position. One that is closed keeps what it had of its own,
    /// unless that is more than the server has now: nobody can correct it in the file.
    fn own_limits<'a>(&'a self, new: &'a ReadAgain) -> impl Fn(usize, &Limits) -> Limits + 'a {
        let added = |position: usize| {
            let beyond = position.checked_sub(self.plan.listeners.len())?;
            new.without_partner().nth(beyond)
        };
        move |position, limits| {
            let closed = || self.plan.listeners.get(position);
            match (new.partner(position).or_else(|| added(position)), closed()) {
                (Some(listener), _) => listener.own.applied_to(Clone::clone(limits)),
                (None, Some(closed)) if closed.limits(limits).check_beside(limits).is_ok() => {
                    closed.own.applied_to(Clone::clone(limits))
                }
                _ => Clone::clone(limits),
            }
        }
    }

    /// What each listener is configured as, in their order.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.plan.listeners.iter().map(|listener| listener.text.clone()).collect()
    }

    /// The options that are another now and take effect at a restart; `limits` are in force.
    pub(crate) fn fixed(&self, new: &ReadAgain, limits: &Limits) -> Vec<&'static str> {
        let ReadAgain { args, plan, .. } = new;
        let mut fixed = Vec::new();
        let mut look = |name: &'static str, differs: bool| {
            if differs && !fixed.contains(&name) {
                fixed.push(name);
            }
        };
        let old = &self.plan;
        let again = self.relistened(new).again;
        for (_, old, new) in self.both(new).chain(again) {
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

/// The listeners that a server has and had, by their positions.
fn known(handle: &Handle) -> Vec<KnownListener> {
    let all = handle.stats().listeners.into_iter();
    all.map(|one| KnownListener { url: one.listener, service: one.service, is_open: !one.is_closed })
        .collect()
}

/// What the server is told of the listeners that open. One that opens again does so where it was, by its real port.
fn openings(relistened: &Relistened<'_>, handle: &Handle) -> Vec<Opening> {
    let addresses = handle.addresses();
    let again = relistened.again.iter().map(|(position, _, new)| Opening {
        again: Some(*position),
        listen: new.listen().at(addresses[*position]),
    });
    let added = relistened.added.iter().map(|new| Opening { again: None, listen: new.listen() });
    again.chain(added).collect()
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
