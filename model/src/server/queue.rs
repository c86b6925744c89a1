//! See the server's `queue`.

#[path = "../../../src/server/queue/order.rs"]
pub(crate) mod order;
#[path = "../../../src/server/queue/room.rs"]
pub(crate) mod room;
#[path = "../../../src/server/queue/state.rs"]
pub(crate) mod state;

pub(crate) use crate::admit::turns::{accounts, shelf, standing};
