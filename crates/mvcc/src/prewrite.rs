//! The first phase of commit: lock every key, keep the values beside the locks.

use bytes::Bytes;
use cribwork_types::limits::SHORT_VALUE_BYTES_MAX;
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{Cf, Timestamp, WriteBatch, key};

use crate::versions::{KeyHistory, TxnRecord, Versions, load_lock, versioned};
use crate::{Conflict, ConflictReason, KeyError, Lock, LockKind, MvccError, ReadView};

/// What to do to a key; `kvrpcpb.Op` on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrewriteOp {
    /// Set a value.
    Put,
    /// Remove the key.
    Delete,
    /// Keep others from writing it.
    Lock,
    /// Set a value; the key must not exist.
    Insert,
    /// The key must not exist. Leaves no lock.
    CheckNotExists,
}

/// What the client believes about a key before its write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assertion {
    /// Nothing.
    #[default]
    None,
    /// It has a value.
    Exist,
    /// It has no value.
    NotExist,
}

/// How far assertions are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AssertionLevel {
    /// Not at all.
    #[default]
    Off,
    /// If that costs nothing extra. A prewrite here has the newest record at hand anyway, so this
    /// checks the same as [`AssertionLevel::Strict`].
    Fast,
    /// Always.
    Strict,
}

/// One key of a prewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrewriteMutation {
    /// What to do.
    pub op: PrewriteOp,
    /// Plain user key.
    pub key: Bytes,
    /// The value of a put or insert.
    pub value: Bytes,
    /// Checked unless the level is off.
    pub assertion: Assertion,
}

/// A prewrite of keys of one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrewriteParams {
    /// The keys; each at most once.
    pub mutations: Vec<PrewriteMutation>,
    /// Plain key whose record will decide the transaction, here or in another range.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: Timestamp,
    /// Milliseconds after `start_ts` during which nobody may roll it back.
    pub lock_ttl_ms: u64,
    /// Keys of the whole transaction as far as the client knows.
    pub txn_size: u64,
    /// Not to be committed below this; zero if the client cannot handle it being raised.
    pub min_commit_ts: Timestamp,
    /// Whether to look at the mutations' assertions.
    pub assertion_level: AssertionLevel,
    /// Do not look for newer commits nor for existing keys (bulk loads into fresh keys). The
    /// transaction's own records are honoured all the same.
    pub skip_constraint_check: bool,
}

/// What a prewrite came to: all keys or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrewriteOutcome {
    /// Every key is locked once `batch` is applied.
    Done {
        /// Empty if a repeat found everything done.
        batch: WriteBatch,
        /// Largest minimum commit timestamp among the transaction's locks on these keys.
        min_commit_ts: Timestamp,
        /// Set if the transaction turned out to be committed already.
        committed: Option<Timestamp>,
    },
    /// Nothing may be written. Either locks of others, one a key, or one other error.
    Refused(Vec<KeyError>),
}

/// Evaluates a prewrite.
///
/// A key is refused for: another transaction's lock; an own rollback record
/// ([`ConflictReason::SelfRolledBack`]); a commit at or after `start_ts`
/// ([`ConflictReason::Optimistic`]); a failed insert, check or assertion. A repeat finds its own lock or
/// commit record and succeeds without writing.
///
/// # Errors
/// [`MvccError`] if the store failed; never [`MvccError::Key`].
pub fn prewrite(
    view: &dyn ReadView,
    params: &PrewriteParams,
) -> Result<PrewriteOutcome, MvccError> {
    let keys = params.mutations.iter().map(|mutation| &mutation.key[..]);
    let mut versions = Versions::of(view, keys);
    let mut batch = WriteBatch::new();
    let mut min_commit_ts = Timestamp::ZERO;
    let mut committed = None;
    let mut locked = Vec::new();
    for mutation in &params.mutations {
        let encoded = key::encode(&mutation.key);
        match prewrite_key(view, &mut versions, params, mutation, &encoded)? {
            KeyOutcome::Write => {
                let lock = new_lock(params, mutation, encoded, &mut batch);
                min_commit_ts = min_commit_ts.max(lock);
            }
            KeyOutcome::Nothing => {}
            KeyOutcome::OwnLock(own) => min_commit_ts = min_commit_ts.max(own),
            KeyOutcome::Committed(commit_ts) => committed = Some(commit_ts),
            KeyOutcome::Refused(error @ KeyError::Locked(_)) => locked.push(error),
            KeyOutcome::Refused(error) => return Ok(PrewriteOutcome::Refused(vec![error])),
        }
    }
    if !locked.is_empty() {
        return Ok(PrewriteOutcome::Refused(locked));
    }
    Ok(PrewriteOutcome::Done { batch, min_commit_ts, committed })
}

enum KeyOutcome {
    /// The key is free to be locked.
    Write,
    /// Checked, nothing to write.
    Nothing,
    /// A repeat; the lock's minimum commit timestamp.
    OwnLock(Timestamp),
    /// A repeat after the commit.
    Committed(Timestamp),
    Refused(KeyError),
}

