//! Writes of a transaction that nobody else sees yet.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use cribwork_proto::kvrpcpb::{self, Op};
use cribwork_types::KeyRange;

use crate::raw::KvPair;

/// What is to become of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Write {
    Put(Bytes),
    /// A put that fails if the key exists.
    Insert(Bytes),
    Delete,
    /// Inserted, then deleted again: nothing but the check remains.
    CheckAbsent,
    /// Nothing; but nobody else may write the key meanwhile.
    Lock,
}

/// Writes by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffer {
    writes: BTreeMap<Bytes, Write>,
    bytes: usize,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn put(&mut self, key: Bytes, value: Bytes) {
        let write = match self.writes.get(&key) {
            // The key must still have been absent when the transaction began.
            Some(Write::Insert(_) | Write::CheckAbsent) => Write::Insert(value),
            _ => Write::Put(value),
        };
        self.set(key, write);
    }

    /// False if the transaction itself has put the key.
    pub(super) fn insert(&mut self, key: Bytes, value: Bytes) -> bool {
        let write = match self.writes.get(&key) {
            Some(Write::Put(_) | Write::Insert(_)) => return false,
            Some(Write::Delete) => Write::Put(value),
            Some(Write::CheckAbsent | Write::Lock) | None => Write::Insert(value),
        };
        self.set(key, write);
        true
    }

    pub(super) fn delete(&mut self, key: Bytes) {
        let write = match self.writes.get(&key) {
            Some(Write::Insert(_) | Write::CheckAbsent) => Write::CheckAbsent,
            _ => Write::Delete,
        };
        self.set(key, write);
    }

    pub(super) fn lock(&mut self, key: Bytes) {
        if !self.writes.contains_key(&key) {
            self.set(key, Write::Lock);
        }
    }

    fn set(&mut self, key: Bytes, write: Write) {
        self.bytes += key.len() + write.value().map_or(0, Bytes::len);
        if let Some(old) = self.writes.insert(key.clone(), write) {
            self.bytes -= key.len() + old.value().map_or(0, Bytes::len);
        }
    }

    /// What the transaction itself knows of a key: `Some(None)` is "absent", `None` is "ask the
    /// snapshot".
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        match self.writes.get(key)? {
            Write::Lock => None,
            write => Some(write.value().cloned()),
        }
    }

    /// How many rows of the snapshot within `span` the buffer may hide.
    pub(super) fn hidden(&self, span: &KeyRange) -> usize {
        let hides = |write: &Write| matches!(write, Write::Delete | Write::CheckAbsent);
        self.within(span).filter(|(_, write)| hides(write)).count()
    }

    /// Lays the buffer over the first (`reverse`: last) rows of a snapshot. `rows` must hold
    /// `limit + self.hidden(span)` of them unless there are no more.
    pub(super) fn overlay(
        &self,
        span: &KeyRange,
        rows: Vec<KvPair>,
        limit: usize,
        reverse: bool,
    ) -> Vec<KvPair> {
        let mut merged: BTreeMap<Bytes, Bytes> = rows.into_iter().collect();
        for (key, write) in self.within(span) {
            match write {
                Write::Put(value) | Write::Insert(value) => {
                    merged.insert(key.clone(), value.clone());
                }
                Write::Delete | Write::CheckAbsent => {
                    merged.remove(key);
                }
                Write::Lock => {}
            }
        }
        match reverse {
            false => merged.into_iter().take(limit).collect(),
            true => merged.into_iter().rev().take(limit).collect(),
        }
    }

    fn within(&self, span: &KeyRange) -> impl Iterator<Item = (&Bytes, &Write)> {
        let end = match span.end.is_empty() {
            true => Bound::Unbounded,
            false => Bound::Excluded(span.end.clone().max(span.start.clone())),
        };
        self.writes.range((Bound::Included(span.start.clone()), end))
    }

    /// The mutations to prewrite, in key order.
    pub(super) fn into_mutations(self) -> Vec<kvrpcpb::Mutation> {
        self.writes
            .into_iter()
            .map(|(key, write)| {
                let (op, value) = match write {
                    Write::Put(value) => (Op::Put, value),
                    Write::Insert(value) => (Op::Insert, value),
                    Write::Delete => (Op::Del, Bytes::new()),
                    Write::CheckAbsent => (Op::CheckNotExists, Bytes::new()),
                    Write::Lock => (Op::Lock, Bytes::new()),
                };
                kvrpcpb::Mutation { op: op.into(), key, value, ..Default::default() }
            })
            .collect()
    }
}

impl Write {
    fn value(&self) -> Option<&Bytes> {
        match self {
            Write::Put(value) | Write::Insert(value) => Some(value),
            Write::Delete | Write::CheckAbsent | Write::Lock => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn ops(buffer: Buffer) -> Vec<Op> {
        buffer.into_mutations().iter().map(kvrpcpb::Mutation::op).collect()
    }

    #[test]
    fn an_insert_keeps_its_check() {
        let mut buffer = Buffer::default();
        assert!(buffer.insert(bytes("a"), bytes("1")));
        buffer.put(bytes("a"), bytes("2"));
        assert!(!buffer.insert(bytes("a"), bytes("3")));
        assert!(buffer.insert(bytes("b"), bytes("1")));
        buffer.delete(bytes("b"));
        buffer.delete(bytes("c"));
        assert!(buffer.insert(bytes("c"), bytes("1")));
        buffer.lock(bytes("d"));
        assert_eq!(buffer.get(b"b"), Some(None));
        assert_eq!(buffer.get(b"d"), None);
        assert_eq!(buffer.size_bytes(), 2 + 1 + 2 + 1);
        assert_eq!(ops(buffer), [Op::Insert, Op::CheckNotExists, Op::Put, Op::Lock]);
    }

    #[test]
    fn scans_see_the_buffer() {
        let mut buffer = Buffer::default();
        buffer.put(bytes("b"), bytes("new"));
        buffer.delete(bytes("c"));
        buffer.put(bytes("z"), bytes("outside"));
        let span = KeyRange::new("a", "m");
        assert_eq!(buffer.hidden(&span), 1);
        let row = |key, value| (bytes(key), bytes(value));
        let rows = vec![row("a", "1"), row("c", "3"), row("d", "4")];
        let seen = buffer.overlay(&span, rows.clone(), 2, false);
        assert_eq!(seen, [row("a", "1"), row("b", "new")]);
        let seen = buffer.overlay(&span, rows, 2, true);
        assert_eq!(seen, [row("d", "4"), row("b", "new")]);
        assert_eq!(buffer.hidden(&KeyRange::new("m", "a")), 0, "an inverted span is empty");
    }
}
