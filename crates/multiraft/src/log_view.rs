//! The logs of a store as they lie on disk, for whoever checks them from outside.
//!
//! Two properties hold for every log at every moment, after a crash too: its entries follow each other
//! without a gap from where it was cut, and their terms never fall. And between all logs of a range,
//! Raft promises that entries of equal term and index are equal (log matching; Ongaro, Ousterhout, 2014).

use bytes::Bytes;
use cribwork_engine::EngineSnapshot;
use cribwork_types::{Cf, RangeId};

use crate::RaftError;
use crate::command::{Body, decode_payload};
use crate::keys;
use crate::position::Position;
use crate::records::{self, AppliedRecord, Payload, ReplicaRecord};

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// The term in which a leader made it.
    pub term: u64,
    /// Its place.
    pub index: u64,
    /// CRC-32C of its bytes.
    pub sum: u32,
}

/// The log of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLog {
    /// Whose.
    pub range: RangeId,
    /// Term and index up to which it was cut.
    pub cut: Option<(u64, u64)>,
    /// Term and index up to which entries are applied.
    pub applied: Option<(u64, u64)>,
    /// A split is in the log and not applied.
    pub splits: bool,
    /// What there is, in order.
    pub entries: Vec<StoredEntry>,
}

impl StoredLog {
    /// Term and index of the last entry that is here, or whose effects are.
    pub fn end(&self) -> Option<(u64, u64)> {
        let last = self.entries.last().map(|entry| (entry.term, entry.index));
        last.max(self.cut).max(self.applied)
    }

    /// What is wrong with the log by itself.
    pub fn flaw(&self) -> Option<String> {
        let (mut term, mut next) = self.cut.map_or((0, 0), |(term, index)| (term, index + 1));
        for entry in &self.entries {
            if entry.index != next {
                return Some(format!("entry {} where {next} should be", entry.index));
            }
            if entry.term < term {
                let StoredEntry { index, term: fallen, .. } = entry;
                return Some(format!("entry {index} is of term {fallen}, that before of {term}"));
            }
            (term, next) = (entry.term, next + 1);
        }
        None
    }
}

/// The logs of all replicas in one view of a store.
///
/// # Errors
/// [`RaftError::Engine`] if the store cannot be read or a record in it is damaged.
pub fn stored_logs(snapshot: &dyn EngineSnapshot) -> Result<Vec<StoredLog>, RaftError> {
    let mut all = Vec::new();
    let mut cursor = snapshot.cursor(Cf::State, &keys::all_replicas());
    let mut found = cursor.seek_to_first()?;
    while found {
        let record = ReplicaRecord::decode(Bytes::copy_from_slice(cursor.value()))?;
        all.push(stored_log(snapshot, record.descriptor.id)?);
        found = cursor.next()?;
    }
    Ok(all)
}

fn stored_log(snapshot: &dyn EngineSnapshot, range: RangeId) -> Result<StoredLog, RaftError> {
    let purged = snapshot.get(Cf::Raft, &keys::purged(range))?;
    let purged: Option<Position> = purged.map(records::decode_position).transpose()?;
    let applied = snapshot.get(Cf::State, &keys::applied(range))?;
    let applied = applied.map(AppliedRecord::decode).transpose()?.and_then(|it| it.position);
    let (mut entries, mut splits) = (Vec::new(), false);
    let mut cursor = snapshot.cursor(Cf::Raft, &keys::all_entries(range));
    let mut found = cursor.seek_to_first()?;
    while found {
        let sum = crc32c::crc32c(cursor.value());
        let (term, payload) = records::decode_entry(Bytes::copy_from_slice(cursor.value()))?;
        let index = keys::index_of(cursor.key())?;
        splits |= applied.is_none_or(|applied| applied.index < index) && has_split(payload)?;
        entries.push(StoredEntry { term, index, sum });
        found = cursor.next()?;
    }
    let pair = |at: Position| (at.term, at.index);
    let (cut, applied) = (purged.map(pair), applied.map(pair));
    Ok(StoredLog { range, cut, applied, splits, entries })
}

fn has_split(payload: Payload) -> Result<bool, RaftError> {
    let Payload::Commands(bytes) = payload else { return Ok(false) };
    let (_, commands) = decode_payload(bytes)?;
    Ok(commands.iter().any(|command| matches!(command.body, Body::Split(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(cut: Option<(u64, u64)>, entries: &[(u64, u64)]) -> StoredLog {
        let entry = |(term, index): &(u64, u64)| StoredEntry { term: *term, index: *index, sum: 0 };
        let entries = entries.iter().map(entry).collect();
        StoredLog { range: RangeId(1), cut, applied: None, splits: false, entries }
    }

    #[test]
    fn gaps_and_falling_terms_are_flaws() {
        assert_eq!(log(None, &[]).flaw(), None);
        assert_eq!(log(None, &[(1, 0), (1, 1), (4, 2)]).flaw(), None);
        assert_eq!(log(Some((2, 7)), &[(2, 8), (3, 9)]).flaw(), None);
        assert!(log(None, &[(1, 1)]).flaw().is_some(), "the first is missing");
        assert!(log(Some((2, 7)), &[(2, 9)]).flaw().is_some(), "a gap behind the cut");
        assert!(log(Some((2, 7)), &[(2, 7), (2, 8)]).flaw().is_some(), "cut, but still there");
        assert!(log(None, &[(1, 0), (1, 2)]).flaw().is_some(), "a gap");
        assert!(log(None, &[(1, 0), (3, 1), (2, 2)]).flaw().is_some(), "a stale end");
        assert!(log(Some((2, 7)), &[(1, 8)]).flaw().is_some(), "older than what was cut");
    }
}
