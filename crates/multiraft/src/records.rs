//! Values of the `raft` and `state` column families: a version byte, a CRC-32C of what follows, then
//! the fields.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_types::codec::{Reader, put_bytes};
use cribwork_types::{CodecError, RangeDescriptor, RangeId, ReplicaId, StoreId};

use crate::position::{Position, VoteRecord};

const VERSION: u8 = 1;

/// A range's side in a merge, as a byte.
const TARGET: u8 = 1;
const SOURCE: u8 = 2;

/// Frames `body`: `version u8, crc32c u32, body`.
pub(crate) fn seal(body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + body.len());
    out.put_u8(VERSION);
    out.put_u32(crc32c::crc32c(body));
    out.put_slice(body);
    out.freeze()
}

/// Takes apart what [`seal`] made.
pub(crate) fn open(what: &'static str, bytes: Bytes) -> Result<Reader, CodecError> {
    let mut reader = Reader::new(what, bytes);
    reader.version(VERSION)?;
    let sum = reader.u32()?;
    let body = reader.rest();
    if crc32c::crc32c(&body) != sum {
        return Err(CodecError::Malformed { what, why: "checksum does not match" });
    }
    Ok(Reader::new(what, body))
}

/// Members of a group, as its log says. Joint while it holds two voter sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) voter_sets: Vec<BTreeSet<ReplicaId>>,
    pub(crate) stores: BTreeMap<ReplicaId, StoreId>,
}

impl Members {
    pub(crate) fn of(descriptor: &RangeDescriptor) -> Self {
        Self {
            voter_sets: vec![descriptor.voters().map(|replica| replica.id).collect()],
            stores: descriptor.replicas.iter().map(|replica| (replica.id, replica.store)).collect(),
        }
    }

    pub(crate) fn encode_into(&self, out: &mut BytesMut) {
        out.put_u32(self.voter_sets.len() as u32);
        for set in &self.voter_sets {
            out.put_u32(set.len() as u32);
            for id in set {
                out.put_u64(id.get());
            }
        }
        out.put_u32(self.stores.len() as u32);
        for (id, store) in &self.stores {
            out.put_u64(id.get());
            out.put_u64(store.get());
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, CodecError> {
        let mut members = Members::default();
        for _ in 0..reader.u32()? {
            let mut set = BTreeSet::new();
            for _ in 0..reader.u32()? {
                let id = ReplicaId(reader.u64()?);
                if set.last().is_some_and(|last| *last >= id) {
                    return Err(reader.malformed("voters out of order"));
                }
                set.insert(id);
            }
            members.voter_sets.push(set);
        }
        for _ in 0..reader.u32()? {
            let id = ReplicaId(reader.u64()?);
            if members.stores.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err(reader.malformed("members out of order"));
            }
            members.stores.insert(id, StoreId(reader.u64()?));
        }
        // Raft would make up a store for such a voter.
        let voters = members.voter_sets.iter();
        let at_home = |set: &BTreeSet<_>| set.iter().all(|id| members.stores.contains_key(id));
        if !voters.clone().all(|set| !set.is_empty() && at_home(set)) {
            return Err(reader.malformed("no voters, or voters without a store"));
        }
        Ok(members)
    }
}

/// What one log entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Nothing: appended by openraft when a leader starts.
    Blank,
    /// A batch of commands ([`crate::command`]).
    Commands(Bytes),
    /// The group's new members.
    Members(Members),
}

/// Encodes an entry as it lies on disk: `version, crc, term u64, kind u8, payload`. The index is in
/// the key.
pub(crate) fn encode_entry(term: u64, payload: &Payload) -> Bytes {
    let extra = match payload {
        Payload::Commands(bytes) => bytes.len(),
        _ => 64,
    };
    let mut out = BytesMut::with_capacity(5 + 9 + extra);
    out.put_u8(VERSION);
    out.put_u32(0);
    out.put_u64(term);
    match payload {
        Payload::Blank => out.put_u8(0),
        Payload::Commands(bytes) => {
            out.put_u8(1);
            out.put_slice(bytes);
        }
        Payload::Members(members) => {
            out.put_u8(2);
            members.encode_into(&mut out);
        }
    }
    let sum = crc32c::crc32c(&out[5..]);
    out[1..5].copy_from_slice(&sum.to_be_bytes());
    out.freeze()
}

