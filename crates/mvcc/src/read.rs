//! Snapshot reads of single keys.

use bytes::Bytes;
use cribwork_types::{Timestamp, key};

use crate::versions::{Versions, load_lock, load_value};
use crate::{KeyError, Lock, LockInfo, LockKind, LockVerdict, MvccError, ReadView, WriteKind};

/// What a reader knows about other transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Start timestamps of transactions that were rolled back or will commit above the read's
    /// timestamp: their locks are passed over.
    pub resolved_locks: Vec<Timestamp>,
    /// Start timestamps of transactions that committed at or below the read's timestamp: the value of
    /// their locks is read as if it were committed.
    pub committed_locks: Vec<Timestamp>,
}

/// One key's answer in a read of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadItem {
    /// The key (plain) has this value; empty if only keys were asked for.
    Pair(Bytes, Bytes),
    /// The key is locked; its value is not known yet.
    Locked(Box<LockInfo>),
}

/// Reads at any timestamp over one view. For a read at `ts` the view must have been taken after every
/// commit at or below `ts` that is not protected by a lock in it.
#[derive(Clone, Copy)]
pub struct Reader<'v> {
    pub(crate) view: &'v dyn ReadView,
}

impl<'v> Reader<'v> {
    /// Reads from `view`.
    pub fn new(view: &'v dyn ReadView) -> Self {
        Self { view }
    }

    /// The value of `key` (plain) at `ts`: its newest put or delete with `commit_ts <= ts`. MAX means
    /// the newest of all.
    ///
    /// # Errors
    /// [`KeyError::Locked`] in [`MvccError::Key`] if a lock is in the way; else a store failure.
    pub fn get(
        &self,
        key: &[u8],
        ts: Timestamp,
        options: &ReadOptions,
    ) -> Result<Option<Bytes>, MvccError> {
        let mut versions = Versions::of(self.view, std::iter::once(key));
        match self.read_key(&mut versions, key, ts, options)? {
            Found::Value(value) => Ok(value),
            Found::Locked(lock) => Err(KeyError::Locked(lock).into()),
        }
    }

    /// The values of `keys` (plain) at `ts` in the order asked for, without those that do not exist.
    ///
    /// # Errors
    /// [`MvccError`] if the store failed; locked keys are items.
    pub fn batch_get(
        &self,
        keys: &[Bytes],
        ts: Timestamp,
        options: &ReadOptions,
    ) -> Result<Vec<ReadItem>, MvccError> {
        let mut versions = Versions::of(self.view, keys.iter().map(|key| &key[..]));
        let mut items = Vec::with_capacity(keys.len());
        for key in keys {
            match self.read_key(&mut versions, key, ts, options)? {
                Found::Value(Some(value)) => items.push(ReadItem::Pair(key.clone(), value)),
                Found::Value(None) => {}
                Found::Locked(lock) => items.push(ReadItem::Locked(lock)),
            }
        }
        Ok(items)
    }

    fn read_key(
        &self,
        versions: &mut Versions<'_>,
        key: &[u8],
        ts: Timestamp,
        options: &ReadOptions,
    ) -> Result<Found, MvccError> {
        let encoded = key::encode(key);
        if let Some(lock) = load_lock(self.view, &encoded)? {
            match lock.verdict(key, ts, options) {
                LockVerdict::Pass => {}
                LockVerdict::Committed => {
                    return Ok(Found::Value(lock_value(self.view, &encoded, lock)?));
                }
                LockVerdict::Blocked => {
                    return Ok(Found::Locked(Box::new(lock.info(Bytes::copy_from_slice(key)))));
                }
            }
        }
        let mut more = versions.seek(&encoded, ts)?;
        while more {
            let (_, record) = versions.record()?;
            match record.kind {
                WriteKind::Put => {
                    let short = record.short_value.map(Bytes::copy_from_slice);
                    let value = load_value(self.view, &encoded, record.start_ts, short)?;
                    return Ok(Found::Value(Some(value)));
                }
                WriteKind::Delete => break,
                WriteKind::Lock | WriteKind::Rollback => more = versions.older()?,
            }
        }
        Ok(Found::Value(None))
    }
}

enum Found {
    Value(Option<Bytes>),
    Locked(Box<LockInfo>),
}

/// The value that a lock intends to set; none for a delete.
pub(crate) fn lock_value(
    view: &dyn ReadView,
    encoded: &[u8],
    lock: Lock,
) -> Result<Option<Bytes>, MvccError> {
    match lock.kind {
        LockKind::Put => load_value(view, encoded, lock.start_ts, lock.short_value).map(Some),
        LockKind::Delete | LockKind::Lock | LockKind::Pessimistic => Ok(None),
    }
}
