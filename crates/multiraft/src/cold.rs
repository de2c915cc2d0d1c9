//! Cold replicas: one that has nothing to do holds no Raft instance, and costs a descriptor.
//!
//! A cold *follower* remembers whom it follows, in which life of that store, and until when it has
//! promised not to vote. A cold *leader* still leads: it has applied its whole log, its members have all
//! of it, and while it sleeps nobody can have been elected without the vote of a majority that then
//! refuses what this leader sends next. So it keeps its term and what it knows of it, and is built in the
//! same term when it is needed. That is safe only within one life of the process, with the log that it
//! was closed with: whoever starts from a disk of which it does not know how the life before ended begins
//! as a follower (docs/decisions/0011).
//!
//! Going cold must lose nothing. Messages wait from the moment of the decision; an instance that
//! anybody still holds stays.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cribwork_types::quirk::{Quirk, at_work};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{RangeId, ReplicaRole};

use crate::error::RaftError;
use crate::node::{MultiRaft, NodeShared};
use crate::position::{Position, VoteRecord};
use crate::replica::{LeaderSeen, LiveInstance, Replica};

/// After how long without anything to do a replica goes cold, unless another time is set.
pub const COLD_AFTER: Duration = Duration::from_secs(30);

/// Instances from which on a node closes idle ones as early as it may.
const LIVE_MAX: i64 = 2_000;

/// A replica goes cold no earlier than this many leases after its last message: every promise that it
/// gave with it has ended.
const LEASES_MIN: u32 = 2;

/// What an instance must find unchanged to resume.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Standing {
    vote: VoteRecord,
    last: Position,
    leads: bool,
}

/// What the replicas of a node may do when they are idle.
pub(crate) struct ColdPolicy {
    /// Milliseconds; 0 for never.
    after_ms: AtomicU64,
}

impl Default for ColdPolicy {
    fn default() -> Self {
        Self { after_ms: AtomicU64::new(COLD_AFTER.as_millis() as u64) }
    }
}

impl ColdPolicy {
    /// How long a replica has to be idle; none if all stay live.
    fn after(&self, shared: &NodeShared) -> Option<Duration> {
        let least = shared.options.lease * LEASES_MIN;
        if at_work(Quirk::EagerCold) {
            return Some(least);
        }
        let after = Duration::from_millis(self.after_ms.load(Ordering::Relaxed));
        let crowded = shared.metrics.live_replicas.get() > LIVE_MAX;
        match (after.is_zero(), crowded) {
            (true, _) => None,
            (false, true) => Some(least),
            (false, false) => Some(after.max(least)),
        }
    }
}

