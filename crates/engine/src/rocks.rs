//! [`Engine`] over RocksDB.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cribwork_types::{Cf, KeyRange, Mutation, WriteBatch};
use rocksdb::{ColumnFamily, DB, FlushOptions, Range, ReadOptions, ReadTier, WriteOptions};

use crate::api::check_keys;
use crate::format::DataDir;
use crate::log_check::check_logs;
use crate::rocks_cursor::{RocksSnapshot, bound};
use crate::{
    DiskUsage, Engine, EngineError, EngineOptions, EngineSnapshot, KEY_STORED_BYTES_MAX,
    rocks_options,
};

/// Bytes that RocksDB adds to each record of a batch: tag, family, two lengths.
const RECORD_OVERHEAD_BYTES: usize = 12;
/// Sorts behind every key that can be stored: stands for "to the end of the family" where RocksDB
/// wants a key.
const BEHIND_ALL_KEYS: &[u8] = &[0xFF; KEY_STORED_BYTES_MAX + 1];

/// The open database and its directory. Shared with snapshots, so the last of them closes it.
pub(crate) struct Database {
    // Before the directory, so that it is closed before the lock is released.
    pub(crate) db: DB,
    pub(crate) dir: DataDir,
}

impl Database {
    pub(crate) fn family(&self, cf: Cf) -> &ColumnFamily {
        self.db.cf_handle(cf.name()).expect("every family was named when the database was opened")
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> PathBuf {
        self.dir.database()
    }
}

/// A store in a directory.
///
/// Dropping the engine and the last of its snapshots closes it; what was written but not flushed is
/// replayed from the log at the next start.
pub struct RocksEngine {
    database: Arc<Database>,
    /// For batches without range deletions, and for the others.
    write_options: [WriteOptions; 2],
    /// The first failed write or sync. Set once; from then on only reads are served.
    failure: OnceLock<EngineError>,
}

impl RocksEngine {
    /// Opens the store in `dir`, making one if the directory is empty or missing.
    ///
    /// # Errors
    /// - [`EngineError::Locked`], [`EngineError::ForeignDirectory`], [`EngineError::UnknownFormat`]
    ///   for a directory that is not to be touched;
    /// - [`EngineError::Corruption`] if files are missing or damaged, the log's torn tail excepted;
    /// - [`EngineError::Io`], [`EngineError::DiskFull`] from the operating system.
    pub fn open(dir: &Path, options: EngineOptions) -> Result<Arc<RocksEngine>, EngineError> {
        let mut dir = DataDir::open(dir)?;
        if !dir.is_new() {
            check_logs(&dir.database())?;
        }
        let db_options = rocks_options::database(&options, dir.is_new())?;
        let families = rocks_options::families(&options);
        let db = DB::open_cf_descriptors(&db_options, dir.database(), families)
            .map_err(|error| EngineError::from_rocks("open database", error))?;
        if dir.is_new() {
            db.flush_wal(true).map_err(|error| EngineError::from_rocks("sync", error))?;
            dir.finish_creation()?;
        }
        let mut hinted = WriteOptions::default();
        // Neighbouring keys of one batch find their place in the memtable from one another. Not in a
        // batch that deletes ranges: RocksDB keeps one hint for a family's keys and range deletions,
        // which lie in two lists, and in a concurrent write links a range deletion into the list of
        // the keys. There it deletes nothing.
        hinted.set_memtable_insert_hint_per_batch(true);
        let write_options = [hinted, WriteOptions::default()];
        Ok(Arc::new(RocksEngine {
            database: Arc::new(Database { db, dir }),
            write_options,
            failure: OnceLock::new(),
        }))
    }

    fn check_failure(&self) -> Result<(), EngineError> {
        self.failure.get().map_or(Ok(()), |first| Err(first.stopped()))
    }

    fn fail(&self, what: &'static str, error: rocksdb::Error) -> EngineError {
        let error = EngineError::from_rocks(what, error);
        // A second failure at the same moment changes nothing: the first is kept.
        self.failure.get_or_init(|| error.clone());
        error
    }

