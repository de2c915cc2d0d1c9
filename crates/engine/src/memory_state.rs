//! The data of a [`crate::MemoryEngine`]: versions by sequence number, and what a crash would leave.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use cribwork_types::{Cf, KeyRange, Mutation, WriteBatch};

/// Batches that may wait for a sync; beyond, the oldest become durable by themselves, as a kernel
/// writes old dirty pages back.
const UNSYNCED_BATCHES_MAX: usize = 64 * 1024;

/// One value of every family.
type Families<T> = [T; Cf::ALL.len()];

/// A value, or its absence, from `sequence` on.
#[derive(Debug)]
struct Version {
    sequence: u64,
    value: Option<Bytes>,
}

/// Multi-version maps, live snapshots, and the durable copy.
///
/// Invariants: the versions of a key are in rising order of sequence, at least one; versions that no
/// snapshot can see are gone once [`State::collect`] has run; `durable` followed by `unsynced` in
/// order is the newest state.
#[derive(Default)]
pub(crate) struct State {
    sequence: u64,
    families: Families<BTreeMap<Bytes, Vec<Version>>>,
    /// Sequence of each live snapshot, and how many share it.
    snapshots: BTreeMap<u64, usize>,
    /// Keys with a version that becomes invisible once no snapshot is older than the number.
    garbage: VecDeque<(u64, Cf, Bytes)>,
    durable: Families<BTreeMap<Bytes, Bytes>>,
    unsynced: VecDeque<WriteBatch>,
}

impl State {
    /// A state whose data is what `other` would hold after a crash that spares the first `unsynced`
    /// batches that were not synced.
    pub(crate) fn after_crash(other: &State, unsynced: usize) -> State {
        let mut durable = other.durable.clone();
        for batch in other.unsynced.iter().take(unsynced) {
            apply_plain(&mut durable, batch);
        }
        let versions = |map: &BTreeMap<Bytes, Bytes>| {
            let version = |value: &Bytes| vec![Version { sequence: 0, value: Some(value.clone()) }];
            map.iter().map(|(key, value)| (key.clone(), version(value))).collect()
        };
        let families = durable.each_ref().map(versions);
        State { families, durable, ..State::default() }
    }

    pub(crate) fn write(&mut self, batch: &WriteBatch) {
        self.sequence += 1;
        for mutation in &batch.mutations {
            match mutation {
                Mutation::Put { cf, key, value } => self.set(*cf, key, Some(value.clone())),
                Mutation::Delete { cf, key } => self.set(*cf, key, None),
                Mutation::DeleteRange { cf, range } => {
                    let rows = rows(&self.families[*cf as usize], bounds(range));
                    let keys: Vec<Bytes> = rows.map(|(key, _)| key.clone()).collect();
                    keys.iter().for_each(|key| self.set(*cf, key, None));
                }
            }
        }
        self.unsynced.push_back(batch.clone());
        if self.unsynced.len() > UNSYNCED_BATCHES_MAX {
            self.sync_oldest();
        }
        self.collect();
    }

    fn set(&mut self, cf: Cf, key: &Bytes, value: Option<Bytes>) {
        let sequence = self.sequence;
        let versions = self.families[cf as usize].entry(key.clone()).or_default();
        match versions.last_mut() {
            // Nobody can see between two mutations of one batch.
            Some(last) if last.sequence == sequence => last.value = value,
            _ => versions.push(Version { sequence, value }),
        }
        self.garbage.push_back((sequence, cf, key.clone()));
    }

    fn sync_oldest(&mut self) {
        if let Some(batch) = self.unsynced.pop_front() {
            apply_plain(&mut self.durable, &batch);
        }
    }

    pub(crate) fn sync(&mut self) {
        while !self.unsynced.is_empty() {
            self.sync_oldest();
        }
    }

    /// Starts a snapshot and returns its sequence.
    pub(crate) fn pin(&mut self) -> u64 {
        *self.snapshots.entry(self.sequence).or_default() += 1;
        self.sequence
    }

    /// Ends a snapshot.
    pub(crate) fn unpin(&mut self, sequence: u64) {
        if let Some(count) = self.snapshots.get_mut(&sequence) {
            *count -= 1;
            if *count == 0 {
                self.snapshots.remove(&sequence);
                self.collect();
            }
        }
    }

