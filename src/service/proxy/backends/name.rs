//! What a client that waits is called in the book and in the lists of those that wait.

/// Names a client that waits: its slot, and the life of that slot.
pub(super) type Name = (u32, u32);
