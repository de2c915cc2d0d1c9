//! The logs of a store as they lie on disk, for whoever checks them from outside.
//!
//! Two properties hold for every log at every moment, after a crash too: its entries follow each other
//! without a gap from where it was cut, and their terms never fall. And between all logs of a range,
//! Raft promises that entries of equal term and index are equal (log matching; Ongaro, Ousterhout, 2014).

use bytes::Bytes;
use cribwork_engine::EngineSnapshot;
use cribwork_types::{Cf, RangeId, ReplicaDescriptor};

use crate::RaftError;
use crate::command::{Body, decode_payload};
use crate::keys;
use crate::members::role;
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
    /// In what the range's record and its applied membership differ, which are written together.
    pub members: Option<String>,
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
        all.push(stored_log(snapshot, &record)?);
        found = cursor.next()?;
    }
    Ok(all)
}

/// Whether a split lies in a range's log, and is not applied.
///
/// # Errors
/// As [`stored_logs`].
pub fn has_open_split(snapshot: &dyn EngineSnapshot, range: RangeId) -> Result<bool, RaftError> {
    let applied = snapshot.get(Cf::State, &keys::applied(range))?;
    let applied = applied.map(AppliedRecord::decode).transpose()?.and_then(|it| it.position);
    let first = applied.map_or(0, |at| at.index + 1);
    let mut cursor = snapshot.cursor(Cf::Raft, &keys::entries(range, first, u64::MAX));
    let mut found = cursor.seek_to_first()?;
    while found {
        let (_, payload) = records::decode_entry(Bytes::copy_from_slice(cursor.value()))?;
        if let Payload::Commands(bytes) = payload {
            let (_, commands) = decode_payload(bytes)?;
            if commands.iter().any(|command| matches!(command.body, Body::Split(_))) {
                return Ok(true);
            }
        }
        found = cursor.next()?;
    }
    Ok(false)
}

/// How `record` and `applied` tell different members.
fn disagreement(record: &ReplicaRecord, applied: &AppliedRecord) -> Option<String> {
    let (replicas, members) = (&record.descriptor.replicas, &applied.members);
    let same = |it: &ReplicaDescriptor| {
        members.stores.get(&it.id) == Some(&it.store) && role(members, it.id) == it.role
    };
    let agree = replicas.len() == members.stores.len() && replicas.iter().all(same);
    (record.initialised && !agree)
        .then(|| format!("the record names {replicas:?}, the membership is {members:?}"))
}

fn stored_log(
    snapshot: &dyn EngineSnapshot,
    record: &ReplicaRecord,
) -> Result<StoredLog, RaftError> {
    let range = record.descriptor.id;
    let purged = snapshot.get(Cf::Raft, &keys::purged(range))?;
    let purged: Option<Position> = purged.map(records::decode_position).transpose()?;
    let applied = snapshot.get(Cf::State, &keys::applied(range))?;
    let applied = applied.map(AppliedRecord::decode).transpose()?;
    let members = applied.as_ref().and_then(|applied| disagreement(record, applied));
    let mut entries = Vec::new();
    let mut cursor = snapshot.cursor(Cf::Raft, &keys::all_entries(range));
    let mut found = cursor.seek_to_first()?;
    while found {
        let sum = crc32c::crc32c(cursor.value());
        let (term, _) = records::decode_entry(Bytes::copy_from_slice(cursor.value()))?;
        let index = keys::index_of(cursor.key())?;
        entries.push(StoredEntry { term, index, sum });
        found = cursor.next()?;
    }
    let pair = |at: Position| (at.term, at.index);
    let (cut, applied) = (purged.map(pair), applied.and_then(|it| it.position).map(pair));
    Ok(StoredLog { range, cut, applied, members, entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(cut: Option<(u64, u64)>, entries: &[(u64, u64)]) -> StoredLog {
        let entry = |(term, index): &(u64, u64)| StoredEntry { term: *term, index: *index, sum: 0 };
        let entries = entries.iter().map(entry).collect();
        StoredLog { range: RangeId(1), cut, applied: None, members: None, entries }
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
