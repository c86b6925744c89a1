//! See the server's `admit`.

#[path = "../../src/admit/bell.rs"]
pub(crate) mod bell;
#[path = "../../src/admit/open_places.rs"]
pub(crate) mod open_places;
#[path = "../../src/admit/places.rs"]
pub(crate) mod places;
pub(crate) mod turns;
