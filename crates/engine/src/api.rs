//! The traits behind which RocksDB and its in-memory twin sit.

use std::sync::Arc;

use bytes::Bytes;
use cribwork_types::{Cf, KeyRange, Mutation, WriteBatch, key, limits};

use crate::EngineError;

/// Longest key that can be stored, bytes: the encoding of the longest user key and a timestamp.
///
/// A bound on keys is what makes "to the end of the family" a key: one byte more of `0xFF` sorts
/// behind everything stored.
pub const KEY_STORED_BYTES_MAX: usize = key::encoded_len(limits::KEY_BYTES_MAX) + 8;

/// Refuses a batch with a key that is too long, which no store would take, before any of it is written.
/// Whoever replicates batches asks first.
///
/// # Errors
/// [`EngineError::KeyTooLong`].
pub fn check_keys(batch: &WriteBatch) -> Result<(), EngineError> {
    let too_long = |mutation: &Mutation| match mutation {
        Mutation::Put { key, .. } if key.len() > KEY_STORED_BYTES_MAX => Some(key.len()),
        _ => None,
    };
    match batch.mutations.iter().find_map(too_long) {
        None => Ok(()),
        Some(length) => Err(EngineError::KeyTooLong { length, limit: KEY_STORED_BYTES_MAX }),
    }
}

/// An ordered key-value store with column families, one write-ahead log, and snapshots.
///
/// Invariant (prefix crash state): all writes go through one log, so after a crash the store holds a
/// prefix, in write order, of what was written; everything before the last completed [`Engine::sync`]
/// is in it.
pub trait Engine: Send + Sync + 'static {
    /// Writes all of `batch` atomically. Visible to reads on return, durable only after a
    /// [`Engine::sync`] that starts later.
    ///
    /// # Errors
    /// [`EngineError::KeyTooLong`], and nothing was written; any other [`EngineError`], and the
    /// store takes no more writes.
    fn write(&self, batch: &WriteBatch) -> Result<(), EngineError>;

    /// Makes every write that returned before this call durable (`fdatasync` of the log).
    ///
    /// # Errors
    /// [`EngineError`]. Never retry: the kernel may have dropped the dirty pages (the "fsyncgate"
    /// finding), so the process must stop.
    fn sync(&self) -> Result<(), EngineError>;

    /// The newest value of `key`.
    ///
    /// # Errors
    /// [`EngineError`] on I/O failure or corruption.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// A view of all families at one instant. Cheap; holds back compaction while it lives.
    fn snapshot(&self) -> Arc<dyn EngineSnapshot>;

    /// Estimated bytes that the keys of `range` take in `cf`: compressed in table files, plain in
    /// memtables. Walks what the memtables hold of `range`, so ask now and then, not per request.
    fn approximate_size_bytes(&self, cf: Cf, range: &KeyRange) -> u64;

    /// Where the store stands on its disk.
    fn disk_usage(&self) -> DiskUsage;

    /// Writes memtables out and makes everything durable. The last call of a clean shutdown.
    ///
    /// # Errors
    /// [`EngineError`] on I/O failure.
    fn flush(&self) -> Result<(), EngineError>;
}

/// Bytes on the disk that holds the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of the store's own files.
    pub used_bytes: u64,
    /// Size of the file system, or 0 if unknown.
    pub capacity_bytes: u64,
    /// Bytes of the file system that this process may still write, or 0 if unknown.
    pub available_bytes: u64,
}

/// A consistent view of every family.
pub trait EngineSnapshot: Send + Sync + 'static {
    /// The value of `key` at the instant of the snapshot.
    ///
    /// # Errors
    /// [`EngineError`] on I/O failure or corruption.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// A cursor over the keys of `range` in `cf`, not yet positioned.
    fn cursor(&self, cf: Cf, range: &KeyRange) -> Box<dyn Cursor + Send + '_>;
}

/// Walks keys in order within the bounds given when it was made. Each move says whether it landed on
/// a key; [`Cursor::key`] and [`Cursor::value`] may be called only then. A move that found nothing
/// leaves the cursor nowhere: `next` and `prev` from there find nothing either, only a seek does.
pub trait Cursor {
    /// To the first key in bounds.
    ///
    /// # Errors
    /// [`EngineError`] on I/O failure or corruption, as all moves.
    fn seek_to_first(&mut self) -> Result<bool, EngineError>;
    /// To the last key in bounds.
    ///
    /// # Errors
    /// See [`Cursor::seek_to_first`].
    fn seek_to_last(&mut self) -> Result<bool, EngineError>;
    /// To the first key in bounds at or after `key`.
    ///
    /// # Errors
    /// See [`Cursor::seek_to_first`].
    fn seek(&mut self, key: &[u8]) -> Result<bool, EngineError>;
    /// To the last key in bounds at or before `key`.
    ///
    /// # Errors
    /// See [`Cursor::seek_to_first`].
    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, EngineError>;
    /// To the next key.
    ///
    /// # Errors
    /// See [`Cursor::seek_to_first`].
    fn next(&mut self) -> Result<bool, EngineError>;
    /// To the previous key.
    ///
    /// # Errors
    /// See [`Cursor::seek_to_first`].
    fn prev(&mut self) -> Result<bool, EngineError>;
    /// The key under the cursor.
    fn key(&self) -> &[u8];
    /// The value under the cursor.
    fn value(&self) -> &[u8];
}
