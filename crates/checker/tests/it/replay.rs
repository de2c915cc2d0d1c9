//! Replay of transactions against a dump, and mistakes in either.

use cribwork_checker::{
    Blob, Dump, History, Isolation, Op, Options, Outcome, Step, Verdict, Version, replay,
};
use proptest::prelude::*;

use crate::lines::{assert_found, dump, short};
use crate::rng::Rng;
use crate::store::{Load, simulate};

/// A transaction that reads `a` and `b` at 10 and leaves `a=1` and no `b` at 12.
const WRITER: &str = r#"1 0-9 ok {"kind":"txn","start_ts":10,"commit_ts":12,"isolation":"snapshot","steps":[
    {"kind":"get","key":"a","value":"0"},{"kind":"put","key":"a","value":"1"},
    {"kind":"get","key":"a","value":"1"},{"kind":"delete","key":"b"}]}"#;
const READER: &str = r#"2 0-9 ok {"kind":"txn","start_ts":13,"commit_ts":null,"isolation":"snapshot","steps":[
    {"kind":"get","key":"a","value":"1"},{"kind":"get","key":"b","value":null}]}"#;
const DUMP: &str = r#"
{"key":"a","versions":[{"commit_ts":5,"start_ts":4,"value":"0"},{"commit_ts":12,"start_ts":10,"value":"1"}]}
{"key":"b","versions":[{"commit_ts":12,"start_ts":10,"value":null}]}
{"key":"elsewhere","versions":[{"commit_ts":15,"start_ts":14,"value":"x"}]}
"#;

