//! The graph of dependencies between transactions.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Graph, Kinds};
use crate::{Blob, History};

use super::versions::Versions;
use super::view::View;

/// The second appended after the first.
pub(super) const WW: Kinds = 1;
/// The second read what the first appended.
pub(super) const WR: Kinds = 2;
/// The second appended what the first did not see yet.
pub(super) const RW: Kinds = 4;
/// The first was acknowledged before the second began.
pub(super) const REALTIME: Kinds = 8;

/// Draws it; nodes are positions in [`View::transactions`].
pub(super) fn graph(
    history: &History,
    view: &View<'_>,
    versions: &Versions<'_>,
    strict: bool,
) -> Graph {
    let mut graph = Graph::new(view.transactions.len());
    let writer = |key, element| view.writers.get(&(key, element)).and_then(|writer| writer.node);
    let mut readers: BTreeMap<(&Blob, Option<u64>), Vec<usize>> = BTreeMap::new();
    for (node, transaction) in view.transactions.iter().enumerate() {
        for (key, elements) in transaction.reads() {
            let last = elements.last().copied();
            readers.entry((key, last)).or_default().push(node);
            if let Some(from) = last.and_then(|last| writer(key, last)) {
                graph.link(from, node, WR);
            }
        }
    }
    for (node, transaction) in view.transactions.iter().enumerate() {
        for (key, element) in transaction.appends() {
            let before = versions.before(key, element);
            if let Some(from) = before.and_then(|before| writer(key, before)) {
                graph.link(from, node, WW);
            }
            for &reader in readers.get(&(key, before)).into_iter().flatten() {
                graph.link(reader, node, RW);
            }
        }
    }
    if strict {
        link_realtime(history, view, &mut graph);
    }
    graph
}

/// Links transactions in real time, leaving out what follows from other links: only those of the
/// frontier, acknowledged and not followed by another acknowledged one yet, precede a new one directly.
fn link_realtime(history: &History, view: &View<'_>, graph: &mut Graph) {
    let mut events = Vec::new();
    for (node, transaction) in view.transactions.iter().enumerate() {
        if let Some(operation) = history.get(transaction.index) {
            // At one instant what begins comes first: it counts as concurrent with what ends.
            events.push((operation.invoke, false, node));
            if let Some(complete) = operation.complete.filter(|_| operation.is_ok()) {
                events.push((complete, true, node));
            }
        }
    }
    events.sort_unstable();
    let mut frontier: BTreeSet<usize> = BTreeSet::new();
    let mut preceded: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (_, ends, node) in events {
        if ends {
            let implied = preceded.remove(&node).unwrap_or_default();
            frontier.retain(|earlier| !implied.contains(earlier));
            frontier.insert(node);
        } else {
            frontier.iter().for_each(|&earlier| graph.link(earlier, node, REALTIME));
            preceded.insert(node, frontier.clone());
        }
    }
}
