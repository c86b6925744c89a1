//! What the program prints about a server: the start lines, and what `tidegate check` prints.

use super::args::LogFormat;
use super::beside::Beside;
use super::plan::{Plan, PlannedListener};
use crate::Address;
use crate::limits::DryRun;
use crate::service::Cost;
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;
use tidegate_units::{counted, show_time};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// The lines that are printed when the server serves: each listener with its real address, the admin endpoint
/// and the limits.
pub(super) fn start_lines(
    plan: &Plan,
    addresses: &[Address],
    beside: Beside<SocketAddr>,
    format: LogFormat,
) -> String {
    match format {
        LogFormat::Text | LogFormat::Journald => start_text(plan, addresses, beside),
        LogFormat::Json => start_json(plan, addresses, beside),
    }
}

fn start_text(plan: &Plan, addresses: &[Address], beside: Beside<SocketAddr>) -> String {
    let mut text = String::new();
    for (listener, address) in plan.listeners.iter().zip(addresses) {
        let _ = writeln!(text, "{} on {}", listener.service, listener.url(address));
    }
    if let Some(address) = beside.admin {
        let _ = writeln!(text, "metrics on http://{address}/metrics, status on http://{address}/status");
    }
    if let Some(address) = beside.agent {
        let _ = writeln!(text, "agent on {address}");
    }
    let limits = &plan.limits;
    let _ = writeln!(
        text,
        "limits: {}, {} may wait, {}, {}, at most {} MiB",
        counted(limits.workers as u64, "worker"),
        limits.queue,
        counted(limits.max_connections as u64, "connection"),
        counted(plan.descriptors() as u64, "descriptor"),
        plan.memory_ceiling().div_ceil(1 << 20),
    );
    if limits.dry_run != DryRun::OFF {
        let _ = writeln!(
            text,
            "dry run: {}, whom they would turn away is counted and let through",
            limits.dry_run
        );
    }
    text
}

/// The same for programs: one object a line, with the fields that every line of the log has.
fn start_json(plan: &Plan, addresses: &[Address], beside: Beside<SocketAddr>) -> String {
    let listening = plan.listeners.iter().zip(addresses).map(|(listener, address)| {
        let url = listener.url(address);
        json!({ "message": "listening", "service": listener.service, "url": url })
    });
    let admin = beside.admin.map(|address| {
        let (metrics, status) = (format!("http://{address}/metrics"), format!("http://{address}/status"));
        json!({ "message": "admin endpoint", "metrics": metrics, "status": status })
    });
    let agent = beside.agent.map(|address| json!({ "message": "agent", "address": address.to_string() }));
    let limits = json!({
        "message": "limits", "workers": plan.limits.workers, "queue": plan.limits.queue,
        "max_connections": plan.limits.max_connections, "descriptors": plan.descriptors(),
        "memory_bytes": plan.memory_ceiling(),
    });
    let tried = plan.limits.dry_run;
    let tried = (tried != DryRun::OFF).then(|| json!({ "message": "dry run", "limits": tried.to_string() }));
    let mut now = String::new();
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut now));
    let mut text = String::new();
    for mut line in listening.chain(admin).chain(agent).chain([limits]).chain(tried) {
        if let Value::Object(fields) = &mut line {
            fields.insert("timestamp".to_owned(), now.clone().into());
            fields.insert("level".to_owned(), "INFO".into());
        }
        let _ = writeln!(text, "{line}");
    }
    text
}

