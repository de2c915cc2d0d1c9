//! Commit and rollback records, column family `write`, key `enc(k) ++ !commit_ts`.
//!
//! Bytes: version 1, kind (`P`, `D`, `L` or `R`), flags, start timestamp (8 bytes, big-endian), and
//! with flag bit 1 the rest is the value. Flag bit 0 is the overlapped rollback: beside the commit of
//! one transaction at this timestamp, another whose *start* timestamp is the same was rolled back.
//! The two would need the same key; such timestamps meet only where commit timestamps do not come
//! from the timestamp oracle.

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_types::{CodecError, Timestamp};

const VERSION: u8 = 1;
const WHAT: &str = "write record";
const HEADER_BYTES: usize = 11;
const OVERLAPPED_ROLLBACK: u8 = 1;
const SHORT_VALUE: u8 = 1 << 1;

/// What a transaction did to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// Set a value.
    Put,
    /// Removed the key.
    Delete,
    /// Locked the key without changing it.
    Lock,
    /// Rolled back; sits at `commit_ts == start_ts` and keeps a late prewrite out.
    Rollback,
}

impl WriteKind {
    const fn byte(self) -> u8 {
        match self {
            WriteKind::Put => b'P',
            WriteKind::Delete => b'D',
            WriteKind::Lock => b'L',
            WriteKind::Rollback => b'R',
        }
    }
}

/// A record on its way to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRecord {
    /// What was done.
    pub kind: WriteKind,
    /// The transaction.
    pub start_ts: Timestamp,
    /// The value of a put of at most 255 bytes; longer ones are in family `default`.
    pub short_value: Option<Bytes>,
    /// A transaction that started at this record's commit timestamp was rolled back.
    pub overlapped_rollback: bool,
}

impl WriteRecord {
    /// The rollback record of a transaction.
    pub const fn rollback(start_ts: Timestamp) -> Self {
        let kind = WriteKind::Rollback;
        Self { kind, start_ts, short_value: None, overlapped_rollback: false }
    }

    /// The bytes on disk.
    pub fn encode(&self) -> Bytes {
        let value = self.short_value.as_deref();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + value.map_or(0, <[u8]>::len));
        out.put_u8(VERSION);
        out.put_u8(self.kind.byte());
        let short = if value.is_some() { SHORT_VALUE } else { 0 };
        let overlapped = if self.overlapped_rollback { OVERLAPPED_ROLLBACK } else { 0 };
        out.put_u8(short | overlapped);
        out.put_u64(self.start_ts.get());
        out.put_slice(value.unwrap_or_default());
        out.freeze()
    }
}

/// A record read in place: nothing is copied until the value is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRef<'b> {
    /// What was done.
    pub kind: WriteKind,
    /// The transaction.
    pub start_ts: Timestamp,
    /// See [`WriteRecord::short_value`].
    pub short_value: Option<&'b [u8]>,
    /// See [`WriteRecord::overlapped_rollback`].
    pub overlapped_rollback: bool,
}

impl<'b> WriteRef<'b> {
    /// Reads what [`WriteRecord::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not a record.
    pub fn decode(bytes: &'b [u8]) -> Result<Self, CodecError> {
        let malformed = |why| CodecError::Malformed { what: WHAT, why };
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(CodecError::Truncated { what: WHAT })?;
        let [version, kind, flags, start_ts @ ..] = *header;
        if version != VERSION {
            return Err(CodecError::UnknownVersion { what: WHAT, version });
        }
        let kind = match kind {
            b'P' => WriteKind::Put,
            b'D' => WriteKind::Delete,
            b'L' => WriteKind::Lock,
            b'R' => WriteKind::Rollback,
            _ => return Err(malformed("unknown kind")),
        };
        if flags & !(OVERLAPPED_ROLLBACK | SHORT_VALUE) != 0 {
            return Err(malformed("unknown flag"));
        }
        let short_value = (flags & SHORT_VALUE != 0).then_some(rest);
        if short_value.is_none() && !rest.is_empty() {
            return Err(malformed("bytes left over"));
        }
        Ok(Self {
            kind,
            start_ts: Timestamp(u64::from_be_bytes(start_ts)),
            short_value,
            overlapped_rollback: flags & OVERLAPPED_ROLLBACK != 0,
        })
    }

    /// A copy that owns its value.
    pub fn to_record(self) -> WriteRecord {
        WriteRecord {
            kind: self.kind,
            start_ts: self.start_ts,
            short_value: self.short_value.map(Bytes::copy_from_slice),
            overlapped_rollback: self.overlapped_rollback,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden() {
        let put = WriteRecord {
            kind: WriteKind::Put,
            start_ts: Timestamp(0x0102_0304_0506_0708),
            short_value: Some(Bytes::from_static(b"v")),
            overlapped_rollback: true,
        };
        assert_eq!(put.encode()[..], *b"\x01P\x03\x01\x02\x03\x04\x05\x06\x07\x08v");
        let rollback = WriteRecord::rollback(Timestamp(9));
        assert_eq!(rollback.encode()[..], *b"\x01R\x00\0\0\0\0\0\0\0\x09");
        for record in [put, rollback] {
            assert_eq!(WriteRef::decode(&record.encode()).unwrap().to_record(), record);
        }
    }

    #[test]
    fn an_empty_value_is_not_an_absent_one() {
        let mut record = WriteRecord::rollback(Timestamp(1));
        record.short_value = Some(Bytes::new());
        assert_eq!(WriteRef::decode(&record.encode()).unwrap().short_value, Some(&b""[..]));
    }

    #[test]
    fn refuses_what_this_build_does_not_know() {
        let good = WriteRecord::rollback(Timestamp(1)).encode();
        for (at, byte) in [(0, 2), (1, b'X'), (2, 4)] {
            let mut bad = good.to_vec();
            bad[at] = byte;
            assert!(WriteRef::decode(&bad).is_err(), "byte {at} = {byte}");
        }
    }

    proptest! {
        #[test]
        fn decoding_garbage_never_panics(bytes in proptest::collection::vec(0u8..90, 0..24)) {
            if let Ok(record) = WriteRef::decode(&bytes) {
                prop_assert_eq!(&record.to_record().encode()[..], bytes);
            }
        }
    }
}
