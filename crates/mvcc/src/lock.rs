//! Locks, column family `lock`, key `enc(k)`.
//!
//! Bytes: version 1, kind (`P`, `D`, `L` or `S`), flags (bit 0 short value follows, bit 1 async
//! commit), then as 8 bytes each start timestamp, TTL, transaction size, for-update timestamp, minimum
//! commit timestamp; the primary; the short value if flagged; the number of secondaries and each of
//! them. Integers are big-endian, byte strings follow their length as `u32`.

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_types::codec::{Reader, put_bytes};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{CodecError, Timestamp};

use crate::ReadOptions;

const VERSION: u8 = 1;
const WHAT: &str = "lock";
const FIXED_BYTES: usize = 3 + 5 * 8 + 2 * 4;
const SHORT_VALUE: u8 = 1;
const ASYNC_COMMIT: u8 = 1 << 1;

/// What the transaction intends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// To set a value.
    Put,
    /// To remove the key.
    Delete,
    /// To keep others from writing, without writing itself.
    Lock,
    /// Not known yet: taken before the first phase of commit.
    Pessimistic,
}

impl LockKind {
    const fn byte(self) -> u8 {
        match self {
            LockKind::Put => b'P',
            LockKind::Delete => b'D',
            LockKind::Lock => b'L',
            LockKind::Pessimistic => b'S',
        }
    }

    /// `kvrpcpb.Op` on the wire.
    pub const fn op_number(self) -> i32 {
        match self {
            LockKind::Put => 0,
            LockKind::Delete => 1,
            LockKind::Lock => 2,
            LockKind::Pessimistic => 5,
        }
    }
}

/// One transaction's claim on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// What is intended.
    pub kind: LockKind,
    /// Plain user key whose lock or record decides the transaction's fate.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: Timestamp,
    /// How long after the physical part of `start_ts` the transaction counts as alive, milliseconds.
    pub ttl_ms: u64,
    /// The value of a put of at most 255 bytes; longer ones are in family `default`.
    pub short_value: Option<Bytes>,
    /// Keys of the transaction as far as the client said.
    pub txn_size: u64,
    /// For which timestamp a pessimistic transaction locked the key; zero for optimistic ones.
    pub for_update_ts: Timestamp,
    /// The transaction will not commit below this. Zero: its client cannot have that raised.
    pub min_commit_ts: Timestamp,
    /// True if the transaction counts as committed once all its keys are locked.
    pub use_async_commit: bool,
    /// On the primary of an async commit: all other keys, plain.
    pub secondaries: Vec<Bytes>,
}

/// What a lock means to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockVerdict {
    /// It does not matter: read the committed versions.
    Pass,
    /// The reader knows that the transaction committed in time: read the lock's value.
    Committed,
    /// The reader must find out the transaction's fate first.
    Blocked,
}

impl Lock {
    /// The bytes on disk.
    pub fn encode(&self) -> Bytes {
        let short = self.short_value.as_deref();
        let variable = self.primary.len() + short.map_or(0, |value| 4 + value.len());
        let secondaries: usize = self.secondaries.iter().map(|key| 4 + key.len()).sum();
        let mut out = BytesMut::with_capacity(FIXED_BYTES + variable + secondaries);
        out.put_u8(VERSION);
        out.put_u8(self.kind.byte());
        let short_flag = if short.is_some() { SHORT_VALUE } else { 0 };
        out.put_u8(short_flag | if self.use_async_commit { ASYNC_COMMIT } else { 0 });
        out.put_u64(self.start_ts.get());
        out.put_u64(self.ttl_ms);
        out.put_u64(self.txn_size);
        out.put_u64(self.for_update_ts.get());
        out.put_u64(self.min_commit_ts.get());
        put_bytes(&mut out, &self.primary);
        if let Some(value) = short {
            put_bytes(&mut out, value);
        }
        out.put_u32(self.secondaries.len() as u32);
        for key in &self.secondaries {
            put_bytes(&mut out, key);
        }
        out.freeze()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not a lock.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut reader = Reader::new(WHAT, bytes);
        reader.version(VERSION)?;
        let kind = match reader.u8()? {
            b'P' => LockKind::Put,
            b'D' => LockKind::Delete,
            b'L' => LockKind::Lock,
            b'S' => LockKind::Pessimistic,
            _ => return Err(reader.malformed("unknown kind")),
        };
        let flags = reader.u8()?;
        if flags & !(SHORT_VALUE | ASYNC_COMMIT) != 0 {
            return Err(reader.malformed("unknown flag"));
        }
        let mut lock = Lock {
            kind,
            start_ts: Timestamp(reader.u64()?),
            ttl_ms: reader.u64()?,
            txn_size: reader.u64()?,
            for_update_ts: Timestamp(reader.u64()?),
            min_commit_ts: Timestamp(reader.u64()?),
            primary: reader.bytes()?,
            short_value: None,
            use_async_commit: flags & ASYNC_COMMIT != 0,
            secondaries: Vec::new(),
        };
        if flags & SHORT_VALUE != 0 {
            lock.short_value = Some(reader.bytes()?);
        }
        for _ in 0..reader.u32()? {
            lock.secondaries.push(reader.bytes()?);
        }
        reader.finish()?;
        Ok(lock)
    }

