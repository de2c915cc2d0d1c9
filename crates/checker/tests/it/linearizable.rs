//! Linearizability.

use std::collections::BTreeSet;

use cribwork_checker::{Blob, History, Op, Operation, Options, Outcome, linearizable};
use proptest::prelude::*;

use crate::lines::{assert_found, short};
use crate::registers::{Load, simulate};
use crate::rng::Rng;

const PUT_A: &str = r#"{"kind":"put","key":"k","value":"a"}"#;
const PUT_B: &str = r#"{"kind":"put","key":"k","value":"b"}"#;
const DELETE: &str = r#"{"kind":"delete","key":"k"}"#;
const GET_A: &str = r#"{"kind":"get","key":"k","value":"a"}"#;
const GET_B: &str = r#"{"kind":"get","key":"k","value":"b"}"#;
const GET_NONE: &str = r#"{"kind":"get","key":"k","value":null}"#;
const SWAP_A_B: &str =
    r#"{"kind":"cas","key":"k","expected":"a","value":"b","swapped":true,"previous":"a"}"#;
const LOST_A_B: &str = r#"{"kind":"cas","key":"k","expected":"a","value":"b","swapped":false}"#;
const SILENT_A_B: &str = r#"{"kind":"cas","key":"k","expected":"a","value":"b"}"#;

