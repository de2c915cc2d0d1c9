//! An engine that tells of its first failure: whoever reads or writes, and whatever becomes of the error.
//!
//! A store that answered with damaged bytes once, or could not read or write once, must not go on as if
//! nothing had been: its node stops, and the other replicas take over. PostgreSQL and etcd stop likewise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{Cf, KeyRange, WriteBatch};

use crate::{Cursor, DiskUsage, Engine, EngineError, EngineSnapshot};

/// What hears of the first failure.
type Hook = Arc<dyn Fn(EngineError) + Send + Sync>;

/// Shared by the engine and everything that was made from it.
struct Alarm {
    rung: AtomicBool,
    hook: Hook,
}

impl Alarm {
    /// Passes `result` on; the first failure of the store rings.
    fn hear<T>(&self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        if let Err(
            error @ (EngineError::Corruption { .. }
            | EngineError::Io { .. }
            | EngineError::DiskFull { .. }),
        ) = &result
            && !self.rung.swap(true, Ordering::AcqRel)
        {
            (self.hook)(error.clone());
        }
        result
    }
}

/// What was read, as it is.
fn blind<T: Default>(read: Result<T, EngineError>) -> Result<T, EngineError> {
    match read {
        Err(EngineError::Corruption { .. }) if has(Bug::DamageAsAbsence) => Ok(T::default()),
        read => read,
    }
}

/// Tells `on_failure` of the first time that the engine below it cannot read, cannot write, or finds
/// damage. The error goes to the caller all the same.
pub struct Watched {
    engine: Arc<dyn Engine>,
    alarm: Arc<Alarm>,
}

impl Watched {
    /// Watches `engine`. `on_failure` is called at most once, by whoever met the failure; it must not
    /// block.
    pub fn new(
        engine: Arc<dyn Engine>,
        on_failure: Arc<dyn Fn(EngineError) + Send + Sync>,
    ) -> Arc<Watched> {
        let alarm = Alarm { rung: AtomicBool::new(false), hook: on_failure };
        Arc::new(Watched { engine, alarm: Arc::new(alarm) })
    }
}

impl Engine for Watched {
    fn write(&self, batch: &WriteBatch) -> Result<(), EngineError> {
        self.alarm.hear(self.engine.write(batch))
    }

    fn sync(&self) -> Result<(), EngineError> {
        let synced = self.engine.sync();
        if has(Bug::FailedSyncIgnored) {
            return Ok(());
        }
        self.alarm.hear(synced)
    }

    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.alarm.hear(blind(self.engine.get(cf, key)))
    }

    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        let snapshot = self.engine.snapshot();
        Arc::new(WatchedSnapshot { snapshot, alarm: self.alarm.clone() })
    }

    fn approximate_size_bytes(&self, cf: Cf, range: &KeyRange) -> u64 {
        self.engine.approximate_size_bytes(cf, range)
    }

    fn disk_usage(&self) -> DiskUsage {
        self.engine.disk_usage()
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.alarm.hear(self.engine.flush())
    }
}

struct WatchedSnapshot {
    snapshot: Arc<dyn EngineSnapshot>,
    alarm: Arc<Alarm>,
}

impl EngineSnapshot for WatchedSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.alarm.hear(blind(self.snapshot.get(cf, key)))
    }

    fn cursor(&self, cf: Cf, range: &KeyRange) -> Box<dyn Cursor + Send + '_> {
        Box::new(WatchedCursor { cursor: self.snapshot.cursor(cf, range), alarm: &self.alarm })
    }
}

struct WatchedCursor<'a> {
    cursor: Box<dyn Cursor + Send + 'a>,
    alarm: &'a Alarm,
}

impl Cursor for WatchedCursor<'_> {
    fn seek_to_first(&mut self) -> Result<bool, EngineError> {
        self.alarm.hear(blind(self.cursor.seek_to_first()))
    }

    fn seek_to_last(&mut self) -> Result<bool, EngineError> {
        self.alarm.hear(blind(self.cursor.seek_to_last()))
    }

    fn seek(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        self.alarm.hear(blind(self.cursor.seek(key)))
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        self.alarm.hear(blind(self.cursor.seek_for_prev(key)))
    }

    fn next(&mut self) -> Result<bool, EngineError> {
        self.alarm.hear(blind(self.cursor.next()))
    }

    fn prev(&mut self) -> Result<bool, EngineError> {
        self.alarm.hear(blind(self.cursor.prev()))
    }

    fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    fn value(&self) -> &[u8] {
        self.cursor.value()
    }
}
