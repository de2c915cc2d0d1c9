//! Two-phase commit: locks on every key, then the commit record of the primary, which decides.

use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_proto::kvrpcpb::{self, Mutation, Op};
use cribwork_types::Timestamp;
use cribwork_types::seeded::{Bug, has};
use futures::future::{Either, select};

use super::resolve::{Waiter, key_failure};
use crate::ClientError;
use crate::call::{Call, Pause, Setback};
use crate::core::Core;
use crate::request::Effect;
use crate::send::{TxnKey, txn_route_key};

/// Most keys that are committed together with the primary.
const PRIMARY_KEYS_MAX: usize = 4096;

/// How long a transaction that holds locks waits for an older one that holds another. Several times as
/// long as a commit takes.
const PATIENCE: Duration = Duration::from_millis(100);

/// One commit under way.
pub(super) struct Committer {
    core: Arc<Core>,
    start_ts: Timestamp,
    begun: Duration,
    mutations: Vec<Mutation>,
    primary: Bytes,
}

impl Committer {
    /// `None` if there is nothing to write.
    pub(super) fn new(
        core: Arc<Core>,
        start_ts: Timestamp,
        begun: Duration,
        mutations: Vec<Mutation>,
    ) -> Option<Self> {
        // A check leaves no lock, so it cannot hold the commit record unless there is nothing else.
        let primary = mutations
            .iter()
            .find(|mutation| mutation.op() != Op::CheckNotExists)
            .or(mutations.first())?
            .key
            .clone();
        Some(Self { core, start_ts, begun, mutations, primary })
    }