fn of(operations: &[(&str, &str)]) -> History {
    let lines: Vec<String> = operations.iter().map(|(head, op)| format!("{head} {op}")).collect();
    short(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

fn passes(operations: &[(&str, &str)]) -> bool {
    let verdict = linearizable(&of(operations), &Options::default());
    assert!(!verdict.exhausted);
    verdict.ok()
}

#[test]
fn one_after_the_other() {
    assert!(passes(&[("1 0-1 ok", GET_NONE), ("1 2-3 ok", PUT_A), ("1 4-5 ok", GET_A)]));
    assert!(!passes(&[("1 0-1 ok", GET_A)]), "a value from nowhere");
    assert!(!passes(&[("1 0-1 ok", PUT_A), ("1 2-3 ok", PUT_B), ("1 4-5 ok", GET_A)]), "stale");
    assert!(!passes(&[("1 0-1 ok", PUT_A), ("1 2-3 ok", GET_NONE)]), "lost");
    assert!(!passes(&[("1 0-1 ok", PUT_A), ("1 2-3 ok", DELETE), ("1 4-5 ok", GET_A)]), "undead");
}

#[test]
fn at_the_same_time() {
    let writes = [("1 0-9 ok", PUT_A), ("2 0-9 ok", PUT_B)];
    let with = |reads: &[(&'static str, &'static str)]| passes(&[&writes[..], reads].concat());
    assert!(with(&[("3 1-2 ok", GET_NONE), ("3 3-4 ok", GET_A), ("3 5-6 ok", GET_B)]));
    assert!(with(&[("3 1-2 ok", GET_B), ("3 3-4 ok", GET_A)]));
    assert!(!with(&[("3 1-2 ok", GET_A), ("3 3-4 ok", GET_B), ("3 5-6 ok", GET_A)]));
    assert!(!with(&[("3 1-2 ok", GET_A), ("4 3-4 ok", GET_NONE)]), "two readers, back in time");
    assert!(passes(&[("1 0-5 ok", PUT_A), ("2 5-6 ok", GET_NONE)]), "one instant is concurrent");
}

#[test]
fn compare_and_swap() {
    assert!(passes(&[("1 0-1 ok", PUT_A), ("1 2-3 ok", SWAP_A_B), ("1 4-5 ok", GET_B)]));
    assert!(!passes(&[("1 0-1 ok", PUT_B), ("1 2-3 ok", SWAP_A_B)]), "swapped another value");
    assert!(passes(&[("1 0-1 ok", PUT_B), ("1 2-3 ok", LOST_A_B)]));
    assert!(!passes(&[("1 0-1 ok", PUT_A), ("1 2-3 ok", LOST_A_B)]), "had to swap");
    let twice = [("1 0-1 ok", PUT_A), ("1 2-9 ok", SWAP_A_B), ("2 2-9 ok", SWAP_A_B)];
    assert!(!passes(&twice), "two winners");
    for read in [GET_B, GET_A] {
        let silent = [("1 0-1 ok", PUT_A), ("1 2-3 ok", SILENT_A_B), ("1 4-5 ok", read)];
        assert_eq!(passes(&silent), read == GET_B, "an acknowledged swap happens");
    }
    let absurd = SWAP_A_B.replace(r#""previous":"a""#, r#""previous":"c""#);
    assert!(!passes(&[("1 0-1 ok", PUT_A), ("1 2-3 ok", &absurd)]));
    let absurd = LOST_A_B.replace("false", r#"false,"previous":"a""#);
    assert!(!passes(&[("1 0-1 ok", PUT_B), ("1 2-3 ok", &absurd)]));
}

#[test]
fn unknown_outcomes() {
    assert!(passes(&[("1 0- unknown", PUT_A), ("2 1-2 ok", GET_NONE), ("2 3-4 ok", GET_A)]));
    assert!(passes(&[("1 0-1 unknown", PUT_A), ("2 5-6 ok", GET_NONE), ("2 7-8 ok", GET_A)]));
    assert!(passes(&[("1 0-1 unknown", PUT_A), ("2 5-6 ok", GET_NONE)]), "never");
    let back = [("1 0- unknown", PUT_A), ("2 1-2 ok", GET_A), ("2 3-4 ok", GET_NONE)];
    assert!(!passes(&back), "not undone");
    assert!(!passes(&[("2 1-2 ok", GET_A), ("1 3- unknown", PUT_A)]), "not before it began");
    assert!(!passes(&[("1 0-1 failed", PUT_A), ("2 3-4 ok", GET_A)]), "failed is never");
    let chain = [("1 0- unknown", PUT_A), ("2 1- unknown", SILENT_A_B), ("3 2-3 ok", GET_B)];
    assert!(passes(&chain), "a write seen only by a swap that is seen");
    let deleted = [("1 0-1 ok", PUT_A), ("2 1- unknown", DELETE), ("3 2-3 ok", GET_NONE)];
    assert!(passes(&deleted));
    let once = [
        ("1 0- unknown", PUT_A),
        ("2 1-2 ok", GET_A),
        ("2 3-4 ok", PUT_B),
        ("2 5-6 ok", GET_B),
        ("2 7-8 ok", GET_A),
    ];
    assert!(!passes(&once), "takes effect once");
    let silent = [
        ("1 0-1 ok", PUT_A),
        ("2 2- unknown", PUT_B),
        ("3 3-4 ok", SILENT_A_B),
        ("3 5-6 ok", GET_B),
    ];
    assert!(passes(&silent));
}

#[test]
fn says_where_it_is_stuck() {
    let history = of(&[("1 0-1 ok", PUT_A), ("1 2-3 ok", GET_A), ("1 4-5 ok", GET_B)]);
    let verdict = linearizable(&history, &Options::default());
    let what = "not linearizable: key k: at most 2 of 3 acknowledged operations fit one order; then the \
                key holds a and none of these can be next";
    assert_found(&verdict, &[(what, &[2])]);
    assert_eq!(verdict.checked, 3);
}

#[test]
fn a_spent_budget_is_no_pass() {
    let history = of(&[("1 0-1 ok", PUT_A), ("1 2-3 ok", PUT_B), ("1 4-5 ok", GET_B)]);
    let options = |steps_max| Options { steps_max, ..Options::default() };
    let verdict = linearizable(&history, &options(1));
    assert!(verdict.exhausted && verdict.violations.is_empty() && !verdict.ok());
    assert!(linearizable(&history, &options(2)).ok());
}

const LARGE: Load =
    Load { operations: 10_000, keys: 32, clients: 16, unknown_percent: 5, few_values: false };

#[test]
fn ten_thousand_operations_take_few_steps() {
    let history = simulate(1, LARGE);
    let unknown = history.operations().iter().filter(|op| op.outcome == Outcome::Unknown).count();
    assert!((400..700).contains(&unknown), "{unknown}");
    // A key has about 310 operations; every step beyond is a choice that was taken back.
    let options = Options { steps_max: 400, ..Options::default() };
    let verdict = linearizable(&history, &options);
    assert!(verdict.ok(), "{verdict:?}");
    assert!(verdict.checked > 9_000);
}

fn small() -> impl Strategy<Value = (u64, Load)> {
    let load = (20..200_usize, 1..4_usize, 2..6_usize, 0..30_usize, any::<bool>());
    (any::<u64>(), load).prop_map(|(seed, (operations, keys, clients, unknown_percent, few))| {
        (seed, Load { operations, keys, clients, unknown_percent, few_values: few })
    })
}

/// Tries every order of every choice of unknown operations; nothing is left out but what was tried.
fn brute_force(history: &History) -> bool {
    let operations: Vec<&Operation> =
        history.operations().iter().filter(|op| op.outcome != Outcome::Failed).collect();
    place(&operations, &mut vec![false; operations.len()], &None, &mut BTreeSet::new())
}

type Tried = BTreeSet<(Vec<bool>, Option<Blob>)>;

fn place(
    operations: &[&Operation],
    placed: &mut Vec<bool>,
    state: &Option<Blob>,
    tried: &mut Tried,
) -> bool {
    let waits = |at: &usize| !placed[*at] && operations[*at].is_ok();
    let left: Vec<usize> = (0..operations.len()).filter(waits).collect();
    if left.is_empty() {
        return true;
    }
    if !tried.insert((placed.clone(), state.clone())) {
        return false;
    }
    for at in 0..operations.len() {
        let next = operations[at];
        if placed[at] || left.iter().any(|&other| operations[other].precedes(next)) {
            continue;
        }
        if let Some(after) = step(next, state) {
            placed[at] = true;
            let found = place(operations, placed, &after, tried);
            placed[at] = false;
            if found {
                return true;
            }
        }
    }
    false
}

/// The value after the operation, given its answer; none if it cannot happen.
fn step(operation: &Operation, state: &Option<Blob>) -> Option<Option<Blob>> {
    let known = operation.is_ok();
    match &operation.op {
        Op::Get { value, .. } => (!known || value == state).then(|| state.clone()),
        Op::Put { value, .. } => Some(Some(value.clone())),
        Op::Delete { .. } => Some(None),
        Op::Cas { expected, value, swapped, previous, .. } => {
            let swaps = state == expected;
            let says = !known
                || swapped.is_none_or(|swapped| swapped == swaps)
                    && previous.as_ref().is_none_or(|previous| previous == state);
            says.then(|| if swaps { Some(value.clone()) } else { state.clone() })
        }
        _ => None,
    }
}

/// Changes an answer, a time or an outcome, at random.
fn damage(history: &History, seed: u64) -> History {
    let mut rng = Rng::new(seed);
    let mut operations = history.operations().to_vec();
    let at = rng.below(operations.len());
    let values: Vec<Option<Blob>> = std::iter::once(None)
        .chain(operations.iter().filter_map(|operation| match &operation.op {
            Op::Put { value, .. } => Some(Some(value.clone())),
            _ => None,
        }))
        .collect();
    let another = rng.pick(&values).unwrap();
    let operation = &mut operations[at];
    match &mut operation.op {
        _ if rng.percent(20) => operation.outcome = Outcome::Failed,
        _ if rng.percent(30) => {
            let shift = rng.below(40) as u64;
            operation.invoke += shift;
            operation.complete = operation.complete.map(|complete| complete + shift);
        }
        Op::Get { value, .. } => *value = another,
        Op::Cas { swapped: Some(swapped), .. } => *swapped = !*swapped,
        Op::Cas { previous, .. } => *previous = Some(another),
        Op::Put { value, .. } => *value = another.unwrap_or_default(),
        _ => operation.outcome = Outcome::Failed,
    }
    operations.try_into().unwrap()
}

/// A read that returns a value never written, or one that was overwritten long ago.
fn break_a_read(history: &History, seed: u64) -> Option<History> {
    let mut rng = Rng::new(seed);
    let mut operations = history.operations().to_vec();
    let reads: Vec<usize> = (0..operations.len())
        .filter(|&at| operations[at].is_ok() && matches!(operations[at].op, Op::Get { .. }))
        .collect();
    let at = rng.pick(&reads)?;
    if let Op::Get { value, .. } = &mut operations[at].op {
        *value = Some(Blob::from("nobody wrote this"));
    }
    Some(operations.try_into().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn simulated_histories_pass((seed, load) in small()) {
        let history = simulate(seed, load);
        let verdict = linearizable(&history, &Options::default());
        prop_assert!(verdict.ok(), "{verdict:?}");
    }

    #[test]
    fn a_value_from_nowhere_is_noticed((seed, load) in small()) {
        let history = break_a_read(&simulate(seed, load), seed);
        prop_assume!(history.is_some());
        let verdict = linearizable(&history.unwrap(), &Options::default());
        prop_assert!(!verdict.ok());
    }

    /// With one client at a time an acknowledged write that is not there is always noticed by the final
    /// read, if it was the last.
    #[test]
    fn a_lost_last_write_is_noticed(seed: u64) {
        let load = Load { operations: 40, keys: 2, clients: 1, unknown_percent: 0, few_values: false };
        let mut operations = simulate(seed, load).operations().to_vec();
        let last = operations.iter().rposition(|op| op.is_ok() && matches!(op.op, Op::Put { .. }));
        prop_assume!(last.is_some());
        let Op::Put { key, value } = operations[last.unwrap()].op.clone() else { return Ok(()) };
        let seen = operations.iter().any(|op| {
            op.is_final && op.op == Op::Get { key: key.clone(), value: Some(value.clone()) }
        });
        prop_assume!(seen);
        operations[last.unwrap()].outcome = Outcome::Failed;
        let verdict = linearizable(&operations.try_into().unwrap(), &Options::default());
        prop_assert!(!verdict.ok());
    }
}

/// Takes answers of compare-and-swap away, so that they only may have swapped.
fn silence(history: &History, rng: &mut Rng) -> History {
    let mut operations = history.operations().to_vec();
    for operation in &mut operations {
        if let Op::Cas { swapped, previous, .. } = &mut operation.op
            && rng.percent(50)
        {
            (*swapped, *previous) = (None, None);
        }
    }
    operations.try_into().unwrap()
}

/// Both answers must occur often, or the comparison means little.
#[test]
fn a_search_without_cleverness_agrees() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..4_000 {
        let mut rng = Rng::new(seed);
        let load = Load {
            operations: 4 + rng.below(4),
            keys: 1,
            clients: 2 + rng.below(3),
            unknown_percent: 10 + rng.below(60),
            few_values: rng.percent(70),
        };
        let mut history = silence(&simulate(seed, load), &mut rng);
        for change in 0..2 {
            history = damage(&history, 2 * seed + change);
        }
        let verdict = linearizable(&history, &Options::default());
        assert!(!verdict.exhausted);
        assert_eq!(verdict.ok(), brute_force(&history), "seed {seed}: {history:#?}");
        if verdict.ok() { good += 1 } else { bad += 1 }
    }
    assert!(good > 500 && bad > 500, "{good} good, {bad} bad");
}
