//! What to do about a lock of another transaction: ask its primary what became of the transaction,
//! then finish it, or wait.
//!
//! A transaction is committed when its primary is; rolled back when its primary says so for good
//! (a rollback record forbids it to return); alive while the primary's lock has not expired. One
//! with *async commit* (other clients make them) is committed as soon as all its locks are down,
//! so an expired one is decided by looking at every secondary.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use cribwork_proto::kvrpcpb::{self, LockInfo};
use cribwork_types::Timestamp;
use cribwork_types::seeded::{Bug, has};
use parking_lot::Mutex;

use crate::call::{Call, Pause, Setback};
use crate::core::Core;
use crate::error::undetermined;
use crate::error::{ClientError, Conflict};
use crate::send::{TxnKey, txn_route_key};

/// Fates of finished transactions that are remembered, so that many locks of one cost one question.
const STATUSES_MAX: usize = 4096;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Committed at this timestamp.
    Committed(u64),
    RolledBack,
    /// Not decided. `pushed`: it cannot commit at or below the asking reader's timestamp.
    Alive {
        pushed: bool,
    },
}

/// Commit timestamps (0: rolled back) of finished transactions by start timestamp.
#[derive(Default)]
pub(crate) struct StatusCache {
    inner: Mutex<(HashMap<u64, u64>, VecDeque<u64>)>,
}

impl StatusCache {
    fn get(&self, start_ts: u64) -> Option<Fate> {
        self.inner.lock().0.get(&start_ts).map(|commit_ts| match commit_ts {
            0 => Fate::RolledBack,
            commit_ts => Fate::Committed(*commit_ts),
        })
    }

    fn insert(&self, start_ts: u64, commit_ts: u64) {
        let (fates, order) = &mut *self.inner.lock();
        if fates.insert(start_ts, commit_ts).is_none() {
            order.push_back(start_ts);
        }
        if order.len() > STATUSES_MAX
            && let Some(oldest) = order.pop_front()
        {
            fates.remove(&oldest);
        }
    }
}

/// Who met the locks.
pub(super) enum Waiter<'a> {
    Reader {
        ts: Timestamp,
        bypassed: &'a Mutex<Vec<u64>>,
    },
    /// `gives_way_at`, runtime clock: from then on it waits for no older transaction. None for one that
    /// holds no locks itself.
    Writer {
        start_ts: Timestamp,
        gives_way_at: Option<Duration>,
    },
}

impl Waiter<'_> {
    /// Whether it must not wait for `holder` any longer. Writers that hold locks and wait for each other
    /// would do so until one runs out of time; if only the older one waits, there is no such circle
    /// (wait-die: Rosenkrantz, Stearns, Lewis, System Level Concurrency Control, 1978).
    fn gives_way(&self, holder: u64, now: Duration) -> bool {
        match self {
            Waiter::Reader { .. } => false,
            Waiter::Writer { start_ts, gives_way_at } => {
                holder < start_ts.get() && gives_way_at.is_some_and(|at| now >= at)
            }
        }
    }
}

/// The lock that a key error speaks of, or the error that it means to a user.
pub(super) fn key_failure(error: kvrpcpb::KeyError) -> Result<LockInfo, ClientError> {
    if let Some(lock) = error.locked {
        return Ok(lock);
    }
    if let Some(conflict) = error.conflict {
        let reason = conflict.reason();
        return Err(ClientError::Conflict(Box::new(Conflict {
            key: conflict.key,
            start_ts: Timestamp(conflict.start_ts),
            winner_start_ts: Timestamp(conflict.conflict_ts),
            winner_commit_ts: Timestamp(conflict.conflict_commit_ts),
            reason,
        })));
    }
    if let Some(exists) = error.already_exist {
        return Err(ClientError::AlreadyExists { key: exists.key });
    }
    if let Some(unknown) = undetermined("transaction", &error.abort) {
        return Err(unknown);
    }
    let why = if !error.abort.is_empty() {
        error.abort
    } else if !error.retryable.is_empty() {
        error.retryable
    } else {
        format!("{error:?}")
    };
    Err(ClientError::Aborted { why })
}