    /// Drops what no snapshot sees.
    fn collect(&mut self) {
        let horizon = self.snapshots.keys().next().copied().unwrap_or(self.sequence);
        while self.garbage.front().is_some_and(|(sequence, ..)| *sequence <= horizon) {
            let Some((_, cf, key)) = self.garbage.pop_front() else {
                break;
            };
            let family = &mut self.families[cf as usize];
            let Some(versions) = family.get_mut(&key) else {
                continue;
            };
            let hidden =
                versions.iter().skip(1).take_while(|next| next.sequence <= horizon).count();
            versions.drain(..hidden);
            if matches!(&versions[..], [Version { sequence, value: None }] if *sequence <= horizon)
            {
                family.remove(&key);
            }
        }
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The value of `key` as of `sequence`.
    pub(crate) fn get(&self, cf: Cf, key: &[u8], sequence: u64) -> Option<Bytes> {
        self.families[cf as usize]
            .get(key)
            .and_then(|versions| visible(versions, sequence))
            .cloned()
    }

    /// The first (or last, if `backward`) row within `bounds` as of `sequence`.
    pub(crate) fn find(
        &self,
        cf: Cf,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        sequence: u64,
        backward: bool,
    ) -> Option<(Bytes, Bytes)> {
        let rows = rows(&self.families[cf as usize], bounds).filter_map(|(key, versions)| {
            visible(versions, sequence).map(|value| (key.clone(), value.clone()))
        });
        let mut rows = rows;
        if backward { rows.next_back() } else { rows.next() }
    }

    /// Bytes of the newest keys and values in `range`.
    pub(crate) fn size_bytes(&self, cf: Cf, range: &KeyRange) -> u64 {
        rows(&self.families[cf as usize], bounds(range))
            .filter_map(|(key, versions)| Some(key.len() + visible(versions, u64::MAX)?.len()))
            .map(|bytes| bytes as u64)
            .sum()
    }
}

fn visible(versions: &[Version], sequence: u64) -> Option<&Bytes> {
    versions.iter().rev().find(|version| version.sequence <= sequence)?.value.as_ref()
}

/// `range` as the bounds of a map.
pub(crate) fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let end = if range.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(&range.end[..]) };
    (Bound::Included(&range.start[..]), end)
}

/// The rows within `bounds`, none if they are inverted (where the map itself would panic).
fn rows<'a, T>(
    map: &'a BTreeMap<Bytes, T>,
    bounds: (Bound<&[u8]>, Bound<&[u8]>),
) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a T)> {
    let is_empty = match bounds {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
        | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    };
    (!is_empty).then(|| map.range::<[u8], _>(bounds)).into_iter().flatten()
}

fn apply_plain(families: &mut Families<BTreeMap<Bytes, Bytes>>, batch: &WriteBatch) {
    for mutation in &batch.mutations {
        match mutation {
            Mutation::Put { cf, key, value } => {
                families[*cf as usize].insert(key.clone(), value.clone());
            }
            Mutation::Delete { cf, key } => {
                families[*cf as usize].remove(key);
            }
            Mutation::DeleteRange { cf, range } => {
                families[*cf as usize].retain(|key, _| !range.contains(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(state: &mut State, value: &'static str) {
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raw, "k", value);
        state.write(&batch);
    }

    #[test]
    fn old_versions_go_with_the_snapshots_that_see_them() {
        let mut state = State::default();
        put(&mut state, "1");
        let first = state.pin();
        put(&mut state, "2");
        let second = state.pin();
        put(&mut state, "3");
        let mut batch = WriteBatch::new();
        batch.delete(Cf::Raw, "k");
        state.write(&batch);
        assert_eq!(state.get(Cf::Raw, b"k", first).unwrap(), "1");
        state.unpin(first);
        assert_eq!(state.get(Cf::Raw, b"k", second).unwrap(), "2");
        assert_eq!(state.get(Cf::Raw, b"k", state.sequence()), None);
        state.unpin(second);
        assert!(state.families[Cf::Raw as usize].is_empty() && state.garbage.is_empty());
    }
}
