//! Events: the one epoll, the thread that polls it, the threads that sleep, and how they are woken.

pub(crate) mod awake;
pub(crate) mod busy_poll;
pub(crate) mod crew;
pub(crate) mod efforts;
pub(crate) mod leadership;
pub(crate) mod poller;
pub(crate) mod threads;

/// The crew of a server's threads.
pub(crate) type ThreadCrew = crew::Crew<threads::Threads>;
/// Its leader.
pub(crate) type ThreadLead<'a> = crew::Lead<'a, threads::Threads>;
