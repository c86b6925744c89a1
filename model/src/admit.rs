//! See the server's `admit`.

pub(crate) mod turns;
