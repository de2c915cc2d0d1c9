//! What became of a transaction: its primary key knows.

use bytes::Bytes;
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{Cf, Timestamp, WriteBatch, key};

use crate::rollback::{put_rollback, rollback_lock};
use crate::versions::{TxnRecord, Versions, load_lock};
use crate::{KeyError, Lock, LockInfo, LockKind, MvccError, ReadView};

/// A question about the transaction `lock_ts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckTxnStatusParams {
    /// Its primary key (plain), as the lock says that raised the question.
    pub primary: Bytes,
    /// The transaction.
    pub lock_ts: Timestamp,
    /// Snapshot of the reader who asks; zero if it is no reader.
    pub caller_start_ts: Timestamp,
    /// Now; MAX rolls a living transaction back.
    pub current_ts: Timestamp,
    /// If the primary shows no trace, make that final by a rollback record.
    pub rollback_if_not_exist: bool,
    /// Treat an async commit as a plain one.
    pub force_sync_commit: bool,
    /// The lock that raised the question is pessimistic: without a trace, or expired and pessimistic
    /// too, the primary gets no rollback record, for the transaction may lock it later.
    pub resolving_pessimistic_lock: bool,
    /// Insist that the lock found names this key as its primary.
    pub verify_is_primary: bool,
}

/// The state of a transaction once the outcome's batch is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnStatus {
    /// Committed.
    Committed {
        /// Where.
        commit_ts: Timestamp,
    },
    /// Rolled back, or known to hold nothing.
    RolledBack,
    /// Under way; the lock on its primary.
    Alive(Box<LockInfo>),
}

/// What the question caused; `kvrpcpb.Action`, the numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StatusAction {
    /// Nothing.
    None = 0,
    /// The lock had expired: rolled back.
    TtlExpireRollback = 1,
    /// No trace: a rollback record was written.
    LockNotExistRollback = 2,
    /// The transaction will commit above the caller's snapshot: the caller may pass its locks.
    MinCommitTsPushed = 3,
    /// The pessimistic lock had expired: removed.
    TtlExpirePessimisticRollback = 4,
    /// No trace, and none left.
    LockNotExistDoNothing = 5,
}

