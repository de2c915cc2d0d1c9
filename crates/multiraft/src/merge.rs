//! Merging a range, the *source*, into its left neighbour, the *target*.
//!
//! ```text
//!  placement             target's leader    every store             source's leader
//!  plan is stored   -->  pin           -->  applied and synced? -->  freeze
//!                                           applied and synced? <--
//!  decided: merge   -->  absorb
//!  or: not          -->  abandon        ------------------------->  abandon
//! ```
//!
//! It is a transaction of two groups, with placement as the one who decides. Both promise first. A frozen
//! source reads and writes nothing, and a pinned target keeps its bounds and members, each until it is told
//! how it ends. So once all stores have said that their replicas of both have applied that, and that it
//! survives a crash, nothing can stand in the way of the merge, and placement may decide for it; it
//! decides against it when a promise is not given in time. Placement's group is replicated, so a
//! decision is made once and outlives whoever made it.
//!
//! No data moves: the target's replica on each store finds the keys where the source has left them. Applying
//! the merge is one batch, which extends the target and buries the source.
//!
//! Orders may come late. What begins a merge names the epoch that it was planned for, and abandoning it
//! changes that, whether anything had begun or not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cribwork_types::seeded::{Bug, has};
use cribwork_types::{RangeDescriptor, RangeEpoch, RangeId, WriteBatch};

use crate::command::Body;
use crate::error::RaftError;
use crate::fate::Fate;
use crate::fence::Still;
use crate::node::{MultiRaft, NodeShared};
use crate::read::WriteToken;
use crate::records::MergeSide;
use crate::removal;
use crate::replica::Replica;

/// The part of a range in a merge, as it was planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergePart {
    /// The merge's name: never used for another one.
    pub merge: u64,
    /// The range's epoch when it was planned.
    pub planned: RangeEpoch,
    /// The other range.
    pub with: RangeId,
    /// Its version when it was planned.
    pub with_version: u64,
}

impl Replica {
    /// Freezes this leader's range, which is about to be absorbed; gives the range as it is then. May be
    /// repeated.
    ///
    /// # Errors
    /// [`RaftError::EpochChanged`] if the range is another one than was planned;
    /// [`RaftError::Refused`] if it cannot take part; else as [`Replica::propose`].
    pub async fn freeze(
        self: &Arc<Self>,
        part: MergePart,
    ) -> Result<Arc<RangeDescriptor>, RaftError> {
        self.promise(part, MergeSide::Source).await
    }

    /// Keeps the bounds and members of this leader's range as they are: it is about to absorb its right
    /// neighbour. May be repeated.
    ///
    /// # Errors
    /// As [`Replica::freeze`].
    pub async fn pin(self: &Arc<Self>, part: MergePart) -> Result<Arc<RangeDescriptor>, RaftError> {
        self.promise(part, MergeSide::Target).await
    }

    async fn promise(
        self: &Arc<Self>,
        part: MergePart,
        side: MergeSide,
    ) -> Result<Arc<RangeDescriptor>, RaftError> {
        let token = self.leading()?;
        if self.takes_part(part.merge, side) {
            return Ok(self.descriptor());
        }
        let now = self.descriptor();
        if now.epoch != part.planned {
            let (range, epoch, current) = (now.id, now.epoch, vec![now.as_ref().clone()]);
            return Err(RaftError::EpochChanged { range, epoch, current });
        }
        let MergePart { merge, planned, with, with_version } = part;
        let body = match side {
            MergeSide::Source => Body::Freeze { merge, with, with_version },
            MergeSide::Target => Body::Pin { merge, with, with_version },
        };
        self.propose_merge(&token.at(planned), body).await
    }

    /// Absorbs the right neighbour of this leader's range, which placement has decided; gives the range as
    /// it is then. `right` is the neighbour as it was frozen. May be repeated.
    ///
    /// A decided merge ends in no other way than this. So a range that had promised, as its later epoch says,
    /// and takes no part any more has absorbed its neighbour, whatever was done to it since.
    ///
    /// # Errors
    /// [`RaftError::Refused`] if this range never took part in the merge; else as [`Replica::propose`].
    pub async fn absorb(
        self: &Arc<Self>,
        merge: u64,
        planned: RangeEpoch,
        right: RangeDescriptor,
    ) -> Result<Arc<RangeDescriptor>, RaftError> {
        let token = self.leading()?;
        let now = self.descriptor();
        if !self.takes_part(merge, MergeSide::Target) && now.epoch.version > planned.version {
            return Ok(now);
        }
        self.propose_merge(&token, Body::Absorb { merge, right }).await
    }

