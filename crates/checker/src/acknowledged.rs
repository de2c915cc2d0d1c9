//! What was acknowledged is there in the end, and what failed is not.
//!
//! Cycles of dependencies and linearizability find a lost write only if somebody reads it before the
//! end; this looks at the reads after everything has healed.

mod lists;
mod registers;

use std::collections::BTreeMap;

use crate::{Blob, History, Op, Operation, Options, Outcome, Step, Verdict};

/// Checks the final reads. Items: acknowledged final reads of single keys. It applies to histories with
/// an acknowledged final operation; every key of the same kind that an acknowledged operation wrote must
/// have a final read then, raw registers if there is a final raw read, those of transactions if there is
/// a final read of a register, lists if there is one of a list.
///
/// * Lists: every acknowledged element is there, no failed one, none twice, none that nobody appended.
/// * Registers: the value is of a write that may have been last. A write cannot have been if it failed,
///   or if an acknowledged one certainly came after it: by commit timestamp where both have one, else
///   because it began after the first was acknowledged. Absence also needs a reason: a deletion that may
///   have been last, or no acknowledged write.
pub fn acknowledged(history: &History, _options: &Options) -> Verdict {
    let mut verdict = Verdict::new("acknowledged");
    lists::check(history, &mut verdict);
    registers::check(history, raw_event, &mut verdict);
    registers::check(history, txn_events, &mut verdict);
    verdict
}

/// What one operation does to one register.
#[derive(Clone, Copy, Debug)]
struct Write<'a> {
    index: usize,
    /// `None` for a deletion.
    value: Option<&'a Blob>,
    commit_ts: Option<u64>,
}

/// What one operation says about registers.
#[derive(Debug, Default)]
struct Events<'a> {
    writes: BTreeMap<&'a Blob, Write<'a>>,
    final_reads: BTreeMap<&'a Blob, Option<&'a Blob>>,
}

fn raw_event(index: usize, operation: &Operation) -> Events<'_> {
    let mut events = Events::default();
    let write = |value| Write { index, value, commit_ts: None };
    match &operation.op {
        Op::Get { key, value } if operation.is_final && operation.is_ok() => {
            events.final_reads.insert(key, value.as_ref());
        }
        Op::Put { key, value } => {
            events.writes.insert(key, write(Some(value)));
        }
        Op::Delete { key } => {
            events.writes.insert(key, write(None));
        }
        Op::Cas { key, value, swapped, .. } if *swapped != Some(false) => {
            events.writes.insert(key, write(Some(value)));
        }
        _ => {}
    }
    events
}

fn txn_events(index: usize, operation: &Operation) -> Events<'_> {
    let mut events = Events::default();
    let Op::Txn(txn) = &operation.op else { return events };
    let commit_ts = txn.commit_ts;
    for (key, value) in txn.final_writes() {
        events.writes.insert(key, Write { index, value, commit_ts });
    }
    for step in &txn.steps {
        if let Step::Get { key, value } = step
            && operation.is_final
            && operation.is_ok()
        {
            events.final_reads.entry(key).or_insert(value.as_ref());
        }
    }
    events
}

/// Whether the effect of the operation, if it has one, is certain.
fn is_certain(operation: &Operation) -> bool {
    // A compare-and-swap that does not say whether it swapped is acknowledged, but its write is not.
    let silent = matches!(&operation.op, Op::Cas { swapped: None, .. });
    operation.outcome == Outcome::Ok && !silent
}
