//! Checkers that look at one kind of observation: bank, long forks, timestamps, watermarks, fingerprints.

use cribwork_checker::{
    Blob, History, Isolation, Op, Options, Step, VIOLATIONS_MAX, Verdict, bank, fingerprints,
    long_fork, timestamps, watermark,
};
use proptest::prelude::*;

use crate::lines::{assert_found, short};
use crate::rng::Rng;
use crate::store::{Load, simulate};

#[track_caller]
fn found(check: fn(&History, &Options) -> Verdict, lines: &[&str], expected: &[(&str, &[usize])]) {
    assert_found(&check(&short(lines), &Options::default()), expected);
}

fn balances(start_ts: u64, balances: &str) -> String {
    format!(
        r#"1 {start_ts}-{start_ts} ok {{"kind":"bank","start_ts":{start_ts},"balances":{balances}}}"#
    )
}

#[test]
fn money_is_conserved() {
    let at = |ts, text: &str| balances(ts, text);
    let first = at(1, r#"{"a":60,"b":40}"#);
    let check =
        |other: &str, expected: &[(&str, &[usize])]| found(bank, &[&first, other], expected);
    check(&at(2, r#"{"a":0,"b":100}"#), &[]);
    check(&at(2, r#"{"a":60,"b":41}"#), &[("wrong total: 101 instead of 100", &[1])]);
    check(&at(2, r#"{"a":-1,"b":101}"#), &[("negative balance: a has -1", &[1])]);
    check(&at(2, r#"{"a":100}"#), &[("other accounts", &[0, 1])]);
    check(&at(1, r#"{"a":50,"b":50}"#), &[("two states at timestamp 1", &[0, 1])]);
    check(&at(2, r#"{"a":1,"b":1}"#).replace("ok", "unknown"), &[]);
    let options = Options { bank_total: Some(99), ..Options::default() };
    assert_found(&bank(&short(&[&first]), &options), &[("wrong total: 100 instead of 99", &[0])]);
}

#[test]
fn violations_beyond_the_limit_are_counted() {
    let mut lines = vec![balances(1, r#"{"a":0}"#)];
    lines.extend((0..VIOLATIONS_MAX as u64 + 7).map(|n| balances(n + 2, r#"{"a":1}"#)));
    let verdict =
        bank(&short(&lines.iter().map(String::as_str).collect::<Vec<_>>()), &Options::default());
    assert_eq!((verdict.violations.len(), verdict.unlisted), (VIOLATIONS_MAX, 7));
}

fn txn(head: &str, start: u64, commit: &str, steps: &[(&str, &str, &str)]) -> String {
    let steps: Vec<String> = steps
        .iter()
        .map(|(kind, key, value)| format!(r#"{{"kind":"{kind}","key":"{key}","value":{value}}}"#))
        .collect();
    format!(
        r#"{head} {{"kind":"txn","start_ts":{start},"commit_ts":{commit},"isolation":"snapshot","steps":[{}]}}"#,
        steps.join(",")
    )
}

#[test]
fn two_reads_agree_on_the_order_of_two_writes() {
    let read = |x, y| txn("9 0-9 ok", 9, "null", &[("get", "x", x), ("get", "y", y)]);
    let x = txn("1 0-9 ok", 1, "null", &[("put", "x", r#""1""#)]);
    let y = txn("2 0-9 ok", 2, "null", &[("put", "y", r#""1""#)]);
    let (none, both) = (read("null", "null"), read(r#""1""#, r#""1""#));
    let (x_first, y_first) = (read(r#""1""#, "null"), read("null", r#""1""#));
    found(long_fork, &[&x, &y, &none, &x_first, &both], &[]);
    found(long_fork, &[&x, &y, &none, &y_first, &both], &[]);
    let fork = [("long fork: x and y", &[3, 2][..])];
    found(long_fork, &[&x, &y, &x_first, &y_first, &both], &fork);
    // What a transaction wrote itself says nothing about others.
    let own = [("put", "x", r#""1""#), ("get", "x", r#""1""#), ("get", "y", "null")];
    found(long_fork, &[&txn("1 0-9 ok", 1, "null", &own), &y, &y_first], &[]);
    let failed = y_first.replace("ok", "failed");
    found(long_fork, &[&x, &y, &x_first, &failed], &[]);
    let budget = Options { steps_max: 1, ..Options::default() };
    let verdict = long_fork(&short(&[&x, &y, &x_first, &y_first]), &budget);
    assert!(verdict.exhausted && !verdict.ok());
}

#[test]
fn versions_of_a_fork_are_ordered_by_commit() {
    let put = |ts: u64, value| {
        let (x, y) = (("put", "x", value), ("put", "y", value));
        txn("1 0-9 ok", ts, &(ts + 1).to_string(), &[x, y])
    };
    let read = |x, y| txn("9 0-9 ok", 9, "null", &[("get", "x", x), ("get", "y", y)]);
    let writes = [put(1, r#""a""#), put(5, r#""b""#)];
    let (ab, ba) = (read(r#""a""#, r#""b""#), read(r#""b""#, r#""a""#));
    found(long_fork, &[&writes[0], &writes[1], &ab, &ba], &[("long fork", &[2, 3])]);
    let aa = read(r#""a""#, r#""a""#);
    found(long_fork, &[&writes[0], &writes[1], &aa, &ba], &[]);
    let twice = put(7, r#""a""#);
    found(long_fork, &[&writes[0], &writes[1], &twice, &ab, &ba], &[]);
}

#[test]
fn timestamps_are_unique_and_rise() {
    let answer = |times: &str, first: u64, count: u64| {
        format!(r#"1 {times} ok {{"kind":"timestamps","first":{first},"count":{count}}}"#)
    };
    let first = answer("0-1", 10, 5);
    let check = |other: &str, expected: &[(&str, &[usize])]| {
        found(timestamps, &[&first, other], expected);
    };
    check(&answer("2-3", 15, 1), &[]);
    check(&answer("1-3", 9, 1), &[]);
    check(&answer("2-3", 9, 1), &[("not rising: 9 after 14", &[0, 1])]);
    check(&answer("1-3", 14, 1), &[("not unique: 14", &[0, 1])]);
    check(&answer("1-3", 6, 5), &[("not unique: 10", &[1, 0])]);
    // One that contains a later-numbered one and reaches beyond it.
    let (wide, inside, touching) = (answer("0-9", 1, 9), answer("0-9", 2, 1), answer("0-9", 9, 1));
    found(
        timestamps,
        &[&wide, &inside, &touching],
        &[("not unique: 2", &[0, 1]), ("not unique: 9", &[0, 2])],
    );
    // The predecessor with the highest number counts, not the latest.
    let (high, low, last) = (answer("0-1", 50, 1), answer("0-2", 20, 1), answer("3-4", 30, 1));
    found(timestamps, &[&high, &low, &last], &[("not rising: 30 after 50", &[0, 2])]);
}

#[test]
fn watermarks_do_not_fall_within_a_life() {
    let seen = |process: u64, times: &str, of: &str, value: u64| {
        format!(
            r#"{process} {times} ok {{"kind":"watermark","name":"commit","of":"{of}","value":{value}}}"#
        )
    };
    let first = seen(1, "0-1", "range 7", 5);
    let check = |other: &str, expected: &[(&str, &[usize])]| {
        found(watermark, &[&first, other], expected);
    };
    check(&seen(1, "2-3", "range 7", 5), &[]);
    check(&seen(1, "2-3", "range 7", 4), &[("fell: commit of range 7", &[0, 1])]);
    check(&seen(1, "1-1", "range 7", 4), &[("fell", &[0, 1])]);
    check(&seen(2, "2-3", "range 7", 4), &[]);
    check(&seen(1, "2-3", "range 8", 4), &[]);
    let instants = [seen(1, "4-4", "r", 1), seen(1, "4-4", "r", 2), seen(1, "4-4", "r", 3)];
    found(watermark, &[&instants[0], &instants[1], &instants[2]], &[]);
}

#[test]
fn replicas_at_one_index_are_equal() {
    let of = |range: u64, index: u64, store: u64, hash: u64| {
        format!(
            r#"1 0-1 ok {{"kind":"fingerprint","range":{range},"index":{index},"store":{store},"hash":{hash}}}"#
        )
    };
    let first = of(1, 10, 1, 255);
    let check = |other: &str, expected: &[(&str, &[usize])]| {
        found(fingerprints, &[&first, other], expected);
    };
    check(&of(1, 10, 2, 255), &[]);
    check(&of(1, 11, 2, 256), &[]);
    check(&of(2, 10, 2, 256), &[]);
    check(&of(1, 10, 2, 256), &[("diverged: range 1 at index 10", &[0, 1])]);
    check(&of(1, 10, 1, 256), &[("diverged", &[0, 1])]);
    let verdict = fingerprints(&short(&[&first, &of(2, 10, 2, 256)]), &Options::default());
    assert_eq!(verdict.checked, 0, "nothing was compared");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn snapshots_have_no_forks_until_one_is_put_in(seed: u64) {
        let (isolation, registers) = (Isolation::Snapshot, true);
        let (transactions, keys, clients, unknown_percent) = (60, 3, 4, 0);
        let load = Load { transactions, keys, clients, isolation, unknown_percent, registers };
        let (history, dump) = simulate(seed, load);
        let verdict = long_fork(&history, &Options::default());
        prop_assert!(verdict.ok(), "{verdict:?}");

        // Two keys, each with two values of known writers, read crosswise.
        let values = |key: &Blob| -> Vec<Blob> {
            let known = |ts| history.transactions().any(|(_, _, txn)| txn.commit_ts == Some(ts));
            let versions = dump.versions(key).iter().filter(|version| known(version.commit_ts));
            versions.filter_map(|version| version.value.clone()).collect()
        };
        let keys: Vec<(Blob, Vec<Blob>)> = (0..3)
            .map(|number| Blob::from(format!("r{number}")))
            .map(|key| (key.clone(), values(&key)))
            .filter(|(_, values)| values.len() > 1)
            .collect();
        prop_assume!(keys.len() > 1);
        let mut operations = history.operations().to_vec();
        for (x, y) in [(0, 1), (1, 0)] {
            let mut read = history.finals().next().unwrap().1.clone();
            let Op::Txn(txn) = &mut read.op else { unreachable!() };
            let get = |(key, values): &(Blob, Vec<Blob>), at: usize| {
                Step::Get { key: key.clone(), value: Some(values[at].clone()) }
            };
            txn.steps = vec![get(&keys[0], x), get(&keys[1], y)];
            operations.push(read);
        }
        let verdict = long_fork(&operations.try_into().unwrap(), &Options::default());
        prop_assert!(!verdict.ok());
    }

    #[test]
    fn an_oracle_is_believed_until_it_repeats_itself(seed: u64) {
        let mut rng = Rng::new(seed);
        let (mut next, mut lines) = (1, Vec::new());
        for at in 0..50_usize {
            let count = 1 + rng.below(5);
            // Under way from up to 20 ns before its moment until up to 20 ns after.
            let (invoke, complete) = (100 + 4 * at - rng.below(20), 100 + 4 * at + rng.below(20));
            lines.push(format!(
                r#"{at} {invoke}-{complete} ok {{"kind":"timestamps","first":{next},"count":{count}}}"#
            ));
            next += count;
        }
        let check = |lines: &[String]| {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            timestamps(&short(&lines), &Options::default())
        };
        let verdict = check(&lines);
        prop_assert!(verdict.ok(), "{verdict:?}");
        // An answer is given again, to another client; or two far apart are swapped.
        let mut repeated = lines.clone();
        repeated.push(lines[rng.below(lines.len())].clone());
        prop_assert!(!check(&repeated).ok());
        let op = |line: &str| line.split_once('{').unwrap().1.to_owned();
        let head = |line: &str| line.split_once('{').unwrap().0.to_owned();
        let (early, late) = (rng.below(10), 40 + rng.below(10));
        let mut swapped = lines.clone();
        swapped[early] = format!("{}{{{}", head(&lines[early]), op(&lines[late]));
        swapped[late] = format!("{}{{{}", head(&lines[late]), op(&lines[early]));
        prop_assert!(!check(&swapped).ok());
    }
}