    /// The merge does not take place, which placement has decided: this leader's range goes on, and
    /// nothing that begins that merge has an effect any more. May be repeated.
    ///
    /// # Errors
    /// As [`Replica::propose`].
    pub async fn abandon_merge(
        self: &Arc<Self>,
        merge: u64,
        planned: RangeEpoch,
    ) -> Result<(), RaftError> {
        let token = self.leading()?;
        let side = self.applied_record().merging.filter(|it| it.id == merge);
        // A leader that was deposed may not have got as far as what was planned.
        if side.is_none() && planned.is_behind(&self.descriptor().epoch) {
            return Ok(());
        }
        self.propose_merge(&token, Body::Abandon { merge, planned }).await.map(drop)
    }

    /// Whether what this replica's range has promised to `merge`, on either side, is applied here and will be
    /// after a crash. Of the target, too: a store that has not made its replica of that yet would let go of
    /// the source before the merge comes to it.
    ///
    /// # Errors
    /// [`RaftError::Refused`] if it is not, or not yet; [`RaftError::Engine`] if it cannot be made sure.
    pub async fn has_promised(&self, merge: u64) -> Result<(), RaftError> {
        if !has(Bug::MergeUnready) {
            let promised = self.applied.lock().merging.is_some_and(|it| it.id == merge);
            if !promised || !self.is_initialised() {
                let (range, why) = (self.range_id(), "its promise is not applied here yet".into());
                return Err(RaftError::Refused { range, why });
            }
            // What was applied is written, but not synced.
            self.shared().writer.barrier().await?;
        }
        Ok(())
    }

    fn takes_part(&self, merge: u64, side: MergeSide) -> bool {
        let merging = self.applied.lock().merging;
        merging.is_some_and(|merging| merging.id == merge && merging.side == side)
    }

    /// The token of a leader, frozen or not.
    fn leading(&self) -> Result<WriteToken, RaftError> {
        let view = self.leader();
        match view.is_self {
            true => Ok(WriteToken::of(view.term, self.descriptor().epoch)),
            false => Err(self.not_leader()),
        }
    }

    async fn propose_merge(
        self: &Arc<Self>,
        token: &WriteToken,
        body: Body,
    ) -> Result<Arc<RangeDescriptor>, RaftError> {
        // Only a freeze takes keys away; to absorb gives some.
        let still = match body {
            Body::Freeze { .. } => Still::Both,
            _ => Still::Members,
        };
        match self.propose_fenced(token, body, still).await? {
            Fate::Applied(_) => Ok(self.descriptor()),
            fate => Err(self.failure(fate)),
        }
    }

    /// True if nothing of the range is read or written here now.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst) && !has(Bug::FrozenServes)
    }

    /// True while the range takes part in a merge, on either side.
    pub fn is_merging(&self) -> bool {
        self.applied.lock().merging.is_some()
    }

    /// What whoever asks for this replica is told once its range was absorbed.
    pub(crate) fn absorbed_error(&self) -> Option<RaftError> {
        let into = *self.absorbed_by.lock();
        let (range, store) = (self.range_id(), self.shared().options.store);
        Some(match self.shared().replica(into?) {
            Some(target) => {
                let current = vec![target.descriptor().as_ref().clone()];
                RaftError::EpochChanged { range, epoch: current[0].epoch, current }
            }
            None => RaftError::RangeNotFound { range, store },
        })
    }
}

/// The replica of `right` on this store, which is about to be absorbed; its burial goes into `batch`.
///
/// # Errors
/// [`RaftError::Fatal`] if there is none that is frozen: this store would have a hole, so it goes no
/// further.
pub(crate) fn bury_absorbed(
    shared: &NodeShared,
    target: RangeId,
    merge_of: &RangeDescriptor,
    batch: &mut WriteBatch,
) -> Result<Option<Arc<Replica>>, RaftError> {
    let mine = merge_of.replica_on(shared.options.store).map(|it| it.id);
    let source = shared.replica(merge_of.id).filter(|source| {
        source.is_initialised()
            && Some(source.replica_id()) == mine
            && source.applied_record().is_frozen()
    });
    let Some(source) = source else {
        if has(Bug::MergeUnready) {
            return Ok(None);
        }
        let why = format!("range {} is to be absorbed and is not frozen here", merge_of.id);
        return Err(RaftError::Fatal { range: target, why });
    };
    if !has(Bug::SourceStays) {
        removal::bury(batch, source.range_id(), source.replica_id());
    }
    Ok(Some(source))
}

