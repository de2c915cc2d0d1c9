//! What a committed entry does to its range: the part of applying that is the same on every replica,
//! whether it is done by a node or by somebody who compares stopped stores.
//!
//! Invariant: no clock, no randomness, no configuration and no engine: same state, same entry, same effect.

use std::sync::Arc;

use cribwork_types::seeded::{Bug, has};
use cribwork_types::{RangeDescriptor, ReplicaRole, StoreId, WriteBatch};

use crate::command::{Body, Command, SplitCommand};
use crate::fate::Fate;
use crate::members::with_members;
use crate::position::Position;
use crate::records::{AppliedRecord, Members, ReplicaRecord};
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
            Body::Write(_) => evaluated.epoch.version != now.version,
            Body::Split(_) => evaluated.epoch != now,
            Body::Barrier | Body::Fingerprint => false,
        };
        if stale {
            return Err(Fate::StaleEpoch(Box::new(self.descriptor.as_ref().clone())));
        }
        match body {
            Body::Write(write) => Ok(Effect::Write(write)),
            Body::Split(split) => self.split(position, &split),
            Body::Barrier => Ok(Effect::Nothing),
            Body::Fingerprint => Ok(Effect::Fingerprint),
        }
    }

    fn split(&mut self, position: Position, split: &SplitCommand) -> Result<Effect, Fate> {
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
