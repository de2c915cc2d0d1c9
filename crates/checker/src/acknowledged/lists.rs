//! Final reads of lists.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Blob, History, Outcome, Step, Verdict};

/// Who appended the elements of a key, and what became of them.
type Appends<'a> = BTreeMap<&'a Blob, BTreeMap<u64, (usize, Outcome)>>;

pub(super) fn check(history: &History, verdict: &mut Verdict) {
    let mut appends: Appends<'_> = BTreeMap::new();
    let mut reads: Vec<(usize, &Blob, &[u64])> = Vec::new();
    for (index, operation, txn) in history.transactions() {
        for (key, elements) in txn.appends() {
            let of_key = appends.entry(key).or_default();
            of_key.extend(elements.into_iter().map(|e| (e, (index, operation.outcome))));
        }
        for step in txn.steps.iter().filter(|_| operation.is_final && operation.is_ok()) {
            if let Step::List { key, elements } = step {
                reads.push((index, key, elements));
            }
        }
    }
    if reads.is_empty() {
        return;
    }
    for &(index, key, elements) in &reads {
        verdict.checked += 1;
        let of_key = appends.get(key).cloned().unwrap_or_default();
        one_read(index, key, elements, &of_key, verdict);
    }
    let read: BTreeSet<&Blob> = reads.iter().map(|(_, key, _)| *key).collect();
    for (key, elements) in appends.iter().filter(|(key, _)| !read.contains(*key)) {
        let acknowledged = elements.values().find(|(_, outcome)| *outcome == Outcome::Ok);
        if let Some((index, _)) = acknowledged {
            verdict.violation(format!("no final read of list {key}"), [*index]);
        }
    }
}

fn one_read(
    index: usize,
    key: &Blob,
    elements: &[u64],
    appends: &BTreeMap<u64, (usize, Outcome)>,
    verdict: &mut Verdict,
) {
    let mut found = BTreeSet::new();
    for &element in elements {
        if !found.insert(element) {
            let what = format!("twice in the end: element {element} of list {key}");
            verdict.violation(what, [index]);
        }
        match appends.get(&element) {
            None => {
                let what = format!("from nowhere: element {element} of list {key}");
                verdict.violation(what, [index]);
            }
            Some((writer, Outcome::Failed)) => {
                let what = format!("failed but there: element {element} of list {key}");
                verdict.violation(what, [*writer, index]);
            }
            Some(_) => {}
        }
    }
    for (element, (writer, outcome)) in appends {
        if *outcome == Outcome::Ok && !found.contains(element) {
            let what = format!("acknowledged but lost: element {element} of list {key}");
            verdict.violation(what, [*writer, index]);
        }
    }
}
