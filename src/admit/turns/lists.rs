//! Many linked lists over one block of nodes: a node is in at most one list, and no list allocates.
//!
//! A list is a node too, its head: the nodes of the list and the head form a circle. So a node leaves its list
//! without knowing which one that is, and one list is moved into another in one step.

/// The neighbours of a node in its circle, as distances: how much larger the number of the node before it is, then that
/// of the node after it. A node that is in no list is a circle by itself, and so is the head of an empty list: all of it
/// is zeros. So the system gives the nodes as pages of zeros, and what is never used takes no memory.
type ListNode = [u32; 2];

const BEFORE: usize = 0;
const AFTER: usize = 1;

/// Nodes, numbered from 0; which of them are heads of lists is the caller's choice.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    nodes: Box<[ListNode]>,
}

impl Lists {
    /// Bytes of one node.
    pub(crate) const NODE_BYTES: usize = size_of::<ListNode>();

    pub(crate) fn new(nodes: usize) -> Self {
        Self { nodes: vec![[0, 0]; nodes].into() }
    }

    /// What they take of the allocator.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.nodes.len() * Self::NODE_BYTES
    }

    /// Whether the list has no node, or the node is in no list.
    pub(crate) fn is_empty(&self, node: u32) -> bool {
        self.nodes[node as usize][AFTER] == 0
    }

    pub(crate) fn first(&self, list: u32) -> Option<u32> {
        self.after(list, list)
    }

    pub(crate) fn last(&self, list: u32) -> Option<u32> {
        self.before(list, list)
    }

    /// The node before this one in `list`.
    pub(crate) fn before(&self, list: u32, node: u32) -> Option<u32> {
        let before = self.neighbour(node, BEFORE);
        (before != list).then_some(before)
    }

    /// The node after this one in `list`.
    pub(crate) fn after(&self, list: u32, node: u32) -> Option<u32> {
        let after = self.neighbour(node, AFTER);
        (after != list).then_some(after)
    }

    /// Puts a node that is in no list behind `place`, which is a node of a list or its head.
    pub(crate) fn insert_after(&mut self, place: u32, node: u32) {
        debug_assert!(self.is_empty(node), "the node is in a list already");
        let after = self.neighbour(place, AFTER);
        self.join(place, node);
        self.join(node, after);
    }

    pub(crate) fn push_first(&mut self, list: u32, node: u32) {
        self.insert_after(list, node);
    }

    pub(crate) fn push_last(&mut self, list: u32, node: u32) {
        self.insert_after(self.neighbour(list, BEFORE), node);
    }

    /// Takes a node out of its list; nothing if it is in none.
    pub(crate) fn unlink(&mut self, node: u32) {
        self.join(self.neighbour(node, BEFORE), self.neighbour(node, AFTER));
        self.nodes[node as usize] = [0, 0];
    }

    /// Moves all nodes of `from` in their order before those of `into`.
    pub(crate) fn move_all_first(&mut self, from: u32, into: u32) {
        let Some(first) = self.first(from) else { return };
        let last = self.neighbour(from, BEFORE);
        self.nodes[from as usize] = [0, 0];
        let after = self.neighbour(into, AFTER);
        self.join(into, first);
        self.join(last, after);
    }

    fn neighbour(&self, node: u32, side: usize) -> u32 {
        node.wrapping_add(self.nodes[node as usize][side])
    }

    /// Makes two nodes neighbours.
    fn join(&mut self, before: u32, after: u32) {
        self.nodes[before as usize][AFTER] = after.wrapping_sub(before);
        self.nodes[after as usize][BEFORE] = before.wrapping_sub(after);
    }
}
