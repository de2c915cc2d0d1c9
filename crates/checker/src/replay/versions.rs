//! What holds of the versions of every key.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Blob, Dump, History, Options, Step, Verdict};

pub(super) fn check(
    history: &History,
    dump: &Dump,
    by_start: &BTreeMap<u64, usize>,
    options: &Options,
    verdict: &mut Verdict,
) {
    let touched = touched(history);
    let earliest = by_start.keys().next().copied().unwrap_or(u64::MAX);
    for (key, versions) in dump.iter() {
        let ops = |start_ts: u64| by_start.get(&start_ts).copied().into_iter();
        let mut starts = BTreeSet::new();
        for version in versions {
            let (start, commit) = (version.start_ts, version.commit_ts);
            let ops = || ops(start).collect::<Vec<_>>();
            if start >= commit {
                let what = format!("key {key}: started at {start}, committed at {commit}");
                verdict.violation(what, ops());
            }
            if !starts.insert(start) {
                verdict.violation(format!("key {key}: committed twice: {start}"), ops());
            }
            if touched.contains(key) && !by_start.contains_key(&start) && commit >= earliest {
                let what = format!("key {key}: nobody wrote the version of {start} at {commit}");
                verdict.violation(what, []);
            }
        }
        for pair in versions.windows(2) {
            let [older, newer] = pair else { continue };
            let both = || ops(older.start_ts).chain(ops(newer.start_ts)).collect::<Vec<_>>();
            if older.commit_ts == newer.commit_ts {
                let what = format!("key {key}: two versions at {}", older.commit_ts);
                verdict.violation(what, both());
            } else if options.first_committer_wins && newer.start_ts < older.commit_ts {
                let what = format!(
                    "key {key}: the version of {} at {} does not exclude that of {} at {}",
                    older.start_ts, older.commit_ts, newer.start_ts, newer.commit_ts
                );
                verdict.violation(what, both());
            }
        }
    }
}

/// Keys that any transaction of the history mentions.
fn touched(history: &History) -> BTreeSet<&Blob> {
    let steps = history.transactions().flat_map(|(_, _, txn)| &txn.steps);
    steps
        .map(|step| match step {
            Step::Get { key, .. }
            | Step::Put { key, .. }
            | Step::Delete { key }
            | Step::Append { key, .. }
            | Step::List { key, .. } => key,
        })
        .collect()
}
