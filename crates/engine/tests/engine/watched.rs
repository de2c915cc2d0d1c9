//! The first failure of a store is told, whoever meets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use cribwork_engine::{
    Cursor, DiskUsage, Engine, EngineError, EngineSnapshot, MemoryEngine, Watched,
};
use cribwork_types::{Cf, KeyRange, WriteBatch};

/// Cannot read the key `bad`, nor sync.
struct Damaged(Arc<MemoryEngine>);

fn damage() -> EngineError {
    EngineError::Corruption { what: "read", detail: "a flipped bit".to_owned() }
}

impl Engine for Damaged {
    fn write(&self, batch: &WriteBatch) -> Result<(), EngineError> {
        self.0.write(batch)
    }

    fn sync(&self) -> Result<(), EngineError> {
        Err(EngineError::Io { what: "sync", detail: "EIO".to_owned() })
    }

    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if key == b"bad" { Err(damage()) } else { self.0.get(cf, key) }
    }

    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        Arc::new(DamagedView(self.0.snapshot()))
    }

    fn approximate_size_bytes(&self, cf: Cf, range: &KeyRange) -> u64 {
        self.0.approximate_size_bytes(cf, range)
    }

    fn disk_usage(&self) -> DiskUsage {
        self.0.disk_usage()
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.sync()
    }
}

struct DamagedView(Arc<dyn EngineSnapshot>);

impl EngineSnapshot for DamagedView {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if key == b"bad" { Err(damage()) } else { self.0.get(cf, key) }
    }

    fn cursor(&self, _: Cf, _: &KeyRange) -> Box<dyn Cursor + Send + '_> {
        Box::new(DamagedCursor)
    }
}

struct DamagedCursor;

impl Cursor for DamagedCursor {
    fn seek_to_first(&mut self) -> Result<bool, EngineError> {
        Err(damage())
    }

    fn seek_to_last(&mut self) -> Result<bool, EngineError> {
        Err(damage())
    }

    fn seek(&mut self, _: &[u8]) -> Result<bool, EngineError> {
        Err(damage())
    }

    fn seek_for_prev(&mut self, _: &[u8]) -> Result<bool, EngineError> {
        Err(damage())
    }

    fn next(&mut self) -> Result<bool, EngineError> {
        Err(damage())
    }

    fn prev(&mut self) -> Result<bool, EngineError> {
        Err(damage())
    }

    fn key(&self) -> &[u8] {
        &[]
    }

    fn value(&self) -> &[u8] {
        &[]
    }
}

fn watched() -> (Arc<Watched>, Arc<AtomicUsize>) {
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    let hook = Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    (Watched::new(Arc::new(Damaged(MemoryEngine::new())), hook), heard)
}

#[test]
fn every_way_to_meet_a_failure_is_told_once_and_returned() {
    let ways: [fn(&Watched) -> bool; 10] = [
        |engine| engine.get(Cf::Raw, b"bad").is_err(),
        |engine| engine.sync().is_err(),
        |engine| engine.flush().is_err(),
        |engine| engine.snapshot().get(Cf::Raw, b"bad").is_err(),
        |engine| engine.snapshot().cursor(Cf::Raw, &KeyRange::all()).seek_to_first().is_err(),
        |engine| engine.snapshot().cursor(Cf::Raw, &KeyRange::all()).seek_to_last().is_err(),
        |engine| engine.snapshot().cursor(Cf::Raw, &KeyRange::all()).seek(b"a").is_err(),
        |engine| engine.snapshot().cursor(Cf::Raw, &KeyRange::all()).seek_for_prev(b"a").is_err(),
        |engine| engine.snapshot().cursor(Cf::Raw, &KeyRange::all()).next().is_err(),
        |engine| engine.snapshot().cursor(Cf::Raw, &KeyRange::all()).prev().is_err(),
    ];
    for (number, way) in ways.into_iter().enumerate() {
        let (engine, heard) = watched();
        assert!(way(&engine) && way(&engine), "way {number} returns the error");
        assert_eq!(heard.load(Ordering::Relaxed), 1, "way {number} is told once");
    }
}

#[test]
fn what_is_no_failure_of_the_store_is_not_told() {
    let (engine, heard) = watched();
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raw, vec![0; 100_000], "too long a key");
    assert!(matches!(engine.write(&batch), Err(EngineError::KeyTooLong { .. })));
    assert_eq!(engine.get(Cf::Raw, b"good"), Ok(None));
    assert_eq!(heard.load(Ordering::Relaxed), 0);
}
