//! Isolation of list-append transactions: one history by hand for each anomaly.

use cribwork_checker::{History, Isolation, Options, Verdict, append};
use proptest::prelude::*;

use crate::lines::{assert_found, short};
use crate::store::{Load, simulate};

/// Transactions written as `invoke-complete outcome: steps`, a step being `x+1` for an append of 1 to
/// `x`, or `x=1,2` for a read of it.
pub(crate) fn txns(isolation: &str, lines: &[&str]) -> History {
    let lines: Vec<String> = lines.iter().enumerate().map(|(n, l)| txn(isolation, n, l)).collect();
    short(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

fn txn(isolation: &str, number: usize, line: &str) -> String {
    let (head, steps) = line.split_once(':').unwrap();
    let steps: Vec<String> = steps
        .split_whitespace()
        .map(|step| match step.split_once('+') {
            Some((key, element)) => {
                format!(r#"{{"kind":"append","key":"{key}","element":{element}}}"#)
            }
            None => {
                let (key, elements) = step.split_once('=').unwrap();
                format!(r#"{{"kind":"list","key":"{key}","elements":[{elements}]}}"#)
            }
        })
        .collect();
    let start = 1 + 10 * number;
    format!(
        r#"{number} {head} {{"kind":"txn","start_ts":{start},"commit_ts":null,"steps":[{}],"isolation":"{isolation}"}}"#,
        steps.join(",")
    )
}

fn check(isolation: &str, strict: bool, lines: &[&str]) -> Verdict {
    append(&txns(isolation, lines), &Options { strict, ..Options::default() })
}

/// All at the same time unless the times say otherwise; the same under both promises.
#[track_caller]
fn always(lines: &[&str], expected: &[(&str, &[usize])]) {
    for isolation in ["snapshot", "serializable"] {
        assert_found(&check(isolation, false, lines), expected);
    }
}

#[test]
fn what_is_in_order_passes() {
    let lines = [
        "0-1 ok: x+1 y+1",
        "2-3 ok: x=1 x+2 x=1,2",
        "4-5 unknown: x+3 x=9",
        "6-7 ok: x=1,2,3 y=1",
        "8-9 failed: x+4",
        "10-11 unknown: x+5",
        "12-13 ok: x=1,2,3",
    ];
    for isolation in ["snapshot", "serializable"] {
        let verdict = check(isolation, true, &lines[..2]);
        assert_found(&verdict, &[]);
        assert_eq!(verdict.checked, 2);
    }
    let mut lines = lines.to_vec();
    lines[2] = "4-5 unknown: x+3";
    let verdict = check("serializable", true, &lines);
    assert_found(&verdict, &[]);
    assert_eq!(verdict.checked, 5, "the unknown one whose element is seen counts, the other not");
}

#[test]
fn reads_that_no_list_explains() {
    always(&["0-9 ok: x+1", "0-9 ok: x=1,1"], &[("duplicate-element", &[1])]);
    always(&["0-9 ok: x=7"], &[("unwritten-element", &[0])]);
    always(&["0-9 failed: x+1", "0-9 ok: x=1"], &[("G1a", &[1, 0])]);
    always(&["0-9 ok: x+1 x+2", "0-9 ok: x=1"], &[("G1b", &[1, 0]), ("G-single", &[0, 1])]);
    always(&["0-9 ok: x+1", "0-9 ok: x+1"], &[("repeated-append", &[0, 1])]);
    let orders = ["0-9 ok: x+1", "0-9 ok: x+2", "0-9 ok: x=1,2", "0-9 ok: x=2"];
    for isolation in ["snapshot", "serializable"] {
        let verdict = check(isolation, false, &orders);
        assert!(verdict.violations[0].what.starts_with("incompatible-order"), "{verdict:?}");
        assert_eq!(verdict.violations[0].ops, [3, 2]);
    }
}

#[test]
fn reads_that_contradict_the_transaction_itself() {
    always(&["0-9 ok: x+1 x="], &[("internal", &[0])]);
    always(&["0-9 ok: x=1 x+1"], &[("internal", &[0])]);
    always(&["0-9 ok: x+1", "0-9 ok: x= x=1"], &[("internal", &[1]), ("G-single", &[0, 1])]);
    always(&["0-9 ok: x+1", "0-9 ok: x=1 x+2 x=1,2"], &[]);
}

#[test]
fn cycles_are_named() {
    let reader = "0-9 ok: x=1,2 y=2,1";
    let g0 = ["0-9 ok: x+1 y+1", "0-9 ok: x+2 y+2", reader];
    for isolation in ["snapshot", "serializable"] {
        let verdict = check(isolation, false, &g0);
        assert!(verdict.violations[0].what.starts_with("G0: 0 -ww-> 1"), "{verdict:?}");
    }
    always(&["0-9 ok: x+1 y=1", "0-9 ok: y+1 x=1"], &[("G1c: 0 -wr-> 1 -wr-> 0", &[1, 0])]);
    always(&["0-9 ok: x+1 y+1", "0-9 ok: x=1 y="], &[("G-single: 1 -rw-> 0 -wr-> 1", &[0, 1])]);
    let nonadjacent = ["0-9 ok: a= d=1", "0-9 ok: a+1 b+1", "0-9 ok: b=1 c=", "0-9 ok: c+1 d+1"];
    always(&nonadjacent, &[("G-nonadjacent", &[1, 2, 3, 0])]);
    let skew = ["0-9 ok: x= y+1", "0-9 ok: y= x+1"];
    assert_found(&check("snapshot", true, &skew), &[]);
    assert_found(&check("serializable", false, &skew), &[("G2-item", &[1, 0])]);
}

#[test]
fn lost_updates_are_noticed_even_if_nobody_looks() {
    let lines = ["0-1 ok: x= x+1", "2-3 ok: x= x+2"];
    let found = check("snapshot", false, &lines);
    assert_found(&found, &[("lost-update", &[0, 1])]);
    let seen = ["0-1 ok: x= x+1", "2-3 ok: x= x+2", "4-5 ok: x=2,1"];
    let verdict = check("snapshot", false, &seen);
    assert!(verdict.violations.iter().any(|v| v.what.starts_with("G-single")), "{verdict:?}");
}

#[test]
fn real_time_counts_if_asked() {
    let stale = ["0-1 ok: x+1", "2-3 ok: x="];
    for isolation in ["snapshot", "serializable"] {
        assert_found(&check(isolation, false, &stale), &[]);
        let found = check(isolation, true, &stale);
        assert_found(&found, &[("G-single-realtime: 1 -rw-> 0 -realtime-> 1", &[0, 1])]);
        assert_found(&check(isolation, true, &["0-2 ok: x+1", "2-3 ok: x="]), &[]);
        assert_found(&check(isolation, true, &["0-1 unknown: x+1", "2-3 ok: x="]), &[]);
    }
}

#[test]
fn a_mixed_cycle_is_judged_by_its_weakest_promise() {
    let mut text = Vec::new();
    txns("serializable", &["0-9 ok: x= y+1"]).write(&mut text).unwrap();
    txns("snapshot", &["0-9 ok: y= x+1"]).write(&mut text).unwrap();
    let history = History::read(&text[..]).unwrap();
    assert_found(&append(&history, &Options::default()), &[]);
}

fn load() -> impl Strategy<Value = (u64, Load)> {
    let sizes = (10..150_usize, 1..5_usize, 1..8_usize, 0..20_usize);
    (any::<u64>(), sizes, any::<bool>()).prop_map(
        |(seed, (transactions, keys, clients, unknown_percent), snapshot)| {
            let isolation = if snapshot { Isolation::Snapshot } else { Isolation::Serializable };
            let registers = false;
            (seed, Load { transactions, keys, clients, isolation, unknown_percent, registers })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn simulated_histories_pass((seed, load) in load()) {
        let (history, _) = simulate(seed, load);
        let verdict = append(&history, &Options::default());
        prop_assert!(verdict.ok(), "{verdict:?}");
    }
}

/// A store that only keeps snapshots is told from a serializable one.
#[test]
fn write_skew_shows_in_simulated_histories() {
    let caught = (0..50).filter(|&seed| {
        let isolation = Isolation::Snapshot;
        let (transactions, keys, clients, unknown_percent) = (60, 3, 6, 0);
        let registers = false;
        let load = Load { transactions, keys, clients, isolation, unknown_percent, registers };
        let (history, _) = simulate(seed, load);
        let mut text = Vec::new();
        history.write(&mut text).unwrap();
        let claimed = String::from_utf8(text).unwrap().replace("\"snapshot\"", "\"serializable\"");
        let verdict = append(&History::read(claimed.as_bytes()).unwrap(), &Options::default());
        verdict.violations.iter().any(|violation| violation.what.starts_with("G2-item"))
    });
    assert!(caught.count() > 40);
}
