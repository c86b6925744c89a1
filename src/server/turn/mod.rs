//! A worker and what it does: turns of connections, answers to datagrams, the tick, farewells.

pub(crate) mod answer;
pub(crate) mod farewell;
pub(crate) mod tick;
pub(crate) mod worker;
