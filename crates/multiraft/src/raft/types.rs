//! openraft's type parameters, and conversions between its generics and our plain types.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use cribwork_types::{ReplicaId, StoreId};
use openraft::impls::{Entry as RaftEntry, InlineBatch, OneshotResponder, leader_id_std};
use openraft::vote::RaftLeaderId;
use openraft::{
    AnyError, AsyncRuntime, EntryPayload, Membership, RaftTypeConfig, StoredMembership,
};

use crate::position::{Position, VoteRecord};
use crate::records::{Members, Payload};

/// openraft over an async runtime `A`, which a simulator may replace.
pub(crate) struct Types<A>(PhantomData<fn() -> A>);

/// The bytes of a batch of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commands(pub(crate) Bytes);

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Apply answers callers through [`crate::fate`], so openraft carries nothing back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nothing;

/// Where a replica lives: openraft's "node".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OnStore(pub(crate) StoreId);

pub(crate) type LeaderId = leader_id_std::LeaderId<u64, u64>;
pub(crate) type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Vote = openraft::impls::Vote<LeaderId>;
pub(crate) type RaftPayload = EntryPayload<Commands, u64, OnStore>;
pub(crate) type Entry = RaftEntry<CommittedLeaderId, RaftPayload>;
pub(crate) type RaftMembership = Membership<u64, OnStore>;
pub(crate) type RaftStoredMembership = StoredMembership<CommittedLeaderId, u64, OnStore>;
pub(crate) type RaftSnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, OnStore>;

impl<A: AsyncRuntime> RaftTypeConfig for Types<A> {
    type D = Commands;
    type R = Nothing;
    type NodeId = u64;
    type Node = OnStore;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = RaftPayload;
    type Entry = Entry;
    type AsyncRuntime = A;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = AnyError;
}

// openraft asks its type config for these; derived ones would ask them of `A` too.
impl<A> Clone for Types<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A> Copy for Types<A> {}
impl<A> Default for Types<A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}
impl<A> fmt::Debug for Types<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}
impl<A> PartialEq for Types<A> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<A> Eq for Types<A> {}
impl<A> PartialOrd for Types<A> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<A> Ord for Types<A> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

pub(crate) fn log_id(position: Position) -> LogId {
    LogId::new(CommittedLeaderId::new(position.term), position.index)
}

pub(crate) fn position(log_id: &LogId) -> Position {
    Position { term: log_id.leader_id.term, index: log_id.index }
}

pub(crate) fn vote(record: VoteRecord) -> Vote {
    match record.committed {
        true => Vote::new_committed(record.term, record.candidate.get()),
        false => Vote::new(record.term, record.candidate.get()),
    }
}

pub(crate) fn vote_record(vote: &Vote) -> VoteRecord {
    VoteRecord {
        term: vote.leader_id.term,
        candidate: ReplicaId(vote.leader_id.voted_for),
        committed: vote.committed,
    }
}

pub(crate) fn membership(members: &Members) -> RaftMembership {
    let sets: Vec<BTreeSet<u64>> =
        members.voter_sets.iter().map(|set| set.iter().map(|id| id.get()).collect()).collect();
    let nodes: BTreeMap<u64, OnStore> =
        members.stores.iter().map(|(id, store)| (id.get(), OnStore(*store))).collect();
    RaftMembership::new(sets.clone(), nodes)
        .unwrap_or_else(|_| RaftMembership::new_with_defaults(sets, Vec::<u64>::new()))
}

pub(crate) fn members(membership: &RaftMembership) -> Members {
    Members {
        voter_sets: membership
            .get_joint_config()
            .iter()
            .map(|set| set.iter().copied().map(ReplicaId).collect())
            .collect(),
        stores: membership.nodes().map(|(id, store)| (ReplicaId(*id), store.0)).collect(),
    }
}

pub(crate) fn payload(payload: &RaftPayload) -> Payload {
    match payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(commands) => Payload::Commands(commands.0.clone()),
        EntryPayload::Membership(membership) => Payload::Members(members(membership)),
    }
}

pub(crate) fn entry(position: Position, payload: Payload) -> Entry {
    let payload = match payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Commands(bytes) => EntryPayload::Normal(Commands(bytes)),
        Payload::Members(members) => EntryPayload::Membership(membership(&members)),
    };
    Entry { log_id: log_id(position), payload }
}
