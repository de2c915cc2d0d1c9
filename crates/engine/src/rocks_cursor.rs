//! Snapshots of RocksDB that own what they read from, and cursors over them.

use std::sync::Arc;

use bytes::Bytes;
use cribwork_types::{Cf, KeyRange};
use rocksdb::{DB, DBRawIterator, ReadOptions, Snapshot};

use crate::rocks::Database;
use crate::{Cursor, EngineError, EngineSnapshot};

/// The end of a range as RocksDB wants it: `None` if there is none.
pub(crate) fn bound(end: &Bytes) -> Option<&[u8]> {
    (!end.is_empty()).then_some(&end[..])
}

/// A snapshot and the database that it is of.
///
/// Invariant: `snapshot` borrows from `database` under a lifetime that the compiler does not check.
/// Fields are dropped in their order, so the snapshot goes before the database that it is released to;
/// `snapshot` must stay private, because its lifetime is a lie outside this type.
pub(crate) struct RocksSnapshot {
    /// Options for point reads; they hold `snapshot`'s address.
    read_options: ReadOptions,
    snapshot: Snapshot<'static>,
    database: Arc<Database>,
}

impl RocksSnapshot {
    /// A snapshot of `database` as it is now.
    pub(crate) fn new(database: Arc<Database>) -> Self {
        let db: *const DB = &database.db;
        // SAFETY: `db` lives on the heap behind an `Arc` that moves into the value made here and that
        // outlives `snapshot` (see the invariant above); nothing ever borrows it mutably.
        #[expect(unsafe_code, reason = "the binding's snapshots can only borrow their database")]
        let db: &'static DB = unsafe { &*db };
        let snapshot = db.snapshot();
        let mut read_options = ReadOptions::default();
        read_options.set_snapshot(&snapshot);
        RocksSnapshot { read_options, snapshot, database }
    }
}

impl EngineSnapshot for RocksSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let family = self.database.family(cf);
        let value = self.database.db.get_pinned_cf_opt(&family, key, &self.read_options);
        let value = value.map_err(|error| EngineError::from_rocks("read", error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn cursor(&self, cf: Cf, range: &KeyRange) -> Box<dyn Cursor + Send + '_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(&range.start[..]);
        if let Some(end) = bound(&range.end) {
            // An inverted range is an empty one.
            options.set_iterate_upper_bound(end.max(&range.start[..]));
        }
        let family = self.database.family(cf);
        Box::new(RocksCursor { rows: self.snapshot.raw_iterator_cf_opt(&family, options) })
    }
}

struct RocksCursor<'a> {
    rows: DBRawIterator<'a>,
}

impl RocksCursor<'_> {
    fn landed(&self) -> Result<bool, EngineError> {
        if self.rows.valid() {
            return Ok(true);
        }
        // The end of the bounds and an error look the same until asked.
        self.rows.status().map_err(|error| EngineError::from_rocks("read", error))?;
        Ok(false)
    }
}

impl Cursor for RocksCursor<'_> {
    fn seek_to_first(&mut self) -> Result<bool, EngineError> {
        self.rows.seek_to_first();
        self.landed()
    }

    fn seek_to_last(&mut self) -> Result<bool, EngineError> {
        self.rows.seek_to_last();
        self.landed()
    }

    fn seek(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        self.rows.seek(key);
        self.landed()
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        self.rows.seek_for_prev(key);
        self.landed()
    }

    fn next(&mut self) -> Result<bool, EngineError> {
        self.rows.next();
        self.landed()
    }

    fn prev(&mut self) -> Result<bool, EngineError> {
        self.rows.prev();
        self.landed()
    }

    fn key(&self) -> &[u8] {
        self.rows.key().expect("asked only after a move that landed on a key")
    }

    fn value(&self) -> &[u8] {
        self.rows.value().expect("asked only after a move that landed on a key")
    }
}
