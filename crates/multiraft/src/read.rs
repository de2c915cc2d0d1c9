//! Reading and evaluating at the leader.
//!
//! The order of a lease read matters: take the engine snapshot FIRST, then check lease, leadership
//! and fences by a clock read after it. A process that was paused in between then finds its lease
//! expired and throws the snapshot away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cribwork_engine::EngineSnapshot;
use cribwork_types::quirk::{Quirk, hold_up};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{RangeDescriptor, RangeEpoch, RuntimeExt};

use crate::command::Evaluated;
use crate::error::RaftError;
use crate::raft::WriteError;
use crate::replica::{LiveInstance, Replica};

/// How long a frozen leader tries to prove that it leads.
const FROZEN_PROOF_MAX: Duration = Duration::from_millis(200);

/// Under which leadership and epoch something was read or evaluated. A command proposed with it
/// takes effect only if both still hold when it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteToken {
    term: u64,
    epoch: RangeEpoch,
}

impl WriteToken {
    /// The leader's term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The range's epoch at the evaluation.
    pub fn epoch(&self) -> RangeEpoch {
        self.epoch
    }

    pub(crate) fn of(term: u64, epoch: RangeEpoch) -> Self {
        Self { term, epoch }
    }

    /// The same leadership, another epoch.
    pub(crate) fn at(self, epoch: RangeEpoch) -> Self {
        Self { epoch, ..self }
    }

    pub(crate) fn evaluated(&self) -> Evaluated {
        Evaluated { term: self.term, epoch: self.epoch }
    }
}

/// A view of a range's data.
#[derive(Clone)]
pub struct ReadHandle {
    /// All families at one instant; only keys inside the descriptor's span may be read from it.
    pub snapshot: Arc<dyn EngineSnapshot>,
    /// The range as of that instant or a little later (never larger than what the snapshot holds).
    pub descriptor: Arc<RangeDescriptor>,
    /// For proposals that follow from what is read.
    pub token: WriteToken,
}

impl Replica {
    /// A linearizable view without a round trip, if this leader's lease holds.
    pub fn try_read(&self) -> Option<ReadHandle> {
        let begun = self.begin_read()?;
        self.finish_read(begun)
    }

    /// The first half of a read by the lease: the snapshot, and the term it was taken in.
    fn begin_read(&self) -> Option<(Arc<dyn EngineSnapshot>, u64)> {
        let term = self.serving_term.load(Ordering::Acquire);
        if term == 0 {
            return None;
        }
        self.note_read();
        Some((self.shared().engine.snapshot(), term))
    }

    /// The second half: what was taken may be read if this leader's lease holds now.
    fn finish_read(&self, (snapshot, term): (Arc<dyn EngineSnapshot>, u64)) -> Option<ReadHandle> {
        let age = self.quorum_age(term)?;
        let lapsed = age > self.shared().options.safe_lease() && !has(Bug::StaleLeaseRead);
        if lapsed || !self.may_serve(term) {
            return None;
        }
        Some(self.handle(snapshot, term))
    }

    async fn read_by_lease(&self) -> Option<ReadHandle> {
        let begun = self.begin_read()?;
        if has(Bug::LeaseBeforeSnapshot) {
            let term = self.finish_read(begun)?.token.term();
            hold_up(Quirk::HeldRead, &*self.shared().runtime).await;
            return Some(self.handle(self.shared().engine.snapshot(), term));
        }
        hold_up(Quirk::HeldRead, &*self.shared().runtime).await;
        self.finish_read(begun)
    }

    /// The term in which [`Self::try_read`] would serve now, if it would. For observers: it counts as
    /// no read.
    pub fn lease_term(&self) -> Option<u64> {
        let term = self.serving_term.load(Ordering::Acquire);
        let age = self.quorum_age(term).filter(|_| term != 0)?;
        (age <= self.shared().options.safe_lease() && self.may_serve(term)).then_some(term)
    }

    /// A linearizable view: by the lease if it holds, else by asking a majority.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`] if leadership cannot be proven in time.
    pub async fn read(self: &Arc<Self>) -> Result<ReadHandle, RaftError> {
        if let Some(handle) = self.read_by_lease().await {
            return Ok(handle);
        }
        self.shared().metrics.read_index.inc();
        let deadline = self.shared().runtime.now() + self.shared().options.read_timeout;
        loop {
            let term = self.serving(deadline).await?;
            let live = self.instance().await?;
            let left = deadline.saturating_sub(self.shared().runtime.now());
            if left.is_zero() {
                return Err(self.not_leader());
            }
            let confirmed = match has(Bug::SkipReadIndex) {
                true => Ok(term),
                false => self.confirm(&live, left.min(Duration::from_millis(500))).await,
            };
            match confirmed {
                Ok(confirmed) if confirmed == term && self.may_serve(term) => {
                    return Ok(self.handle(self.shared().engine.snapshot(), term));
                }
                Ok(_) | Err(WriteError::LeaseExpired) => {
                    self.pause_for_change(Duration::from_millis(10)).await;
                }
                Err(_) => return Err(self.not_leader()),
            }
        }
    }