    /// Commits; the commit timestamp.
    pub(super) async fn run(self) -> Result<Timestamp, ClientError> {
        // The locks must not expire while the commit waits for something.
        let outcome = {
            let work = pin!(self.two_phases());
            let beat = pin!(self.heartbeat());
            match select(work, beat).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right((never, _)) => match never {},
            }
        };
        match outcome {
            Ok((commit_ts, rest)) => {
                self.commit_rest(commit_ts, rest).await;
                Ok(commit_ts)
            }
            Err(Failed { error, to_roll_back }) => {
                self.roll_back(to_roll_back).await;
                Err(error)
            }
        }
    }

    /// The commit timestamp and the keys that are not committed yet.
    async fn two_phases(&self) -> Result<(Timestamp, Vec<TxnKey>), Failed> {
        let mut call = self.core.call("commit", Effect::Idempotent);
        self.prewrite(&mut call).await?;
        // What happened to prewrites says nothing about the commit record.
        call.lost = false;
        let locked = self.locked_keys();
        if locked.is_empty() {
            return Ok((self.start_ts, Vec::new()));
        }
        let failed = |error| Failed { error, to_roll_back: locked.clone() };
        let commit_ts = match self.core.timestamp(&call).await {
            Ok(ts) => ts,
            // Not even the commit record was asked for.
            Err(error) => return Err(failed(error)),
        };
        if has(Bug::CommitSecondariesFirst) {
            let rest = locked.iter().filter(|key| key.0 != self.primary).cloned().collect();
            self.commit_rest(commit_ts, rest).await;
        }
        match self.commit_primary(&mut call, commit_ts, &locked).await {
            Ok(outcome) => Ok(outcome),
            // The record may have been written, or still be on its way, unless a store said no.
            Err(error) if call.lost && !error.is_transaction_retryable() || is_vague(&error) => {
                match self.learn_outcome(error.to_string()).await {
                    Ok(commit_ts) => Ok((commit_ts, locked)),
                    // Whoever meets the locks finds out; rolling back is not ours to decide now.
                    Err(error @ ClientError::Unknown { .. }) => {
                        Err(Failed { error, to_roll_back: Vec::new() })
                    }
                    Err(error) => Err(failed(error)),
                }
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The keys that hold locks after prewrite.
    fn locked_keys(&self) -> Vec<TxnKey> {
        let locks = self.mutations.iter().filter(|mutation| mutation.op() != Op::CheckNotExists);
        locks.map(|mutation| TxnKey(mutation.key.clone())).collect()
    }

    /// Milliseconds after `start_ts` at which the locks expire.
    fn lock_ttl_ms(&self) -> u64 {
        let elapsed = self.core.runtime.now().saturating_sub(self.begun);
        (elapsed + self.core.options.lock_ttl).as_millis() as u64
    }

    async fn prewrite(&self, call: &mut Call) -> Result<(), Failed> {
        let mut pending = self.mutations.clone();
        let mut met_locks_at = None;
        loop {
            let lock_ttl = self.lock_ttl_ms();
            let sent = std::mem::take(&mut pending);
            let answers = self
                .core
                .send_grouped(call, sent, |group| kvrpcpb::PrewriteRequest {
                    mutations: group.to_vec(),
                    primary_lock: self.primary.clone(),
                    start_version: self.start_ts.get(),
                    lock_ttl,
                    txn_size: self.mutations.len() as u64,
                    // Lets readers push the commit above themselves instead of waiting.
                    min_commit_ts: self.start_ts.next().get(),
                    ..Default::default()
                })
                .await;
            let answers = match answers {
                Ok(answers) => answers,
                Err(error) => return Err(self.prewrite_failed(call, error, Vec::new())),
            };
            let (mut locks, mut failure) = (Vec::new(), None);
            for (group, response) in answers {
                if response.errors.is_empty() {
                    continue;
                }
                // All or nothing: this group holds no locks.
                pending.extend(group);
                for error in response.errors {
                    match key_failure(error) {
                        Ok(lock) => locks.push(lock),
                        Err(error) => failure = failure.or(Some(error)),
                    }
                }
            }
            if let Some(error) = failure {
                return Err(self.prewrite_failed(call, error, pending));
            }
            if pending.is_empty() {
                return Ok(());
            }
            let met = *met_locks_at.get_or_insert(self.core.runtime.now());
            let holds_locks = pending.len() < self.mutations.len();
            let gives_way_at = holds_locks.then_some(met + PATIENCE);
            let waiter = Waiter::Writer { start_ts: self.start_ts, gives_way_at };
            if let Err(error) = self.core.wait_for_locks(call, locks, waiter).await {
                return Err(self.prewrite_failed(call, error, pending));
            }
        }
    }

    /// Without its commit record the transaction certainly has no effect, whatever became of the
    /// prewrites. `unlocked` are known to hold no locks, unless a lost request comes in late.
    fn prewrite_failed(&self, call: &Call, error: ClientError, unlocked: Vec<Mutation>) -> Failed {
        let error = match error {
            ClientError::Unknown { what, why } => ClientError::Timeout { what, why },
            error => error,
        };
        let mut to_roll_back = self.locked_keys();
        if !call.lost {
            let unlocked: HashSet<Bytes> =
                unlocked.into_iter().map(|mutation| mutation.key).collect();
            to_roll_back.retain(|key| !unlocked.contains(&key.0));
        }
        Failed { error, to_roll_back }
    }

    /// Writes the commit record of the primary, and in the same command those of all keys in the
    /// primary's range.
    async fn commit_primary(
        &self,
        call: &mut Call,
        mut commit_ts: Timestamp,
        locked: &[TxnKey],
    ) -> Result<(Timestamp, Vec<TxnKey>), ClientError> {
        let primary = txn_route_key(&self.primary);
        loop {
            let route = self.core.route(call, &primary).await?;
            let span = &route.descriptor.span;
            let (mut keys, mut rest) = (vec![self.primary.clone()], Vec::new());
            for key in locked.iter().filter(|key| key.0 != self.primary) {
                match keys.len() < PRIMARY_KEYS_MAX && span.contains(&txn_route_key(&key.0)) {
                    true => keys.push(key.0.clone()),
                    false => rest.push(key.clone()),
                }
            }
            let request = kvrpcpb::CommitRequest {
                start_version: self.start_ts.get(),
                keys,
                commit_version: commit_ts.get(),
                context: None,
            };
            let response = match self.core.attempt(call, &route, request).await? {
                Ok(response) => response,
                Err(setback) => {
                    call.pause(&*self.core.runtime, vec![setback]).await?;
                    continue;
                }
            };
            let Some(error) = response.error else {
                return Ok((commit_ts, rest));
            };
            if error.commit_ts_expired.is_none() {
                // Refused for good: a lock is gone, so somebody has rolled the transaction back.
                return Err(match key_failure(error) {
                    Ok(lock) => {
                        ClientError::Aborted { why: format!("locked by {}", lock.lock_version) }
                    }
                    Err(error) => error,
                });
            }
            let setback = Setback::new(Pause::None, "a reader has pushed the commit");
            call.pause(&*self.core.runtime, vec![setback]).await?;
            commit_ts = self.core.timestamp(call).await?;
        }
    }

    /// Makes the primary say what became of the transaction: committed, or rolled back now.
    async fn learn_outcome(&self, why: String) -> Result<Timestamp, ClientError> {
        let mut call = self.core.call("commit", Effect::Idempotent);
        let request = kvrpcpb::CheckTxnStatusRequest {
            primary_key: self.primary.clone(),
            lock_ts: self.start_ts.get(),
            current_ts: u64::MAX,
            rollback_if_not_exist: true,
            force_sync_commit: true,
            verify_is_primary: true,
            ..Default::default()
        };
        let primary = txn_route_key(&self.primary);
        match self.core.send_key(&mut call, &primary, &request).await {
            Ok(status) if status.commit_version > 0 => Ok(Timestamp(status.commit_version)),
            Ok(status) if status.lock_ttl == 0 && status.error.is_none() => {
                Err(ClientError::Aborted { why: format!("its commit was lost: {why}") })
            }
            _ => Err(ClientError::Unknown { what: "commit", why }),
        }
    }

    /// Writes the other commit records. Readers that come first do the same for themselves.
    async fn commit_rest(&self, commit_ts: Timestamp, keys: Vec<TxnKey>) {
        if keys.is_empty() {
            return;
        }
        let (core, start_ts) = (self.core.clone(), self.start_ts);
        let work = async move {
            let mut call = core.call("commit secondaries", Effect::Idempotent);
            let outcome = core
                .send_grouped(&mut call, keys, |group| kvrpcpb::CommitRequest {
                    start_version: start_ts.get(),
                    keys: group.iter().map(|key| key.0.clone()).collect(),
                    commit_version: commit_ts.get(),
                    context: None,
                })
                .await;
            if let Err(error) = outcome {
                tracing::debug!(%start_ts, %error, "secondaries are left to readers");
            }
        };
        self.core.background(Box::pin(work)).await;
    }

    /// Removes what prewrite left. Readers that come first do the same for themselves.
    async fn roll_back(&self, keys: Vec<TxnKey>) {
        if keys.is_empty() {
            return;
        }
        let (core, start_ts) = (self.core.clone(), self.start_ts);
        let work = async move {
            let mut call = core.call("rollback", Effect::Idempotent);
            let outcome = core
                .send_grouped(&mut call, keys, |group| kvrpcpb::BatchRollbackRequest {
                    start_version: start_ts.get(),
                    keys: group.iter().map(|key| key.0.clone()).collect(),
                    context: None,
                })
                .await;
            if let Err(error) = outcome {
                tracing::debug!(%start_ts, %error, "locks are left to expire");
            }
        };
        self.core.background(Box::pin(work)).await;
    }

    /// Keeps the primary's lock alive for as long as it is polled.
    async fn heartbeat(&self) -> Infallible {
        let period = self.core.options.lock_ttl / 2;
        let primary = txn_route_key(&self.primary);
        loop {
            self.core.runtime.sleep(period).await;
            let request = kvrpcpb::TxnHeartBeatRequest {
                primary_lock: self.primary.clone(),
                start_version: self.start_ts.get(),
                advise_lock_ttl: self.lock_ttl_ms(),
                ..Default::default()
            };
            let mut call = Call::new(&*self.core.runtime, "heartbeat", Effect::Idempotent, period);
            if let Err(error) = self.core.send_key(&mut call, &primary, &request).await {
                tracing::debug!(start_ts = %self.start_ts, %error, "heartbeat failed");
            }
        }
    }
}

/// True if the error leaves open whether the request took effect.
fn is_vague(error: &ClientError) -> bool {
    matches!(error, ClientError::Unknown { .. } | ClientError::Protocol { .. })
}

/// Why a commit did not happen, and which keys may hold locks.
struct Failed {
    error: ClientError,
    to_roll_back: Vec<TxnKey>,
}
