//! Isolation of list-append transactions, after Elle (Kingsbury and Alvaro, VLDB 2020).
//!
//! An element is appended to a key at most once and a read gives the whole list, so a read tells the
//! order of all writes of the key before it. From that follow Adya's dependencies between transactions
//! (Adya, Generalized Isolation Definitions, 2000): *ww* from an append to the next append, *wr* from
//! an append to the reads that end with it, *rw* from a read to the append that it just does not see.
//! Cycles of them are anomalies.
//!
//! Data flow: [`view`] picks the transactions that count and their steps on lists, [`reads`] finds what
//! needs no graph, [`versions`] infers the order of each key, [`dependencies`] draws the graph,
//! [`cycles`] looks for cycles and names them.

mod cycles;
mod dependencies;
mod reads;
mod versions;
mod view;

use crate::{History, Options, Verdict};

use versions::Versions;
use view::View;

/// Checks list-append transactions. Items: transactions that count, with steps on lists.
///
/// Those that count are the acknowledged ones, and those of unknown outcome of which any acknowledged
/// read saw an element. Which anomaly is a violation:
///
/// | anomaly | snapshot | serializable |
/// | --- | --- | --- |
/// | incompatible-order, duplicate-element, unwritten-element, internal | yes | yes |
/// | G1a (aborted read), G1b (intermediate read), lost-update | yes | yes |
/// | G0 (ww), G1c (ww, wr), G-single (one rw), G-nonadjacent (no two rw in a row) | yes | yes |
/// | G2-item (any cycle) | no | yes, if all its transactions are serializable |
///
/// With [`Options::strict`] cycles may also use real-time edges; their names end in `-realtime`.
/// G-nonadjacent is what snapshot isolation forbids beyond G-single: its histories are exactly those
/// whose cycles all have two rw edges in a row (Fekete et al., TODS 2005).
pub fn append(history: &History, options: &Options) -> Verdict {
    let mut verdict = Verdict::new("append");
    let view = View::new(history);
    verdict.checked = view.transactions.len() as u64;
    for ((key, element), ops) in &view.repeated {
        verdict.violation(
            format!("repeated-append: element {element} is appended to key {key} more than once"),
            ops.clone(),
        );
    }
    reads::check(&view, &mut verdict);
    let versions = Versions::new(&view, &mut verdict);
    let graph = dependencies::graph(history, &view, &versions, options.strict);
    cycles::check(&view, &graph, options.strict, &mut verdict);
    verdict
}
