//! Keys of the `raft` and `state` column families. Ids and indexes are big-endian, so that a group's
//! entries are contiguous and in order.

use cribwork_types::{CodecError, KeyRange, RangeId};

const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const PURGED: u8 = 3;

const REPLICA: u8 = b'r';
const APPLIED: u8 = b'a';
const TOMBSTONE: u8 = b't';

fn raft_key(range: RangeId, kind: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.extend_from_slice(&range.get().to_be_bytes());
    key.push(kind);
    key
}

/// `raft`: one entry.
pub(crate) fn entry(range: RangeId, index: u64) -> Vec<u8> {
    let mut key = raft_key(range, ENTRY);
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// `raft`: entries from `first` up to, not including, `end`.
pub(crate) fn entries(range: RangeId, first: u64, end: u64) -> KeyRange {
    KeyRange::new(entry(range, first), entry(range, end))
}

/// The index of an entry's key.
pub(crate) fn index_of(key: &[u8]) -> Result<u64, CodecError> {
    let short = CodecError::Truncated { what: "log key" };
    let bytes = key.get(9..17).and_then(|bytes| bytes.try_into().ok()).ok_or(short)?;
    Ok(u64::from_be_bytes(bytes))
}

/// `raft`: every entry of a group.
pub(crate) fn all_entries(range: RangeId) -> KeyRange {
    KeyRange::new(raft_key(range, ENTRY), raft_key(range, VOTE))
}

/// `raft`: the group's vote.
pub(crate) fn vote(range: RangeId) -> Vec<u8> {
    raft_key(range, VOTE)
}

/// `raft`: the last purged position.
pub(crate) fn purged(range: RangeId) -> Vec<u8> {
    raft_key(range, PURGED)
}

/// `raft`: entries, vote and purge mark of a group.
pub(crate) fn whole_group(range: RangeId) -> KeyRange {
    KeyRange::new(raft_key(range, 0), raft_key(range, u8::MAX))
}

fn state_key(kind: u8, range: RangeId) -> Vec<u8> {
    let mut key = Vec::with_capacity(9);
    key.push(kind);
    key.extend_from_slice(&range.get().to_be_bytes());
    key
}

/// `state`: the replica record of a range on this store.
pub(crate) fn replica(range: RangeId) -> Vec<u8> {
    state_key(REPLICA, range)
}

/// `state`: all replica records.
pub(crate) fn all_replicas() -> KeyRange {
    KeyRange::new(vec![REPLICA], vec![REPLICA + 1])
}

/// `state`: the highest replica id of a range that this store was rid of.
pub(crate) fn tombstone(range: RangeId) -> Vec<u8> {
    state_key(TOMBSTONE, range)
}

/// `state`: all tombstones.
pub(crate) fn all_tombstones() -> KeyRange {
    KeyRange::new(vec![TOMBSTONE], vec![TOMBSTONE + 1])
}

/// The range that a key of the `state` family is about.
pub(crate) fn state_range(key: &[u8]) -> Option<RangeId> {
    let id: [u8; 8] = key.get(1..9)?.try_into().ok()?;
    Some(RangeId(u64::from_be_bytes(id)))
}

/// `state`: how far a range is applied, with the membership as of then.
pub(crate) fn applied(range: RangeId) -> Vec<u8> {
    state_key(APPLIED, range)
}
