//! Hostile bytes for what recorders leave behind.

use cribwork_fuzz::{Shape, target};

use crate::{Blob, Dump, History, decode_list, encode_list};

const LINES: &str = r#"{"process":1,"invoke":1,"complete":2,"outcome":"ok","op":{"kind":"get","key":"a","value":null}}
{"process":2,"invoke":1,"complete":null,"outcome":"unknown","op":{"kind":"put","key":"a%00","value":"b"}}
{"process":1,"invoke":3,"complete":4,"outcome":"failed","final":true,"op":{"kind":"delete","key":"a"}}
{"process":1,"invoke":5,"complete":6,"outcome":"ok","op":{"kind":"cas","key":"a","expected":null,"value":"c","swapped":true,"previous":null}}
{"process":1,"invoke":7,"complete":8,"outcome":"ok","op":{"kind":"txn","start_ts":1,"commit_ts":2,"isolation":"snapshot","steps":[{"kind":"append","key":"l","element":1},{"kind":"list","key":"l","elements":[1,2]}]}}
{"process":1,"invoke":9,"complete":9,"outcome":"ok","op":{"kind":"timestamps","first":5,"count":18446744073709551610}}
{"process":1,"invoke":9,"complete":9,"outcome":"ok","op":{"kind":"bank","start_ts":3,"balances":{"a":-5,"b":7}}}
{"process":1,"invoke":9,"complete":9,"outcome":"ok","op":{"kind":"watermark","name":"n","of":"o","value":1}}
{"process":1,"invoke":9,"complete":9,"outcome":"ok","op":{"kind":"fingerprint","range":1,"index":2,"store":3,"hash":4}}
"#;

const WORDS: [&str; 14] = [
    "null",
    "\"%00\"",
    "[",
    "{",
    "}",
    "]",
    "1e400",
    "-1",
    "18446744073709551616",
    "\"complete\":",
    "\"steps\":[]",
    "\\ud800",
    "%",
    "\n",
];

/// Trees of JSON, and each operation with room for every kind of it.
const MEMORY_PER_BYTE: usize = 128;

/// An error's words without the numbers and names in it, or every input would be a new shape.
fn kind(error: &impl ToString) -> String {
    let words = error.to_string();
    words.chars().filter(|letter| letter.is_alphabetic()).take(24).collect()
}

#[test]
fn histories() {
    let lines = LINES.split_inclusive('\n');
    let target = target("histories").seeds(lines).seed(LINES).words(WORDS);
    target.memory_per_byte(MEMORY_PER_BYTE).run(|bytes| {
        let read = History::read(bytes).map_err(|error| kind(&error));
        if let Ok(history) = &read {
            let mut written = Vec::new();
            history.write(&mut written).unwrap();
            let again = History::read(&*written).unwrap();
            assert_eq!(&again, history, "what is written is read again");
        }
        Shape::decoded(&read, History::len)
    });
}

#[test]
fn dumps() {
    let seed = r#"{"key":"a","versions":[{"commit_ts":3,"start_ts":1,"value":"x"},{"commit_ts":9,"start_ts":4,"value":null}]}"#;
    let target = target("dumps").seed(seed).words(WORDS);
    target.memory_per_byte(MEMORY_PER_BYTE).run(|bytes| {
        let read = Dump::read(bytes).map_err(|error| kind(&error));
        if let Ok(dump) = &read {
            let mut written = Vec::new();
            dump.write(&mut written).unwrap();
            assert_eq!(&Dump::read(&*written).unwrap(), dump, "what is written is read again");
        }
        Shape::decoded(&read, |dump| dump.iter().count())
    });
}

#[test]
fn lists_and_blobs() {
    let lists = [&[][..], &[7], &[0, u64::MAX, 3]].map(encode_list);
    let target = target("lists_and_blobs").seeds(lists).seed("a%25%00%FF z").words(["%0", ","]);
    target.run(|bytes| {
        let list = decode_list(bytes);
        if let Some(elements) = &list {
            assert_eq!(encode_list(elements), bytes, "a list has one value");
        }
        let blob = std::str::from_utf8(bytes).ok().and_then(Blob::from_text);
        if let Some(blob) = &blob {
            assert_eq!(blob.to_string().as_bytes(), bytes, "bytes have one text");
        }
        Shape::of(&(list.map(|list| list.len().checked_ilog2()), blob.is_some()))
    });
}
