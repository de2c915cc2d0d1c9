//! What an entry's payload holds: commands that were evaluated by the leader, each with the term and
//! epoch it was evaluated under, so that apply can refuse what is stale.
//!
//! ```text
//! entry   = version u8, proposer nonce u64, proposal u64, command*
//! command = kind u8, term u64, conf_ver u64, version u64, body
//! body    = write: WriteBatch | split: key, right id, leader store, (store, replica)* | barrier | fingerprint
//!         | freeze, pin: merge id, other range and its version | absorb: merge id, right descriptor | abandon: merge id, epoch
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_types::codec::{Reader, put_bytes};
use cribwork_types::{
    CodecError, RangeDescriptor, RangeEpoch, RangeId, ReplicaId, StoreId, WriteBatch,
};

const VERSION: u8 = 1;
const WRITE: u8 = 1;
const SPLIT: u8 = 2;
const BARRIER: u8 = 3;
const FINGERPRINT: u8 = 4;
const FREEZE: u8 = 5;
const PIN: u8 = 6;
const ABSORB: u8 = 7;
const ABANDON: u8 = 8;

/// Names one proposal in one life of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProposalId {
    pub(crate) nonce: u64,
    pub(crate) number: u64,
}

/// Under what a command was evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evaluated {
    pub(crate) term: u64,
    pub(crate) epoch: RangeEpoch,
}

/// What a split makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SplitCommand {
    /// First key of the right range: a memcomparable encoding.
    pub(crate) key: Bytes,
    pub(crate) right: RangeId,
    pub(crate) replicas: Vec<(StoreId, ReplicaId)>,
    /// The proposer's store: where the right range's first leader is.
    pub(crate) leader: StoreId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Write(WriteBatch),
    Split(SplitCommand),
    /// Nothing: once applied, the proposer's state holds every earlier command.
    Barrier,
    /// Nothing to the data: every replica takes the checksum of what it holds behind this entry.
    Fingerprint,
    /// The range is about to be absorbed by its left neighbour: nothing is read or written from here on.
    Freeze {
        merge: u64,
        with: RangeId,
        with_version: u64,
    },
    /// The range is about to absorb its right neighbour: its bounds and members stay as they are.
    Pin {
        merge: u64,
        with: RangeId,
        with_version: u64,
    },
    /// The range absorbs its right neighbour, which is frozen on every store.
    Absorb {
        merge: u64,
        right: RangeDescriptor,
    },
    /// The merge does not take place: neither now, nor if what began it comes late.
    Abandon {
        merge: u64,
        planned: RangeEpoch,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) evaluated: Evaluated,
    pub(crate) body: Body,
}

impl Command {
    pub(crate) fn encode(&self) -> Bytes {
        let size = match &self.body {
            Body::Write(batch) => batch.size_bytes() + 12 * batch.mutations.len(),
            _ => 128,
        };
        let mut out = BytesMut::with_capacity(32 + size);
        out.put_u8(match self.body {
            Body::Write(_) => WRITE,
            Body::Split(_) => SPLIT,
            Body::Barrier => BARRIER,
            Body::Fingerprint => FINGERPRINT,
            Body::Freeze { .. } => FREEZE,
            Body::Pin { .. } => PIN,
            Body::Absorb { .. } => ABSORB,
            Body::Abandon { .. } => ABANDON,
        });
        out.put_u64(self.evaluated.term);
        out.put_u64(self.evaluated.epoch.conf_ver);
        out.put_u64(self.evaluated.epoch.version);
        match &self.body {
            Body::Write(batch) => batch.encode_into(&mut out),
            Body::Split(split) => {
                put_bytes(&mut out, &split.key);
                out.put_u64(split.right.get());
                out.put_u64(split.leader.get());
                out.put_u32(split.replicas.len() as u32);
                for (store, replica) in &split.replicas {
                    out.put_u64(store.get());
                    out.put_u64(replica.get());
                }
            }
            Body::Barrier | Body::Fingerprint => {}
            Body::Freeze { merge, with, with_version }
            | Body::Pin { merge, with, with_version } => {
                out.put_u64(*merge);
                out.put_u64(with.get());
                out.put_u64(*with_version);
            }
            Body::Absorb { merge, right } => {
                out.put_u64(*merge);
                put_bytes(&mut out, &right.encode());
            }
            Body::Abandon { merge, planned } => {
                out.put_u64(*merge);
                out.put_u64(planned.conf_ver);
                out.put_u64(planned.version);
            }
        }
        out.freeze()
    }

    /// True for what a build from before merges does not know.
    pub(crate) fn is_of_merges(&self) -> bool {
        use Body::{Abandon, Absorb, Freeze, Pin};
        matches!(self.body, Freeze { .. } | Pin { .. } | Absorb { .. } | Abandon { .. })
    }