impl StatusAction {
    /// The number on the wire.
    pub const fn number(self) -> i32 {
        self as i32
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusOutcome {
    /// Must be applied before the answer is given.
    pub batch: WriteBatch,
    /// The state.
    pub status: TxnStatus,
    /// What was done about it.
    pub action: StatusAction,
}

impl StatusOutcome {
    fn new(batch: WriteBatch, status: TxnStatus, action: StatusAction) -> Self {
        Self { batch, status, action }
    }
}

/// Finds out, and if the transaction is dead decides, how it ended.
///
/// # Errors
/// In [`MvccError::Key`]: [`KeyError::PrimaryMismatch`]; [`KeyError::TxnNotFound`] if there is no trace
/// and none may be left. Else a store failure.
pub fn check_txn_status(
    view: &dyn ReadView,
    params: &CheckTxnStatusParams,
) -> Result<StatusOutcome, MvccError> {
    let encoded = key::encode(&params.primary);
    match load_lock(view, &encoded)?.filter(|lock| lock.start_ts == params.lock_ts) {
        Some(lock) => check_lock(view, params, encoded, lock),
        None => check_records(view, params, &encoded),
    }
}

fn check_lock(
    view: &dyn ReadView,
    params: &CheckTxnStatusParams,
    encoded: Vec<u8>,
    mut lock: Lock,
) -> Result<StatusOutcome, MvccError> {
    let key = &params.primary;
    let mut batch = WriteBatch::new();
    if params.verify_is_primary && lock.primary != key {
        return Err(KeyError::PrimaryMismatch(Box::new(lock.info(key.clone()))).into());
    }
    // The fate of an async commit hangs on all its keys, so the primary alone decides nothing.
    if lock.use_async_commit && !params.force_sync_commit {
        let status = TxnStatus::Alive(Box::new(lock.info(key.clone())));
        return Ok(StatusOutcome::new(batch, status, StatusAction::None));
    }
    if lock.is_expired(params.current_ts) {
        let action = if params.resolving_pessimistic_lock && lock.kind == LockKind::Pessimistic {
            batch.delete(Cf::Lock, encoded);
            StatusAction::TtlExpirePessimisticRollback
        } else {
            rollback_lock(view, &mut batch, encoded, &lock)?;
            StatusAction::TtlExpireRollback
        };
        return Ok(StatusOutcome::new(batch, TxnStatus::RolledBack, action));
    }
    let caller = params.caller_start_ts;
    // A reader of the newest version (MAX) passes without a push: the lock is proof that the
    // transaction has not committed yet.
    let newest = caller == Timestamp::MAX;
    if lock.min_commit_ts != Timestamp::ZERO && !newest && caller >= lock.min_commit_ts {
        lock.min_commit_ts = caller.next().max(params.current_ts);
        if !has(Bug::PushNotWritten) {
            batch.put(Cf::Lock, encoded, lock.encode());
        }
    }
    let passable = newest || (caller != Timestamp::ZERO && lock.min_commit_ts > caller);
    let action = if passable { StatusAction::MinCommitTsPushed } else { StatusAction::None };
    let status = TxnStatus::Alive(Box::new(lock.info(key.clone())));
    Ok(StatusOutcome::new(batch, status, action))
}

fn check_records(
    view: &dyn ReadView,
    params: &CheckTxnStatusParams,
    encoded: &[u8],
) -> Result<StatusOutcome, MvccError> {
    let mut batch = WriteBatch::new();
    let mut versions = Versions::of(view, std::iter::once(&params.primary[..]));
    let status = match versions.txn_record(encoded, params.lock_ts)? {
        TxnRecord::Committed { commit_ts } => TxnStatus::Committed { commit_ts },
        TxnRecord::RolledBack => TxnStatus::RolledBack,
        TxnRecord::Missing if !params.rollback_if_not_exist => {
            let primary_key = params.primary.clone();
            return Err(KeyError::TxnNotFound { start_ts: params.lock_ts, primary_key }.into());
        }
        TxnRecord::Missing => {
            let action = if params.resolving_pessimistic_lock {
                StatusAction::LockNotExistDoNothing
            } else {
                put_rollback(view, &mut batch, encoded, params.lock_ts)?;
                StatusAction::LockNotExistRollback
            };
            return Ok(StatusOutcome::new(batch, TxnStatus::RolledBack, action));
        }
    };
    Ok(StatusOutcome::new(batch, status, StatusAction::None))
}

/// The result of [`heartbeat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatOutcome {
    /// Empty if the lock lives long enough.
    pub batch: WriteBatch,
    /// The lock's TTL from now on, milliseconds after its start timestamp.
    pub ttl_ms: u64,
}

/// Prolongs the life of a transaction: the TTL of its primary lock grows to `advise_ttl_ms`, and never
/// shrinks.
///
/// # Errors
/// [`KeyError::TxnNotFound`] in [`MvccError::Key`] if the transaction has no lock there; else a store
/// failure.
pub fn heartbeat(
    view: &dyn ReadView,
    primary: &Bytes,
    start_ts: Timestamp,
    advise_ttl_ms: u64,
) -> Result<HeartbeatOutcome, MvccError> {
    let encoded = key::encode(primary);
    let Some(mut lock) = load_lock(view, &encoded)?.filter(|lock| lock.start_ts == start_ts) else {
        return Err(KeyError::TxnNotFound { start_ts, primary_key: primary.clone() }.into());
    };
    let mut batch = WriteBatch::new();
    if lock.ttl_ms < advise_ttl_ms {
        lock.ttl_ms = advise_ttl_ms;
        batch.put(Cf::Lock, encoded, lock.encode());
    }
    Ok(HeartbeatOutcome { batch, ttl_ms: lock.ttl_ms })
}