fn prewrite_key(
    view: &dyn ReadView,
    versions: &mut Versions<'_>,
    params: &PrewriteParams,
    mutation: &PrewriteMutation,
    encoded: &[u8],
) -> Result<KeyOutcome, MvccError> {
    let lock = load_lock(view, encoded)?;
    let lock = lock.filter(|lock| lock.start_ts == params.start_ts || !has(Bug::SkipLockCheck));
    if let Some(lock) = lock {
        if lock.start_ts != params.start_ts {
            let info = Box::new(lock.info(mutation.key.clone()));
            return Ok(KeyOutcome::Refused(KeyError::Locked(info)));
        }
        // A pessimistic lock of one's own gives no privilege here: all checks run, then it is replaced.
        if lock.kind != LockKind::Pessimistic {
            return Ok(KeyOutcome::OwnLock(lock.min_commit_ts));
        }
    }
    let must_be_absent = matches!(mutation.op, PrewriteOp::Insert | PrewriteOp::CheckNotExists);
    let must_be_absent = must_be_absent && !params.skip_constraint_check;
    let asserted = params.assertion_level != AssertionLevel::Off;
    let asserted = asserted && mutation.assertion != Assertion::None;
    let history = versions.history(encoded, params.start_ts, must_be_absent || asserted)?;
    match history.own {
        TxnRecord::Committed { commit_ts } => return Ok(KeyOutcome::Committed(commit_ts)),
        TxnRecord::RolledBack => {
            let own = (params.start_ts, params.start_ts);
            let reason = ConflictReason::SelfRolledBack;
            return Ok(KeyOutcome::Refused(conflict(params, mutation, own, reason)));
        }
        TxnRecord::Missing => {}
    }
    let unchecked = params.skip_constraint_check || has(Bug::SkipConflictCheck);
    if let Some(winner) = history.conflict.filter(|_| !unchecked) {
        let error = conflict(params, mutation, winner, ConflictReason::Optimistic);
        return Ok(KeyOutcome::Refused(error));
    }
    let exists = history.latest.as_ref().is_some_and(|latest| latest.exists);
    if must_be_absent && exists {
        return Ok(KeyOutcome::Refused(KeyError::AlreadyExist { key: mutation.key.clone() }));
    }
    if asserted && exists != (mutation.assertion == Assertion::Exist) {
        return Ok(KeyOutcome::Refused(assertion_failed(params, mutation, &history)));
    }
    Ok(match mutation.op {
        PrewriteOp::CheckNotExists => KeyOutcome::Nothing,
        _ => KeyOutcome::Write,
    })
}

fn conflict(
    params: &PrewriteParams,
    mutation: &PrewriteMutation,
    (conflict_ts, conflict_commit_ts): (Timestamp, Timestamp),
    reason: ConflictReason,
) -> KeyError {
    KeyError::Conflict(Conflict {
        start_ts: params.start_ts,
        conflict_ts,
        conflict_commit_ts,
        key: mutation.key.clone(),
        primary: params.primary.clone(),
        reason,
    })
}

fn assertion_failed(
    params: &PrewriteParams,
    mutation: &PrewriteMutation,
    history: &KeyHistory,
) -> KeyError {
    let latest = history.latest.as_ref();
    KeyError::AssertionFailed {
        start_ts: params.start_ts,
        key: mutation.key.clone(),
        assertion: mutation.assertion,
        existing_start_ts: latest.map_or(Timestamp::ZERO, |latest| latest.start_ts),
        existing_commit_ts: latest.map_or(Timestamp::ZERO, |latest| latest.commit_ts),
    }
}

/// Adds lock and long value; returns the lock's minimum commit timestamp.
fn new_lock(
    params: &PrewriteParams,
    mutation: &PrewriteMutation,
    encoded: Vec<u8>,
    batch: &mut WriteBatch,
) -> Timestamp {
    let kind = match mutation.op {
        PrewriteOp::Put | PrewriteOp::Insert => LockKind::Put,
        PrewriteOp::Delete => LockKind::Delete,
        PrewriteOp::Lock | PrewriteOp::CheckNotExists => LockKind::Lock,
    };
    let short = mutation.value.len() <= SHORT_VALUE_BYTES_MAX;
    if kind == LockKind::Put && !short {
        let at = versioned(&encoded, params.start_ts);
        batch.put(Cf::Default, at, mutation.value.clone());
    }
    let lock = Lock {
        kind,
        primary: params.primary.clone(),
        start_ts: params.start_ts,
        ttl_ms: params.lock_ttl_ms,
        short_value: (kind == LockKind::Put && short).then(|| mutation.value.clone()),
        txn_size: params.txn_size,
        for_update_ts: Timestamp::ZERO,
        min_commit_ts: params.min_commit_ts,
        use_async_commit: false,
        secondaries: Vec::new(),
    };
    batch.put(Cf::Lock, encoded, lock.encode());
    lock.min_commit_ts
}
