//! Errors of building a server, by the phase that failed.

use crate::limits::LimitError;
use crate::transport::address::Address;
use std::io;

/// Why a server could not be built or started. Each variant is a phase that can fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A limit, or a relation between limits, cannot hold.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// No listener was given.
    #[error("there is no listener: give at least one")]
    NoListener,
    /// An address could not be resolved.
    #[error("cannot resolve {address}: {source}")]
    Resolve {
        /// What was given.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// An address could not be bound.
    #[error("cannot listen on {address}: {}", explain_bind(.address, .source))]
    Bind {
        /// The address.
        address: Address,
        /// Why not.
        source: io::Error,
    },
    /// There are not enough descriptors for the connections that are allowed.
    #[error(
        "max-connections is {wanted}, which with {reserve} for the server itself is more than the {limit} open files \
         this process may have: lower it, or raise the limit (ulimit -n)"
    )]
    Descriptors {
        /// `max_connections`.
        wanted: usize,
        /// `fd_reserve` and what the threads need.
        reserve: usize,
        /// The limit of the process.
        limit: usize,
    },
    /// The system did not give what serving needs.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What could not be had.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn explain_bind(address: &Address, error: &io::Error) -> String {
    if address.is_unix() {
        return match error.kind() {
            io::ErrorKind::AddrInUse => "a server answers there: end it, or choose another path".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "permission denied: the directory must be writable for this user".to_owned()
            }
            io::ErrorKind::NotFound => "its directory is not there".to_owned(),
            _ => error.to_string(),
        };
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the address is in use: end what listens there, or choose another port".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied: ports below 1024 need a privilege, choose a higher one".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        _ => error.to_string(),
    }
}

pub(crate) fn cannot_start(what: &'static str) -> impl Fn(io::Error) -> BuildError {
    move |source| BuildError::Start { what, source }
}
