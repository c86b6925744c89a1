//! The name of a connection, as sessions know it.

/// Which connection is meant: its slot, and the generation of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}
