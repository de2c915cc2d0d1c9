//! The second phase of commit: locks become commit records.

use bytes::Bytes;
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{Cf, Timestamp, WriteBatch, key};

use crate::versions::{TxnRecord, Versions, load_lock, load_record_at, versioned};
use crate::{KeyError, Lock, LockKind, MvccError, ReadView, WriteKind, WriteRecord};

/// The result of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOutcome {
    /// Empty if a repeat found everything done.
    pub batch: WriteBatch,
    /// Where the transaction is committed: what was asked for, unless an earlier request had already
    /// committed it elsewhere.
    pub commit_ts: Timestamp,
}

/// Commits the locks of `start_ts` on `keys` (plain). The primary decides: it is committed first and
/// alone.
///
/// # Errors
/// In [`MvccError::Key`]: [`KeyError::CommitTsExpired`] if a reader raised the lock's minimum;
/// [`KeyError::TxnLockNotFound`] if a key has neither lock nor commit record of the transaction;
/// [`KeyError::Abort`] for a commit timestamp that cannot be right. Else a store failure.
pub fn commit(
    view: &dyn ReadView,
    keys: &[Bytes],
    start_ts: Timestamp,
    commit_ts: Timestamp,
) -> Result<CommitOutcome, MvccError> {
    let mut versions = Versions::of(view, keys.iter().map(|key| &key[..]));
    let mut outcome = CommitOutcome { batch: WriteBatch::new(), commit_ts };
    for key in keys {
        let encoded = key::encode(key);
        match load_lock(view, &encoded)?.filter(|lock| lock.start_ts == start_ts) {
            Some(lock) => {
                commit_lock(view, &mut outcome.batch, key, encoded, lock, commit_ts)?;
            }
            None => match versions.txn_record(&encoded, start_ts)? {
                TxnRecord::Committed { commit_ts } => outcome.commit_ts = commit_ts,
                _ if has(Bug::CommitWithoutLock) => {}
                TxnRecord::RolledBack | TxnRecord::Missing => {
                    return Err(KeyError::TxnLockNotFound { start_ts, key: key.clone() }.into());
                }
            },
        }
    }
    Ok(outcome)
}

/// Turns `lock` on `key` into a commit record. A pessimistic lock was never prewritten, so it is only
/// removed.
pub(crate) fn commit_lock(
    view: &dyn ReadView,
    batch: &mut WriteBatch,
    key: &[u8],
    encoded: Vec<u8>,
    lock: Lock,
    commit_ts: Timestamp,
) -> Result<(), MvccError> {
    let start_ts = lock.start_ts;
    if commit_ts <= start_ts {
        let why = format!("commit timestamp {commit_ts} is not above start timestamp {start_ts}");
        return Err(KeyError::Abort(why).into());
    }
    if commit_ts < lock.min_commit_ts && !has(Bug::MinCommitIgnored) {
        return Err(KeyError::CommitTsExpired {
            start_ts,
            attempted_commit_ts: commit_ts,
            key: Bytes::copy_from_slice(key),
            min_commit_ts: lock.min_commit_ts,
        }
        .into());
    }
    let kind = match lock.kind {
        LockKind::Put => WriteKind::Put,
        LockKind::Delete => WriteKind::Delete,
        LockKind::Lock => WriteKind::Lock,
        LockKind::Pessimistic => {
            batch.delete(Cf::Lock, encoded);
            return Ok(());
        }
    };
    let at = versioned(&encoded, commit_ts);
    // The place may be taken by the rollback of a transaction that started at this timestamp. It must
    // not be forgotten, or a late prewrite of that transaction would succeed.
    let overlapped_rollback = match load_record_at(view, &at)? {
        None => false,
        Some(taken) if taken.kind == WriteKind::Rollback => true,
        Some(taken) => {
            let why = format!(
                "commit timestamp {commit_ts} is taken by transaction {} on the same key",
                taken.start_ts
            );
            return Err(KeyError::Abort(why).into());
        }
    };
    let short_value = lock.short_value;
    let record = WriteRecord { kind, start_ts, short_value, overlapped_rollback };
    batch.put(Cf::Write, at, record.encode());
    batch.delete(Cf::Lock, encoded);
    Ok(())
}
