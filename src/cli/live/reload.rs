//! Reads the configuration again. It is checked as a whole, and then either all of it takes effect or nothing.

use crate::cli::args::ServeArgs;
use crate::cli::config;
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

/// What a reload has changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    limits: Vec<LimitChange>,
    /// The listeners that show another certificate from now on.
    certificates: Vec<String>,
}

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limits = self.limits.iter().map(LimitChange::to_string);
        let certificates = self.certificates.iter().map(|listener| format!("the certificate of {listener}"));
        let all: Vec<_> = limits.chain(certificates).collect();
        match all.is_empty() {
            true => f.write_str("nothing has changed"),
            false => f.write_str(&all.join(", ")),
        }
    }
}

impl Configured {
    /// Reads everything again, and puts it in force. When it fails, nothing has changed, and the text says why in one line.
    pub(super) fn reload(&mut self, handle: &Handle) -> Result<Changed, String> {
        let args = config::merge(self.given.clone())?;
        let plan = Plan::new(&args).map_err(|error| error.why)?;
        plan.check().map_err(|error| error.why)?;
        let fixed = self.fixed(&args, &plan, &handle.limits());
        if !fixed.is_empty() {
            return Err(SetLimitsError::Fixed(fixed).to_string());
        }
        let own = |position: usize, limits: &_| match plan.listeners.get(position) {
            Some(listener) => listener.own.applied_to(Clone::clone(limits)),
            None => Clone::clone(limits),
        };
        let limits = handle.set_limits_by(plan.limits.clone(), &own).map_err(|error| error.to_string())?;
        let certificates = self.plan.listeners.iter_mut().zip(&plan.listeners);
        let certificates = certificates.filter_map(|(old, new)| old.show_certificates_of(new)).collect();
        // The services that serve are those of the first plan.
        self.plan.limits = plan.limits;
        for (old, new) in self.plan.listeners.iter_mut().zip(plan.listeners) {
            old.own = new.own;
        }
        self.args = args;
        Ok(Changed { limits, certificates })
    }

    /// The options that are another now and take effect at a restart; `limits` are in force.
    pub(crate) fn fixed(&self, args: &ServeArgs, plan: &Plan, limits: &Limits) -> Vec<&'static str> {
        let mut fixed = Vec::new();
        let mut look = |name: &'static str, differs: bool| {
            if differs && !fixed.contains(&name) {
                fixed.push(name);
            }
        };
        let (old, new) = (&self.plan, plan);
        let place = |listener: &PlannedListener| (listener.text.clone(), listener.address);
        look("listen", !old.listeners.iter().map(place).eq(new.listeners.iter().map(place)));
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
