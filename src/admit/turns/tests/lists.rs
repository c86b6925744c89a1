//! Linked lists against plain queues.

use crate::admit::turns::lists::Lists;
use proptest::prelude::*;
use std::collections::VecDeque;

/// Heads of lists in the tests; the nodes come before them.
const NODES: u32 = 6;
const HEADS: u32 = 3;

fn contents(lists: &Lists, list: u32) -> VecDeque<u32> {
    let mut nodes = VecDeque::new();
    let mut next = lists.last(list);
    while let Some(node) = next {
        nodes.push_front(node);
        next = lists.before(list, node);
    }
    nodes
}

#[derive(Clone, Debug)]
enum ListStep {
    First(u32, u32),
    Last(u32, u32),
    Unlink(u32),
    MoveAll(u32, u32),
}

fn step() -> impl Strategy<Value = ListStep> {
    let (node, head) = (0..NODES, 0..HEADS);
    prop_oneof![
        (head.clone(), node.clone()).prop_map(|(head, node)| ListStep::First(head, node)),
        (head.clone(), node.clone()).prop_map(|(head, node)| ListStep::Last(head, node)),
        node.prop_map(ListStep::Unlink),
        (head.clone(), head).prop_map(|(from, into)| ListStep::MoveAll(from, into)),
    ]
}

proptest! {
    #[test]
    fn the_lists_are_what_plain_queues_would_be(steps in prop::collection::vec(step(), 0..60)) {
        let mut lists = Lists::new((NODES + HEADS) as usize);
        let mut plain = vec![VecDeque::new(); HEADS as usize];
        let free = |plain: &[VecDeque<u32>], node| !plain.iter().any(|list| list.contains(&node));
        for step in steps {
            match step {
                ListStep::First(head, node) if free(&plain, node) => {
                    lists.push_first(NODES + head, node);
                    plain[head as usize].push_front(node);
                }
                ListStep::Last(head, node) if free(&plain, node) => {
                    lists.push_last(NODES + head, node);
                    plain[head as usize].push_back(node);
                }
                ListStep::Unlink(node) => {
                    lists.unlink(node);
                    plain.iter_mut().for_each(|list| list.retain(|&other| other != node));
                }
                ListStep::MoveAll(from, into) if from != into => {
                    lists.move_all_first(NODES + from, NODES + into);
                    let moved = std::mem::take(&mut plain[from as usize]);
                    moved.into_iter().rev().for_each(|node| plain[into as usize].push_front(node));
                }
                _ => {}
            }
            for (head, plain) in plain.iter().enumerate() {
                let list = NODES + head as u32;
                prop_assert_eq!(&contents(&lists, list), plain);
                prop_assert_eq!(lists.is_empty(list), plain.is_empty());
                prop_assert_eq!(lists.first(list), plain.front().copied());
                prop_assert_eq!(lists.last(list), plain.back().copied());
            }
            for node in 0..NODES {
                prop_assert_eq!(lists.is_empty(node), free(&plain, node));
            }
        }
    }
}