/// Reads what [`encode_entry`] wrote; commands share the buffer.
pub(crate) fn decode_entry(bytes: Bytes) -> Result<(u64, Payload), CodecError> {
    let mut reader = open("log entry", bytes)?;
    let term = reader.u64()?;
    let payload = match reader.u8()? {
        0 => Payload::Blank,
        1 => return Ok((term, Payload::Commands(reader.rest()))),
        2 => Payload::Members(Members::decode(&mut reader)?),
        _ => return Err(reader.malformed("unknown entry kind")),
    };
    reader.finish()?;
    Ok((term, payload))
}

pub(crate) fn encode_vote(vote: VoteRecord) -> Bytes {
    let mut body = BytesMut::with_capacity(17);
    vote.encode_into(&mut body);
    seal(&body)
}

pub(crate) fn decode_vote(bytes: Bytes) -> Result<VoteRecord, CodecError> {
    let mut reader = open("vote", bytes)?;
    let vote = VoteRecord::decode(&mut reader)?;
    reader.finish()?;
    Ok(vote)
}

pub(crate) fn encode_position(position: Position) -> Bytes {
    let mut body = BytesMut::with_capacity(16);
    position.encode_into(&mut body);
    seal(&body)
}

pub(crate) fn decode_position(bytes: Bytes) -> Result<Position, CodecError> {
    let mut reader = open("log position", bytes)?;
    let position = Position::decode(&mut reader)?;
    reader.finish()?;
    Ok(position)
}

/// A range's replica on this store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaRecord {
    /// This replica's id.
    pub(crate) id: ReplicaId,
    /// False until the first snapshot of a replica that was made by a message: it has no log, may
    /// not vote or campaign and takes data by snapshot only.
    pub(crate) initialised: bool,
    pub(crate) descriptor: RangeDescriptor,
}

impl ReplicaRecord {
    pub(crate) fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u64(self.id.get());
        body.put_u8(self.initialised as u8);
        put_bytes(&mut body, &self.descriptor.encode());
        seal(&body)
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut reader = open("replica record", bytes)?;
        let id = ReplicaId(reader.u64()?);
        let initialised = reader.flag()?;
        let descriptor = RangeDescriptor::decode(reader.bytes()?)?;
        reader.finish()?;
        Ok(Self { id, initialised, descriptor })
    }
}

/// How far a range is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AppliedRecord {
    pub(crate) position: Option<Position>,
    /// Where the members below were set.
    pub(crate) members_at: Option<Position>,
    pub(crate) members: Members,
    /// The merge that the range takes part in.
    pub(crate) merging: Option<Merging>,
}

/// What a range that is about to be merged holds still for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merging {
    /// Placement's name of the merge.
    pub(crate) id: u64,
    /// The other range.
    pub(crate) with: RangeId,
    /// Its version when the merge was planned. While it has no later one, the merge may still come.
    pub(crate) with_version: u64,
    pub(crate) side: MergeSide,
}

/// Which of two ranges that are merged this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MergeSide {
    /// The left one, which absorbs the other: its bounds and members stay as they are.
    Target,
    /// The right one: it is frozen, nothing in it is read or written.
    Source,
}