    fn batch(&self, batch: &WriteBatch) -> rocksdb::WriteBatch {
        let overhead = RECORD_OVERHEAD_BYTES * (batch.mutations.len() + 1);
        let mut out = rocksdb::WriteBatch::with_capacity_bytes(batch.size_bytes() + overhead);
        for mutation in &batch.mutations {
            match mutation {
                Mutation::Put { cf, key, value } => {
                    out.put_cf(&self.database.family(*cf), key, value);
                }
                Mutation::Delete { cf, key } => out.delete_cf(&self.database.family(*cf), key),
                Mutation::DeleteRange { cf, range } => {
                    let end = bound(&range.end).unwrap_or(BEHIND_ALL_KEYS);
                    // RocksDB takes inverted bounds for an error.
                    if &range.start[..] < end {
                        out.delete_range_cf(&self.database.family(*cf), &range.start[..], end);
                    }
                }
            }
        }
        out
    }

    /// Bytes of the keys and values of `range` that are in memtables. RocksDB has an estimate of its
    /// own, but not in its C interface.
    fn memtable_size_bytes(&self, cf: Cf, range: &KeyRange) -> u64 {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Memtable);
        options.set_iterate_lower_bound(&range.start[..]);
        if let Some(end) = bound(&range.end) {
            options.set_iterate_upper_bound(end);
        }
        let mut rows = self.database.db.raw_iterator_cf_opt(&self.database.family(cf), options);
        rows.seek_to_first();
        let mut bytes = 0;
        while let Some((key, value)) = rows.item() {
            bytes += (key.len() + value.len()) as u64;
            rows.next();
        }
        bytes
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: &WriteBatch) -> Result<(), EngineError> {
        self.check_failure()?;
        check_keys(batch)?;
        if batch.is_empty() {
            return Ok(());
        }
        let deletes_ranges =
            batch.mutations.iter().any(|one| matches!(one, Mutation::DeleteRange { .. }));
        self.database
            .db
            .write_opt(self.batch(batch), &self.write_options[usize::from(deletes_ranges)])
            .map_err(|error| self.fail("write", error))
    }

    /// `FlushWAL(sync)`. With `manual_wal_flush` off, as here, each write has already handed its bytes
    /// to the kernel, and this is `SyncWAL`: it runs beside writes and not in their queue, and
    /// `fdatasync`s every log file that is not yet synced, oldest first.
    fn sync(&self) -> Result<(), EngineError> {
        self.check_failure()?;
        self.database.db.flush_wal(true).map_err(|error| self.fail("sync", error))
    }

    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = self.database.db.get_pinned_cf(&self.database.family(cf), key);
        let value = value.map_err(|error| EngineError::from_rocks("read", error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        Arc::new(RocksSnapshot::new(Arc::clone(&self.database)))
    }

    fn approximate_size_bytes(&self, cf: Cf, range: &KeyRange) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let end = bound(&range.end).unwrap_or(BEHIND_ALL_KEYS);
        let family = self.database.family(cf);
        let in_files =
            self.database.db.get_approximate_sizes_cf(&family, &[Range::new(&range.start, end)]);
        in_files.iter().sum::<u64>() + self.memtable_size_bytes(cf, range)
    }

    fn disk_usage(&self) -> DiskUsage {
        let files = fs::read_dir(self.database.dir.database());
        let lengths = files.into_iter().flatten().flatten().flat_map(|entry| entry.metadata());
        let used_bytes = lengths.map(|metadata| metadata.len()).sum();
        match rustix::fs::statvfs(self.database.dir.path()) {
            Err(_) => DiskUsage { used_bytes, ..DiskUsage::default() },
            Ok(system) => DiskUsage {
                used_bytes,
                capacity_bytes: system.f_blocks.saturating_mul(system.f_frsize),
                available_bytes: system.f_bavail.saturating_mul(system.f_frsize),
            },
        }
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.sync()?;
        let families = Cf::ALL.map(|cf| self.database.family(cf));
        self.database
            .db
            .flush_cfs_opt(&families.each_ref(), &FlushOptions::default())
            .map_err(|error| self.fail("flush", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_it_reads_but_writes_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let engine = RocksEngine::open(dir.path(), EngineOptions::small()).unwrap();
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raw, "k", "v");
        engine.write(&batch).unwrap();

        let some_failure = DB::open_default("/dev/null/nowhere").unwrap_err();
        let first = engine.fail("sync", some_failure);
        assert!(matches!(first, EngineError::Io { what: "sync", .. }), "{first}");
        for result in [engine.write(&batch), engine.sync(), engine.flush()] {
            assert_eq!(result, Err(first.stopped()));
        }
        assert_eq!(engine.get(Cf::Raw, b"k").unwrap().unwrap(), "v");
    }
}
