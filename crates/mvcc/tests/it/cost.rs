//! Reads do not walk all versions: cursor moves are counted.

use std::cell::Cell;

use bytes::Bytes;
use cribwork_mvcc::memory_view::MemoryView;
use cribwork_mvcc::{
    KeySpan, ReadItem, ReadOptions, ReadView, Reader, ScanOptions, ViewCursor, ViewError,
    WriteKind, WriteRecord,
};
use cribwork_types::{Cf, KeyRange, Timestamp, WriteBatch, key};

const VERSIONS: u64 = 1000;
const KEYS: [&str; 3] = ["a", "b", "c"];

struct Counting {
    view: MemoryView,
    moves: Cell<usize>,
}

struct CountingCursor<'v> {
    cursor: Box<dyn ViewCursor + 'v>,
    moves: &'v Cell<usize>,
}

impl ReadView for Counting {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.view.get(cf, key)
    }

    fn cursor(&self, cf: Cf, range: &KeyRange) -> Box<dyn ViewCursor + '_> {
        Box::new(CountingCursor { cursor: self.view.cursor(cf, range), moves: &self.moves })
    }
}

macro_rules! counted {
    ($($name:ident($($argument:ident)?)),*) => {
        $(fn $name(&mut self $(, $argument: &[u8])?) -> Result<bool, ViewError> {
            self.moves.set(self.moves.get() + 1);
            self.cursor.$name($($argument)?)
        })*
    };
}

impl ViewCursor for CountingCursor<'_> {
    counted!(seek_to_first(), seek_to_last(), seek(key), seek_for_prev(key), next(), prev());

    fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    fn value(&self) -> &[u8] {
        self.cursor.value()
    }
}

/// Three keys, each put at 1, 2, ... with the commit timestamp as value.
fn many_versions() -> Counting {
    let mut batch = WriteBatch::new();
    for (key, ts) in KEYS.iter().flat_map(|key| (1..=VERSIONS).map(move |ts| (key, ts))) {
        let record = WriteRecord {
            kind: WriteKind::Put,
            start_ts: Timestamp(ts - 1),
            short_value: Some(ts.to_string().into()),
            overlapped_rollback: false,
        };
        let at = key::encode_versioned(key.as_bytes(), Timestamp(ts));
        batch.put(Cf::Write, at, record.encode());
    }
    let mut view = MemoryView::new();
    view.apply(&batch);
    Counting { view, moves: Cell::new(0) }
}

#[test]
fn a_get_is_one_seek() {
    let view = many_versions();
    let value = Reader::new(&view).get(b"b", Timestamp(500), &ReadOptions::default()).unwrap();
    assert_eq!((value.unwrap(), view.moves.get()), (Bytes::from("500"), 1));
}

#[test]
fn a_scan_seeks_past_versions() {
    for (ts, reverse) in [(1, false), (500, false), (1000, false), (1, true), (500, true)] {
        let view = many_versions();
        let scan = ScanOptions { ts: Timestamp(ts), limit: 10, key_only: false, reverse };
        let span = KeySpan::of(&KeyRange::all());
        let items = Reader::new(&view).scan(&span, &scan, &ReadOptions::default()).unwrap();
        let mut expected = KEYS.map(|key| ReadItem::Pair(key.into(), ts.to_string().into()));
        if reverse {
            expected.reverse();
        }
        assert_eq!(items, expected, "ts {ts} reverse {reverse}");
        let moves = view.moves.get();
        assert!(moves < 80, "{moves} moves at ts {ts} reverse {reverse}");
    }
}

/// The read of `b` walks off its end, among the versions of `c`, and has to find its way back.
#[test]
fn a_scan_gets_past_a_key_that_was_only_locked() {
    let mut view = many_versions();
    let mut batch = WriteBatch::new();
    let versions = KeySpan::of(&KeyRange::new("b", "c"));
    batch.delete_range(Cf::Write, versions.encoded().clone());
    for ts in 1..=50 {
        let record = WriteRecord::rollback(Timestamp(ts));
        batch.put(Cf::Write, key::encode_versioned(b"b", Timestamp(ts)), record.encode());
    }
    view.view.apply(&batch);
    let pair = |key: &str| ReadItem::Pair(Bytes::from(key.to_owned()), "500".into());
    for (reverse, expected) in [(false, ["a", "c"]), (true, ["c", "a"])] {
        let scan = ScanOptions { ts: Timestamp(500), limit: 10, key_only: false, reverse };
        let span = KeySpan::of(&KeyRange::all());
        let items = Reader::new(&view).scan(&span, &scan, &ReadOptions::default()).unwrap();
        assert_eq!(items, expected.map(pair), "reverse {reverse}");
    }
}
