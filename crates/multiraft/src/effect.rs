//! What a committed entry does to its range: the part of applying that is the same on every replica,
//! whether it is done by a node or by somebody who compares stopped stores.
//!
//! Invariant: no clock, no randomness, no configuration and no engine: same state, same entry, same effect.

use std::sync::Arc;

use cribwork_types::seeded::{Bug, has};
use cribwork_types::{
    RangeDescriptor, RangeEpoch, ReplicaDescriptor, ReplicaRole, StoreId, WriteBatch,
};

use crate::command::{Body, Command, SplitCommand};
use crate::fate::Fate;
use crate::members::with_members;
use crate::position::Position;
use crate::records::{AppliedRecord, Members, MergeSide, Merging, ReplicaRecord};
use crate::seed::Seed;

/// A range as of its last applied entry.
#[derive(Clone, Debug)]
pub(crate) struct RangeState {
    pub(crate) descriptor: Arc<RangeDescriptor>,
    pub(crate) applied: AppliedRecord,
}

/// What a command that takes effect does.
#[derive(Debug)]
pub(crate) enum Effect {
    Nothing,
    Write(WriteBatch),
    Split(Box<SplitEffect>),
    Fingerprint,
    /// Only the range itself is another one.
    Changed,
    /// The range holds the keys of this one, too, which is no more.
    Absorbed(Box<RangeDescriptor>),
}

/// Both sides of a split.
#[derive(Debug)]
pub(crate) struct SplitEffect {
    pub(crate) left: RangeDescriptor,
    pub(crate) right: RangeDescriptor,
    /// Where the right side's first leader is.
    pub(crate) leader: StoreId,
    /// In which it leads.
    pub(crate) term: u64,
}

impl SplitEffect {
    /// What makes the right side's replica on `store`, if it has one there.
    pub(crate) fn seed(&self, store: StoreId, keep_vote: bool) -> Option<Seed> {
        let (mine, first) = (self.right.replica_on(store)?, self.right.replica_on(self.leader)?);
        let record =
            ReplicaRecord { id: mine.id, initialised: true, descriptor: self.right.clone() };
        Some(Seed { record, leader: first.id, term: self.term, keep_vote })
    }
}

impl RangeState {
    /// The group has other members from now on, and the descriptor follows.
    pub(crate) fn members(&mut self, position: Position, members: Members) {
        self.descriptor = Arc::new(with_members(&self.descriptor, &members));
        self.applied.members = members;
        self.applied.members_at = Some(position);
    }

    /// Everything of the entry at `position` is done.
    pub(crate) fn advance(&mut self, position: Position) {
        self.applied.position = self.applied.position.max(Some(position));
    }

    /// Decides what `command` does. The descriptor follows a split at once.
    ///
    /// # Errors
    /// Why it has no effect.
    pub(crate) fn command(&mut self, position: Position, command: Command) -> Result<Effect, Fate> {
        let Command { evaluated, body } = command;
        if evaluated.term != position.term && !has(Bug::StaleEvaluation) {
            return Err(Fate::StaleLeader);
        }
        let now = self.descriptor.epoch;
        let stale = match &body {
            Body::Write(_) if has(Bug::SkipEpochCheck) => false,
            // What was evaluated before the freeze has its version from before, too.
            Body::Write(_) => evaluated.epoch.version != now.version || self.applied.is_frozen(),
            Body::Split(_) => evaluated.epoch != now,
            Body::Freeze { merge, .. } | Body::Pin { merge, .. } => {
                evaluated.epoch != now && !self.takes_part_in(*merge)
            }
            Body::Barrier | Body::Fingerprint | Body::Absorb { .. } | Body::Abandon { .. } => false,
        };
        if stale {
            return Err(Fate::StaleEpoch(Box::new(self.descriptor.as_ref().clone())));
        }
        match body {
            Body::Write(write) => Ok(Effect::Write(write)),
            Body::Split(split) => self.split(position, &split),
            Body::Barrier => Ok(Effect::Nothing),
            Body::Fingerprint => Ok(Effect::Fingerprint),
            Body::Freeze { merge: id, with, with_version } => {
                self.begin_merge(Merging { id, with, with_version, side: MergeSide::Source })
            }
            Body::Pin { merge: id, with, with_version } => {
                self.begin_merge(Merging { id, with, with_version, side: MergeSide::Target })
            }
            Body::Absorb { merge, right } => self.absorb(merge, right),
            Body::Abandon { merge, planned } => Ok(self.abandon(merge, planned)),
        }
    }

    fn takes_part_in(&self, merge: u64) -> bool {
        self.applied.merging.is_some_and(|merging| merging.id == merge)
    }

    fn raise_version(&mut self) {
        let mut descriptor = self.descriptor.as_ref().clone();
        descriptor.epoch.version += 1;
        self.descriptor = Arc::new(descriptor);
    }

    fn begin_merge(&mut self, merge: Merging) -> Result<Effect, Fate> {
        match self.applied.merging {
            Some(merging) if merging.id == merge.id => return Ok(Effect::Nothing),
            Some(_) => return Err(Fate::Refused("the range takes part in another merge")),
            None => {}
        }
        let votes = |it: &ReplicaDescriptor| it.role == ReplicaRole::Voter;
        if !self.descriptor.replicas.iter().all(votes) {
            return Err(Fate::Refused("the range is changing its members"));
        }
        self.applied.merging = Some(merge);
        if merge.side == MergeSide::Source {
            // Whatever was evaluated before has no effect behind this.
            self.raise_version();
        }
        Ok(Effect::Changed)
    }

    fn absorb(&mut self, merge: u64, right: RangeDescriptor) -> Result<Effect, Fate> {
        if !self.takes_part_in(merge) {
            return Err(Fate::Refused("the range takes no part in this merge"));
        }
        let merged = cribwork_router::merge(&self.descriptor, &right)
            .map_err(|_| Fate::Refused("the ranges cannot be merged"))?;
        self.descriptor = Arc::new(merged);
        self.applied.merging = None;
        Ok(Effect::Absorbed(Box::new(right)))
    }

    /// Lets the range go on. Even if nothing of the merge had come here yet, its epoch is another one
    /// afterwards, so that what comes late has no effect.
    fn abandon(&mut self, merge: u64, planned: RangeEpoch) -> Effect {
        if self.takes_part_in(merge) {
            self.applied.merging = None;
        } else if self.descriptor.epoch != planned || self.applied.merging.is_some() {
            return Effect::Nothing;
        }
        self.raise_version();
        Effect::Changed
    }

    fn split(&mut self, position: Position, split: &SplitCommand) -> Result<Effect, Fate> {
        if self.applied.merging.is_some() && !has(Bug::SplitWhilePinned) {
            return Err(Fate::Refused("the range is about to be merged"));
        }
        if self.applied.members.voter_sets.len() != 1 && !has(Bug::SplitWhileJoint) {
            return Err(Fate::Refused("the range is changing its members"));
        }
        let proposer = self.descriptor.replica_on(split.leader);
        if proposer.is_none_or(|proposer| proposer.role != ReplicaRole::Voter) {
            return Err(Fate::Refused("the proposer is no voter of the range"));
        }
        let made =
            cribwork_router::split(&self.descriptor, &split.key, split.right, &split.replicas);
        let Ok((left, right)) = made else {
            return Err(Fate::Refused("the split key or the new ids do not fit the range"));
        };
        self.descriptor = Arc::new(left.clone());
        let (leader, term) = (split.leader, position.term);
        Ok(Effect::Split(Box::new(SplitEffect { left, right, leader, term })))
    }
}
