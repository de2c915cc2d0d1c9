//! Positions in a log and votes, without openraft's generics. One leader a term (the standard Raft
//! rule), so a term names its leader.

use std::fmt;

use bytes::{BufMut, BytesMut};
use cribwork_types::codec::Reader;
use cribwork_types::{CodecError, ReplicaId};

/// An entry's identity: the term in which it was appended, and its index from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

impl Position {
    pub(crate) fn encode_into(self, out: &mut BytesMut) {
        out.put_u64(self.term);
        out.put_u64(self.index);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, CodecError> {
        Ok(Self { term: reader.u64()?, index: reader.u64()? })
    }

    /// `0` or `1 ++ position`.
    pub(crate) fn encode_option_into(position: Option<Self>, out: &mut BytesMut) {
        match position {
            None => out.put_u8(0),
            Some(position) => {
                out.put_u8(1);
                position.encode_into(out);
            }
        }
    }

    pub(crate) fn decode_option(reader: &mut Reader) -> Result<Option<Self>, CodecError> {
        match reader.u8()? {
            0 => Ok(None),
            1 => Position::decode(reader).map(Some),
            _ => Err(reader.malformed("bad option marker")),
        }
    }
}

/// Who this replica voted for; `committed` once that candidate is known to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VoteRecord {
    pub(crate) term: u64,
    pub(crate) candidate: ReplicaId,
    pub(crate) committed: bool,
}

impl VoteRecord {
    pub(crate) fn encode_into(self, out: &mut BytesMut) {
        out.put_u64(self.term);
        out.put_u64(self.candidate.get());
        out.put_u8(self.committed as u8);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, CodecError> {
        let (term, candidate) = (reader.u64()?, ReplicaId(reader.u64()?));
        let committed = reader.flag()?;
        Ok(Self { term, candidate, committed })
    }
}
