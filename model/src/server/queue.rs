//! See the server's `queue`.

#[path = "../../../src/server/queue/state.rs"]
pub(crate) mod state;