impl Core {
    /// Finishes the transactions that hold `locks` where they can be finished, and pauses if one of
    /// them is alive and stands in the waiter's way.
    pub(super) async fn wait_for_locks(
        &self,
        call: &mut Call,
        locks: Vec<LockInfo>,
        waiter: Waiter<'_>,
    ) -> Result<(), ClientError> {
        let mut by_txn: BTreeMap<u64, Vec<LockInfo>> = BTreeMap::new();
        for lock in locks {
            by_txn.entry(lock.lock_version).or_default().push(lock);
        }
        let mut blocking = None;
        for (start_ts, locks) in by_txn {
            let Some(first) = locks.first() else { continue };
            let caller = match &waiter {
                Waiter::Reader { ts, .. } => ts.get(),
                Waiter::Writer { .. } => 0,
            };
            let fate = self.fate(call, first, caller).await;
            match (fate.map_err(|error| outlasted(error, first))?, &waiter) {
                (Fate::Committed(commit_ts), _) => {
                    self.finish(call, start_ts, commit_ts, &locks).await?;
                }
                (Fate::RolledBack, _) => self.finish(call, start_ts, 0, &locks).await?,
                (Fate::Alive { pushed: true }, Waiter::Reader { bypassed, .. }) => {
                    bypassed.lock().push(start_ts);
                }
                (Fate::Alive { .. }, waiter) => {
                    if waiter.gives_way(start_ts, self.runtime.now()) {
                        let (key, holder) = (first.key.clone(), Timestamp(start_ts));
                        return Err(ClientError::Locked { key, holder });
                    }
                    blocking = Some(first.clone());
                }
            }
        }
        let Some(lock) = blocking else {
            // Bounds a call that meets one lock after the other.
            return match call.remaining(&*self.runtime).is_zero() {
                true => Err(call.out_of_time("too many locks".to_owned())),
                false => Ok(()),
            };
        };
        let why = format!("locked by transaction {}", lock.lock_version);
        let paused = call.pause(&*self.runtime, vec![Setback::new(Pause::Grow, why)]).await;
        paused.map_err(|error| outlasted(error, &lock))
    }

    async fn fate(
        &self,
        call: &mut Call,
        lock: &LockInfo,
        caller: u64,
    ) -> Result<Fate, ClientError> {
        if has(Bug::RollBackCommitted) {
            return Ok(Fate::RolledBack);
        }
        if let Some(fate) = self.statuses.get(lock.lock_version) {
            return Ok(fate);
        }
        let pessimistic = lock.lock_type() == kvrpcpb::Op::PessimisticLock;
        let now = self.timestamp(call).await?;
        let started_ms = Timestamp(lock.lock_version).physical_ms();
        let expired = lock.lock_ttl == 0 || started_ms + lock.lock_ttl < now.physical_ms();
        let request = kvrpcpb::CheckTxnStatusRequest {
            primary_key: lock.primary_lock.clone(),
            lock_ts: lock.lock_version,
            caller_start_ts: caller,
            current_ts: if lock.lock_ttl == 0 { u64::MAX } else { now.get() },
            // Before it has expired, the primary may just not be locked yet.
            rollback_if_not_exist: expired,
            resolving_pessimistic_lock: pessimistic,
            verify_is_primary: true,
            ..Default::default()
        };
        let primary = txn_route_key(&lock.primary_lock);
        let answer = self.send_key(call, &primary, &request).await?;
        if let Some(error) = answer.error {
            let undecided = error.txn_not_found.is_some() || error.primary_mismatch.is_some();
            if undecided {
                return Ok(Fate::Alive { pushed: false });
            }
            return Err(ClientError::Aborted { why: format!("{error:?}") });
        }
        if answer.commit_version > 0 {
            self.statuses.insert(lock.lock_version, answer.commit_version);
            return Ok(Fate::Committed(answer.commit_version));
        }
        if answer.lock_ttl == 0 {
            if !pessimistic {
                // Else there may be no record yet: the transaction may still commit other keys.
                self.statuses.insert(lock.lock_version, 0);
            }
            return Ok(Fate::RolledBack);
        }
        let primary_lock = answer.lock_info.clone().unwrap_or_default();
        let dead = started_ms + answer.lock_ttl < now.physical_ms();
        if primary_lock.use_async_commit && dead {
            return self.async_fate(call, request, primary_lock).await;
        }
        let pushed = answer.action() == kvrpcpb::Action::MinCommitTsPushed;
        Ok(Fate::Alive { pushed })
    }