fn of(lines: &[&str]) -> History {
    let lines: Vec<String> = lines.iter().map(|line| line.replace('\n', "")).collect();
    short(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

#[track_caller]
fn changed(from: &str, to: &str, expected: &[(&str, &[usize])]) {
    let all = [WRITER, READER, DUMP];
    assert_eq!(all.iter().map(|text| text.matches(from).count()).sum::<usize>(), 1, "{from}");
    let [writer, reader, versions] = all.map(|text| text.replace(from, to));
    let verdict = replay(&of(&[&writer, &reader]), &dump(&versions), &Options::default());
    assert_found(&verdict, expected);
}

#[test]
fn what_fits_passes() {
    let verdict = replay(&of(&[WRITER, READER]), &dump(DUMP), &Options::default());
    assert_found(&verdict, &[]);
    assert_eq!(verdict.checked, 2);
}

#[test]
fn reads_are_of_the_start() {
    changed(
        r#""a","value":"0"},{"kind"#,
        r#""a","value":"7"},{"kind"#,
        &[("transaction 10: read", &[0])],
    );
    changed(
        r#""a","value":"1"},
    {"kind":"get""#,
        r#""a","value":"1"},{"kind":"put","key":"a","value":"2"},
    {"kind":"get""#,
        &[("transaction 10: key a holds", &[0]), ("transaction 10: read", &[0])],
    );
    changed(r#""start_ts":13"#, r#""start_ts":11"#, &[("transaction 11: read \"1\"", &[1])]);
    changed(
        r#""key":"b","value":null"#,
        r#""key":"b","value":"1""#,
        &[("transaction 13: read", &[1])],
    );
}

#[test]
fn writes_are_where_they_were_promised() {
    let lost = &[("transaction 10: committed, but its write of key a is not there", &[0][..])];
    let gone = r#",{"commit_ts":12,"start_ts":10,"value":"1"}"#;
    let verdict = replay(&of(&[WRITER]), &dump(&DUMP.replace(gone, "")), &Options::default());
    assert_found(&verdict, lost);
    changed(
        r#""commit_ts":12,"isolation""#,
        r#""commit_ts":13,"isolation""#,
        &[
            ("transaction 10: key a is committed at 12, not at 13", &[0]),
            ("transaction 10: key b is committed at 12, not at 13", &[0]),
        ],
    );
    changed(
        r#""start_ts":10,"value":"1""#,
        r#""start_ts":10,"value":"2""#,
        &[("transaction 10: key a holds \"2\"", &[0]), ("transaction 13: read", &[1])],
    );
    changed(
        r#""kind":"delete","key":"b""#,
        r#""kind":"delete","key":"c""#,
        &[
            ("transaction 10: did not write key b", &[0]),
            ("transaction 10: committed, but its write of key c", &[0]),
        ],
    );
}

#[test]
fn failed_and_unknown_transactions() {
    let failed = WRITER.replace("ok", "failed");
    let verdict = replay(&of(&[&failed]), &dump(DUMP), &Options::default());
    assert_found(
        &verdict,
        &[("transaction 10: failed, but key a", &[0]), ("transaction 10: failed, but key b", &[0])],
    );
    let unknown =
        WRITER.replace("ok", "unknown").replace(r#""commit_ts":12"#, r#""commit_ts":null"#);
    let check = |dump| replay(&of(&[&unknown]), &dump, &Options::default());
    assert_found(&check(dump(DUMP)), &[]);
    assert_found(&check(Dump::default()), &[]);
    let half =
        DUMP.lines().filter(|line| !line.contains(r#""key":"b""#)).collect::<Vec<_>>().join("\n");
    assert_found(
        &check(dump(&half)),
        &[("transaction 10: committed, but its write of key b", &[0])],
    );
    let torn =
        DUMP.replace(r#""b","versions":[{"commit_ts":12"#, r#""b","versions":[{"commit_ts":14"#);
    assert_found(
        &check(dump(&torn)),
        &[("transaction 10: key b is committed at 14, not at 12", &[0])],
    );
}

#[test]
fn versions_of_a_key() {
    changed(
        r#""commit_ts":5,"start_ts":4"#,
        r#""commit_ts":4,"start_ts":4"#,
        &[("key a: started at 4, committed at 4", &[])],
    );
    changed(
        r#""commit_ts":5,"start_ts":4"#,
        r#""commit_ts":11,"start_ts":4"#,
        &[
            ("key a: nobody wrote the version of 4 at 11", &[]),
            ("key a: the version of 4 at 11 does not exclude that of 10 at 12", &[0]),
            ("transaction 10: read", &[0]),
        ],
    );
    changed(
        r#"{"commit_ts":5,"start_ts":4,"value":"0"}"#,
        r#"{"commit_ts":12,"start_ts":4,"value":"0"}"#,
        &[
            ("key a: nobody wrote", &[]),
            ("key a: two versions at 12", &[0]),
            ("transaction 10: read", &[0]),
        ],
    );
    changed(
        r#"{"commit_ts":5,"start_ts":4,"value":"0"},"#,
        r#"{"commit_ts":5,"start_ts":4,"value":"0"},{"commit_ts":14,"start_ts":10,"value":"1"},"#,
        &[
            ("key a: committed twice: 10", &[0]),
            ("key a: the version of 10 at 12 does not exclude that of 10 at 14", &[0, 0]),
            ("transaction 10: key a is committed at 14", &[0]),
        ],
    );
    let twin = READER.replace("13", "10");
    let verdict = replay(&of(&[&twin, WRITER]), &dump(DUMP), &Options::default());
    assert_eq!(verdict.violations[0].what, "two transactions start at 10");
}

#[test]
fn locking_transactions_may_start_before_another_commits() {
    let early = WRITER
        .replace(r#""start_ts":10"#, r#""start_ts":3"#)
        .replace(r#"{"kind":"get","key":"a","value":"0"},"#, "");
    let versions = dump(&DUMP.replace(r#""start_ts":10"#, r#""start_ts":3"#));
    let first_writer = r#"3 0-9 ok {"kind":"txn","start_ts":4,"commit_ts":5,"isolation":"snapshot","steps":[{"kind":"put","key":"a","value":"0"}]}"#;
    let history = of(&[&early, first_writer]);
    let lenient = Options { first_committer_wins: false, ..Options::default() };
    assert_found(&replay(&history, &versions, &lenient), &[]);
    assert!(!replay(&history, &versions, &Options::default()).ok());
}

#[test]
fn garbage_may_be_gone_but_nothing_else() {
    let overwriter = r#"3 0-9 ok {"kind":"txn","start_ts":14,"commit_ts":15,"isolation":"snapshot","steps":[{"kind":"put","key":"a","value":"2"}]}"#;
    let history = of(&[WRITER, overwriter]);
    let swept = dump(r#"{"key":"a","versions":[{"commit_ts":15,"start_ts":14,"value":"2"}]}"#);
    let options = |gc_safe_point| Options { gc_safe_point, ..Options::default() };
    assert_found(&replay(&history, &swept, &options(20)), &[]);
    let lost = ("transaction 10: committed, but its write of key a", &[0][..]);
    assert_found(&replay(&history, &swept, &options(14)), &[lost]);
    assert!(!replay(&history, &swept, &options(0)).ok());
}

#[test]
fn a_list_grows_by_what_was_appended() {
    let append = |start: u64, element: u64| {
        format!(
            r#"1 0-9 ok {{"kind":"txn","start_ts":{start},"commit_ts":{},"isolation":"snapshot","steps":[{{"kind":"append","key":"l","element":{element}}}]}}"#,
            start + 1
        )
    };
    let history = of(&[&append(1, 7), &append(3, 8)]);
    let check = |first: &str, second: &str| {
        let versions = dump(&format!(
            r#"{{"key":"l","versions":[{{"commit_ts":2,"start_ts":1,"value":"{first}"}},{{"commit_ts":4,"start_ts":3,"value":"{second}"}}]}}"#
        ));
        replay(&history, &versions, &Options::default())
    };
    assert_found(&check("7", "7,8"), &[]);
    let second = ("transaction 3: key l is", &[1][..]);
    assert_found(&check("7", "8"), &[second]);
    assert_found(&check("7", "7,8,8"), &[second]);
    assert_found(&check("6,7", "6,7,8"), &[("transaction 1: key l is", &[0])]);
    assert_found(&check("7", "seven"), &[("transaction 3: key l holds no list", &[1])]);
}

fn load(seed: u64, isolation: Isolation) -> Load {
    let mut rng = Rng::new(!seed);
    let (transactions, keys, clients) = (10 + rng.below(60), 1 + rng.below(4), 1 + rng.below(6));
    Load { transactions, keys, clients, isolation, unknown_percent: 10, registers: true }
}

fn check(history: &History, dump: &Dump) -> Verdict {
    replay(history, dump, &Options::default())
}

/// The versions of all keys, to be changed and put back.
fn versions(dump: &Dump) -> Vec<(Blob, Vec<Version>)> {
    dump.iter().map(|(key, versions)| (key.clone(), versions.to_vec())).collect()
}

fn dump_of(versions: Vec<(Blob, Vec<Version>)>) -> Dump {
    let mut dump = Dump::default();
    for (key, versions) in versions {
        dump.insert(key, versions);
    }
    dump
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn simulated_histories_pass(seed: u64, snapshot: bool) {
        let isolation = if snapshot { Isolation::Snapshot } else { Isolation::Serializable };
        let (history, dump) = simulate(seed, load(seed, isolation));
        let verdict = check(&history, &dump);
        prop_assert!(verdict.ok(), "{verdict:?}");
    }

    /// The final transaction reads every key, so whatever is done to a newest version shows.
    #[test]
    fn a_change_of_a_version_is_noticed(seed: u64, kind in 0..5_usize) {
        let (history, dump) = simulate(seed, load(seed, Isolation::Snapshot));
        let mut rng = Rng::new(seed);
        let mut changed = versions(&dump);
        prop_assume!(!changed.is_empty());
        let key = rng.below(changed.len());
        let versions = &mut changed[key].1;
        let at = versions.len() - 1;
        match kind {
            0 => versions[at].value = Some(Blob::from("other")),
            1 => versions[at].commit_ts = versions[at].start_ts,
            2 => versions[at].start_ts += 1_000_000,
            3 if versions[at].value.is_some() => {
                versions.remove(at);
            }
            _ => {
                let mut twin = versions[at].clone();
                twin.commit_ts += 1;
                versions.push(twin);
            }
        }
        prop_assert!(!check(&history, &dump_of(changed)).ok());
    }

    #[test]
    fn a_change_of_a_read_is_noticed(seed: u64) {
        let (history, dump) = simulate(seed, load(seed, Isolation::Snapshot));
        let mut operations = history.operations().to_vec();
        let mut rng = Rng::new(seed);
        let reads: Vec<(usize, usize)> = history
            .transactions()
            .filter(|(_, operation, _)| operation.is_ok())
            .flat_map(|(index, _, txn)| (0..txn.steps.len()).map(move |step| (index, step)))
            .collect();
        let (index, step) = rng.pick(&reads).unwrap();
        let Op::Txn(txn) = &mut operations[index].op else { unreachable!() };
        let changed = match &mut txn.steps[step] {
            Step::Get { value, .. } => { *value = Some("other".into()); true }
            Step::List { elements, .. } => { elements.insert(0, 1_000_000); true }
            _ => false,
        };
        prop_assume!(changed);
        prop_assert!(!check(&operations.try_into().unwrap(), &dump).ok());
    }

    #[test]
    fn a_transaction_with_another_fate_is_noticed(seed: u64) {
        let (history, dump) = simulate(seed, load(seed, Isolation::Snapshot));
        let mut operations = history.operations().to_vec();
        let mut rng = Rng::new(seed);
        let writers: Vec<usize> = history
            .transactions()
            .filter(|(_, operation, txn)| match operation.outcome {
                Outcome::Ok => txn.commit_ts.is_some(),
                Outcome::Failed => {
                    txn.steps.iter().any(|step| !matches!(step, Step::Get { .. } | Step::List { .. }))
                }
                Outcome::Unknown => false,
            })
            .map(|(index, ..)| index)
            .collect();
        prop_assume!(!writers.is_empty());
        let changed = &mut operations[rng.pick(&writers).unwrap()];
        changed.outcome = match changed.outcome {
            Outcome::Ok => Outcome::Failed,
            _ => Outcome::Ok,
        };
        prop_assert!(!check(&operations.try_into().unwrap(), &dump).ok());
    }
}
