//! Finding and finishing the locks that transactions left behind.

use std::collections::BTreeMap;

use bytes::Bytes;
use cribwork_types::{Cf, Timestamp, WriteBatch, key};

use crate::commit::commit_lock;
use crate::rollback::rollback_lock;
use crate::versions::load_lock;
use crate::{KeySpan, Lock, LockInfo, MvccError, ReadView};

/// Most locks of any transaction that one [`resolve_locks`] looks at before it hands back.
const LOCKS_EXAMINED_MAX: usize = 16 * 1024;

/// The locks in `span` with `start_ts <= max_ts`, in key order, at most `limit`.
///
/// # Errors
/// [`MvccError`] if the store failed.
pub fn scan_locks(
    view: &dyn ReadView,
    span: &KeySpan,
    max_ts: Timestamp,
    limit: usize,
) -> Result<Vec<LockInfo>, MvccError> {
    let mut locks = Vec::new();
    if span.is_empty() || limit == 0 {
        return Ok(locks);
    }
    let mut cursor = view.cursor(Cf::Lock, span.encoded());
    let mut more = cursor.seek_to_first()?;
    while more && locks.len() < limit {
        let lock = Lock::decode(Bytes::copy_from_slice(cursor.value()))?;
        if lock.start_ts <= max_ts {
            locks.push(lock.info(key::decode(cursor.key())?));
        }
        more = cursor.next()?;
    }
    Ok(locks)
}

/// Which locks to finish, and how.
#[derive(Clone, Debug)]
pub struct ResolveParams<'a> {
    /// Where.
    pub span: &'a KeySpan,
    /// Start timestamps of transactions and where each committed; none for rolled back.
    pub txns: &'a BTreeMap<Timestamp, Option<Timestamp>>,
    /// Only these keys (plain), if given; the caller has checked that they lie in the span.
    pub keys: Option<&'a [Bytes]>,
    /// Most locks to finish in this call, at least one: bounds the batch.
    pub locks_max: usize,
    /// Where the last call stopped.
    pub resume: Option<Bytes>,
}

/// The result of [`resolve_locks`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveOutcome {
    /// May be empty although there is more to do.
    pub batch: WriteBatch,
    /// Locks finished by the batch.
    pub resolved: usize,
    /// Pass as [`ResolveParams::resume`] once the batch is applied; none when done.
    pub resume: Option<Bytes>,
}

/// Commits or rolls back the locks of finished transactions. Keys without such a lock are passed over,
/// so that it can be repeated freely.
///
/// # Errors
/// As [`crate::commit`] if a commit timestamp cannot be right for a lock; else a store failure.
pub fn resolve_locks(
    view: &dyn ReadView,
    params: &ResolveParams<'_>,
) -> Result<ResolveOutcome, MvccError> {
    match params.keys {
        Some(keys) => resolve_keys(view, params, keys),
        None => resolve_span(view, params),
    }
}

fn resolve_span(
    view: &dyn ReadView,
    params: &ResolveParams<'_>,
) -> Result<ResolveOutcome, MvccError> {
    let mut outcome = ResolveOutcome { batch: WriteBatch::new(), resolved: 0, resume: None };
    if params.span.is_empty() {
        return Ok(outcome);
    }
    let mut cursor = view.cursor(Cf::Lock, params.span.encoded());
    let mut more = match &params.resume {
        Some(encoded) => cursor.seek(encoded)?,
        None => cursor.seek_to_first()?,
    };
    let mut examined = 0;
    while more {
        if outcome.resolved >= params.locks_max.max(1) || examined >= LOCKS_EXAMINED_MAX {
            outcome.resume = Some(Bytes::copy_from_slice(cursor.key()));
            break;
        }
        examined += 1;
        let lock = Lock::decode(Bytes::copy_from_slice(cursor.value()))?;
        if let Some(fate) = params.txns.get(&lock.start_ts) {
            finish(view, &mut outcome, cursor.key().to_vec(), lock, *fate)?;
        }
        more = cursor.next()?;
    }
    Ok(outcome)
}

fn resolve_keys(
    view: &dyn ReadView,
    params: &ResolveParams<'_>,
    keys: &[Bytes],
) -> Result<ResolveOutcome, MvccError> {
    let mut outcome = ResolveOutcome { batch: WriteBatch::new(), resolved: 0, resume: None };
    let mut encoded: Vec<Vec<u8>> = keys.iter().map(|key| key::encode(key)).collect();
    encoded.sort_unstable();
    encoded.dedup();
    let start = params.resume.as_deref().unwrap_or_default();
    for encoded in encoded.into_iter().skip_while(|key| &key[..] < start) {
        if outcome.resolved >= params.locks_max.max(1) {
            outcome.resume = Some(Bytes::from(encoded));
            break;
        }
        let Some(lock) = load_lock(view, &encoded)? else {
            continue;
        };
        if let Some(fate) = params.txns.get(&lock.start_ts) {
            finish(view, &mut outcome, encoded, lock, *fate)?;
        }
    }
    Ok(outcome)
}

fn finish(
    view: &dyn ReadView,
    outcome: &mut ResolveOutcome,
    encoded: Vec<u8>,
    lock: Lock,
    fate: Option<Timestamp>,
) -> Result<(), MvccError> {
    outcome.resolved += 1;
    match fate {
        Some(commit_ts) => {
            let plain = key::decode(&encoded)?;
            commit_lock(view, &mut outcome.batch, &plain, encoded, lock, commit_ts)
        }
        None => rollback_lock(view, &mut outcome.batch, encoded, &lock),
    }
}
