//! Splitting a range, and handing leadership over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cribwork_router::SplitError;
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{RangeDescriptor, RangeId, ReplicaId, ReplicaRole, RuntimeExt, StoreId};

use crate::command::{Body, SplitCommand};
use crate::error::RaftError;
use crate::fate::Fate;
use crate::fence::Still;
use crate::read::WriteToken;
use crate::replica::{LiveInstance, Replica};

/// Ids for the right side of a split, handed out by the placement group and never reused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRange {
    /// The range's id.
    pub id: RangeId,
    /// One replica for each store that holds the parent.
    pub replicas: Vec<(StoreId, ReplicaId)>,
}

impl Replica {
    /// Splits the range at `key`, an encoded bound strictly inside; gives left and right. A caller
    /// that goes away stops nothing: no read is served here until the split's fate is known.
    ///
    /// # Errors
    /// [`RaftError::EpochChanged`] if the key lies in another range, now or since the token was taken;
    /// [`RaftError::Refused`] if it cannot be a bound here, or the ids do not fit; else as
    /// [`Replica::propose`].
    pub async fn split(
        self: &Arc<Self>,
        token: &WriteToken,
        key: Bytes,
        right: NewRange,
    ) -> Result<(RangeDescriptor, RangeDescriptor), RaftError> {
        let range = self.range_id();
        if self.is_merging() && !has(Bug::SplitWhilePinned) {
            return Err(RaftError::ChangeFailed { range, why: "it is about to be merged" });
        }
        let now = self.descriptor();
        cribwork_router::split(&now, &key, right.id, &right.replicas).map_err(|error| {
            match error {
                // Another split came first: whoever asks has an old route.
                SplitError::Outside { .. } => RaftError::EpochChanged {
                    range,
                    epoch: now.epoch,
                    current: vec![now.as_ref().clone()],
                },
                error => RaftError::Refused { range, why: error.to_string() },
            }
        })?;
        let body = Body::Split(SplitCommand {
            key,
            right: right.id,
            replicas: right.replicas,
            leader: self.shared().options.store,
        });
        match self.propose_fenced(token, body, Still::Reads).await? {
            Fate::Split(both) => Ok(*both),
            fate => Err(self.failure(fate)),
        }
    }

    /// Hands leadership to the replica on `store`. From the start of the transfer this replica
    /// neither reads nor evaluates. If no new leader shows up in time, the instance is rebuilt,
    /// because openraft never resumes a leader that tried to hand over.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`], or [`RaftError::TransferFailed`] with the reason.
    pub async fn transfer_leader(self: &Arc<Self>, store: StoreId) -> Result<(), RaftError> {
        let range = self.range_id();
        let failed = |why| RaftError::TransferFailed { range, target: store, why };
        let view = self.leader();
        if !view.is_self {
            return Err(self.not_leader());
        }
        if store == self.shared().options.store {
            return Ok(());
        }
        let target = self.descriptor().replica_on(store).ok_or(failed("it has no replica"))?;
        if !matches!(target.role, ReplicaRole::Voter | ReplicaRole::Incoming) {
            return Err(failed("its replica does not vote, or is about to go"));
        }
        if !self.shared().liveness.is_live(store) {
            return Err(failed("it is not reachable"));
        }
        let live = self.instance().await?;
        self.catch_up(&live, target.id, store).await?;
        let free = self.handing_over_to.compare_exchange(
            0,
            store.get(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if free.is_err() {
            return Err(failed("another transfer is under way"));
        }
        live.raft.transfer(target.id).await;
        let limit = self.shared().options.transfer_timeout;
        if self.leader_moved(view.term, limit).await {
            return Ok(());
        }
        if has(Bug::TransferResumed) {
            self.handing_over_to.store(0, Ordering::Release);
            self.changed.notify_waiters();
        } else if !has(Bug::TransferStuck) {
            self.recover_from_transfer(view.term).await;
        }
        Err(failed("no new leader in time"))
    }

    /// Waits until the target holds the whole log: a round of heartbeats tells.
    async fn catch_up(
        self: &Arc<Self>,
        live: &LiveInstance,
        target: ReplicaId,
        store: StoreId,
    ) -> Result<(), RaftError> {
        let limit = self.shared().options.transfer_timeout;
        let deadline = self.shared().runtime.now() + limit;
        let _ = self.confirm(live, limit).await;
        let raft = &live.raft;
        while !raft.caught_up(target) {
            if self.shared().runtime.now() >= deadline {
                let (range, why) = (self.range_id(), "its log is behind");
                return Err(RaftError::TransferFailed { range, target: store, why });
            }
            raft.heartbeat().await;
            self.shared().runtime.sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn leader_moved(self: &Arc<Self>, term: u64, limit: Duration) -> bool {
        let deadline = self.shared().runtime.now() + limit;
        loop {
            let changed = self.changed.notified();
            let seen = *self.seen.lock();
            if seen.term > term && seen.leader.is_some_and(|leader| leader != self.replica_id()) {
                return true;
            }
            let left = deadline.saturating_sub(self.shared().runtime.now());
            if self.shared().runtime.timeout(left, changed).await.is_err() {
                return false;
            }
        }
    }

    async fn recover_from_transfer(self: &Arc<Self>, term: u64) {
        tracing::warn!(range = %self.range_id(), "transfer of leadership failed, restarting");
        self.shared().metrics.transfers_failed.inc();
        let restarted = match self.close().await {
            Ok(()) => self.build(false).await,
            Err(error) => Err(error),
        };
        if self.seen.lock().term == term {
            self.seen.lock().leader = None;
            self.shared().leaders_changed.store(true, Ordering::Release);
        }
        self.handing_over_to.store(0, Ordering::Release);
        self.changed.notify_waiters();
        match restarted {
            Ok(live) => live.raft.campaign().await,
            Err(error) => tracing::warn!(range = %self.range_id(), %error, "cannot restart"),
        }
    }
}
