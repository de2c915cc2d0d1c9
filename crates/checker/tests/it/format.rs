//! The text of histories and dumps.

use cribwork_checker::{CheckerError, Dump, History, Isolation, Op};

use crate::lines::history;
use crate::{registers, store};

/// One line of every kind, as a recorder in any language would write it.
const EVERY_KIND: &str = r#"{"process":1,"invoke":0,"complete":1,"outcome":"ok","op":{"kind":"get","key":"a%00","value":null}}
{"process":1,"invoke":2,"complete":null,"outcome":"unknown","op":{"kind":"put","key":"a","value":"%FF"}}
{"process":1,"invoke":2,"complete":3,"outcome":"failed","op":{"kind":"delete","key":"a"}}
{"process":1,"invoke":4,"complete":5,"outcome":"ok","op":{"kind":"cas","key":"a","expected":null,"value":"b","swapped":true,"previous":null}}
{"process":1,"invoke":4,"complete":5,"outcome":"ok","op":{"kind":"cas","key":"a","expected":"b","value":"c","swapped":null}}
{"process":2,"invoke":6,"complete":7,"outcome":"ok","op":{"kind":"txn","start_ts":18446744073709551614,"commit_ts":18446744073709551615,"steps":[{"kind":"get","key":"x","value":"1"},{"kind":"put","key":"x","value":"2"},{"kind":"delete","key":"y"},{"kind":"append","key":"z","element":3},{"kind":"list","key":"z","elements":[3]}],"isolation":"serializable"}}
{"process":2,"invoke":8,"complete":9,"outcome":"ok","op":{"kind":"timestamps","first":1,"count":2}}
{"process":2,"invoke":8,"complete":9,"outcome":"ok","op":{"kind":"watermark","name":"commit-index","of":"range 7 on store 2","value":3}}
{"process":2,"invoke":8,"complete":9,"outcome":"ok","final":true,"op":{"kind":"bank","start_ts":5,"balances":{"a":-1,"b":2}}}
{"process":2,"invoke":8,"complete":9,"outcome":"ok","op":{"kind":"fingerprint","range":1,"index":2,"store":3,"hash":18446744073709551615}}
"#;

#[test]
fn every_kind_comes_back_byte_for_byte() {
    let history = history(EVERY_KIND);
    let mut text = Vec::new();
    history.write(&mut text).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), EVERY_KIND);
    assert_eq!(history.finals().map(|(index, _)| index).collect::<Vec<_>>(), [8]);
    let found = |index: usize| match &history.operations()[index].op {
        Op::Cas { previous, .. } => previous.clone(),
        _ => unreachable!(),
    };
    assert_eq!((found(3), found(4)), (Some(None), None), "null is an answer, absence is none");
}

#[test]
fn simulated_histories_and_dumps_come_back() {
    let load = registers::Load {
        operations: 60,
        keys: 3,
        clients: 4,
        unknown_percent: 9,
        few_values: true,
    };
    let isolation = Isolation::Snapshot;
    let (transactions, keys, clients, unknown_percent) = (60, 3, 4, 10);
    let registers = true;
    let txns = store::Load { transactions, keys, clients, isolation, unknown_percent, registers };
    let (of_store, dump) = store::simulate(3, txns);
    for history in [registers::simulate(3, load), of_store] {
        let mut text = Vec::new();
        history.write(&mut text).unwrap();
        assert_eq!(History::read(&text[..]).unwrap(), history);
    }
    let mut text = Vec::new();
    dump.write(&mut text).unwrap();
    assert_eq!(Dump::read(&text[..]).unwrap(), dump);
}

/// What reading the good text fails with when one line of it is changed.
#[track_caller]
fn refused(from: &str, to: &str, line: usize, why: &str) {
    assert!(EVERY_KIND.contains(from), "{from}");
    let error = History::read(EVERY_KIND.replacen(from, to, 1).as_bytes()).unwrap_err();
    let (CheckerError::Syntax { line: at, .. } | CheckerError::Invalid { line: at, .. }) = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(*at, line, "{error}");
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn garbage_is_refused_with_its_line() {
    refused("{\"process\":1,\"invoke\":2,\"complete\":null", "x", 2, "expected value");
    refused("\n", "\n\n", 2, "EOF");
    refused("\"kind\":\"put\"", "\"kind\":\"pot\"", 2, "unknown variant `pot`");
    refused("%FF", "%ff", 2, "not how bytes are written");
    refused(",\"value\":null", "", 1, "missing field `value`");
    refused(",\"expected\":null", "", 4, "missing field `expected`");
    refused("\"ok\"", "\"okay\"", 1, "unknown variant `okay`");
    refused("\"final\"", "\"finale\"", 9, "unknown field `finale`");
    refused("\"count\":2", "\"count\":2,\"more\":1", 7, "unknown field `more`");
    refused("\"element\":3", "\"element\":-3", 6, "invalid value");
    refused("\"element\":3", "\"element\":3,\"more\":1", 6, "unknown field `more`");
}

#[test]
fn impossible_operations_are_refused_with_their_line() {
    refused("\"invoke\":0", "\"invoke\":2", 1, "before it is invoked");
    refused("\"complete\":1", "\"complete\":null", 1, "never completed");
    refused("\"count\":2", "\"count\":0", 7, "no timestamps");
    refused("\"first\":1,", "\"first\":18446744073709551615,", 7, "beyond 64 bits");
    refused("18446744073709551615", "5", 6, "commits no later");
}

#[test]
fn half_a_line_is_refused() {
    let text = &EVERY_KIND[..EVERY_KIND.len() - 20];
    assert!(matches!(History::read(text.as_bytes()), Err(CheckerError::Syntax { line: 10, .. })));
}

#[test]
fn a_dump_names_a_key_once() {
    let line = r#"{"key":"a","versions":[{"commit_ts":2,"start_ts":1,"value":null}]}"#;
    let twice = format!("{line}\n{line}\n");
    assert!(matches!(Dump::read(twice.as_bytes()), Err(CheckerError::Invalid { line: 2, .. })));
    let forgotten = line.replace(",\"value\":null", "");
    assert!(matches!(Dump::read(forgotten.as_bytes()), Err(CheckerError::Syntax { line: 1, .. })));
}
