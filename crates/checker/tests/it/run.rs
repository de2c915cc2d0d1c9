//! All checkers together.

use cribwork_checker::{History, Isolation, Options, check_all};

use crate::lines::short;
use crate::{registers, store};

fn requiring(names: &[&str]) -> Options {
    Options { required: names.iter().map(|name| name.to_string()).collect(), ..Options::default() }
}

#[test]
fn only_what_applies_runs() {
    let load = registers::Load {
        operations: 60,
        keys: 3,
        clients: 4,
        unknown_percent: 9,
        few_values: false,
    };
    let report = check_all(&registers::simulate(1, load), None, &Options::default());
    assert!(report.ok(), "{report:#?}");
    let names: Vec<&str> = report.verdicts.iter().map(|verdict| verdict.checker).collect();
    assert_eq!(names, ["linearizable", "acknowledged"]);
    assert_eq!(
        report.skipped,
        ["append", "bank", "long-fork", "timestamps", "watermark", "fingerprints", "replay"]
    );

    let isolation = Isolation::Serializable;
    let (transactions, keys, clients, unknown_percent) = (60, 3, 4, 10);
    let registers = true;
    let load = store::Load { transactions, keys, clients, isolation, unknown_percent, registers };
    let (history, dump) = store::simulate(1, load);
    let report = check_all(&history, Some(&dump), &Options::default());
    assert!(report.ok(), "{report:#?}");
    let names: Vec<&str> = report.verdicts.iter().map(|verdict| verdict.checker).collect();
    assert_eq!(names, ["append", "long-fork", "acknowledged", "replay"]);
}

#[test]
fn what_is_required_must_have_judged_something() {
    let empty = History::default();
    assert!(check_all(&empty, None, &Options::default()).ok());
    let report = check_all(&empty, None, &requiring(&["linearizable"]));
    assert!(!report.ok());
    assert_eq!(report.missing, ["linearizable"]);
    // It applies, and yet has nothing to judge.
    let failed = short(&[r#"1 0-1 failed {"kind":"put","key":"k","value":"a"}"#]);
    assert!(!check_all(&failed, None, &requiring(&["linearizable"])).ok());
    let done = short(&[r#"1 0-1 ok {"kind":"put","key":"k","value":"a"}"#]);
    assert!(check_all(&done, None, &requiring(&["linearizable"])).ok());
    assert!(!check_all(&done, None, &requiring(&["misspelt"])).ok());
}

#[test]
fn a_report_is_one_line_of_json() {
    let wrong = short(&[r#"1 0-1 ok {"kind":"get","key":"k","value":"a"}"#]);
    let report = check_all(&wrong, None, &Options::default());
    let mut text = Vec::new();
    report.write(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with(
        r#"{"verdicts":[{"checker":"linearizable","checked":1,"violations":[{"what":"not linearizable: key k: "#
    ), "{text}");
    assert!(text.contains(r#""ops":[0]}],"unlisted":0,"exhausted":false}"#), "{text}");
    assert!(!report.ok() && report.verdict("linearizable").is_some_and(|verdict| !verdict.ok()));
}
