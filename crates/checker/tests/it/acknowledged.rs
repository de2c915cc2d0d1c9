//! What was acknowledged is there in the end.

use cribwork_checker::{
    Blob, Isolation, Op, Operation, Options, Outcome, Step, Verdict, acknowledged,
};
use proptest::prelude::*;

use crate::lines::{assert_found, short};
use crate::rng::Rng;
use crate::{registers, store};

fn check(lines: &[&str]) -> Verdict {
    acknowledged(&short(lines), &Options::default())
}

const PUT_A: &str = r#"{"kind":"put","key":"k","value":"a"}"#;
const PUT_B: &str = r#"{"kind":"put","key":"k","value":"b"}"#;
const DELETE: &str = r#"{"kind":"delete","key":"k"}"#;
const CAS_B: &str = r#"{"kind":"cas","key":"k","expected":"a","value":"b"}"#;

/// Raw operations, and what the final read gives, in JSON.
#[track_caller]
fn raw(operations: &[(&str, &str)], value: &str, expected: &[(&str, &[usize])]) {
    let mut lines: Vec<String> =
        operations.iter().map(|(head, op)| format!("{head} {op}")).collect();
    lines.push(format!(r#"9 90-91 ok final {{"kind":"get","key":"k","value":{value}}}"#));
    assert_found(&check(&lines.iter().map(String::as_str).collect::<Vec<_>>()), expected);
}

#[test]
fn the_last_write_stays() {
    let in_order = [("1 0-1 ok", PUT_A), ("1 2-3 ok", PUT_B)];
    raw(&in_order, r#""b""#, &[]);
    raw(&in_order, r#""a""#, &[("overwritten or failed", &[0, 2])]);
    raw(&in_order, "null", &[("acknowledged but lost", &[1, 2])]);
    raw(&in_order, r#""c""#, &[("acknowledged but lost", &[1, 2])]);
    let at_once = [("1 0-3 ok", PUT_A), ("2 2-3 ok", PUT_B)];
    raw(&at_once, r#""a""#, &[]);
    raw(&at_once, r#""b""#, &[]);
    raw(&[("1 0-1 ok", PUT_A), ("1 2-3 ok", DELETE)], "null", &[]);
    raw(
        &[("1 0-1 ok", DELETE), ("1 2-3 ok", PUT_A)],
        "null",
        &[("overwritten or failed", &[0, 2])],
    );
    raw(&[], "null", &[]);
    raw(&[], r#""c""#, &[("from nowhere", &[0])]);
}

#[test]
fn failed_and_unknown_writes() {
    raw(&[("1 0-1 failed", PUT_A)], r#""a""#, &[("overwritten or failed", &[0, 1])]);
    raw(&[("1 0-1 failed", PUT_A)], "null", &[]);
    let late = [("1 0- unknown", PUT_A), ("2 2-3 ok", PUT_B)];
    raw(&late, r#""a""#, &[]);
    raw(&late, r#""b""#, &[]);
    raw(&late, "null", &[("acknowledged but lost", &[1, 2])]);
    let silent = [("1 0-1 ok", PUT_A), ("2 2-3 ok", CAS_B)];
    raw(&silent, r#""a""#, &[]);
    raw(&silent, r#""b""#, &[]);
    let lost = CAS_B.replace("}", r#","swapped":false}"#);
    raw(
        &[("1 0-1 ok", PUT_A), ("2 2-3 ok", &lost)],
        r#""b""#,
        &[("acknowledged but lost", &[0, 2])],
    );
}

#[test]
fn a_key_without_final_read_is_not_passed_over() {
    let verdict = check(&[
        r#"1 0-1 ok {"kind":"put","key":"other","value":"a"}"#,
        r#"1 2-3 ok final {"kind":"get","key":"k","value":null}"#,
    ]);
    assert_found(&verdict, &[("no final read of other", &[0])]);
}

fn txn(head: &str, start: u64, commit: &str, steps: &str) -> String {
    format!(
        r#"{head} {{"kind":"txn","start_ts":{start},"commit_ts":{commit},"steps":[{steps}],"isolation":"snapshot"}}"#
    )
}

#[test]
fn transactions_are_ordered_by_commit() {
    let put = |value| format!(r#"{{"kind":"put","key":"k","value":"{value}"}}"#);
    // The one that answers first commits last.
    let first = txn("1 0-1 ok", 1, "9", &put("a"));
    let second = txn("2 2-3 ok", 4, "5", &put("b"));
    for (value, fine) in [("a", true), ("b", false)] {
        let read = format!(r#"{{"kind":"get","key":"k","value":"{value}"}}"#);
        let last = txn("3 8-9 ok final", 10, "null", &read);
        assert_eq!(check(&[&first, &second, &last]).ok(), fine, "{value}");
    }
}

#[test]
fn lists_hold_what_was_appended() {
    let append = |element| format!(r#"{{"kind":"append","key":"l","element":{element}}}"#);
    let lines = [
        txn("1 0-1 ok", 1, "2", &append(1)),
        txn("1 2-3 failed", 3, "null", &append(2)),
        txn("1 4-5 unknown", 5, "null", &append(3)),
    ];
    let with = |elements: &str| {
        let read = format!(r#"{{"kind":"list","key":"l","elements":[{elements}]}}"#);
        let last = txn("2 8-9 ok final", 9, "null", &read);
        check(&[&lines[0], &lines[1], &lines[2], &last])
    };
    assert_found(&with("1"), &[]);
    assert_found(&with("1,3"), &[]);
    assert_found(&with("3"), &[("acknowledged but lost: element 1", &[0, 3])]);
    assert_found(&with("1,2"), &[("failed but there: element 2", &[1, 3])]);
    assert_found(&with("1,1"), &[("twice in the end: element 1", &[3])]);
    assert_found(&with("1,7"), &[("from nowhere: element 7", &[3])]);
    let unread = txn("2 8-9 ok final", 9, "null", r#"{"kind":"list","key":"m","elements":[]}"#);
    assert_found(&check(&[&lines[0], &unread]), &[("no final read of list l", &[0])]);
}

fn check_all(operations: Vec<Operation>) -> Verdict {
    acknowledged(&operations.try_into().unwrap(), &Options::default())
}

fn raw_load(seed: u64) -> registers::Load {
    let mut rng = Rng::new(!seed);
    let (operations, keys, clients) = (5 + rng.below(80), 1 + rng.below(3), 1 + rng.below(5));
    registers::Load { operations, keys, clients, unknown_percent: rng.below(30), few_values: false }
}

fn txn_load(seed: u64) -> store::Load {
    let mut rng = Rng::new(!seed);
    let (transactions, keys, clients) = (5 + rng.below(60), 1 + rng.below(3), 1 + rng.below(5));
    let isolation = Isolation::Snapshot;
    store::Load { transactions, keys, clients, isolation, unknown_percent: 10, registers: true }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn simulated_histories_pass(seed: u64) {
        for history in [registers::simulate(seed, raw_load(seed)), store::simulate(seed, txn_load(seed)).0] {
            let verdict = acknowledged(&history, &Options::default());
            prop_assert!(verdict.ok(), "{verdict:?}");
            prop_assert!(verdict.checked > 0);
        }
    }

    /// A value that a final read gives cannot be of a failed write, for values are unique.
    #[test]
    fn a_failed_write_that_stays_is_noticed(seed: u64) {
        let mut operations = registers::simulate(seed, raw_load(seed)).operations().to_vec();
        let values: Vec<Blob> = operations.iter().filter(|op| op.is_final).filter_map(|op| match &op.op {
            Op::Get { value, .. } => value.clone(),
            _ => None,
        }).collect();
        prop_assume!(!values.is_empty());
        for operation in &mut operations {
            if let Op::Put { value, .. } | Op::Cas { value, .. } = &operation.op && values.contains(value) {
                operation.outcome = Outcome::Failed;
            }
        }
        prop_assert!(!check_all(operations).ok());
    }

    #[test]
    fn a_lost_or_doubled_element_is_noticed(seed: u64, lose: bool) {
        let (history, _) = store::simulate(seed, txn_load(seed));
        let mut operations = history.operations().to_vec();
        let acknowledged: Vec<u64> = history
            .transactions()
            .filter(|(_, operation, _)| operation.is_ok())
            .flat_map(|(_, _, txn)| &txn.steps)
            .filter_map(|step| match step { Step::Append { element, .. } => Some(*element), _ => None })
            .collect();
        prop_assume!(!acknowledged.is_empty());
        let chosen = Rng::new(seed).pick(&acknowledged).unwrap();
        let Op::Txn(last) = &mut operations.last_mut().unwrap().op else { unreachable!() };
        for step in &mut last.steps {
            if let Step::List { elements, .. } = step
                && let Some(at) = elements.iter().position(|&element| element == chosen)
            {
                if lose { elements.remove(at); } else { elements.push(chosen); }
            }
        }
        prop_assert!(!check_all(operations).ok());
    }
}
