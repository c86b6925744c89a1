//! Many linked lists over one block of nodes: a node is in at most one list, and no list allocates.
//!
//! A list is a node too, its head: the nodes of the list and the head form a circle. So a node leaves its list
//! without knowing which one that is, and one list is moved into another in one step.

/// The neighbours of a node in its circle; a node that is in no list is a circle by itself, and so is the head of an
/// empty list.
#[derive(Clone, Copy, Debug)]
struct Node {
    before: u32,
    after: u32,
}

/// Nodes, numbered from 0; which of them are heads of lists is the caller's choice.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    nodes: Box<[Node]>,
}

impl Lists {
    /// Bytes of one node.
    pub(crate) const NODE_BYTES: usize = size_of::<Node>();

    pub(crate) fn new(nodes: usize) -> Self {
        let alone = |node: usize| Node { before: node as u32, after: node as u32 };
        Self { nodes: (0..nodes).map(alone).collect() }
    }

    /// What they take of the allocator.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.nodes.len() * Self::NODE_BYTES
    }

    /// Whether the list has no node, or the node is in no list.
    pub(crate) fn is_empty(&self, node: u32) -> bool {
        self.nodes[node as usize].after == node
    }

    pub(crate) fn first(&self, list: u32) -> Option<u32> {
        let first = self.nodes[list as usize].after;
        (first != list).then_some(first)
    }

    pub(crate) fn last(&self, list: u32) -> Option<u32> {
        let last = self.nodes[list as usize].before;
        (last != list).then_some(last)
    }

    /// The node before this one in `list`.
    pub(crate) fn before(&self, list: u32, node: u32) -> Option<u32> {
        let before = self.nodes[node as usize].before;
        (before != list).then_some(before)
    }

    /// The node after this one in `list`.
    pub(crate) fn after(&self, list: u32, node: u32) -> Option<u32> {
        let after = self.nodes[node as usize].after;
        (after != list).then_some(after)
    }

    /// Puts a node that is in no list behind `place`, which is a node of a list or its head.
    pub(crate) fn insert_after(&mut self, place: u32, node: u32) {
        debug_assert!(self.is_empty(node), "the node is in a list already");
        let after = self.nodes[place as usize].after;
        self.nodes[node as usize] = Node { before: place, after };
        self.nodes[place as usize].after = node;
        self.nodes[after as usize].before = node;
    }

    pub(crate) fn push_first(&mut self, list: u32, node: u32) {
        self.insert_after(list, node);
    }

    pub(crate) fn push_last(&mut self, list: u32, node: u32) {
        self.insert_after(self.nodes[list as usize].before, node);
    }

    /// Takes a node out of its list; nothing if it is in none.
    pub(crate) fn unlink(&mut self, node: u32) {
        let Node { before, after } = self.nodes[node as usize];
        self.nodes[before as usize].after = after;
        self.nodes[after as usize].before = before;
        self.nodes[node as usize] = Node { before: node, after: node };
    }

    /// Moves all nodes of `from` in their order before those of `into`.
    pub(crate) fn move_all_first(&mut self, from: u32, into: u32) {
        let Some(first) = self.first(from) else { return };
        let last = self.nodes[from as usize].before;
        self.nodes[from as usize] = Node { before: from, after: from };
        let after = self.nodes[into as usize].after;
        self.nodes[into as usize].after = first;
        self.nodes[first as usize].before = into;
        self.nodes[last as usize].after = after;
        self.nodes[after as usize].before = last;
    }
}
