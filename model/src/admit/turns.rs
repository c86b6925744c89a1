//! See the server's `admit::turns`, without its tests.

#[path = "../../../src/admit/turns/accounts.rs"]
pub(crate) mod accounts;
#[path = "../../../src/admit/turns/crowds.rs"]
mod crowds;
#[path = "../../../src/admit/turns/lists.rs"]
mod lists;
#[path = "../../../src/admit/turns/pace.rs"]
mod pace;
#[path = "../../../src/admit/turns/seats.rs"]
mod seats;
#[path = "../../../src/admit/turns/shelf.rs"]
pub(crate) mod shelf;
#[path = "../../../src/admit/turns/standing.rs"]
pub(crate) mod standing;
