//! `tidegate check --against ADDR`: what would change in a running server if it read this configuration file.
//!
//! The server tells its command line, its environment and the content of its own file. This command puts the new file in
//! the place of that file, makes both configurations by the server's own code, and compares them as a reload would.

mod ask;

use self::ask::RunningServer;
use super::args::ServeArgs;
use super::checked;
use super::config;
use super::exit::{self, ExitError, fail, print};
use super::file;
use super::live::relisten::Relistened;
use super::live::reload::{Configured, ReadAgain};
use super::plan::Plan;
use super::sources::OptionSources;
use crate::limits::{Limits, TABLE};
use crate::server::{LimitChange, SetLimitsError, room_for};
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;

/// Something that would be another.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    name: &'static str,
    /// The listener, if it is there alone.
    listener: Option<String>,
    now: String,
    then: String,
    needs_restart: bool,
}

/// Asks the server, compares, and says what is another.
pub(super) fn run(args: ServeArgs, address: &str) -> ExitCode {
    match RunningServer::ask(address).and_then(|running| compare(args, &running)) {
        Ok((differences, refused)) => {
            let printed = print(&report(&differences, refused.as_deref()));
            if printed == ExitCode::from(exit::OK) && refused.is_some() {
                return ExitCode::from(exit::RESTART);
            }
            printed
        }
        Err(failure) => fail(failure.code, failure.why),
    }
}

/// What would be another, and why a reload would refuse it, if it would.
fn compare(args: ServeArgs, running: &RunningServer) -> Result<(Vec<Difference>, Option<String>), ExitError> {
    let old = &running.options;
    let mut new = old.clone();
    if let Some(path) = &args.config {
        let (table, lines) = file::table(path).map_err(ExitError::usage)?;
        (new.file, new.lines) = (Some(table), lines);
    }
    // What this command line says comes first, as if it was the server's.
    let options = config::options_of(&new).map_err(ExitError::usage)?;
    let new_args =
        ServeArgs { config: None, sources: Some(Arc::new(new.clone())), ..args.clone() }.or(options);
    let new_plan = checked::plan_on(&new_args, running.open_files)?;
    let unreadable =
        |why: String| ExitError::failed(format!("the configuration in force cannot be read here: {why}"));
    let old_args = config::options_of(old).map_err(unreadable)?;
    let old_plan = Plan::on(&old_args, running.open_files).map_err(|error| unreadable(error.why))?;
    let before = Configured { given: ServeArgs::default(), args: old_args, plan: old_plan, access: None };
    let after = before.compared_with(new_args, new_plan);

    let mut differences = limit_differences(None, &running.limits, &after.plan.limits);
    let fixed = before.fixed(&after, &running.limits);
    let others = fixed.iter().filter(|name| differences.iter().all(|known| known.name != **name));
    let others: Vec<_> = others.map(|name| difference(name, (old, &new))).collect();
    differences.extend(others);
    let mut refused = (!fixed.is_empty()).then(|| SetLimitsError::Fixed(fixed.clone()).to_string());
    let room = room_for(&running.ceilings, &after.plan.limits, after.plan.takes_datagrams());
    if let (None, Err(error)) = (&refused, room) {
        if let SetLimitsError::Above { name, .. } = &error {
            let above = differences.iter_mut().filter(|difference| difference.name == *name);
            above.for_each(|difference| difference.needs_restart = true);
        }
        refused = Some(error.to_string());
    }
    let relistened = before.relistened(&after);
    let going: Vec<_> = before.both(&after).map(|(_, old, _)| old.url(&old.address)).collect();
    let obstacle = relistened.obstacle(&running.listeners, &going, running.ceilings.listeners);
    differences.extend(opened_and_closed(&relistened, obstacle.is_some()));
    differences.extend(of_listeners(&before, running, &after));
    let others = before.other_changes(&after, &before.texts()).into_iter();
    differences.extend(others.map(|LimitChange { name, listener, before, after }| Difference {
        name,
        listener,
        now: before,
        then: after,
        needs_restart: false,
    }));
    Ok((differences, refused.or(obstacle)))
}

/// An option that is no limit and takes effect at a restart.
fn difference(name: &'static str, (old, new): (&OptionSources, &OptionSources)) -> Difference {
    let unsaid = || "not set".to_owned();
    let said = |sources: &OptionSources| sources.said(name).unwrap_or_else(unsaid);
    Difference { name, listener: None, now: said(old), then: said(new), needs_restart: true }
}

/// What is another among limits.
fn limit_differences(listener: Option<&str>, now: &Limits, then: &Limits) -> Vec<Difference> {
    let others = TABLE.iter().filter(|limit| (limit.get)(now) != (limit.get)(then));
    let difference = |limit: &'static crate::limits::entry::Limit<Limits>| Difference {
        name: limit.name,
        listener: listener.map(str::to_owned),
        now: limit.show((limit.get)(now)),
        then: limit.show((limit.get)(then)),
        needs_restart: !limit.is_live(),
    };
    others.map(difference).collect()
}

/// The listeners that open and close.
fn opened_and_closed(relistened: &Relistened<'_>, needs_restart: bool) -> Vec<Difference> {
    let row = |text: &str, now: &str, then: &str| Difference {
        name: "listen",
        listener: Some(text.to_owned()),
        now: now.to_owned(),
        then: then.to_owned(),
        needs_restart,
    };
    let opens = relistened.opening().map(|text| row(text, "closed", "open"));
    opens.chain(relistened.closing().map(|text| row(text, "open", "closed"))).collect()
}

/// What is another at one listener, beside what is another for all.
fn of_listeners(before: &Configured, running: &RunningServer, after: &ReadAgain) -> Vec<Difference> {
    let limits = &after.plan.limits;
    let of_server = limit_differences(None, &running.limits, limits);
    let mut differences = Vec::new();
    for (_, old, new) in before.both(after) {
        let (now, then) = (old.limits(&running.limits), new.limits(limits));
        let own = limit_differences(Some(&old.text), &now, &then).into_iter().filter(|own| {
            !of_server.iter().any(|all| (all.name, &all.now, &all.then) == (own.name, &own.now, &own.then))
        });
        differences.extend(own);
        let live = |name, now, then| {
            let listener = Some(old.text.clone());
            Difference { name, listener, now, then, needs_restart: false }
        };
        let of_gate = old.gate_changes(new, &old.text).into_iter();
        differences.extend(of_gate.map(|LimitChange { name, before, after, .. }| live(name, before, after)));
        if old.shows_others_than(new) {
            differences.push(live(
                "tls-cert",
                "certificates in use".to_owned(),
                "other certificates".to_owned(),
            ));
        }
    }
    differences
}

/// The differences in a table, and what a reload would make of them.
fn report(differences: &[Difference], refused: Option<&str>) -> String {
    let rows: Vec<_> = differences
        .iter()
        .map(|Difference { name, listener, now, then, needs_restart }| {
            let at = listener.as_ref().map_or(String::new(), |listener| format!(" at {listener}"));
            let when = if *needs_restart { "needs a restart" } else { "live" };
            (*name, format!("{now} -> {then}{at}"), when)
        })
        .collect();
    let width = rows.iter().map(|(_, change, _)| change.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, change, when) in rows {
        let _ = writeln!(text, "  {name:<22} {change:<width$}  {when}");
    }
    let summary = match (refused, differences.len()) {
        (Some(why), _) => format!("a reload would change nothing: {why}"),
        (None, 0) => "a reload would change nothing".to_owned(),
        (None, _) => "a reload would change this at once".to_owned(),
    };
    let _ = writeln!(text, "{summary}");
    text
}
