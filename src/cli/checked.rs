//! Makes the plan of the server and checks all of it: the limits, the addresses, and the options that have no effect. An
//! error names the line of the configuration file that caused it, if one did.

use super::args::ServeArgs;
use super::clash;
use super::effect::Ineffective;
use super::exit::ExitError;
use super::plan::Plan;

/// The plan of this process.
pub(super) fn plan(args: &ServeArgs) -> Result<Plan, ExitError> {
    located(args, Plan::new(args).and_then(|plan| sound(args, plan, Plan::check)))
}

/// The plan of a process that may open this many files.
pub(super) fn plan_on(args: &ServeArgs, open_files: usize) -> Result<Plan, ExitError> {
    let plan = Plan::on(args, open_files);
    located(args, plan.and_then(|plan| sound(args, plan, |plan| plan.check_on(open_files))))
}

fn sound(
    args: &ServeArgs,
    mut plan: Plan,
    check: impl Fn(&Plan) -> Result<(), ExitError>,
) -> Result<Plan, ExitError> {
    if let Some(sources) = args.sources.as_deref() {
        let Ineffective { refused, warnings } =
            Ineffective::find(sources, &plan.listeners, plan.admin.is_some());
        refused.map_or(Ok(()), |why| Err(ExitError::usage(why)))?;
        plan.warnings = warnings;
    }
    check(&plan)?;
    clash::find(&plan).map_or(Ok(plan), |why| Err(ExitError::usage(why)))
}

fn located(args: &ServeArgs, plan: Result<Plan, ExitError>) -> Result<Plan, ExitError> {
    plan.map_err(|error| match args.sources.as_deref() {
        Some(sources) => ExitError { why: sources.located(&error.why), ..error },
        None => error,
    })
}
