//! A directed graph whose edges carry kinds, its strongly connected components and shortest cycles.

use std::collections::{BTreeMap, VecDeque};

/// A set of kinds of edges, a bit a kind.
pub(crate) type Kinds = u8;

/// Nodes are numbers from 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    edges: Vec<BTreeMap<usize, Kinds>>,
}

impl Graph {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { edges: vec![BTreeMap::new(); nodes] }
    }

    /// Adds kinds to the edge from `from` to `to`; an edge from a node to itself is left out.
    pub(crate) fn link(&mut self, from: usize, to: usize, kinds: Kinds) {
        if from != to {
            *self.edges[from].entry(to).or_default() |= kinds;
        }
    }

    /// The kinds of an edge; none if there is no edge.
    pub(crate) fn kinds(&self, from: usize, to: usize) -> Kinds {
        self.edges[from].get(&to).copied().unwrap_or_default()
    }

    /// Where edges of any of these kinds lead from `from`.
    pub(crate) fn next(&self, from: usize, kinds: Kinds) -> impl Iterator<Item = usize> {
        self.edges[from].iter().filter(move |(_, has)| *has & kinds != 0).map(|(to, _)| *to)
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.edges.len()
    }
}

/// The strongly connected components with more than one node, each sorted (Tarjan, SIAM J. Comput.
/// 1972, with the recursion unrolled).
pub(crate) fn components<I: Iterator<Item = usize>>(
    nodes: usize,
    next: impl Fn(usize) -> I,
) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let (mut order, mut low) = (vec![UNSEEN; nodes], vec![0; nodes]);
    let (mut waits, mut waiting) = (vec![false; nodes], Vec::new());
    let mut found = Vec::new();
    let mut seen = 0;
    for root in 0..nodes {
        let mut path: Vec<(usize, I)> = Vec::new();
        let mut enter = (order[root] == UNSEEN).then_some(root);
        loop {
            if let Some(node) = enter.take() {
                (order[node], low[node]) = (seen, seen);
                seen += 1;
                waits[node] = true;
                waiting.push(node);
                path.push((node, next(node)));
            }
            let Some((node, edges)) = path.last_mut() else { break };
            let node = *node;
            if let Some(to) = edges.next() {
                if order[to] == UNSEEN {
                    enter = Some(to);
                } else if waits[to] {
                    low[node] = low[node].min(order[to]);
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                low[*parent] = low[*parent].min(low[node]);
            }
            if low[node] == order[node] {
                let start = waiting.iter().rposition(|&other| other == node).unwrap_or_default();
                let mut component = waiting.split_off(start);
                component.iter().for_each(|&member| waits[member] = false);
                if component.len() > 1 {
                    component.sort_unstable();
                    found.push(component);
                }
            }
        }
    }
    found
}

/// A shortest path from `from` to `to` over at least one edge; `to` may be `from`.
pub(crate) fn path<I: Iterator<Item = usize>>(
    from: usize,
    to: usize,
    next: impl Fn(usize) -> I,
) -> Option<Vec<usize>> {
    let mut came: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        for reached in next(node) {
            if reached == to {
                let mut path = vec![to, node];
                while let Some(&before) = path.last().and_then(|last| came.get(last)) {
                    path.push(before);
                }
                path.reverse();
                return Some(path);
            }
            if reached != from && !came.contains_key(&reached) {
                came.insert(reached, node);
                queue.push_back(reached);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(usize, usize)]) -> Graph {
        let mut graph = Graph::new(8);
        edges.iter().for_each(|&(from, to)| graph.link(from, to, 1));
        graph
    }

    #[test]
    fn components_are_those_of_the_textbook() {
        let edges =
            [(0, 1), (1, 2), (2, 0), (1, 3), (3, 4), (4, 5), (5, 3), (2, 6), (6, 7), (7, 7)];
        let graph = graph(&edges);
        let mut found = components(graph.len(), |node| graph.next(node, 1));
        found.sort();
        assert_eq!(found, [vec![0, 1, 2], vec![3, 4, 5]]);
        assert!(components(graph.len(), |node| graph.next(node, 2)).is_empty());
    }

    #[test]
    fn paths_are_shortest_and_may_close() {
        let graph = graph(&[(0, 1), (1, 2), (2, 0), (0, 2), (2, 3)]);
        let next = |node| graph.next(node, 1);
        assert_eq!(path(0, 3, next), Some(vec![0, 2, 3]));
        assert_eq!(path(0, 0, next), Some(vec![0, 2, 0]));
        assert_eq!(path(3, 0, next), None);
    }
}
