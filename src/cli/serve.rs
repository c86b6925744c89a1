//! `tidegate serve`, from the options to a running server, and `tidegate check`, which checks the options and starts
//! nothing.

use super::access_options::AccessPlan;
use super::args::{CheckArgs, LogFormat, ServeArgs};
use super::beside::Beside;
use super::exit::{self, ExitError, fail, print, write_out};
use super::live::handed::Handed;
use super::live::notify::Supervisor;
use super::live::reload::Configured;
use super::live::upgrade::{StartedFrom, tell_predecessor};
use super::live::{Live, ORDERS, Replacement};
use super::plan::Plan;
use super::signals::{Hangup, on_order, tell_of_ignored};
use super::{against, checked, config, describe, log, threads};
use crate::metrics::configuration;
use crate::server::BoundServer;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

/// How long the start waits for whoever reads stdout.
const STDOUT_WITHIN: Duration = Duration::from_secs(1);
/// Threads of the admin endpoint: its front, and those of its HTTP server.
const ADMIN_THREADS: usize = 7;

/// Serves until a signal ends it.
pub(super) fn run(args: ServeArgs) -> ExitCode {
    match start_and_serve(args) {
        Ok(code) => {
            log::finish();
            ExitCode::from(code)
        }
        Err(failure) => fail(failure.code, failure.why),
    }
}

fn start_and_serve(args: ServeArgs) -> Result<u8, ExitError> {
    // Before there is another thread, which the signal could end the program by.
    crate::sys::hold(&ORDERS);
    // Before anything is opened that could be taken for it.
    let mut handed = Handed::take()?;
    let given = args.clone();
    let args = config::merge(args).map_err(ExitError::usage)?;
    let plan = checked::plan(&args)?;
    let admin_threads = if plan.admin.is_some() { ADMIN_THREADS } else { 0 };
    let cast = [
        ("the log", 1),
        ("signals", 2),
        ("the timekeeper", 1),
        ("the acceptor", 1),
        ("the admin endpoint", admin_threads),
        ("the agent", usize::from(plan.agent.is_some())),
        ("the access log", usize::from(plan.access.is_some())),
        ("worker", plan.limits.workers_most()),
    ];
    threads::rehearse(&cast).map_err(ExitError::failed)?;
    log::start(&args).map_err(|error| ExitError::failed(format!("cannot start the log: {error}")))?;
    let access = plan.access.as_ref().map(AccessPlan::open).transpose().map_err(ExitError::failed)?;
    let bound = plan.bind(&mut handed, access.clone())?;
    configuration::taken_over(args.sources());
    let code = serve(Configured { given, args, plan, access: access.clone() }, bound, handed);
    if let Some(access) = access {
        access.finish(log::LAST_WORDS);
    }
    code
}

/// Checks the options and prints the effective limits.
pub(super) fn check(args: CheckArgs) -> ExitCode {
    let CheckArgs { serve: args, against } = args;
    if let Some(address) = against {
        return against::run(args, &address);
    }
    let planned = config::merge(args).map_err(ExitError::usage).and_then(|args| checked::plan(&args));
    let openable = |plan: Plan| match plan.access.as_ref().map_or(Ok(()), AccessPlan::check) {
        Ok(()) => Ok(plan),
        Err(why) => Err(ExitError::failed(why)),
    };
    match planned.and_then(openable) {
        Ok(plan) => {
            for warning in plan.warnings.iter().chain(&config::unknown_variables()) {
                log::say(&format!("tidegate: warning: {warning}"));
            }
            print(&plan.describe())
        }
        Err(failure) => fail(failure.code, failure.why),
    }
}

fn serve(configured: Configured, bound: BoundServer, mut handed: Handed) -> Result<u8, ExitError> {
    let Configured { args, plan, .. } = &configured;
    let quiet = args.quiet;
    let addresses = bound.addresses();
    let beside = Beside::bind(plan, &bound.observe(), &mut handed)?;
    handed.check_empty()?;
    // Before the first client is served, so that no signal finds the default: to be killed.
    let (trigger, supervisor) = (bound.trigger(), Arc::new(Supervisor::from_environment()));
    let told = supervisor.clone();
    on_order(
        Hangup::Held,
        move || {
            told.stopping();
            trigger.drain();
        },
        // Ends at once, whatever still runs.
        || std::process::exit(i32::from(exit::CUT)),
    )
    .map_err(ExitError::failed)?;
    let handle = Arc::new(bound.serve()?);
    let beside = beside.serve()?;
    let start = (!quiet).then(|| {
        let format = args.log_format.unwrap_or(LogFormat::Text);
        describe::start_lines(plan, &addresses, beside.addresses(), format)
    });
    let lowered = plan.lowered.then_some(plan.limits.max_connections).filter(|_| !quiet);
    warn(plan);
    let queue = plan.limits.queue;
    let live = Arc::new(Live {
        handle: handle.clone(),
        supervisor,
        origin: StartedFrom::now(),
        texts: configured.texts().into(),
        beside: beside.into(),
        configured: configured.into(),
        reloads: AtomicU8::new(0),
        replacement: Replacement::default(),
    });
    live.start()
        .map_err(|error| ExitError::failed(format!("cannot start the thread for orders: {error}")))?;
    if let Some(start) = start {
        announce(start);
    }
    tell_of_ignored();
    if let Some(max_connections) = lowered {
        tracing::warn!(
            max_connections,
            queue,
            "the limit of open files allows fewer connections than the default; raise it with ulimit -n"
        );
    }
    let Handed { sockets, predecessor } = handed;
    if let Some(pipe) = predecessor {
        tell_predecessor(pipe, sockets.iter().map(|socket| socket.number));
    }
    drop(sockets);
    #[cfg(target_os = "linux")]
    crate::sys::give_start_back();
    let report = handle.wait();
    live.replacement.give_up();
    drop(live.take_beside());
    if !quiet {
        tracing::info!("{report}");
    }
    Ok(if report.is_clean() { exit::OK } else { exit::CUT })
}

/// Warns of options without an effect, and of gates that anybody could pose as a backend of.
fn warn(plan: &Plan) {
    for warning in plan.warnings.iter().chain(&config::unknown_variables()) {
        tracing::warn!("{warning}");
    }
    for listener in plan.listeners.iter().filter(|listener| listener.is_credulous()) {
        tracing::warn!(
            listener = listener.text,
            "the certificates of backends are not checked: anybody on the way can pose as a backend"
        );
    }
}

/// Prints the start lines. A full pipe or a stopped terminal keeps a thread of its own waiting, and not the
/// server, which serves without an audience too.
fn announce(text: String) {
    let (written, result) = crossbeam_channel::bounded(1);
    let say = move || {
        let _ = written.send(write_out(&text));
    };
    let started = std::thread::Builder::new().name("tidegate-start".to_owned()).spawn(say);
    let result = match started {
        Ok(_) => result.recv_timeout(STDOUT_WITHIN).unwrap_or(Err(io::ErrorKind::TimedOut.into())),
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::warn!(%error, "cannot write to stdout");
    }
}