    /// Decides an expired transaction with async commit by its secondaries. Looking at one that is
    /// not locked leaves a record that keeps it from being locked later.
    async fn async_fate(
        &self,
        call: &mut Call,
        mut question: kvrpcpb::CheckTxnStatusRequest,
        primary: LockInfo,
    ) -> Result<Fate, ClientError> {
        let start_ts = primary.lock_version;
        let keys: Vec<TxnKey> = primary.secondaries.iter().cloned().map(TxnKey).collect();
        let answers = self
            .send_grouped(call, keys, |group| kvrpcpb::CheckSecondaryLocksRequest {
                keys: group.iter().map(|key| key.0.clone()).collect(),
                start_version: start_ts,
                context: None,
            })
            .await?;
        let (mut all_locked, mut fell_back) = (true, false);
        let (mut committed, mut min_commit_ts) = (0, primary.min_commit_ts);
        for (group, answer) in answers {
            if let Some(error) = answer.error {
                return Err(ClientError::Aborted { why: format!("{error:?}") });
            }
            committed = committed.max(answer.commit_ts);
            all_locked &= answer.locks.len() == group.len();
            for lock in answer.locks {
                fell_back |= !lock.use_async_commit;
                min_commit_ts = min_commit_ts.max(lock.min_commit_ts);
            }
        }
        if committed == 0 && fell_back && all_locked {
            question.force_sync_commit = true;
            let key = txn_route_key(&question.primary_key);
            let answer = self.send_key(call, &key, &question).await?;
            committed = answer.commit_version;
            if answer.lock_ttl > 0 || answer.error.is_some() {
                return Ok(Fate::Alive { pushed: false });
            }
        } else if committed == 0 && all_locked {
            committed = min_commit_ts;
        }
        // The primary's lock is what a later reader asks about, so it is finished with the rest.
        let mut locks = vec![lock_of(&primary, primary.primary_lock.clone())];
        locks.extend(primary.secondaries.iter().map(|key| lock_of(&primary, key.clone())));
        self.finish(call, start_ts, committed, &locks).await?;
        self.statuses.insert(start_ts, committed);
        match committed {
            0 => Ok(Fate::RolledBack),
            commit_ts => Ok(Fate::Committed(commit_ts)),
        }
    }

    /// Turns locks of a finished transaction into commit records, or removes them (0).
    async fn finish(
        &self,
        call: &mut Call,
        start_ts: u64,
        commit_ts: u64,
        locks: &[LockInfo],
    ) -> Result<(), ClientError> {
        let keys = locks.iter().map(|lock| TxnKey(lock.key.clone())).collect();
        let answers = self
            .send_grouped(call, keys, |group| kvrpcpb::ResolveLockRequest {
                start_version: start_ts,
                commit_version: commit_ts,
                keys: group.iter().map(|key| key.0.clone()).collect(),
                ..Default::default()
            })
            .await?;
        match answers.into_iter().find_map(|(_, answer)| answer.error) {
            Some(error) => Err(ClientError::Aborted { why: format!("{error:?}") }),
            None => Ok(()),
        }
    }
}

/// A call whose time is up while it deals with a lock.
fn outlasted(error: ClientError, lock: &LockInfo) -> ClientError {
    match error {
        ClientError::Timeout { .. } => {
            ClientError::Locked { key: lock.key.clone(), holder: Timestamp(lock.lock_version) }
        }
        error => error,
    }
}

fn lock_of(primary: &LockInfo, key: Bytes) -> LockInfo {
    LockInfo { key, secondaries: Vec::new(), ..primary.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_a_bounded_number_of_fates() {
        let cache = StatusCache::default();
        for start_ts in 0..STATUSES_MAX as u64 + 10 {
            cache.insert(start_ts, start_ts % 2);
        }
        assert_eq!(cache.get(9), None, "the oldest are forgotten");
        assert_eq!(cache.get(10), Some(Fate::RolledBack));
        assert_eq!(cache.get(11), Some(Fate::Committed(1)));
        assert_eq!(cache.inner.lock().0.len(), STATUSES_MAX);
    }

    #[test]
    fn key_errors_become_what_they_mean() {
        let exists = kvrpcpb::AlreadyExist { key: Bytes::from_static(b"k") };
        let error = kvrpcpb::KeyError { already_exist: Some(exists), ..Default::default() };
        assert!(matches!(key_failure(error), Err(ClientError::AlreadyExists { .. })));
        let error = kvrpcpb::KeyError { abort: "why".into(), ..Default::default() };
        assert_eq!(key_failure(error), Err(ClientError::Aborted { why: "why".into() }));
    }
}
