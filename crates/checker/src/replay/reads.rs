//! The reads of each transaction against the dump.

use std::collections::BTreeMap;

use crate::blob::shown;
use crate::{Blob, Dump, History, Options, Outcome, Step, Txn, Verdict, decode_list};

pub(super) fn check(history: &History, dump: &Dump, options: &Options, verdict: &mut Verdict) {
    for (index, operation, txn) in history.transactions() {
        let judged = operation.outcome == Outcome::Ok && txn.start_ts >= options.gc_safe_point;
        if !judged || txn.start_ts == 0 {
            continue;
        }
        if let Some(what) = wrong_read(txn, dump) {
            let what = format!("transaction {}: {what}", txn.start_ts);
            verdict.violation(what, [index]);
        }
    }
}

/// The first read that is not what lies at the start timestamp under the transaction's own writes.
fn wrong_read(txn: &Txn, dump: &Dump) -> Option<String> {
    let mut own: BTreeMap<&Blob, Option<&Blob>> = BTreeMap::new();
    let mut appended: BTreeMap<&Blob, Vec<u64>> = BTreeMap::new();
    let stored =
        |key| dump.version_at(key, txn.start_ts).and_then(|version| version.value.as_ref());
    for step in &txn.steps {
        match step {
            Step::Put { key, value } => {
                own.insert(key, Some(value));
            }
            Step::Delete { key } => {
                own.insert(key, None);
            }
            Step::Append { key, element } => appended.entry(key).or_default().push(*element),
            Step::Get { key, value } => {
                let expected = own.get(key).copied().unwrap_or_else(|| stored(key));
                if value.as_ref() != expected {
                    let (found, expected) = (shown(value.as_ref()), shown(expected));
                    return Some(format!("read {found} of key {key}, not {expected}"));
                }
            }
            Step::List { key, elements } => {
                let value = stored(key).map(|value| &value[..]).unwrap_or_default();
                let mut expected = decode_list(value).unwrap_or_default();
                expected.extend(appended.get(key).into_iter().flatten());
                if *elements != expected {
                    return Some(format!("read {elements:?} of key {key}, not {expected:?}"));
                }
            }
        }
    }
    None
}