impl Plan {
    /// The effective limits and what they come to.
    pub(super) fn describe(&self) -> String {
        let mut out = String::from("Listeners:\n");
        let row = |out: &mut String, name: &str, value: &str, why: &str| {
            let line = format!("  {name:<22} {value:<12} {why}");
            let _ = writeln!(out, "{}", line.trim_end());
        };
        let any_own = self.listeners.iter().any(|listener| !listener.own.is_empty());
        for listener in &self.listeners {
            row(&mut out, &listener.service, &listener.url(&listener.address), "");
            if any_own && listener.has_backlog() {
                let of_gate = |name: &str| listener.gate.iter().any(|&(gate, _)| gate == name);
                for limit in listener.limits(&self.limits).table() {
                    if limit.per_listener && !of_gate(limit.name) {
                        let _ = writeln!(out, "    {:<23} {}", limit.name, limit.value);
                    }
                }
            }
            if !listener.balancers.is_empty() {
                let networks: Vec<_> = listener.balancers.iter().map(ToString::to_string).collect();
                let _ = writeln!(out, "    {:<23} {}", "accept-proxy", networks.join(","));
            }
            for (name, value) in &listener.gate {
                let _ = writeln!(out, "    {name:<23} {value}");
            }
        }
        let admin = self.admin.map_or("off".to_owned(), |address| format!("http://{address}/status"));
        row(&mut out, "admin", &admin, "");
        if let Some(agent) = self.agent {
            row(&mut out, "agent", &agent.to_string(), "");
        }
        if let Some(access) = &self.access {
            row(&mut out, "access-log", &access.to_string(), "");
        }
        let mut group = None;
        for limit in self.limits.table() {
            if group.replace(limit.group) != Some(limit.group) {
                let _ = writeln!(out, "\n{}:", limit.group.as_str());
            }
            row(&mut out, limit.name, &limit.value, &limit.why);
        }
        out.push_str("\nWhat they come to:\n");
        let memory = format!("{}MiB", self.memory_ceiling().div_ceil(1 << 20));
        row(&mut out, "memory", &memory, "at most, the program itself and its threads included");
        let open_files = crate::sys::raise_open_files(u64::MAX);
        let descriptors = format!("of the {open_files} open files that this process may have");
        row(&mut out, "descriptors", &self.descriptors().to_string(), &descriptors);
        let (wait, why) = self.longest_wait();
        row(&mut out, "wait", &show_time(wait), &why);
        out.push_str("\nok\n");
        out
    }

    /// What this process can come to hold, as the system counts it (`RSS`).
    pub(super) fn memory_ceiling(&self) -> usize {
        /// The program itself: its code, its log, the admin endpoint. Half of it was measured.
        const PROGRAM_BYTES: usize = 12 << 20;
        let datagrams = self.listeners.iter().any(|listener| !listener.has_backlog());
        let more = if datagrams { self.limits.datagram_memory_ceiling() } else { 0 };
        let beyond = self.limits.listeners_most(self.listeners.len()) - self.limits.listeners_most(1);
        let others = beyond * self.limits.listener_memory_ceiling();
        let secured = self.listeners.iter().any(|listener| listener.tls.is_some());
        let tls = if secured { self.limits.tls_memory_ceiling() } else { 0 };
        let http_gate = self.listeners.iter().any(PlannedListener::is_http_gate);
        let http_gate = if http_gate { self.limits.http_gate_memory_ceiling() } else { 0 };
        let services: usize = self.listeners.iter().map(|listener| listener.memory(&self.limits)).sum();
        let log = if self.access.is_some() { self.limits.access_log_memory_ceiling() } else { 0 };
        PROGRAM_BYTES + self.limits.memory_ceiling() + others + more + tls + log + http_gate + services
    }

    /// The descriptors that the server may use.
    fn descriptors(&self) -> usize {
        self.limits.connections_most() + self.limits.lingering + self.limits.fd_reserve + self.of_services()
    }

    /// How long a newcomer waits that is admitted at the worst moment and served in order, and how that comes about.
    fn longest_wait(&self) -> (Duration, String) {
        let limits = &self.limits;
        let streams = self.listeners.iter().filter(|listener| listener.has_backlog());
        let backlogs: usize = streams.map(|listener| listener.limits(limits).backlogs().1).sum();
        let ahead = limits.queue + limits.workers + backlogs;
        let processors = std::thread::available_parallelism().map_or(1, usize::from).min(limits.workers);
        let (cost, at_once, what) = match self.work {
            Cost::Cpu(cost) => (cost, processors, "computing on this machine's processors"),
            Cost::Sleep(cost) => (cost, limits.workers, "waiting"),
        };
        let rounds = ahead.div_ceil(at_once).try_into().unwrap_or(u32::MAX);
        let why = format!(
            "for a newcomer with {ahead} requests before it (queue, workers, backlog), each {} of {what}; no request \
             waits longer than queue-timeout",
            show_time(cost)
        );
        (cost.saturating_mul(rounds).min(limits.queue_timeout), why)
    }
}
