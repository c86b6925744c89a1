//! The stress client: a load generator that can be believed.
//!
//! ```text
//! Plan ---> run: load threads, each one epoll over many clients ---> Interval, Interval, ... ---> Report
//!   |         schedule: when each request is due                         |                           |
//!   |         exchange, mode: how a client moves on                      progress, timeline,         text, JSON,
//!   |         wire, http, datagram: what is a reply                      HDR log, CSV                HTML
//!   checked before anything is opened
//! ```
//! Load threads share nothing but a few words ([`control`]), so none waits for another; each hands over what
//! it measured once a second. Nothing here knows the server.

pub(crate) mod archive;
mod arrive;
mod chart;
pub(crate) mod clock;
pub(crate) mod control;
pub(crate) mod csv;
pub(crate) mod datagram;
mod exchange;
mod generator;
pub(crate) mod hlog;
pub(crate) mod html;
pub(crate) mod http;
pub(crate) mod load;
mod mode;
pub(crate) mod outcome;
pub(crate) mod payload;
pub(crate) mod plan;
pub(crate) mod progress;
mod random;
pub(crate) mod recorder;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod search;
mod slot;
mod socket;
pub(crate) mod source;
pub(crate) mod text;
pub(crate) mod threshold;
pub(crate) mod timeline;
mod timers;
mod verdict;
pub(crate) mod wire;
