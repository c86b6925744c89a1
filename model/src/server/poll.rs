//! See the server's `poll`.

#[path = "../../../src/server/poll/awake.rs"]
pub(crate) mod awake;
#[path = "../../../src/server/poll/crew.rs"]
pub(crate) mod crew;
#[path = "../../../src/server/poll/efforts.rs"]
pub(crate) mod efforts;
#[path = "../../../src/server/poll/leadership.rs"]
pub(crate) mod leadership;
