//! Replay against the versions that the cluster holds in the end.
//!
//! The idea is that of CockroachDB's kvnemesis: with every version of every key in hand each
//! transaction has one moment at which it must have happened, and nothing has to be searched. A
//! transaction reads the newest versions that are no newer than its start timestamp, and its writes are
//! exactly the versions that carry it.
//!
//! Data flow: [`versions`] looks at the dump alone, [`writes`] holds each transaction's writes against
//! the dump, [`reads`] its reads.

mod reads;
mod versions;
mod writes;

use std::collections::BTreeMap;

use crate::{Dump, History, Options, Verdict};

/// Checks all transactions of a history against the versions of all their keys. Items: transactions
/// with a start timestamp.
///
/// * Of the versions of a key no two share a commit or a start timestamp, and each is committed after
///   its start; with [`Options::first_committer_wins`] also after the start of the next.
/// * An acknowledged transaction has left what it wrote, all of it at its commit timestamp. One of
///   unknown outcome has left all of it at one timestamp, or nothing; a failed one nothing.
/// * What an acknowledged transaction read is what lies at its start timestamp, with its own earlier
///   writes on top.
/// * A list that a transaction appended to is the version before it with its elements at the end.
/// * Versions of keys of the history are of its transactions, or older than all of these.
///
/// Below [`Options::gc_safe_point`] old versions may be missing.
pub fn replay(history: &History, dump: &Dump, options: &Options) -> Verdict {
    let mut verdict = Verdict::new("replay");
    let mut by_start: BTreeMap<u64, usize> = BTreeMap::new();
    for (index, _, txn) in history.transactions().filter(|(_, _, txn)| txn.start_ts != 0) {
        verdict.checked += 1;
        if let Some(other) = by_start.insert(txn.start_ts, index) {
            let what = format!("two transactions start at {}", txn.start_ts);
            verdict.violation(what, [other, index]);
        }
    }
    versions::check(history, dump, &by_start, options, &mut verdict);
    writes::check(history, dump, options, &mut verdict);
    reads::check(history, dump, options, &mut verdict);
    verdict
}