impl MultiRaft {
    /// From now on replicas go cold when they have been idle for this long (two leases at least); zero
    /// for never.
    pub fn set_cold_after(&self, after: Duration) {
        self.shared.cold.after_ms.store(after.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Replica {
    /// Closes the instance if there is nothing for it to do, in a task of its own.
    pub(crate) fn rest(self: &Arc<Self>, live: &LiveInstance) {
        let Some(after) = self.shared().cold.after(self.shared()) else { return };
        if !self.is_idle(after) || self.standing(live).is_none() {
            return;
        }
        let replica = self.clone();
        self.shared().runtime.spawn(Box::pin(async move {
            if let Err(error) = replica.go_cold(after).await {
                tracing::warn!(range = %replica.range_id(), %error, "cannot put the replica to rest");
            }
        }));
    }

    /// True if nothing was asked of the replica for so long, by a client or by another member.
    fn is_idle(&self, after: Duration) -> bool {
        let times = [
            &self.last_read_ms,
            &self.last_write_ms,
            &self.last_wait_ms,
            &self.last_message_ms,
            &self.live_since_ms,
        ];
        let last = times.map(|at| at.load(Ordering::Relaxed)).into_iter().max().unwrap_or(0);
        self.now_ms().saturating_sub(last) > after.as_millis() as u64 || has(Bug::ColdMidWork)
    }

    /// What the replica stands for, if it is settled: nothing under way, nothing left to apply, and its
    /// leader, itself or another one, known and alive.
    fn standing(&self, live: &LiveInstance) -> Option<Standing> {
        let (vote, (_, last)) = (live.log.vote()?, live.log.bounds());
        let (seen, last) = (*self.seen.lock(), last?);
        let leads = seen.leader == Some(self.replica_id());
        let standing = Standing { vote, last, leads };
        if has(Bug::ColdMidWork) && leads {
            return Some(standing);
        }
        let descriptor = self.descriptor();
        let settled = self.is_initialised()
            && self.range_id() != RangeId::PLACEMENT
            && !self.removing.load(Ordering::Acquire)
            && self.handing_over_to.load(Ordering::Acquire) == 0
            && self.fences.load(Ordering::Acquire) == 0
            && !self.is_merging()
            && self.sending.load(Ordering::Acquire) == 0
            && self.changing.try_lock().is_ok()
            && self.fates.is_empty()
            && self.batcher.is_empty()
            && descriptor.replicas.iter().all(|it| it.role == ReplicaRole::Voter)
            && vote.committed
            && seen.leader == Some(vote.candidate)
            && seen.term == vote.term
            && last.index == self.applied_index()
            && live.raft.fatal().is_none();
        let at_rest = settled
            && match leads {
                true => {
                    self.serving_term.load(Ordering::Acquire) == seen.term
                        && descriptor
                            .replicas
                            .iter()
                            .filter(|it| it.id != self.replica_id())
                            .all(|it| live.raft.matched(it.id) == Some(last.index))
                }
                false => seen.heard && self.has_live_leader(),
            };
        at_rest.then_some(standing)
    }

    /// A new range's first leader, elected by the seeds of all members, leads without having been live.
    /// Nobody may know this replica yet.
    pub(crate) fn lead_from_cold(&self, term: u64) {
        let leader = Some(self.replica_id());
        *self.seen.lock() = LeaderSeen { leader, term, ..LeaderSeen::default() };
        self.resumes.store(true, Ordering::Release);
        self.serving_term.store(term, Ordering::Release);
    }

    /// Closes the instance unless something comes up meanwhile.
    async fn go_cold(self: &Arc<Self>, after: Duration) -> Result<(), RaftError> {
        let Ok(no_builder) = self.building.try_lock() else { return Ok(()) };
        if !self.hold_messages(after) {
            return Ok(());
        }
        let closed = match self.take_instance() {
            Some((live, standing)) => self.close_at(live, standing).await,
            None => Ok(()),
        };
        drop(no_builder);
        self.changed.notify_waiters();
        self.release_messages();
        closed
    }

    /// From here on messages wait, if none has come lately.
    fn hold_messages(&self, after: Duration) -> bool {
        let mut waking = self.waking.lock();
        if waking.is_some() || !self.is_idle(after) {
            return false;
        }
        *waking = Some(VecDeque::new());
        true
    }

    /// Lets messages through again: nothing has come, or whatever came wakes the replica.
    fn release_messages(self: &Arc<Self>) {
        let mut waking = self.waking.lock();
        if waking.as_ref().is_none_or(VecDeque::is_empty) {
            *waking = None;
            return;
        }
        drop(waking);
        self.build_and_deliver();
    }

    /// Takes the instance away from whoever comes next. Nothing is taken if somebody who came earlier
    /// holds it still, or if the replica is not settled.
    fn take_instance(&self) -> Option<(Arc<LiveInstance>, Standing)> {
        let live = self.instance.swap(None)?;
        let alone = Arc::strong_count(&live) == 1 || has(Bug::ColdMidWork);
        match self.standing(&live).filter(|_| alone) {
            Some(standing) => Some((live, standing)),
            None => {
                self.instance.store(Some(live));
                None
            }
        }
    }

    async fn close_at(
        self: &Arc<Self>,
        live: Arc<LiveInstance>,
        standing: Standing,
    ) -> Result<(), RaftError> {
        if let Err(error) = self.finish_instance(&live).await {
            self.forget_own_leadership();
            return Err(error);
        }
        self.shared().metrics.gone_cold.inc();
        let (vote, (_, last)) = (live.log.vote(), live.log.bounds());
        let unchanged = vote == Some(standing.vote) && last == Some(standing.last);
        match unchanged || has(Bug::ColdMidWork) {
            true => self.resumes.store(standing.leads, Ordering::Release),
            false => {
                // The last thing that the instance did was to listen to somebody else.
                vote.into_iter().for_each(|vote| self.vote_changed(vote));
                self.forget_own_leadership();
            }
        }
        Ok(())
    }
}