    /// What this lock on `key` (plain) means to a snapshot read at `ts`.
    ///
    /// Only an intended put or delete blocks, and only one that may commit at or below `ts`. A read
    /// of the newest version (`ts` = MAX) of a transaction's own primary passes too: as long as the
    /// lock is there, the transaction has not committed (async commit excepted).
    pub fn verdict(&self, key: &[u8], ts: Timestamp, options: &ReadOptions) -> LockVerdict {
        let writes = matches!(self.kind, LockKind::Put | LockKind::Delete);
        if !writes
            || has(Bug::ReadThroughLocks)
            || self.start_ts > ts
            || self.min_commit_ts > ts
            || options.resolved_locks.contains(&self.start_ts)
            || (ts == Timestamp::MAX && self.primary == key && !self.use_async_commit)
        {
            return LockVerdict::Pass;
        }
        match options.committed_locks.contains(&self.start_ts) {
            true => LockVerdict::Committed,
            false => LockVerdict::Blocked,
        }
    }

    /// True if the transaction has not been heard of for its TTL. A `current_ts` of MAX says so of
    /// every lock.
    pub fn is_expired(&self, current_ts: Timestamp) -> bool {
        let end_ms = self.start_ts.physical_ms().saturating_add(self.ttl_ms);
        current_ts == Timestamp::MAX || end_ms < current_ts.physical_ms()
    }

    /// The description that clients get; `key` is plain.
    pub fn info(&self, key: impl Into<Bytes>) -> LockInfo {
        LockInfo {
            primary: self.primary.clone(),
            lock_version: self.start_ts,
            key: key.into(),
            ttl_ms: self.ttl_ms,
            kind: self.kind,
            txn_size: self.txn_size,
            for_update_ts: self.for_update_ts,
            use_async_commit: self.use_async_commit,
            min_commit_ts: self.min_commit_ts,
            secondaries: self.secondaries.clone(),
        }
    }
}

/// A lock as clients are told of it; `kvrpcpb.LockInfo` on the wire. Keys are plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockInfo {
    /// See [`Lock::primary`].
    pub primary: Bytes,
    /// The transaction's start timestamp.
    pub lock_version: Timestamp,
    /// The locked key.
    pub key: Bytes,
    /// See [`Lock::ttl_ms`].
    pub ttl_ms: u64,
    /// See [`Lock::kind`]; [`LockKind::op_number`] on the wire.
    pub kind: LockKind,
    /// See [`Lock::txn_size`].
    pub txn_size: u64,
    /// See [`Lock::for_update_ts`].
    pub for_update_ts: Timestamp,
    /// See [`Lock::use_async_commit`].
    pub use_async_commit: bool,
    /// See [`Lock::min_commit_ts`].
    pub min_commit_ts: Timestamp,
    /// See [`Lock::secondaries`].
    pub secondaries: Vec<Bytes>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lock() -> Lock {
        Lock {
            kind: LockKind::Put,
            primary: Bytes::from_static(b"pk"),
            start_ts: Timestamp(10),
            ttl_ms: 3000,
            short_value: Some(Bytes::from_static(b"v")),
            txn_size: 2,
            for_update_ts: Timestamp(11),
            min_commit_ts: Timestamp(12),
            use_async_commit: true,
            secondaries: vec![Bytes::from_static(b"s")],
        }
    }

    #[test]
    fn golden() {
        let bytes = lock().encode();
        let expected = b"\x01P\x03\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\x0b\xb8\0\0\0\0\0\0\0\x02\
            \0\0\0\0\0\0\0\x0b\0\0\0\0\0\0\0\x0c\0\0\0\x02pk\0\0\0\x01v\0\0\0\x01\0\0\0\x01s";
        assert_eq!(bytes[..], *expected);
        assert_eq!(Lock::decode(bytes).unwrap(), lock());
    }

    #[test]
    fn who_blocks_whom() {
        let none = ReadOptions::default();
        let plain = Lock { min_commit_ts: Timestamp::ZERO, use_async_commit: false, ..lock() };
        let at = |lock: &Lock, ts| lock.verdict(b"k", Timestamp(ts), &none);
        assert_eq!(at(&plain, 9), LockVerdict::Pass, "starts later");
        assert_eq!(at(&plain, 10), LockVerdict::Blocked);
        assert_eq!(at(&lock(), 11), LockVerdict::Pass, "commits later");
        assert_eq!(at(&lock(), 12), LockVerdict::Blocked);
        for kind in [LockKind::Lock, LockKind::Pessimistic] {
            assert_eq!(at(&Lock { kind, ..plain.clone() }, 99), LockVerdict::Pass);
        }
        assert_eq!(at(&plain, u64::MAX), LockVerdict::Blocked);
        assert_eq!(plain.verdict(b"pk", Timestamp::MAX, &none), LockVerdict::Pass);
        assert_eq!(lock().verdict(b"pk", Timestamp::MAX, &none), LockVerdict::Blocked);
        let ten = vec![Timestamp(10)];
        let resolved = ReadOptions { resolved_locks: ten.clone(), ..Default::default() };
        assert_eq!(plain.verdict(b"k", Timestamp(99), &resolved), LockVerdict::Pass);
        let committed = ReadOptions { committed_locks: ten, ..Default::default() };
        assert_eq!(plain.verdict(b"k", Timestamp(99), &committed), LockVerdict::Committed);
    }

    #[test]
    fn expiry_counts_physical_milliseconds() {
        let lock = Lock { start_ts: Timestamp::new(1000, 5), ttl_ms: 10, ..lock() };
        assert!(!lock.is_expired(Timestamp::new(1010, 77)));
        assert!(lock.is_expired(Timestamp::new(1011, 0)));
        let endless = Lock { ttl_ms: u64::MAX, ..lock };
        assert!(!endless.is_expired(Timestamp::MAX.prev()) && endless.is_expired(Timestamp::MAX));
    }

    proptest! {
        #[test]
        fn decoding_garbage_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
                                         cut in 0usize..60) {
            let _ = Lock::decode(Bytes::from(bytes.clone()));
            bytes.splice(0..0, lock().encode().slice(..cut));
            let _ = Lock::decode(Bytes::from(bytes));
        }
    }
}
