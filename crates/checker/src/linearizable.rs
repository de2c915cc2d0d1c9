//! Linearizability of raw operations, key by key.
//!
//! The algorithm is the search of Wing and Gong (J. Parallel Distrib. Comput. 1993) for an order of
//! the operations that respects real time and the semantics of a register, with the memory of Lowe
//! (Testing for linearizability, 2016): a set of placed operations that left the register in the same
//! state once before is not searched again. Linearizability is local (Herlihy and Wing, TOPLAS 1990),
//! so keys are independent.
//!
//! Data flow: [`calls`] turns the operations of a key into calls on a register, [`search`] places them.

mod calls;
mod search;

use std::collections::BTreeMap;

use crate::{Blob, History, Op, Options, Verdict};

use calls::{Calls, OTHER, Value};
use search::Ended;

/// Checks that get, put, delete and compare-and-swap of each key are linearizable, a key being absent
/// at first. Items: operations that take part, which is all but the failed ones and the reads without
/// answer. Gives up on a key after [`Options::steps_max`] steps.
pub fn linearizable(history: &History, options: &Options) -> Verdict {
    let mut verdict = Verdict::new("linearizable");
    let mut keys: BTreeMap<&Blob, Vec<usize>> = BTreeMap::new();
    for (index, operation) in history.iter() {
        if let Op::Get { key, .. }
        | Op::Put { key, .. }
        | Op::Delete { key }
        | Op::Cas { key, .. } = &operation.op
        {
            keys.entry(key).or_default().push(index);
        }
    }
    for (key, indexes) in keys {
        let calls = Calls::new(history, &indexes);
        verdict.checked += calls.taking_part as u64;
        for (what, index) in &calls.absurd {
            verdict.violation(format!("not linearizable: key {key}: {what}"), [*index]);
        }
        match search::search(&calls, options.steps_max) {
            Ended::Linearized => {}
            Ended::Exhausted => verdict.exhausted = true,
            Ended::Stuck { placed, state, waiting } => {
                let what = format!(
                    "not linearizable: key {key}: at most {placed} of {} acknowledged operations fit \
                     one order; then the key {} and none of these can be next",
                    calls.required.len(),
                    describe(&calls, state),
                );
                verdict.violation(what, waiting);
            }
        }
    }
    verdict
}

fn describe(calls: &Calls<'_>, state: Value) -> String {
    match calls.value(state) {
        None if state == OTHER => "holds a value that is never seen".to_owned(),
        None => "is absent".to_owned(),
        Some(value) => format!("holds {value}"),
    }
}
