//! [`Engine`] in memory, with a model of crashes.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use cribwork_types::{Cf, KeyRange, WriteBatch};
use parking_lot::RwLock;

use crate::api::check_keys;
use crate::memory_state::{State, bounds};
use crate::{Cursor, DiskUsage, Engine, EngineError, EngineSnapshot};

/// Answers like [`crate::RocksEngine`], keeps everything in memory, and can crash.
#[derive(Default)]
pub struct MemoryEngine {
    state: Arc<RwLock<State>>,
}

impl MemoryEngine {
    /// An empty store.
    pub fn new() -> Arc<MemoryEngine> {
        Arc::default()
    }

    /// The store as the next process finds it after a crash now: exactly what was synced.
    /// `self` stays as it is.
    pub fn crash(&self) -> Arc<MemoryEngine> {
        self.crash_keeping(0)
    }

    /// As [`Self::crash`], but the disk had already taken the first `unsynced` batches written
    /// since the last sync. All are taken if there are fewer.
    pub fn crash_keeping(&self, unsynced: usize) -> Arc<MemoryEngine> {
        let state = State::after_crash(&self.state.read(), unsynced);
        Arc::new(MemoryEngine { state: Arc::new(RwLock::new(state)) })
    }
}

impl Engine for MemoryEngine {
    fn write(&self, batch: &WriteBatch) -> Result<(), EngineError> {
        check_keys(batch)?;
        if !batch.is_empty() {
            self.state.write().write(batch);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.state.write().sync();
        Ok(())
    }

    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let state = self.state.read();
        Ok(state.get(cf, key, state.sequence()))
    }

    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        let sequence = self.state.write().pin();
        Arc::new(MemorySnapshot { state: Arc::clone(&self.state), sequence })
    }

    fn approximate_size_bytes(&self, cf: Cf, range: &KeyRange) -> u64 {
        self.state.read().size_bytes(cf, range)
    }

    fn disk_usage(&self) -> DiskUsage {
        let state = self.state.read();
        let all = KeyRange::all();
        let used_bytes = Cf::ALL.into_iter().map(|cf| state.size_bytes(cf, &all)).sum();
        DiskUsage { used_bytes, ..DiskUsage::default() }
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.sync()
    }
}

struct MemorySnapshot {
    state: Arc<RwLock<State>>,
    sequence: u64,
}

impl Drop for MemorySnapshot {
    fn drop(&mut self) {
        self.state.write().unpin(self.sequence);
    }
}

impl EngineSnapshot for MemorySnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.state.read().get(cf, key, self.sequence))
    }

    fn cursor(&self, cf: Cf, range: &KeyRange) -> Box<dyn Cursor + Send + '_> {
        Box::new(MemoryCursor { snapshot: self, cf, range: range.clone(), row: None })
    }
}

struct MemoryCursor<'a> {
    snapshot: &'a MemorySnapshot,
    cf: Cf,
    range: KeyRange,
    /// The key and value under the cursor.
    row: Option<(Bytes, Bytes)>,
}

impl MemoryCursor<'_> {
    fn find(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>), backward: bool) -> Option<(Bytes, Bytes)> {
        self.snapshot.state.read().find(self.cf, bounds, self.snapshot.sequence, backward)
    }

    fn land(&mut self, row: Option<(Bytes, Bytes)>) -> Result<bool, EngineError> {
        self.row = row;
        Ok(self.row.is_some())
    }

    fn row(&self) -> &(Bytes, Bytes) {
        self.row.as_ref().expect("asked only after a move that landed on a key")
    }
}

impl Cursor for MemoryCursor<'_> {
    fn seek_to_first(&mut self) -> Result<bool, EngineError> {
        let row = self.find(bounds(&self.range), false);
        self.land(row)
    }

    fn seek_to_last(&mut self) -> Result<bool, EngineError> {
        let row = self.find(bounds(&self.range), true);
        self.land(row)
    }

    fn seek(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        let start = Bound::Included(key.max(&self.range.start[..]));
        let row = self.find((start, bounds(&self.range).1), false);
        self.land(row)
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        let (start, end) = bounds(&self.range);
        let end = match end {
            Bound::Excluded(bound) if bound <= key => end,
            _ => Bound::Included(key),
        };
        let row = self.find((start, end), true);
        self.land(row)
    }

    fn next(&mut self) -> Result<bool, EngineError> {
        let row = self.row.as_ref().and_then(|(key, _)| {
            self.find((Bound::Excluded(&key[..]), bounds(&self.range).1), false)
        });
        self.land(row)
    }

    fn prev(&mut self) -> Result<bool, EngineError> {
        let row = self.row.as_ref().and_then(|(key, _)| {
            self.find((bounds(&self.range).0, Bound::Excluded(&key[..])), true)
        });
        self.land(row)
    }

    fn key(&self) -> &[u8] {
        &self.row().0
    }

    fn value(&self) -> &[u8] {
        &self.row().1
    }
}
