//! A load generator that can be believed: it says as much about itself as about the server.
//!
//! It sends requests over TCP, UDP, HTTP/1.1 or WebSocket from few threads, to a fixed schedule (an open loop) or as fast as
//! replies come (a closed loop), and reports what became of every request, how long each took from the instant at
//! which it was due, and whether the server or the generator itself was the limit. `tidegate stress` is its command
//! line; docs/stress.md of that project describes every option and every number of a report.
//!
//! ```no_run
//! use std::time::Duration;
//! use tidegate_stress::{Options, Stop};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut options = Options::new("tcp://127.0.0.1:5000".parse()?);
//! options.rate = Some(500.0);
//! options.duration = Some(Duration::from_secs(5));
//! options.thresholds.push("p99<50ms".parse()?);
//! let run = tidegate_stress::run(&options, &Stop::default())?;
//! println!("{}", run.report.to_text());
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! Options -> Plan -> run: load threads, each one epoll over many clients -> Interval, Interval, ... -> Report
//!              |       schedule: when each request is due                       |                        |
//!              |       exchange, mode: how a client moves on                    progress, timeline,      text, JSON,
//!              |       wire, http, websocket, datagram: what is a reply                    HDR log, CSV             HTML
//!              checked before anything is opened
//! ```
//!
//! Load threads share nothing but a few words (`control`), so none waits for another; each hands over what it
//! measured once a second. The crate knows neither the server nor the command line. It needs Linux.
#![cfg(target_os = "linux")]

mod answers;
pub mod archive;
mod arrive;
mod chart;
mod clock;
mod control;
mod csv;
mod datagram;
mod error;
mod exchange;
mod gather;
mod generator;
mod greet;
mod hlog;
mod html;
mod http;
mod kernel;
mod line;
mod load;
mod mode;
mod names;
mod numbering;
mod options;
mod outcome;
mod outputs;
mod payload;
mod phase;
mod plan;
mod presence;
mod progress;
mod random;
mod recorder;
mod report;
mod run;
mod schedule;
mod search;
mod session;
mod slot;
mod socket;
mod source;
mod step;
mod sys;
mod target;
mod text;
mod threshold;
mod timeline;
mod timers;
mod verdict;
mod watch;
mod websocket;
mod wire;

pub use error::Error;
pub use options::{Options, Send, Stages};
pub use outcome::Outcome;
pub use plan::{Close, Mode, Reuse, Think};
pub use report::{
    Connections, FindMax, Generator, HttpAnswers, Latencies, Latency, Measured, PlanReport, ProbePlan,
    Report, ThresholdReport, Trial, Warmup,
};
pub use schedule::Spread;
pub use session::{Run, Stop, run};
pub use source::Sources;
pub use threshold::{Threshold, share};
pub use tidegate_protocols::tls::TlsChoices;
pub use timeline::{Point, WorstSecond};