/// A replica whose range was absorbed, as was just written, is one no more.
pub(crate) fn let_go(shared: &NodeShared, source: &Arc<Replica>, target: RangeId) {
    if has(Bug::SourceStays) {
        return;
    }
    *source.absorbed_by.lock() = Some(target);
    source.removing.store(true, Ordering::Release);
    shared.forget(source);
    source.forget_own_leadership();
    shared.metrics.absorbed.inc();
    tracing::info!(range = %source.range_id(), into = %target, "merged");
}

impl Replica {
    /// Answers whoever waits for a range that was absorbed, by `fate`, and ends its instance.
    pub(crate) fn end_absorbed(self: &Arc<Self>, fate: Fate) {
        self.fates.decide_rest(&fate);
        self.changed.notify_waiters();
        let source = self.clone();
        self.shared().runtime.spawn(Box::pin(async move {
            let range = source.range_id();
            let closed = source.close().await;
            // What was proposed meanwhile is in no log that matters.
            source.fates.decide_rest(&fate);
            let ended = match closed {
                // Its instance may have written something since.
                Ok(()) => removal::sweep(source.shared().engine.as_ref(), range),
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::warn!(%range, %error, "a merged range leaves a log behind");
            }
        }));
    }
}

impl NodeShared {
    /// Replicas of this store whose ranges were merged away, as `newer` shows, which this store is about to
    /// take in: it holds their first key at a later version, and a range never loses that but by a merge.
    ///
    /// One whose target's replica here has the merge before it is kept for that, unless it is the
    /// target itself that comes, from behind the merge. Any other must cover all of what it takes the place of.
    pub(crate) fn merged_into(&self, newer: &RangeDescriptor) -> Vec<Arc<Replica>> {
        if newer.id == RangeId::PLACEMENT || has(Bug::OverlapIgnored) {
            return Vec::new();
        }
        let map = self.map.read();
        let ids: BTreeSet<RangeId> = map
            .scan(&newer.span, usize::MAX)
            .map(|entry| &entry.descriptor)
            .filter(|it| it.id != newer.id && newer.span.contains(&it.span.start))
            .filter(|it| it.epoch.version < newer.epoch.version)
            .map(|it| it.id)
            .collect();
        drop(map);
        let is_merged = |replica: &Arc<Replica>| match self.awaited_by(replica) {
            Some(target) => target == newer.id,
            None => newer.span.covers(&replica.descriptor().span),
        };
        ids.into_iter().filter_map(|id| self.replica(id)).filter(is_merged).collect()
    }

    /// The range whose replica on this store may have a merge before it that needs `source`.
    fn awaited_by(&self, source: &Replica) -> Option<RangeId> {
        let merging = source.applied_record().merging;
        let merging = merging.filter(|it| it.side == MergeSide::Source)?;
        let target = self.replica(merging.with)?;
        let version = target.descriptor().epoch.version;
        let waits = !target.is_initialised() || version <= merging.with_version;
        waits.then_some(merging.with)
    }

    /// True if a merge that the target's replica on this store has before it may still need `source`.
    pub(crate) fn is_awaited(&self, source: &Replica) -> bool {
        self.awaited_by(source).is_some()
    }
}

impl MultiRaft {
    /// Placement knows `newer`, which holds the first key of a range that this store holds a replica of, at
    /// a later version: that range was merged away. A replica that no merge here waits for is
    /// removed. True if so.
    pub fn check_merged(&self, range: RangeId, newer: &RangeDescriptor) -> bool {
        let Some(replica) = self.shared.replica(range) else { return false };
        let mine = replica.descriptor();
        let merged = newer.id != range
            && range != RangeId::PLACEMENT
            && replica.is_initialised()
            && newer.span.contains(&mine.span.start)
            && newer.epoch.version > mine.epoch.version
            && !self.shared.is_awaited(&replica);
        if merged {
            replica.remove();
        }
        merged
    }
}
