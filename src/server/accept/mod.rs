//! Newcomers: who takes them from the kernel, who refuses them, and what is done when accept fails.

pub(crate) mod acceptor;
pub(crate) mod errors;
pub(crate) mod newcomers;
