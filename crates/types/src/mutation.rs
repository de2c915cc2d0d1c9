//! Physical writes: what a command carries through the Raft log, already evaluated, so that every
//! replica that applies it ends with the same bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{Reader, put_bytes};
use crate::{CodecError, KeyRange};

/// A mutation of an empty key: kind, family and a length.
const MUTATION_BYTES_MIN: usize = 6;

/// A column family of the one RocksDB of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cf {
    /// Raft entries, votes and log state of all groups: `range id BE ++ kind ++ index BE`.
    Raft = 0,
    /// Range descriptors, applied state, tombstones, store identity.
    State = 1,
    /// The placement group's tables.
    Meta = 2,
    /// Percolator locks: `enc(k)`.
    Lock = 3,
    /// Percolator commit records: `enc(k) ++ !commit_ts BE`.
    Write = 4,
    /// Percolator values over 255 bytes: `enc(k) ++ !start_ts BE`.
    Default = 5,
    /// Raw API, cf "" or "default": plain `k`.
    Raw = 6,
    /// Raw API, cf "lock": plain `k`.
    RawLock = 7,
    /// Raw API, cf "write": plain `k`.
    RawWrite = 8,
}

impl Cf {
    /// All families, in the order of their numbers.
    pub const ALL: [Cf; 9] = [
        Cf::Raft,
        Cf::State,
        Cf::Meta,
        Cf::Lock,
        Cf::Write,
        Cf::Default,
        Cf::Raw,
        Cf::RawLock,
        Cf::RawWrite,
    ];

    /// The families that hold user data: the part of each that lies inside a range's bounds moves,
    /// splits and is deleted with the range.
    pub const DATA: [Cf; 6] =
        [Cf::Lock, Cf::Write, Cf::Default, Cf::Raw, Cf::RawLock, Cf::RawWrite];

    /// The family's name on disk and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Cf::Raft => "raft",
            Cf::State => "state",
            Cf::Meta => "meta",
            Cf::Lock => "lock",
            Cf::Write => "write",
            Cf::Default => "txn_default",
            Cf::Raw => "raw",
            Cf::RawLock => "raw_lock",
            Cf::RawWrite => "raw_write",
        }
    }

    /// The family with this number on disk and on the wire.
    pub fn from_number(number: u8) -> Option<Cf> {
        Cf::ALL.get(usize::from(number)).copied()
    }
}

/// One physical write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Sets `key` to `value`.
    Put {
        /// Column family.
        cf: Cf,
        /// Full key as stored.
        key: Bytes,
        /// Full value as stored.
        value: Bytes,
    },
    /// Removes `key`, present or not.
    Delete {
        /// Column family.
        cf: Cf,
        /// Full key as stored.
        key: Bytes,
    },
    /// Removes every key in `range` (keys as stored).
    DeleteRange {
        /// Column family.
        cf: Cf,
        /// What to remove; an empty end means "to the end of the family".
        range: KeyRange,
    },
}

impl Mutation {
    /// Bytes of keys and values.
    pub fn size_bytes(&self) -> usize {
        match self {
            Mutation::Put { key, value, .. } => key.len() + value.len(),
            Mutation::Delete { key, .. } => key.len(),
            Mutation::DeleteRange { range, .. } => range.start.len() + range.end.len(),
        }
    }

    fn encode_into(&self, out: &mut impl BufMut) {
        match self {
            Mutation::Put { cf, key, value } => {
                out.put_u8(0);
                out.put_u8(*cf as u8);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Mutation::Delete { cf, key } => {
                out.put_u8(1);
                out.put_u8(*cf as u8);
                put_bytes(out, key);
            }
            Mutation::DeleteRange { cf, range } => {
                out.put_u8(2);
                out.put_u8(*cf as u8);
                put_bytes(out, &range.start);
                put_bytes(out, &range.end);
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, CodecError> {
        let kind = reader.u8()?;
        let cf = Cf::from_number(reader.u8()?).ok_or(reader.malformed("unknown column family"))?;
        let key = reader.bytes()?;
        Ok(match kind {
            0 => Mutation::Put { cf, key, value: reader.bytes()? },
            1 => Mutation::Delete { cf, key },
            2 => Mutation::DeleteRange { cf, range: KeyRange { start: key, end: reader.bytes()? } },
            _ => return Err(reader.malformed("unknown mutation")),
        })
    }
}

/// Mutations that take effect together or not at all, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// The writes, in the order in which they take effect.
    pub mutations: Vec<Mutation>,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put.
    pub fn put(&mut self, cf: Cf, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.mutations.push(Mutation::Put { cf, key: key.into(), value: value.into() });
    }

    /// Adds a delete.
    pub fn delete(&mut self, cf: Cf, key: impl Into<Bytes>) {
        self.mutations.push(Mutation::Delete { cf, key: key.into() });
    }

    /// Adds a range delete.
    pub fn delete_range(&mut self, cf: Cf, range: KeyRange) {
        self.mutations.push(Mutation::DeleteRange { cf, range });
    }

    /// Moves all of `other` behind what is here.
    pub fn append(&mut self, mut other: WriteBatch) {
        self.mutations.append(&mut other.mutations);
    }

    /// True if nothing would be written.
    pub fn is_empty(&self) -> bool {
        self.mutations.is_empty()
    }

    /// Bytes of keys and values.
    pub fn size_bytes(&self) -> usize {
        self.mutations.iter().map(Mutation::size_bytes).sum()
    }

    /// Appends the batch: `count u32`, then each mutation as `kind u8, cf u8, key, value or end`.
    pub fn encode_into(&self, out: &mut BytesMut) {
        out.reserve(4 + self.size_bytes() + 10 * self.mutations.len());
        out.put_u32(self.mutations.len() as u32);
        for mutation in &self.mutations {
            mutation.encode_into(out);
        }
    }

    /// Reads what [`Self::encode_into`] wrote; keys and values share the reader's buffer.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not a batch.
    pub fn decode(reader: &mut Reader) -> Result<Self, CodecError> {
        let count = reader.count(MUTATION_BYTES_MIN)?;
        let mut mutations = Vec::with_capacity(count);
        for _ in 0..count {
            mutations.push(Mutation::decode(reader)?);
        }
        Ok(Self { mutations })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_round_trips() {
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raw, "k", "v");
        batch.delete(Cf::Lock, "l");
        batch.delete_range(Cf::Write, KeyRange::new("a", ""));
        let mut out = BytesMut::new();
        batch.encode_into(&mut out);
        let mut reader = Reader::new("batch", out.freeze());
        assert_eq!(WriteBatch::decode(&mut reader).unwrap(), batch);
        reader.finish().unwrap();
    }

    proptest! {
        #[test]
        fn decoding_garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = WriteBatch::decode(&mut Reader::new("batch", Bytes::from(bytes)));
        }
    }
}
