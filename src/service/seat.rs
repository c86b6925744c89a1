//! A seat: the name by which a session calls a connection of its server, its own for example, when it asks to be woken.

/// Which connection is meant: its slot, and the generation of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}
