//! Cycles of dependencies, the most severe first, and their names.

use std::collections::BTreeSet;

use crate::graph::{Graph, Kinds, components, path};
use crate::{Isolation, Verdict};

use super::dependencies::{REALTIME, RW, WR, WW};
use super::view::View;

/// Reports one cycle for each strongly connected component that must not be: the most severe one, and
/// none of a component that shares a transaction with one that was reported as worse.
pub(super) fn check(view: &View<'_>, graph: &Graph, strict: bool, verdict: &mut Verdict) {
    let mut finder = Finder { view, graph, verdict, reported: BTreeSet::new() };
    finder.round("", 0);
    if strict {
        finder.round("-realtime", REALTIME);
    }
}

struct Finder<'a> {
    view: &'a View<'a>,
    graph: &'a Graph,
    verdict: &'a mut Verdict,
    /// Nodes of reported components.
    reported: BTreeSet<usize>,
}

impl Finder<'_> {
    /// Looks for every kind of cycle, `extra` edges allowed anywhere.
    fn round(&mut self, suffix: &str, extra: Kinds) {
        let graph = self.graph;
        for (name, kinds) in [("G0", WW), ("G1c", WW | WR)] {
            for nodes in components(graph.len(), |node| graph.next(node, kinds | extra)) {
                let next = |node| graph.next(node, kinds | extra);
                if let Some(cycle) = path(nodes[0], nodes[0], next) {
                    self.report(&format!("{name}{suffix}"), &nodes, &cycle);
                }
            }
        }
        self.without_adjacent_rw(suffix, WW | WR | extra);
        self.serializable(suffix, WW | WR | RW | extra);
    }

    /// Cycles with rw edges of which no two follow each other. They are plain cycles of a graph of two
    /// layers: an rw edge leads from the lower to the upper one, any other edge leads down.
    fn without_adjacent_rw(&mut self, suffix: &str, base: Kinds) {
        let graph = self.graph;
        let layered = |place: usize| {
            let (node, upper) = (place / 2, place % 2 == 1);
            let down = graph.next(node, base).map(|to| 2 * to);
            let up = graph.next(node, RW).filter(move |_| !upper).map(|to| 2 * to + 1);
            down.chain(up)
        };
        for places in components(2 * graph.len(), layered) {
            let nodes: BTreeSet<usize> = places.iter().map(|place| place / 2).collect();
            let nodes: Vec<usize> = nodes.into_iter().collect();
            let found = match self.single_rw(&nodes, base) {
                Some(cycle) => Some(("G-single", cycle)),
                None => path(places[0], places[0], layered).map(|cycle| {
                    ("G-nonadjacent", cycle.into_iter().map(|place| place / 2).collect())
                }),
            };
            if let Some((name, cycle)) = found {
                self.report(&format!("{name}{suffix}"), &nodes, &cycle);
            }
        }
    }

    /// A cycle of base edges and one rw edge among these nodes.
    fn single_rw(&self, nodes: &[usize], base: Kinds) -> Option<Vec<usize>> {
        nodes.iter().find_map(|&from| {
            self.graph.next(from, RW).find_map(|to| {
                let mut cycle = path(to, from, |node| self.graph.next(node, base))?;
                cycle.insert(0, from);
                Some(cycle)
            })
        })
    }

    /// Cycles of any edges, among serializable transactions only.
    fn serializable(&mut self, suffix: &str, kinds: Kinds) {
        let (graph, view) = (self.graph, self.view);
        let promised = |node: usize| view.transactions[node].isolation == Isolation::Serializable;
        let next = |node| graph.next(node, kinds).filter(move |&to| promised(node) && promised(to));
        for nodes in components(graph.len(), next) {
            if let Some(cycle) = path(nodes[0], nodes[0], next) {
                self.report(&format!("G2-item{suffix}"), &nodes, &cycle);
            }
        }
    }

    fn report(&mut self, name: &str, nodes: &[usize], cycle: &[usize]) {
        if nodes.iter().any(|node| self.reported.contains(node)) {
            return;
        }
        self.reported.extend(nodes);
        let index = |node: &usize| self.view.transactions[*node].index;
        let mut what = format!("{name}: ");
        for pair in cycle.windows(2) {
            let kinds = self.graph.kinds(pair[0], pair[1]);
            what.push_str(&format!("{} -{}-> ", index(&pair[0]), names(kinds)));
        }
        if let Some(last) = cycle.last() {
            what.push_str(&index(last).to_string());
        }
        let ops: Vec<usize> = cycle[1..].iter().map(index).collect();
        self.verdict.violation(what, ops);
    }
}

fn names(kinds: Kinds) -> String {
    let all = [(WW, "ww"), (WR, "wr"), (RW, "rw"), (REALTIME, "realtime")];
    let names: Vec<&str> =
        all.iter().filter(|(kind, _)| kinds & kind != 0).map(|(_, name)| *name).collect();
    names.join("+")
}
