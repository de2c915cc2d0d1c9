//! Anomalies that one read shows by itself, and lost updates.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Blob, Verdict};

use super::view::{ListStep, Transaction, View};

pub(super) fn check(view: &View<'_>, verdict: &mut Verdict) {
    for transaction in &view.transactions {
        for (key, elements) in transaction.reads() {
            elements_of(view, transaction, key, elements, verdict);
        }
        if let Some(what) = internal(transaction) {
            verdict.violation(what, [transaction.index]);
        }
    }
    lost_updates(view, verdict);
}

fn elements_of(
    view: &View<'_>,
    transaction: &Transaction<'_>,
    key: &Blob,
    elements: &[u64],
    verdict: &mut Verdict,
) {
    let reader = transaction.index;
    let mut distinct = BTreeSet::new();
    for &element in elements {
        if !distinct.insert(element) {
            let what = format!("duplicate-element: {element} is twice in key {key}: {elements:?}");
            verdict.violation(what, [reader]);
        }
        match view.writers.get(&(key, element)) {
            None => {
                let what = format!("unwritten-element: nobody appended {element} to key {key}");
                verdict.violation(what, [reader]);
            }
            Some(writer) if writer.failed => {
                let what =
                    format!("G1a: element {element} of key {key} is of a failed transaction");
                verdict.violation(what, [reader, writer.index]);
            }
            Some(_) => {}
        }
    }
    let last = elements.last().and_then(|last| view.writers.get(&(key, *last)));
    if let Some(writer) = last
        && writer.intermediate
        && writer.index != reader
    {
        let what =
            format!("G1b: key {key} is read amid the appends of a transaction: {elements:?}");
        verdict.violation(what, [reader, writer.index]);
    }
}

/// What a transaction must find in a key after what it did to it.
enum Expected {
    Exactly(Vec<u64>),
    EndingWith(Vec<u64>),
}

/// The first read that disagrees with earlier steps of the same transaction.
fn internal(transaction: &Transaction<'_>) -> Option<String> {
    let mut expected: BTreeMap<&Blob, Expected> = BTreeMap::new();
    for step in &transaction.steps {
        match step {
            ListStep::Append(key, element) => {
                match expected.entry(*key).or_insert_with(|| Expected::EndingWith(Vec::new())) {
                    Expected::Exactly(list) | Expected::EndingWith(list) => list.push(*element),
                }
            }
            ListStep::Read(key, elements) => {
                let agrees = match expected.get(*key) {
                    None => true,
                    Some(Expected::Exactly(list)) => elements == list,
                    Some(Expected::EndingWith(list)) => elements.ends_with(list),
                };
                if !agrees {
                    return Some(format!(
                        "internal: key {key} is read as {elements:?}, which does not fit what the \
                         transaction read and appended before"
                    ));
                }
                expected.insert(key, Expected::Exactly(elements.to_vec()));
            }
        }
    }
    // An element that is read before the transaction itself appends it.
    let mut read: BTreeSet<(&Blob, u64)> = BTreeSet::new();
    for step in &transaction.steps {
        match step {
            ListStep::Read(key, elements) => read.extend(elements.iter().map(|&e| (*key, e))),
            ListStep::Append(key, element) if read.contains(&(*key, *element)) => {
                return Some(format!(
                    "internal: element {element} of key {key} is read before it is appended"
                ));
            }
            ListStep::Append(..) => {}
        }
    }
    None
}

/// Transactions that read the same list and then appended to it: all but one of them overwrote what
/// they did not see. The graph does not show it if no read saw any of their elements.
fn lost_updates(view: &View<'_>, verdict: &mut Verdict) {
    let mut updates: BTreeMap<(&Blob, &[u64]), Vec<usize>> = BTreeMap::new();
    for transaction in &view.transactions {
        let mut first: BTreeMap<&Blob, &[u64]> = BTreeMap::new();
        let mut written = BTreeSet::new();
        for step in &transaction.steps {
            match step {
                ListStep::Read(key, elements) => {
                    if !written.contains(key) {
                        first.entry(key).or_insert(elements);
                    }
                }
                ListStep::Append(key, _) => {
                    if written.insert(*key)
                        && let Some(elements) = first.get(key)
                    {
                        updates.entry((key, elements)).or_default().push(transaction.index);
                    }
                }
            }
        }
    }
    for ((key, elements), ops) in updates.into_iter().filter(|(_, ops)| ops.len() > 1) {
        let count = ops.len();
        let what =
            format!("lost-update: {count} transactions appended to key {key} as {elements:?}");
        verdict.violation(what, ops);
    }
}
