//! The writes of each transaction against the dump.

use std::collections::BTreeMap;

use crate::blob::shown;
use crate::{Blob, Dump, History, Options, Outcome, Txn, Verdict, Version, decode_list};

/// What a transaction leaves in a key.
enum Left<'a> {
    /// A register's value; `None` if deleted.
    Value(Option<&'a Blob>),
    /// The end of a list.
    Elements(Vec<u64>),
}

pub(super) fn check(history: &History, dump: &Dump, options: &Options, verdict: &mut Verdict) {
    let mut by_start: BTreeMap<u64, Vec<(&Blob, &Version)>> = BTreeMap::new();
    for (key, versions) in dump.iter() {
        for version in versions {
            by_start.entry(version.start_ts).or_default().push((key, version));
        }
    }
    for (index, operation, txn) in history.transactions().filter(|(_, _, txn)| txn.start_ts != 0) {
        let found = by_start.get(&txn.start_ts).map_or(&[][..], Vec::as_slice);
        let mut writer = Writer { dump, options, txn, index, verdict };
        match operation.outcome {
            Outcome::Failed => writer.failed(found),
            Outcome::Unknown if found.is_empty() => {}
            Outcome::Ok | Outcome::Unknown => writer.committed(found),
        }
    }
}

struct Writer<'a> {
    dump: &'a Dump,
    options: &'a Options,
    txn: &'a Txn,
    index: usize,
    verdict: &'a mut Verdict,
}

impl Writer<'_> {
    fn tell(&mut self, what: String) {
        let what = format!("transaction {}: {what}", self.txn.start_ts);
        self.verdict.violation(what, [self.index]);
    }

    fn failed(&mut self, found: &[(&Blob, &Version)]) {
        for (key, version) in found {
            self.tell(format!("failed, but key {key} has its version at {}", version.commit_ts));
        }
    }

    /// The transaction has committed: so its client says, or one of its versions.
    fn committed(&mut self, found: &[(&Blob, &Version)]) {
        let commit_ts = self.txn.commit_ts.or(found.first().map(|(_, version)| version.commit_ts));
        let versions: BTreeMap<&Blob, &Version> = found.iter().copied().collect();
        let left = left(self.txn);
        for (&key, version) in &versions {
            let at = version.commit_ts;
            match left.get(key) {
                None => {
                    self.tell(format!("did not write key {key}, which has its version at {at}"))
                }
                Some(left) => self.content(key, version, left),
            }
            if let Some(expected) = commit_ts.filter(|expected| *expected != at) {
                self.tell(format!("key {key} is committed at {at}, not at {expected}"));
            }
        }
        for (&key, left) in left.iter().filter(|(key, _)| !versions.contains_key(*key)) {
            if !self.collected(key, commit_ts, left) {
                self.tell(format!("committed, but its write of key {key} is not there"));
            }
        }
    }

    fn content(&mut self, key: &Blob, version: &Version, left: &Left<'_>) {
        match left {
            Left::Value(value) => {
                let found = version.value.as_ref();
                if *value != found {
                    self.tell(format!("key {key} holds {}, not {}", shown(found), shown(*value)));
                }
            }
            Left::Elements(elements) => self.list(key, version, elements),
        }
    }

    fn list(&mut self, key: &Blob, version: &Version, elements: &[u64]) {
        let Some(list) = version.value.as_deref().and_then(decode_list) else {
            return self.tell(format!("key {key} holds no list at {}", version.commit_ts));
        };
        let older = self.dump.version_at(key, version.commit_ts.saturating_sub(1));
        if older.is_none() && version.commit_ts <= self.options.gc_safe_point {
            return;
        }
        let older = older.and_then(|older| older.value.as_deref()).unwrap_or_default();
        let expected = decode_list(older).map(|mut expected| {
            expected.extend(elements);
            expected
        });
        if expected.as_ref() != Some(&list) {
            self.tell(format!("key {key} is {list:?} after {elements:?} was appended"));
        }
    }

    /// Whether the version may have been garbage: overwritten, or a deletion, by the safe point.
    fn collected(&self, key: &Blob, commit_ts: Option<u64>, left: &Left<'_>) -> bool {
        let safe_point = self.options.gc_safe_point;
        commit_ts.is_some_and(|commit_ts| {
            let newer = self.dump.version_at(key, safe_point);
            commit_ts <= safe_point
                && (matches!(left, Left::Value(None))
                    || newer.is_some_and(|newer| newer.commit_ts > commit_ts))
        })
    }
}

fn left(txn: &Txn) -> BTreeMap<&Blob, Left<'_>> {
    let registers = txn.final_writes().into_iter();
    let registers = registers.map(|(key, value)| (key, Left::Value(value)));
    let lists = txn.appends().into_iter();
    registers.chain(lists.map(|(key, elements)| (key, Left::Elements(elements)))).collect()
}
