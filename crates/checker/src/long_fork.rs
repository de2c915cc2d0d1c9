//! Long forks: two reads that disagree about the order of two writes.
//!
//! One read sees a write of `x` and not yet one of `y`, the other the write of `y` and not yet the one
//! of `x`. Snapshot isolation forbids it, because snapshots are states of one sequence; parallel
//! snapshot isolation allows it (Sovran et al., SOSP 2011).

use std::collections::{BTreeMap, BTreeSet};

use crate::{Blob, History, Options, Outcome, Step, Txn, Verdict};

/// A read of two keys: their ranks, and the index of the transaction.
type PairRead = (u64, u64, usize);

/// A write: what it leaves, and its commit timestamp if known.
type Write<'a> = (Option<&'a Blob>, Option<u64>);

/// Checks pairs of reads of the same two registers by acknowledged transactions. Items: pairs of keys
/// that one transaction read, one for each transaction; more than [`Options::steps_max`] are not looked
/// at, and the verdict is exhausted then.
///
/// Versions of a key are ordered by the commit timestamps of their writers; keys with a single writer
/// need none. A read of a value that two writes wrote, or whose writer's timestamp is unknown, is left
/// out, and so is a read after the transaction's own write.
pub fn long_fork(history: &History, options: &Options) -> Verdict {
    let mut verdict = Verdict::new("long-fork");
    let ranks = ranks(history);
    let mut pairs: BTreeMap<(&Blob, &Blob), Vec<PairRead>> = BTreeMap::new();
    for (index, _, txn) in history.transactions().filter(|(_, operation, _)| operation.is_ok()) {
        let reads: Vec<(&Blob, u64)> = ranked_reads(txn, &ranks).into_iter().collect();
        for (position, &(x, x_rank)) in reads.iter().enumerate() {
            for &(y, y_rank) in &reads[position + 1..] {
                if verdict.checked == options.steps_max {
                    verdict.exhausted = true;
                    return verdict;
                }
                verdict.checked += 1;
                pairs.entry((x, y)).or_default().push((x_rank, y_rank, index));
            }
        }
    }
    for ((x, y), mut reads) in pairs {
        reads.sort_unstable();
        if let Some((one, other)) = fork(&reads) {
            let what = format!("long fork: {x} and {y} changed in both orders");
            verdict.violation(what, [one, other]);
        }
    }
    verdict
}

/// Of reads sorted by their rank of `x`, two of which the one with the higher rank of `x` has the lower
/// rank of `y`.
fn fork(reads: &[PairRead]) -> Option<(usize, usize)> {
    // Among the reads with a lower rank of `x`: the highest rank of `y`.
    let mut highest: Option<(u64, usize)> = None;
    for same_x in reads.chunk_by(|one, other| one.0 == other.0) {
        for &(_, y, index) in same_x {
            if let Some((above, other)) = highest
                && above > y
            {
                return Some((other, index));
            }
        }
        // Within a chunk the last has the highest rank of `y`.
        if let Some(&(_, y, index)) = same_x.last()
            && highest.is_none_or(|(above, _)| y > above)
        {
            highest = Some((y, index));
        }
    }
    None
}

/// The first read of each register before the transaction wrote it itself, by rank.
fn ranked_reads<'a>(txn: &'a Txn, ranks: &Ranks<'a>) -> BTreeMap<&'a Blob, u64> {
    let mut found = BTreeMap::new();
    let mut done = BTreeSet::new();
    for step in &txn.steps {
        match step {
            Step::Get { key, value } if done.insert(key) => {
                if let Some(rank) = ranks.get(&(key, value.as_ref())) {
                    found.insert(key, *rank);
                }
            }
            Step::Put { key, .. } | Step::Delete { key } => {
                done.insert(key);
            }
            _ => {}
        }
    }
    found
}

/// Position of each value of each key in the order of its versions: 0 for the initial absence, else
/// the commit timestamp, or 1 if it is the key's only write.
type Ranks<'a> = BTreeMap<(&'a Blob, Option<&'a Blob>), u64>;

fn ranks(history: &History) -> Ranks<'_> {
    let mut writes: BTreeMap<&Blob, Vec<Write<'_>>> = BTreeMap::new();
    for (_, operation, txn) in history.transactions() {
        if operation.outcome == Outcome::Failed {
            continue;
        }
        for (key, value) in txn.final_writes() {
            writes.entry(key).or_default().push((value, txn.commit_ts));
        }
    }
    let mut ranks = Ranks::new();
    for (key, writes) in writes {
        let mut uses: BTreeMap<Option<&Blob>, u64> = BTreeMap::from([(None, 1)]);
        writes.iter().for_each(|(value, _)| *uses.entry(*value).or_default() += 1);
        let single = writes.len() == 1;
        for (value, commit_ts) in writes {
            if let Some(rank) = commit_ts.or(single.then_some(1))
                && uses[&value] == 1
            {
                ranks.insert((key, value), rank);
            }
        }
        // A deletion makes absence ambiguous.
        if uses[&None] == 1 {
            ranks.insert((key, None), 0);
        }
    }
    ranks
}