    /// A view for evaluating a command: this replica leads and has applied everything before its
    /// own barrier. No lease is needed, because the command is checked again when it is applied.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`] if this replica does not lead.
    pub async fn evaluate(self: &Arc<Self>) -> Result<ReadHandle, RaftError> {
        let token = self.token().await?;
        Ok(ReadHandle {
            snapshot: self.shared().engine.snapshot(),
            descriptor: self.descriptor(),
            token,
        })
    }

    /// The token alone, for commands that read nothing.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`] if this replica does not lead.
    pub async fn token(self: &Arc<Self>) -> Result<WriteToken, RaftError> {
        let term = self.serving_term.load(Ordering::Acquire);
        let hands_over = self.handing_over_to.load(Ordering::Acquire) != 0;
        let term = match term != 0 && !hands_over && !self.is_frozen() {
            true => term,
            false => {
                let now = self.shared().runtime.now();
                self.serving(now + self.shared().options.read_timeout).await?
            }
        };
        Ok(WriteToken { term, epoch: self.descriptor().epoch })
    }

    /// Proves that this replica led at a moment after this call began, and that it has applied what
    /// was committed then. Gives the term. Takes no longer than `limit`.
    pub(crate) async fn confirm(
        self: &Arc<Self>,
        live: &LiveInstance,
        limit: Duration,
    ) -> Result<u64, WriteError> {
        let runtime = &self.shared().runtime;
        let started = runtime.now();
        let asked = runtime.timeout(limit, live.raft.confirm(limit)).await;
        let term = asked.unwrap_or(Err(WriteError::LeaseExpired))?;
        match self.acknowledged(term, started, started + limit).await {
            true => Ok(term),
            false => Err(WriteError::LeaseExpired),
        }
    }

    /// The term last: the end of a term takes it away first.
    fn may_serve(&self, term: u64) -> bool {
        let hands_over = self.handing_over_to.load(Ordering::SeqCst) != 0;
        let fenced = self.fences.load(Ordering::SeqCst) != 0 && !has(Bug::FenceForgotten);
        !fenced
            && !self.is_frozen()
            && (!hands_over || has(Bug::TransferKeepsLease))
            && self.serving_term.load(Ordering::SeqCst) == term
    }

    fn handle(&self, snapshot: Arc<dyn EngineSnapshot>, term: u64) -> ReadHandle {
        let descriptor = self.descriptor();
        let token = WriteToken { term, epoch: descriptor.epoch };
        ReadHandle { snapshot, descriptor, token }
    }

    /// Waits until this replica serves, if it leads, hands over, is frozen, or nobody is known to lead; the
    /// term.
    async fn serving(self: &Arc<Self>, deadline: Duration) -> Result<u64, RaftError> {
        loop {
            let changed = self.changed.notified();
            let view = self.leader();
            let handing_over = self.handing_over_to.load(Ordering::Acquire) != 0;
            let frozen = self.is_frozen();
            if let Some(error) = self.absorbed_error() {
                return Err(error);
            }
            if view.is_self && !handing_over && !frozen {
                return Ok(view.term);
            }
            let elsewhere = view.leader.is_some_and(|leader| leader.id != self.replica_id());
            if elsewhere && self.has_live_leader() {
                return Err(self.not_leader());
            }
            // Nobody knows yet who leads next, the target of a transfer included: sent there, a client
            // would be sent back, and use up its attempts within a moment. Where somebody waits, the
            // election comes first.
            self.last_wait_ms.store(self.now_ms().max(1), Ordering::Relaxed);
            if self.live().is_none() {
                self.wake();
            }
            let left = deadline.saturating_sub(self.shared().runtime.now());
            if self.shared().runtime.timeout(left, changed).await.is_err() {
                return Err(match frozen {
                    true => self.frozen_error().await,
                    false => self.not_leader(),
                });
            }
        }
    }

    /// What whoever has waited for a frozen range is told: one that was merged elsewhere, without this store,
    /// has no majority any more, and is to be looked for.
    async fn frozen_error(self: &Arc<Self>) -> RaftError {
        let range = self.range_id();
        let confirmed = match self.instance().await {
            Ok(live) => self.confirm(&live, FROZEN_PROOF_MAX).await.is_ok(),
            Err(error) => return error,
        };
        match confirmed {
            true => RaftError::Merging { range },
            false => RaftError::NotLeader { range, leader: None },
        }
    }

    async fn pause_for_change(&self, limit: Duration) {
        let _ = self.shared().runtime.timeout(limit, self.changed.notified()).await;
    }
}
