//! A worker and what it does: turns of connections, answers to datagrams, the tick, farewells.

pub(crate) mod answer;
pub(crate) mod arrivals;
pub(crate) mod farewell;
pub(crate) mod following;
pub(crate) mod greeting;
pub(crate) mod handshake;
pub(crate) mod harvest;
pub(crate) mod opening;
pub(crate) mod parking;
pub(crate) mod serve;
pub(crate) mod station;
pub(crate) mod worker;