    fn decode(reader: &mut Reader) -> Result<Self, CodecError> {
        let kind = reader.u8()?;
        let term = reader.u64()?;
        let epoch = RangeEpoch { conf_ver: reader.u64()?, version: reader.u64()? };
        let body = match kind {
            WRITE => Body::Write(WriteBatch::decode(reader)?),
            SPLIT => {
                let key = reader.bytes()?;
                let right = RangeId(reader.u64()?);
                let leader = StoreId(reader.u64()?);
                let mut replicas = Vec::new();
                for _ in 0..reader.u32()? {
                    replicas.push((StoreId(reader.u64()?), ReplicaId(reader.u64()?)));
                }
                Body::Split(SplitCommand { key, right, replicas, leader })
            }
            BARRIER => Body::Barrier,
            FINGERPRINT => Body::Fingerprint,
            FREEZE | PIN => {
                let (merge, with, with_version) =
                    (reader.u64()?, RangeId(reader.u64()?), reader.u64()?);
                match kind {
                    FREEZE => Body::Freeze { merge, with, with_version },
                    _ => Body::Pin { merge, with, with_version },
                }
            }
            ABSORB => {
                let merge = reader.u64()?;
                Body::Absorb { merge, right: RangeDescriptor::decode(reader.bytes()?)? }
            }
            ABANDON => {
                let merge = reader.u64()?;
                let planned = RangeEpoch { conf_ver: reader.u64()?, version: reader.u64()? };
                Body::Abandon { merge, planned }
            }
            // A newer build wrote this. Skipping it would make this replica differ from the others.
            _ => return Err(reader.malformed("unknown command")),
        };
        Ok(Self { evaluated: Evaluated { term, epoch }, body })
    }
}

/// Joins encoded commands into one entry's payload.
pub(crate) fn encode_payload(id: ProposalId, commands: &[Bytes]) -> Bytes {
    let size: usize = commands.iter().map(Bytes::len).sum();
    let mut out = BytesMut::with_capacity(17 + size);
    out.put_u8(VERSION);
    out.put_u64(id.nonce);
    out.put_u64(id.number);
    for command in commands {
        out.put_slice(command);
    }
    out.freeze()
}

/// Takes an entry's payload apart.
pub(crate) fn decode_payload(bytes: Bytes) -> Result<(ProposalId, Vec<Command>), CodecError> {
    let mut reader = Reader::new("commands", bytes);
    reader.version(VERSION)?;
    let id = ProposalId { nonce: reader.u64()?, number: reader.u64()? };
    let mut commands = Vec::new();
    while reader.remaining() > 0 {
        commands.push(Command::decode(&mut reader)?);
    }
    Ok((id, commands))
}

#[cfg(test)]
mod tests {
    use cribwork_types::Cf;

    use super::*;

    #[test]
    fn payloads_round_trip() {
        let evaluated = Evaluated { term: 4, epoch: RangeEpoch { conf_ver: 1, version: 2 } };
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raw, "k", "v");
        let split = SplitCommand {
            key: Bytes::from_static(b"m"),
            right: RangeId(9),
            replicas: vec![(StoreId(1), ReplicaId(10)), (StoreId(2), ReplicaId(11))],
            leader: StoreId(1),
        };
        let right = RangeDescriptor { id: RangeId(9), ..RangeDescriptor::default() };
        let bodies = [
            Body::Write(batch),
            Body::Split(split),
            Body::Barrier,
            Body::Fingerprint,
            Body::Freeze { merge: 3, with: RangeId(4), with_version: 5 },
            Body::Pin { merge: 3, with: RangeId(9), with_version: 6 },
            Body::Absorb { merge: 3, right },
            Body::Abandon { merge: 3, planned: evaluated.epoch },
        ];
        let commands: Vec<Command> = bodies.map(|body| Command { evaluated, body }).into();
        let encoded: Vec<Bytes> = commands.iter().map(Command::encode).collect();
        let id = ProposalId { nonce: 7, number: 8 };
        let payload = encode_payload(id, &encoded);
        assert_eq!(decode_payload(payload.clone()).unwrap(), (id, commands));
        for length in 0..17 {
            assert!(decode_payload(payload.slice(..length)).is_err());
        }
    }

    #[test]
    fn an_unknown_command_is_refused_not_skipped() {
        let mut payload = encode_payload(ProposalId { nonce: 1, number: 1 }, &[]).to_vec();
        payload.extend_from_slice(&[200; 40]);
        assert!(decode_payload(Bytes::from(payload)).is_err());
    }
}
