//! Rolling a transaction back, key by key.
//!
//! A rollback leaves a record even where the transaction never was, so that its prewrite, should it
//! arrive late, fails.

use bytes::Bytes;
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{Cf, Timestamp, WriteBatch, key};

use crate::versions::{TxnRecord, Versions, load_lock, load_record_at, versioned};
use crate::{KeyError, Lock, LockKind, MvccError, ReadView, WriteKind, WriteRecord};

/// Rolls `start_ts` back on `keys` (plain): drops its locks and values, writes rollback records. The
/// batch is empty if a repeat found everything done.
///
/// # Errors
/// [`KeyError::Abort`] in [`MvccError::Key`] if the transaction is committed on one of the keys; else
/// a store failure.
pub fn rollback(
    view: &dyn ReadView,
    keys: &[Bytes],
    start_ts: Timestamp,
) -> Result<WriteBatch, MvccError> {
    let mut versions = Versions::of(view, keys.iter().map(|key| &key[..]));
    let mut batch = WriteBatch::new();
    for key in keys {
        let encoded = key::encode(key);
        let lock = load_lock(view, &encoded)?.filter(|lock| lock.start_ts == start_ts);
        let committed = rollback_key(view, &mut versions, &mut batch, encoded, start_ts, lock)?;
        if let Some(commit_ts) = committed {
            let why = format!("transaction {start_ts} is committed at {commit_ts}");
            return Err(KeyError::Abort(why).into());
        }
    }
    Ok(batch)
}

/// The result of [`cleanup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanupOutcome {
    /// What rolls the transaction back; empty if it is over.
    pub batch: WriteBatch,
    /// Set if the transaction turned out to be committed.
    pub committed: Option<Timestamp>,
}

/// Rolls `start_ts` back on one key (plain) if its lock has expired at `current_ts`; a zero
/// `current_ts` means whether or not it has.
///
/// # Errors
/// [`KeyError::Locked`] in [`MvccError::Key`] if the lock is alive; else a store failure.
pub fn cleanup(
    view: &dyn ReadView,
    key: &Bytes,
    start_ts: Timestamp,
    current_ts: Timestamp,
) -> Result<CleanupOutcome, MvccError> {
    let encoded = key::encode(key);
    let lock = load_lock(view, &encoded)?.filter(|lock| lock.start_ts == start_ts);
    if let Some(lock) = &lock
        && current_ts != Timestamp::ZERO
        && !lock.is_expired(current_ts)
    {
        return Err(KeyError::Locked(Box::new(lock.info(key.clone()))).into());
    }
    let mut versions = Versions::of(view, std::iter::once(&key[..]));
    let mut batch = WriteBatch::new();
    let committed = rollback_key(view, &mut versions, &mut batch, encoded, start_ts, lock)?;
    Ok(CleanupOutcome { batch, committed })
}

/// Rolls back one key, given the transaction's own lock on it; returns its commit timestamp instead
/// if it is committed.
fn rollback_key(
    view: &dyn ReadView,
    versions: &mut Versions<'_>,
    batch: &mut WriteBatch,
    encoded: Vec<u8>,
    start_ts: Timestamp,
    lock: Option<Lock>,
) -> Result<Option<Timestamp>, MvccError> {
    match lock {
        Some(lock) => rollback_lock(view, batch, encoded, &lock)?,
        None => match versions.txn_record(&encoded, start_ts)? {
            TxnRecord::Committed { commit_ts } => return Ok(Some(commit_ts)),
            TxnRecord::RolledBack => {}
            TxnRecord::Missing => put_rollback(view, batch, &encoded, start_ts)?,
        },
    }
    Ok(None)
}

/// Drops a lock and its value and leaves a rollback record.
pub(crate) fn rollback_lock(
    view: &dyn ReadView,
    batch: &mut WriteBatch,
    encoded: Vec<u8>,
    lock: &Lock,
) -> Result<(), MvccError> {
    if lock.kind == LockKind::Put && lock.short_value.is_none() {
        batch.delete(Cf::Default, versioned(&encoded, lock.start_ts));
    }
    put_rollback(view, batch, &encoded, lock.start_ts)?;
    batch.delete(Cf::Lock, encoded);
    Ok(())
}

/// Leaves a rollback record of a transaction. If another transaction's commit record has that place,
/// the rollback becomes a flag of it.
pub(crate) fn put_rollback(
    view: &dyn ReadView,
    batch: &mut WriteBatch,
    encoded: &[u8],
    start_ts: Timestamp,
) -> Result<(), MvccError> {
    if has(Bug::RollbackWithoutRecord) {
        return Ok(());
    }
    let at = versioned(encoded, start_ts);
    let record = match load_record_at(view, &at)? {
        Some(taken) if taken.kind != WriteKind::Rollback => {
            WriteRecord { overlapped_rollback: true, ..taken }
        }
        _ => WriteRecord::rollback(start_ts),
    };
    batch.put(Cf::Write, at, record.encode());
    Ok(())
}
