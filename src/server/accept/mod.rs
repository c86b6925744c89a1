//! New connections: which thread accepts them, which one refuses them, and what the server does when accept fails.

pub(crate) mod acceptor;
pub(crate) mod errors;
pub(crate) mod newcomers;
pub(crate) mod relisten;
