//! The three counters that ids come from. Stores, ranges and replicas are counted apart, each from 1,
//! and no id is ever handed out twice.

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_types::CodecError;
use cribwork_types::codec::Reader;

use crate::PlacementError;

const VERSION: u8 = 1;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// `StoreId`.
    Store,
    /// `RangeId`.
    Range,
    /// `ReplicaId`.
    Replica,
}

impl IdKind {
    /// The word used in messages: `store`, `range` or `replica`.
    pub const fn name(self) -> &'static str {
        match self {
            IdKind::Store => "store",
            IdKind::Range => "range",
            IdKind::Replica => "replica",
        }
    }
}

/// The next free id of each kind. The holder must make the state after a reservation durable before
/// it uses the ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdAllocator {
    next_store: u64,
    next_range: u64,
    next_replica: u64,
}

impl Default for IdAllocator {
    fn default() -> Self {
        Self { next_store: 1, next_range: 1, next_replica: 1 }
    }
}

impl IdAllocator {
    /// Nothing reserved yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reserves `n` ids in a row and returns the first. `n` = 0 reserves nothing.
    ///
    /// # Errors
    /// [`PlacementError::IdsExhausted`] if there are not that many left.
    pub fn reserve(&mut self, kind: IdKind, n: u64) -> Result<u64, PlacementError> {
        let next = match kind {
            IdKind::Store => &mut self.next_store,
            IdKind::Range => &mut self.next_range,
            IdKind::Replica => &mut self.next_replica,
        };
        let first = *next;
        *next = first.checked_add(n).ok_or(PlacementError::IdsExhausted { kind, asked: n })?;
        Ok(first)
    }

    /// The bytes on disk: version, then the next store, range and replica id.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(25);
        out.put_u8(VERSION);
        out.put_u64(self.next_store);
        out.put_u64(self.next_range);
        out.put_u64(self.next_replica);
        out.freeze()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not counters of this version.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut reader = Reader::new("id counters", bytes);
        reader.version(VERSION)?;
        let ids = Self {
            next_store: reader.u64()?,
            next_range: reader.u64()?,
            next_replica: reader.u64()?,
        };
        if ids.next_store == 0 || ids.next_range == 0 || ids.next_replica == 0 {
            return Err(reader.malformed("a counter is zero"));
        }
        reader.finish()?;
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_apart_and_start_at_one() {
        let mut ids = IdAllocator::new();
        assert_eq!(ids.reserve(IdKind::Range, 5), Ok(1));
        assert_eq!(ids.reserve(IdKind::Range, 0), Ok(6));
        assert_eq!(ids.reserve(IdKind::Range, 1), Ok(6));
        assert_eq!(ids.reserve(IdKind::Store, 1), Ok(1));
        assert_eq!(ids.reserve(IdKind::Replica, 1), Ok(1));
        let exhausted = PlacementError::IdsExhausted { kind: IdKind::Range, asked: u64::MAX };
        let before = ids.clone();
        assert_eq!(ids.reserve(IdKind::Range, u64::MAX), Err(exhausted));
        assert_eq!(ids, before);
    }

    #[test]
    fn format_version_1_is_frozen() {
        let mut ids = IdAllocator::new();
        ids.reserve(IdKind::Store, 2).unwrap();
        ids.reserve(IdKind::Replica, 0x0102).unwrap();
        let bytes = ids.encode();
        let expected = [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 3];
        assert_eq!(bytes[..], expected);
        assert_eq!(IdAllocator::decode(bytes.clone()), Ok(ids));
        for length in 0..bytes.len() {
            assert!(IdAllocator::decode(bytes.slice(..length)).is_err());
        }
        assert!(IdAllocator::decode(Bytes::from(vec![1; 26])).is_err());
        assert!(matches!(
            IdAllocator::decode(Bytes::from(vec![2; 25])),
            Err(CodecError::UnknownVersion { version: 2, .. })
        ));
        let zeros = Bytes::from_iter([1].into_iter().chain([0; 24]));
        assert!(matches!(IdAllocator::decode(zeros), Err(CodecError::Malformed { .. })));
    }
}
