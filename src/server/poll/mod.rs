//! Events: the one epoll, who polls it, who sleeps, and who wakes whom.

pub(crate) mod awake;
pub(crate) mod busy_poll;
pub(crate) mod leadership;
pub(crate) mod poller;
pub(crate) mod sleep;
