//! The durable state of a replica before its first start.
//!
//! A new range begins with the same log on every replica: entry 0 is its membership, in the term of
//! its first leader, and is applied; the vote for that leader is committed. So the group comes up
//! without an election, and no other leader can exist in that term. All of it is written before any
//! instance is built (openraft does not survive state that appears under it).

use bytes::Bytes;
use cribwork_types::{Cf, ReplicaId, WriteBatch};

use crate::keys;
use crate::position::{Position, VoteRecord};
use crate::records::{self, AppliedRecord, Members, Payload, ReplicaRecord};

/// Everything that makes a replica of a new range.
pub(crate) struct Seed {
    pub(crate) record: ReplicaRecord,
    /// The first leader and its term.
    pub(crate) leader: ReplicaId,
    pub(crate) term: u64,
    /// Set if this replica id has voted already: that vote stays.
    pub(crate) keep_vote: bool,
}

/// How a replica begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Beginning {
    /// As the leader.
    Lead,
    /// As the leader, without an instance until there is something to do.
    LeadCold,
    /// It follows the leader, which leads in this life of its store, or in the first that is heard of.
    Follow(Option<u64>),
    /// Until it hears of a leader.
    Wait,
}

impl Seed {
    /// The vote that every member begins with: the first leader's, committed.
    pub(crate) fn vote(&self) -> VoteRecord {
        VoteRecord { term: self.term, candidate: self.leader, committed: true }
    }

    /// Adds the replica to `batch` and gives its applied state.
    pub(crate) fn write(&self, batch: &mut WriteBatch) -> AppliedRecord {
        let range = self.record.descriptor.id;
        let members = Members::of(&self.record.descriptor);
        let start = Position { term: self.term, index: 0 };
        let entry = records::encode_entry(self.term, &Payload::Members(members.clone()));
        batch.put(Cf::Raft, keys::entry(range, 0), entry);
        if !self.keep_vote {
            batch.put(Cf::Raft, keys::vote(range), records::encode_vote(self.vote()));
        }
        let (position, members_at, merging) = (Some(start), Some(start), None);
        let applied = AppliedRecord { position, members_at, members, merging };
        batch.put(Cf::State, keys::applied(range), applied.encode());
        batch.put(Cf::State, keys::replica(range), self.record.encode());
        applied
    }
}

/// A replica's record as a put.
pub(crate) fn put_record(batch: &mut WriteBatch, record: &ReplicaRecord) {
    let key = Bytes::from(keys::replica(record.descriptor.id));
    batch.put(Cf::State, key, record.encode());
}
