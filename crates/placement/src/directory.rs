//! The range directory of the placement group: what the leaders of ranges report, believed by epoch
//! and term and by nothing else, so that late, repeated and reordered reports do no harm.

use std::sync::Arc;

use cribwork_router::{Inserted, LeaderUpdate, RangeMap};
use cribwork_types::{RangeDescriptor, RangeId, ReplicaDescriptor};

/// What [`Directory::report`] made of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// The directory knows more than before.
    Changed {
        /// The descriptor is new and must be persisted; else only leader or term are.
        descriptor: bool,
        /// Other ranges that are out of the directory, because the new one overlaps them at a later
        /// version.
        replaced: Vec<RangeId>,
    },
    /// Nothing new.
    Unchanged,
    /// Epoch or term are older than what is known; nothing changed.
    Stale,
    /// No report about a part of the key space: the descriptor holds no key, or the leader is none of
    /// its replicas. Nothing changed.
    Refused,
}

/// All ranges and their leaders as far as reported.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    map: RangeMap,
}

impl Directory {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// For lookups.
    pub fn map(&self) -> &RangeMap {
        &self.map
    }

    /// Takes in that `descriptor` is led by `leader` as of `term`; without a leader, only that it
    /// exists (from the directory's own storage, say).
    pub fn report(
        &mut self,
        descriptor: Arc<RangeDescriptor>,
        leader: Option<ReplicaDescriptor>,
        term: u64,
    ) -> Reported {
        let id = descriptor.id;
        if leader.is_some_and(|leader| descriptor.replica(leader.id).is_none()) {
            return Reported::Refused;
        }
        let replaced = match self.map.insert(descriptor) {
            Inserted::Empty => return Reported::Refused,
            Inserted::Stale { .. } => return Reported::Stale,
            Inserted::Unchanged => None,
            Inserted::Applied { replaced } => Some(replaced),
        };
        // A newer shape may come from an older term: a leader reports what it committed before it was
        // deposed. Then the shape counts and the leader does not.
        let update = self.map.update_leader(id, leader, term);
        match (replaced, update) {
            (Some(replaced), _) => {
                let replaced = replaced.iter().map(|entry| entry.descriptor.id).collect();
                Reported::Changed { descriptor: true, replaced }
            }
            (None, LeaderUpdate::Changed) => {
                Reported::Changed { descriptor: false, replaced: Vec::new() }
            }
            (None, LeaderUpdate::Stale) => Reported::Stale,
            (None, LeaderUpdate::Unchanged | LeaderUpdate::Unknown) => Reported::Unchanged,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cribwork_types::{KeyRange, RangeEpoch, ReplicaId, ReplicaRole, StoreId, key};

    use super::*;

    fn range(id: u64, start: &str, version: u64) -> Arc<RangeDescriptor> {
        let start = if start.is_empty() { Vec::new() } else { key::encode(start.as_bytes()) };
        let replica = |store| ReplicaDescriptor {
            id: ReplicaId(10 * id + store),
            store: StoreId(store),
            role: ReplicaRole::Voter,
        };
        Arc::new(RangeDescriptor {
            id: RangeId(id),
            span: KeyRange { start: Bytes::from(start), end: Bytes::new() },
            epoch: RangeEpoch { conf_ver: 1, version },
            replicas: vec![replica(1), replica(2)],
        })
    }

    #[test]
    fn believes_by_epoch_and_term() {
        let mut directory = Directory::new();
        let first = range(1, "", 1);
        let (one, two) = (Some(first.replicas[0]), Some(first.replicas[1]));
        let changed = |descriptor, replaced| Reported::Changed { descriptor, replaced };
        assert_eq!(directory.report(first.clone(), None, 0), changed(true, vec![]));
        assert_eq!(directory.report(first.clone(), one, 5), changed(false, vec![]));
        assert_eq!(directory.report(first.clone(), one, 5), Reported::Unchanged);
        assert_eq!(directory.report(first.clone(), two, 4), Reported::Stale);
        assert_eq!(directory.report(first.clone(), two, 6), changed(false, vec![]));
        assert_eq!(directory.report(range(2, "m", 2), None, 0), changed(true, vec![RangeId(1)]));
        assert_eq!(
            directory.report(first, two, 9),
            Reported::Stale,
            "an older shape never returns"
        );
        assert_eq!(directory.map().len(), 1);
    }

    #[test]
    fn a_newer_shape_from_an_older_term_counts_without_its_leader() {
        let mut directory = Directory::new();
        let (one, two) = (range(1, "", 1).replicas[0], range(1, "", 1).replicas[1]);
        directory.report(range(1, "", 1), Some(two), 6);
        let outcome = directory.report(range(1, "m", 2), Some(one), 5);
        assert_eq!(outcome, Reported::Changed { descriptor: true, replaced: vec![] });
        let entry = directory.map().get_by_id(RangeId(1)).unwrap();
        assert_eq!((entry.leader, entry.term), (Some(two), 6));
    }

    #[test]
    fn refuses_what_is_no_part_of_the_key_space() {
        let mut directory = Directory::new();
        let mut empty = (*range(0, "a", 1)).clone();
        empty.span.end = empty.span.start.clone();
        assert_eq!(directory.report(Arc::new(empty), None, 1), Reported::Refused);
        let stranger = range(2, "", 1).replicas[0];
        assert_eq!(directory.report(range(1, "", 1), Some(stranger), 1), Reported::Refused);
        assert!(directory.map().is_empty());
    }
}