impl AppliedRecord {
    /// True if nothing of the range is read or written now.
    pub(crate) fn is_frozen(&self) -> bool {
        self.merging.is_some_and(|merging| merging.side == MergeSide::Source)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(128);
        Position::encode_option_into(self.position, &mut body);
        Position::encode_option_into(self.members_at, &mut body);
        self.members.encode_into(&mut body);
        // Nothing, as ever, if there is no merge.
        if let Some(Merging { id, with, with_version, side }) = self.merging {
            body.put_u8(if side == MergeSide::Target { TARGET } else { SOURCE });
            body.put_u64(id);
            body.put_u64(with.get());
            body.put_u64(with_version);
        }
        seal(&body)
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut reader = open("applied record", bytes)?;
        let position = Position::decode_option(&mut reader)?;
        let members_at = Position::decode_option(&mut reader)?;
        let members = Members::decode(&mut reader)?;
        let merging = match reader.remaining() {
            0 => None,
            _ => Some(Merging::decode(&mut reader)?),
        };
        reader.finish()?;
        Ok(Self { position, members_at, members, merging })
    }
}

impl Merging {
    fn decode(reader: &mut Reader) -> Result<Self, CodecError> {
        let side = match reader.u8()? {
            TARGET => MergeSide::Target,
            SOURCE => MergeSide::Source,
            _ => return Err(reader.malformed("unknown side of a merge")),
        };
        let (id, with, with_version) = (reader.u64()?, RangeId(reader.u64()?), reader.u64()?);
        Ok(Self { id, with, with_version, side })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn entries_round_trip_and_notice_damage() {
        for payload in [Payload::Blank, Payload::Commands(Bytes::from_static(b"abc"))] {
            let bytes = encode_entry(7, &payload);
            assert_eq!(decode_entry(bytes.clone()).unwrap(), (7, payload));
            for at in 0..bytes.len() {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 1;
                assert!(decode_entry(Bytes::from(damaged)).is_err(), "byte {at}");
            }
        }
    }

    /// Golden bytes: a change here breaks every store on disk, so it needs a new version byte.
    #[test]
    fn format_version_1_is_frozen() {
        let entry = encode_entry(2, &Payload::Commands(Bytes::from_static(b"x")));
        assert_eq!(&hex(&entry)[..2], "01");
        assert_eq!(&hex(&entry)[10..], "00000000000000020178");
        let vote = VoteRecord { term: 3, candidate: ReplicaId(4), committed: true };
        assert_eq!(&hex(&encode_vote(vote))[10..], "0000000000000003000000000000000401");
        assert_eq!(decode_vote(encode_vote(vote)).unwrap(), vote);
    }

    #[test]
    fn members_come_in_order_and_once() {
        let decode = |ids: [u64; 2]| {
            let mut out = BytesMut::new();
            out.put_u32(1);
            out.put_u32(2);
            ids.iter().for_each(|id| out.put_u64(*id));
            out.put_u32(2);
            [1, 7, 2, 8].iter().for_each(|number| out.put_u64(*number));
            Members::decode(&mut Reader::new("members", out.freeze()))
        };
        assert!(decode([1, 2]).is_ok());
        assert!(decode([2, 1]).is_err() && decode([2, 2]).is_err());
        assert!(decode([1, 3]).is_err(), "a voter without a store");
    }

    #[test]
    fn applied_records_round_trip() {
        let mut record = AppliedRecord::default();
        assert_eq!(AppliedRecord::decode(record.encode()).unwrap(), record);
        record.position = Some(Position { term: 5, index: 9 });
        record.members_at = Some(Position { term: 1, index: 0 });
        record.members.voter_sets.push([ReplicaId(1), ReplicaId(2)].into());
        record.members.stores = [1, 2].map(|id| (ReplicaId(id), StoreId(id + 2))).into();
        assert_eq!(AppliedRecord::decode(record.encode()).unwrap(), record);
        for side in [MergeSide::Target, MergeSide::Source] {
            record.merging = Some(Merging { id: 5, with: RangeId(6), with_version: 7, side });
            assert_eq!(AppliedRecord::decode(record.encode()).unwrap(), record);
        }
    }
}
