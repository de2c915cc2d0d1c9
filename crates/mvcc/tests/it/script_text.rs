//! The words of the scripts: parsing arguments, printing timestamps, values, errors and stores.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use cribwork_mvcc::memory_view::MemoryView;
use cribwork_mvcc::{Assertion, Lock, LockInfo, PrewriteMutation, PrewriteOp, ReadItem, WriteRef};
use cribwork_types::{Cf, KeyRange, Timestamp, key};

/// One command line, taken apart: `word name=value put k=v k1 k2`.
pub(crate) struct Args {
    pub(crate) command: String,
    options: BTreeMap<String, String>,
    pub(crate) words: Vec<String>,
    pub(crate) mutations: Vec<PrewriteMutation>,
}

impl Args {
    pub(crate) fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace().map(str::to_owned);
        let command = words.next().expect("a command");
        let mut args =
            Args { command, options: BTreeMap::new(), words: Vec::new(), mutations: Vec::new() };
        while let Some(word) = words.next() {
            if let Some(op) = prewrite_op(&word).filter(|_| args.command == "prewrite") {
                args.mutations.push(mutation(op, &words.next().expect("a key")));
            } else if let Some((name, value)) = word.split_once('=') {
                args.options.insert(name.to_owned(), value.to_owned());
            } else {
                args.words.push(word);
            }
        }
        args
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.words.iter().any(|word| word == flag)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    pub(crate) fn bytes(&self, name: &str) -> Bytes {
        Bytes::from(self.text(name).unwrap_or_default().to_owned())
    }

    pub(crate) fn ts(&self, name: &str) -> Timestamp {
        self.text(name).map_or(Timestamp::ZERO, parse_ts)
    }

    pub(crate) fn ts_list(&self, name: &str) -> Vec<Timestamp> {
        self.text(name).into_iter().flat_map(|list| list.split(',')).map(parse_ts).collect()
    }

    pub(crate) fn number(&self, name: &str, default: u64) -> u64 {
        self.text(name).map_or(default, |text| text.parse().expect("a number"))
    }

    pub(crate) fn keys(&self) -> Vec<Bytes> {
        self.words.iter().cloned().map(Bytes::from).collect()
    }

    /// The first word as `start..end`.
    pub(crate) fn range(&self) -> KeyRange {
        let (start, end) = self.words[0].split_once("..").expect("start..end");
        KeyRange::new(start.to_owned(), end.to_owned())
    }
}

fn prewrite_op(word: &str) -> Option<PrewriteOp> {
    Some(match word {
        "put" => PrewriteOp::Put,
        "delete" => PrewriteOp::Delete,
        "lock" => PrewriteOp::Lock,
        "insert" => PrewriteOp::Insert,
        "check" => PrewriteOp::CheckNotExists,
        _ => return None,
    })
}

/// `key`, `key=value`, either with `!exist` or `!absent` behind it.
fn mutation(op: PrewriteOp, text: &str) -> PrewriteMutation {
    let (text, assertion) = match text.split_once('!') {
        Some((text, "exist")) => (text, Assertion::Exist),
        Some((text, "absent")) => (text, Assertion::NotExist),
        Some((_, other)) => panic!("no assertion: {other}"),
        None => (text, Assertion::None),
    };
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let value = match value.split_once('*') {
        Some((unit, times)) => unit.repeat(times.parse().expect("a count")),
        None => value.to_owned(),
    };
    PrewriteMutation { op, key: Bytes::from(key.to_owned()), value: Bytes::from(value), assertion }
}

/// `17`, `5ms` (physical part only) or `max`.
fn parse_ts(text: &str) -> Timestamp {
    match text.strip_suffix("ms") {
        Some(ms) => Timestamp::new(ms.parse().expect("milliseconds"), 0),
        None if text == "max" => Timestamp::MAX,
        None => Timestamp(text.parse().expect("a timestamp")),
    }
}

pub(crate) fn show_ts(ts: Timestamp) -> String {
    match (ts.physical_ms(), ts.logical()) {
        _ if ts == Timestamp::MAX => "max".into(),
        (0, logical) => logical.to_string(),
        (ms, 0) => format!("{ms}ms"),
        (ms, logical) => format!("{ms}ms+{logical}"),
    }
}

pub(crate) fn show_value(value: &[u8]) -> String {
    match value {
        [first, rest @ ..] if rest.len() > 30 && rest.iter().all(|byte| byte == first) => {
            format!("{}*{}", char::from(*first), value.len())
        }
        _ => format!("{:?}", String::from_utf8_lossy(value)),
    }
}

pub(crate) fn show_info(info: &LockInfo) -> String {
    let mut out = format!(
        "{} {:?} by {} primary={}",
        info.key.escape_ascii(),
        info.kind,
        show_ts(info.lock_version),
        info.primary.escape_ascii()
    );
    if info.ttl_ms != 0 {
        write!(out, " ttl={}", info.ttl_ms).unwrap();
    }
    if info.min_commit_ts != Timestamp::ZERO {
        write!(out, " min_commit={}", show_ts(info.min_commit_ts)).unwrap();
    }
    out + if info.use_async_commit { " async" } else { "" }
}

pub(crate) fn show_items(items: &[ReadItem]) -> String {
    let line = |item: &ReadItem| match item {
        ReadItem::Pair(key, value) => format!("{} = {}", key.escape_ascii(), show_value(value)),
        ReadItem::Locked(info) => format!("locked: {}", show_info(info)),
    };
    match items {
        [] => "none".into(),
        _ => items.iter().map(line).collect::<Vec<_>>().join("\n"),
    }
}

/// Everything in the store, one record a line.
pub(crate) fn show_store(view: &MemoryView) -> String {
    let mut lines = Vec::new();
    for (key, value) in view.entries(Cf::Lock) {
        let lock = Lock::decode(value.clone()).unwrap();
        let value = lock.short_value.as_deref().map(show_value);
        let info = show_info(&lock.info(key::decode(key).unwrap()));
        lines.push(format!("lock {info} {}", value.unwrap_or_default()).trim_end().to_owned());
    }
    let split = |key: &[u8]| {
        let (encoded, ts) = key::split_versioned(key).unwrap();
        format!("{}@{}", key::decode(encoded).unwrap().escape_ascii(), show_ts(ts))
    };
    for (key, value) in view.entries(Cf::Write) {
        let record = WriteRef::decode(value).unwrap();
        let mut line = format!("write {} {:?}", split(key), record.kind);
        write!(line, " start={}", show_ts(record.start_ts)).unwrap();
        if let Some(value) = record.short_value {
            write!(line, " {}", show_value(value)).unwrap();
        }
        lines.push(line + if record.overlapped_rollback { " +rollback" } else { "" });
    }
    for (key, value) in view.entries(Cf::Default) {
        lines.push(format!("default {} {}", split(key), show_value(value)));
    }
    if lines.is_empty() { "empty".into() } else { lines.join("\n") }
}
