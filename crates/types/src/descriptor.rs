//! What a range is: its bounds, its epoch and its replicas.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{Reader, put_bytes};
use crate::{CodecError, KeyRange, RangeEpoch, RangeId, ReplicaId, StoreId};

const VERSION: u8 = 1;
/// Id, store and role of one replica.
const REPLICA_BYTES: usize = 17;

/// What a replica does in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReplicaRole {
    /// Votes and counts towards a majority.
    #[default]
    Voter,
    /// Receives the log but has no vote.
    Learner,
    /// In a joint membership: votes in the new set only.
    Incoming,
    /// In a joint membership: votes in the old set only, and leaves with it.
    Outgoing,
}

impl ReplicaRole {
    /// The word used by the command line: `voter`, `learner`, `incoming` or `outgoing`.
    pub const fn name(self) -> &'static str {
        match self {
            ReplicaRole::Voter => "voter",
            ReplicaRole::Learner => "learner",
            ReplicaRole::Incoming => "incoming",
            ReplicaRole::Outgoing => "outgoing",
        }
    }

    /// True for members with a vote, in either set of a joint membership.
    pub const fn votes(self) -> bool {
        !matches!(self, ReplicaRole::Learner)
    }

    const fn code(self) -> u8 {
        match self {
            ReplicaRole::Voter => 0,
            ReplicaRole::Learner => 1,
            ReplicaRole::Incoming => 2,
            ReplicaRole::Outgoing => 3,
        }
    }
}

/// One member of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaDescriptor {
    /// Never reused.
    pub id: ReplicaId,
    /// Where it lives.
    pub store: StoreId,
    /// What it does there.
    pub role: ReplicaRole,
}

/// One range: an interval of the key space with its own Raft group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeDescriptor {
    /// Never changes.
    pub id: RangeId,
    /// Bounds; each is empty or a valid memcomparable encoding ([`crate::key`]).
    pub span: KeyRange,
    /// Grows with every change of bounds or membership.
    pub epoch: RangeEpoch,
    /// Members, at most one a store.
    pub replicas: Vec<ReplicaDescriptor>,
}

impl RangeDescriptor {
    /// The member on `store`.
    pub fn replica_on(&self, store: StoreId) -> Option<ReplicaDescriptor> {
        self.replicas.iter().copied().find(|replica| replica.store == store)
    }

    /// The member with this id.
    pub fn replica(&self, id: ReplicaId) -> Option<ReplicaDescriptor> {
        self.replicas.iter().copied().find(|replica| replica.id == id)
    }

    /// Members that vote, in either set of a joint membership.
    pub fn voters(&self) -> impl Iterator<Item = ReplicaDescriptor> + '_ {
        self.replicas.iter().copied().filter(|replica| replica.role.votes())
    }

    /// True while the group changes its voters: two sets have to agree.
    pub fn is_joint(&self) -> bool {
        let mixed = |role| matches!(role, ReplicaRole::Incoming | ReplicaRole::Outgoing);
        self.replicas.iter().any(|replica| mixed(replica.role))
    }

    /// The bytes on disk: version, id, epoch, bounds, replicas.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + self.span.start.len() + self.span.end.len());
        out.put_u8(VERSION);
        out.put_u64(self.id.get());
        out.put_u64(self.epoch.conf_ver);
        out.put_u64(self.epoch.version);
        put_bytes(&mut out, &self.span.start);
        put_bytes(&mut out, &self.span.end);
        out.put_u32(self.replicas.len() as u32);
        for replica in &self.replicas {
            out.put_u64(replica.id.get());
            out.put_u64(replica.store.get());
            out.put_u8(replica.role.code());
        }
        out.freeze()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not a descriptor of this version.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut reader = Reader::new("range descriptor", bytes);
        reader.version(VERSION)?;
        let id = RangeId(reader.u64()?);
        let epoch = RangeEpoch { conf_ver: reader.u64()?, version: reader.u64()? };
        let span = KeyRange { start: reader.bytes()?, end: reader.bytes()? };
        let count = reader.count(REPLICA_BYTES)?;
        let mut replicas = Vec::with_capacity(count);
        for _ in 0..count {
            let (id, store) = (ReplicaId(reader.u64()?), StoreId(reader.u64()?));
            let role = match reader.u8()? {
                0 => ReplicaRole::Voter,
                1 => ReplicaRole::Learner,
                2 => ReplicaRole::Incoming,
                3 => ReplicaRole::Outgoing,
                _ => return Err(reader.malformed("unknown role")),
            };
            replicas.push(ReplicaDescriptor { id, store, role });
        }
        reader.finish()?;
        Ok(Self { id, span, epoch, replicas })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RangeDescriptor {
        RangeDescriptor {
            id: RangeId(7),
            span: KeyRange::new(crate::key::encode(b"a"), crate::key::encode(b"m")),
            epoch: RangeEpoch { conf_ver: 3, version: 9 },
            replicas: vec![
                ReplicaDescriptor { id: ReplicaId(1), store: StoreId(1), role: ReplicaRole::Voter },
                ReplicaDescriptor {
                    id: ReplicaId(5),
                    store: StoreId(2),
                    role: ReplicaRole::Learner,
                },
            ],
        }
    }

    #[test]
    fn round_trips() {
        assert_eq!(RangeDescriptor::decode(sample().encode()).unwrap(), sample());
    }

    #[test]
    fn members_of_either_set_vote_while_the_membership_is_joint() {
        let mut range = sample();
        assert!(!range.is_joint());
        for (id, role) in [(6, ReplicaRole::Incoming), (7, ReplicaRole::Outgoing)] {
            range.replicas.push(ReplicaDescriptor { id: ReplicaId(id), store: StoreId(id), role });
        }
        assert!(range.is_joint());
        assert_eq!(RangeDescriptor::decode(range.encode()).unwrap(), range);
        let voters: Vec<u64> = range.voters().map(|voter| voter.id.get()).collect();
        assert_eq!(voters, [1, 6, 7]);
    }

    /// Golden bytes: a change here breaks every store on disk, so it needs a new version byte.
    #[test]
    fn format_version_1_is_frozen() {
        let hex: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "01000000000000000700000000000000030000000000000009\
             000000096100000000000000f8000000096d00000000000000f8\
             000000020000000000000001000000000000000100\
             0000000000000005000000000000000201"
        );
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = sample().encode();
        for length in 0..bytes.len() {
            assert!(RangeDescriptor::decode(bytes.slice(..length)).is_err(), "{length}");
        }
    }
}
