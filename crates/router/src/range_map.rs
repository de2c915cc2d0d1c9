//! From keys and ids to ranges and their leaders.
//!
//! Invariants: no two ranges in the map overlap, none is empty, and a descriptor that is not provably
//! newer never displaces another. "Newer" is decided as in TiKV's placement driver: at every key the
//! `version` rises with each split and merge, so of two overlapping descriptors of different ranges
//! the one with the larger version describes the later state; of one range, the one whose epoch is
//! behind in neither part.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use cribwork_types::{KeyRange, RangeDescriptor, RangeId, ReplicaDescriptor};

use crate::{TilingError, check_tiling};

/// A range and who leads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeEntry {
    /// The range.
    pub descriptor: Arc<RangeDescriptor>,
    /// Its leader as far as known; always one of the descriptor's replicas.
    pub leader: Option<ReplicaDescriptor>,
    /// The newest Raft term heard of, 0 for none.
    pub term: u64,
}

/// What [`RangeMap::insert`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The descriptor is in the map now.
    Applied {
        /// Other ranges that overlapped it and are out of the map, from left to right. An older
        /// descriptor of the same range is not listed.
        replaced: Vec<RangeEntry>,
    },
    /// The very descriptor was there already.
    Unchanged,
    /// The map knows something newer, or something else of the same age; nothing changed.
    Stale {
        /// What spoke against it.
        current: Arc<RangeDescriptor>,
    },
    /// The descriptor holds no key (that of the placement group, say); nothing changed.
    Empty,
}

/// What [`RangeMap::update_leader`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderUpdate {
    /// Leader or term are new.
    Changed,
    /// As known before.
    Unchanged,
    /// The map knows a later term; nothing changed.
    Stale,
    /// The range is not in the map, or the leader is not one of its replicas; nothing changed.
    Unknown,
}

/// Ranges by start bound and by id. All operations are logarithmic in the number of ranges, plus the
/// number of ranges they touch.
#[derive(Clone, Debug, Default)]
pub struct RangeMap {
    by_start: BTreeMap<Bytes, RangeEntry>,
    starts: BTreeMap<RangeId, Bytes>,
}

impl RangeMap {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// True if there is no range.
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// The range that holds `encoded_key`.
    pub fn get(&self, encoded_key: &[u8]) -> Option<&RangeEntry> {
        let up_to = (Bound::Unbounded, Bound::Included(encoded_key));
        let (_, entry) = self.by_start.range::<[u8], _>(up_to).next_back()?;
        entry.descriptor.span.contains(encoded_key).then_some(entry)
    }

    /// The range with this id.
    pub fn get_by_id(&self, id: RangeId) -> Option<&RangeEntry> {
        self.by_start.get(self.starts.get(&id)?)
    }

    /// The range that ends where the range of `encoded_key` begins. `None` if that is the first one,
    /// or if either is not in the map.
    pub fn previous(&self, encoded_key: &[u8]) -> Option<&RangeEntry> {
        let start = &self.get(encoded_key)?.descriptor.span.start;
        let before = (Bound::Unbounded, Bound::Excluded(&start[..]));
        let (_, entry) = self.by_start.range::<[u8], _>(before).next_back()?;
        (entry.descriptor.span.end == *start).then_some(entry)
    }

    /// The ranges that hold keys of `span`, from left to right, at most `limit`.
    pub fn scan<'a>(
        &'a self,
        span: &'a KeyRange,
        limit: usize,
    ) -> impl Iterator<Item = &'a RangeEntry> + 'a {
        let first = self.get(&span.start).map_or(&span.start, |entry| &entry.descriptor.span.start);
        let limit = if span.is_empty() { 0 } else { limit };
        self.by_start
            .range::<[u8], _>((Bound::Included(&first[..]), Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(|entry| span.end.is_empty() || entry.descriptor.span.start < span.end)
            .take(limit)
    }

    /// All ranges, from left to right.
    pub fn iter(&self) -> impl Iterator<Item = &RangeEntry> + '_ {
        self.by_start.values()
    }

    /// Takes in a descriptor if it is newer than everything it overlaps and than what is known of its
    /// own range. Overlapped ranges leave the map, and a gap stays where the new range does not
    /// cover them, until their own newer descriptors come. The leader known for the range stays if it
    /// is still a member.
    pub fn insert(&mut self, descriptor: Arc<RangeDescriptor>) -> Inserted {
        if descriptor.span.is_empty() {
            return Inserted::Empty;
        }
        if let Some(known) = self.get_by_id(descriptor.id) {
            let (old, new) = (&known.descriptor, &descriptor);
            if old == new {
                return Inserted::Unchanged;
            }
            if !old.epoch.is_behind(&new.epoch) || new.epoch.is_behind(&old.epoch) {
                return Inserted::Stale { current: old.clone() };
            }
        }
        let mut overlapped = Vec::new();
        for entry in self.scan(&descriptor.span, usize::MAX) {
            let other = &entry.descriptor;
            if other.id == descriptor.id {
                continue;
            }
            if other.epoch.version >= descriptor.epoch.version {
                return Inserted::Stale { current: other.clone() };
            }
            overlapped.push(other.id);
        }
        let replaced = overlapped.into_iter().filter_map(|id| self.remove(id)).collect();
        let known = self.remove(descriptor.id);
        let term = known.as_ref().map_or(0, |known| known.term);
        let leader =
            known.and_then(|known| known.leader).and_then(|leader| descriptor.replica(leader.id));
        let start = descriptor.span.start.clone();
        self.starts.insert(descriptor.id, start.clone());
        self.by_start.insert(start, RangeEntry { descriptor, leader, term });
        Inserted::Applied { replaced }
    }

    /// Takes a range out.
    pub fn remove(&mut self, id: RangeId) -> Option<RangeEntry> {
        let start = self.starts.remove(&id)?;
        self.by_start.remove(&start)
    }

    /// Notes who leads a range as of `term`. An older term is refused. Within one term there is only
    /// one leader, so "unknown" in the term known does not erase it; [`Self::forget_leader`] does.
    pub fn update_leader(
        &mut self,
        id: RangeId,
        leader: Option<ReplicaDescriptor>,
        term: u64,
    ) -> LeaderUpdate {
        let Some(entry) = self.entry_mut(id) else {
            return LeaderUpdate::Unknown;
        };
        let leader = match leader.map(|leader| entry.descriptor.replica(leader.id)) {
            Some(None) => return LeaderUpdate::Unknown,
            Some(member) => member,
            None => None,
        };
        if term < entry.term {
            return LeaderUpdate::Stale;
        }
        let leader = if term == entry.term { leader.or(entry.leader) } else { leader };
        if (leader, term) == (entry.leader, entry.term) {
            return LeaderUpdate::Unchanged;
        }
        (entry.leader, entry.term) = (leader, term);
        LeaderUpdate::Changed
    }

    /// Forgets who leads a range; the term stays.
    pub fn forget_leader(&mut self, id: RangeId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.leader = None;
        }
    }

    /// Checks that the ranges cover every key exactly once.
    ///
    /// # Errors
    /// The first [`TilingError`] from the left.
    pub fn check_tiling(&self) -> Result<(), TilingError> {
        check_tiling(self.iter().map(|entry| &*entry.descriptor))
    }

    fn entry_mut(&mut self, id: RangeId) -> Option<&mut RangeEntry> {
        self.by_start.get_mut(self.starts.get(&id)?)
    }
}

#[cfg(test)]
mod tests;
