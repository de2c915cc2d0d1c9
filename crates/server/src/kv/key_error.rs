//! Key errors and locks on the wire.

use cribwork_mvcc::{Assertion, KeyError, LockInfo};
use cribwork_proto::kvrpcpb;

/// A key error as `kvrpcpb.KeyError`.
pub(crate) fn key_error(error: KeyError) -> kvrpcpb::KeyError {
    let mut wire = kvrpcpb::KeyError::default();
    match error {
        KeyError::Locked(lock) => wire.locked = Some(lock_info(*lock)),
        KeyError::Conflict(conflict) => {
            wire.conflict = Some(kvrpcpb::WriteConflict {
                start_ts: conflict.start_ts.get(),
                conflict_ts: conflict.conflict_ts.get(),
                conflict_commit_ts: conflict.conflict_commit_ts.get(),
                reason: conflict.reason.number(),
                key: conflict.key,
                primary: conflict.primary,
            });
        }
        KeyError::AlreadyExist { key } => {
            wire.already_exist = Some(kvrpcpb::AlreadyExist { key });
        }
        KeyError::CommitTsExpired { start_ts, attempted_commit_ts, key, min_commit_ts } => {
            wire.commit_ts_expired = Some(kvrpcpb::CommitTsExpired {
                start_ts: start_ts.get(),
                attempted_commit_ts: attempted_commit_ts.get(),
                key,
                min_commit_ts: min_commit_ts.get(),
            });
        }
        KeyError::TxnNotFound { start_ts, primary_key } => {
            let start_ts = start_ts.get();
            wire.txn_not_found = Some(kvrpcpb::TxnNotFound { start_ts, primary_key });
        }
        KeyError::TxnLockNotFound { start_ts, key } => {
            // The text is what clients older than the field read.
            wire.retryable = format!("TxnLockNotFound: {start_ts} on {}", key.escape_ascii());
            wire.txn_lock_not_found = Some(kvrpcpb::TxnLockNotFound { key });
        }
        KeyError::AssertionFailed {
            start_ts,
            key,
            assertion,
            existing_start_ts,
            existing_commit_ts,
        } => {
            wire.assertion_failed = Some(kvrpcpb::AssertionFailed {
                start_ts: start_ts.get(),
                key,
                assertion: assertion_number(assertion),
                existing_start_ts: existing_start_ts.get(),
                existing_commit_ts: existing_commit_ts.get(),
            });
        }
        KeyError::PrimaryMismatch(lock) => {
            let lock_info = Some(lock_info(*lock));
            wire.primary_mismatch = Some(kvrpcpb::PrimaryMismatch { lock_info });
        }
        KeyError::Abort(text) => wire.abort = text,
        KeyError::Retryable(text) => wire.retryable = text,
    }
    wire
}

/// A lock as `kvrpcpb.LockInfo`, every field filled: clients decide by all of them.
pub(crate) fn lock_info(lock: LockInfo) -> kvrpcpb::LockInfo {
    kvrpcpb::LockInfo {
        primary_lock: lock.primary,
        lock_version: lock.lock_version.get(),
        key: lock.key,
        lock_ttl: lock.ttl_ms,
        txn_size: lock.txn_size,
        lock_type: lock.kind.op_number(),
        lock_for_update_ts: lock.for_update_ts.get(),
        use_async_commit: lock.use_async_commit,
        min_commit_ts: lock.min_commit_ts.get(),
        secondaries: lock.secondaries,
        duration_to_last_update_ms: 0,
    }
}

fn assertion_number(assertion: Assertion) -> i32 {
    let wire = match assertion {
        Assertion::None => kvrpcpb::Assertion::None,
        Assertion::Exist => kvrpcpb::Assertion::Exist,
        Assertion::NotExist => kvrpcpb::Assertion::NotExist,
    };
    wire.into()
}
