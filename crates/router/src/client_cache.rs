//! A client's knowledge of which range holds a key and who leads it, and how routing errors repair it.
//!
//! The cache may be wrong at any time: servers check every request, so a wrong route costs a round
//! trip and never an answer. It only ever moves to newer epochs.

use std::collections::BTreeMap;
use std::sync::Arc;

use cribwork_types::{RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, StoreId};

use crate::{Inserted, LeaderUpdate, RangeEntry, RangeMap};

/// Most routes that a client keeps unless it is told otherwise: twice what a cluster can be
/// initialised with, at some 300 bytes each.
pub const ROUTES_MAX: usize = 128 * 1024;

/// Clients do not learn terms from routing errors; the last word heard counts.
const NO_TERM: u64 = 0;

/// Where to send a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The range, whose epoch goes into the request.
    pub descriptor: Arc<RangeDescriptor>,
    /// Its leader; if unknown, ask another replica or the directory.
    pub leader: Option<ReplicaDescriptor>,
}

/// Routes, at most a given number. Over it the least recently inserted one goes.
#[derive(Clone, Debug)]
pub struct ClientCache {
    map: RangeMap,
    routes_max: usize,
    /// Counts insertions.
    sequence: u64,
    by_sequence: BTreeMap<u64, RangeId>,
    sequences: BTreeMap<RangeId, u64>,
}

impl Default for ClientCache {
    fn default() -> Self {
        Self::new(ROUTES_MAX)
    }
}

impl ClientCache {
    /// An empty cache of at most `routes_max` routes (at least one).
    pub fn new(routes_max: usize) -> Self {
        Self {
            map: RangeMap::new(),
            routes_max: routes_max.max(1),
            sequence: 0,
            by_sequence: BTreeMap::new(),
            sequences: BTreeMap::new(),
        }
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// True if there is no route.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The route of an encoded key.
    pub fn route(&self, encoded_key: &[u8]) -> Option<Route> {
        self.map.get(encoded_key).map(route)
    }

    /// The route of a range.
    pub fn route_by_id(&self, range: RangeId) -> Option<Route> {
        self.map.get_by_id(range).map(route)
    }

    /// Takes in what the directory answered. The leader is ignored if the descriptor is stale or the
    /// leader is none of its replicas.
    pub fn insert(
        &mut self,
        descriptor: Arc<RangeDescriptor>,
        leader: Option<ReplicaDescriptor>,
    ) -> Inserted {
        let id = descriptor.id;
        let outcome = self.map.insert(descriptor);
        match &outcome {
            Inserted::Applied { replaced } => {
                replaced.iter().for_each(|entry| self.forget_sequence(entry.descriptor.id));
                self.stamp(id);
                self.map.update_leader(id, leader, NO_TERM);
                self.evict();
            }
            Inserted::Unchanged => {
                self.map.update_leader(id, leader, NO_TERM);
            }
            Inserted::Stale { .. } | Inserted::Empty => {}
        }
        outcome
    }

    /// A replica answered that it does not lead `range`; `epoch` is that of the request. Answers to
    /// requests made under another epoch than the one cached say nothing about what is cached now.
    pub fn on_not_leader(
        &mut self,
        range: RangeId,
        epoch: RangeEpoch,
        leader: Option<ReplicaDescriptor>,
    ) {
        if self.map.get_by_id(range).is_none_or(|entry| entry.descriptor.epoch != epoch) {
            return;
        }
        if leader.is_none() {
            self.map.forget_leader(range);
        } else if self.map.update_leader(range, leader, NO_TERM) == LeaderUpdate::Unknown {
            // Led by a replica that we have never heard of: the membership is another one.
            self.on_gone(range);
        }
    }

    /// A replica answered that the epoch of `range` is another one and named the ranges that it now
    /// knows in its place. Older ones than those cached are ignored: the replica is behind.
    pub fn on_epoch_changed(&mut self, range: RangeId, current: Vec<RangeDescriptor>) {
        let leader = self.map.get_by_id(range).and_then(|entry| entry.leader);
        let named = current.iter().any(|descriptor| descriptor.id == range);
        for descriptor in current {
            // A new range starts on the store that led its parent; a wrong guess costs one trip.
            let guess = leader
                .and_then(|leader| descriptor.replica_on(leader.store))
                .filter(|replica| replica.role.votes());
            let known = self.map.get_by_id(descriptor.id).and_then(|entry| entry.leader);
            let guess = if known.is_some() { None } else { guess };
            self.insert(Arc::new(descriptor), guess);
        }
        if !named {
            self.on_gone(range);
        }
    }

    /// The range is not where the route says, or no more: the directory must be asked again.
    pub fn on_gone(&mut self, range: RangeId) {
        self.forget_sequence(range);
        self.map.remove(range);
    }

    /// A store does not answer: whatever it led is led by someone else or will be soon. Looks at
    /// every route.
    pub fn on_store_failed(&mut self, store: StoreId) {
        let led = |entry: &&RangeEntry| entry.leader.is_some_and(|leader| leader.store == store);
        let ranges: Vec<_> = self.map.iter().filter(led).map(|entry| entry.descriptor.id).collect();
        ranges.into_iter().for_each(|range| self.map.forget_leader(range));
    }

    fn stamp(&mut self, range: RangeId) {
        self.forget_sequence(range);
        self.sequence += 1;
        self.by_sequence.insert(self.sequence, range);
        self.sequences.insert(range, self.sequence);
    }

    fn forget_sequence(&mut self, range: RangeId) {
        if let Some(sequence) = self.sequences.remove(&range) {
            self.by_sequence.remove(&sequence);
        }
    }

    fn evict(&mut self) {
        while self.map.len() > self.routes_max
            && let Some((_, oldest)) = self.by_sequence.first_key_value()
        {
            self.on_gone(*oldest);
        }
    }
}

fn route(entry: &RangeEntry) -> Route {
    Route { descriptor: entry.descriptor.clone(), leader: entry.leader }
}

#[cfg(test)]
mod tests {
    use cribwork_types::ReplicaId;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{History, changes, enc, range};

    fn cache() -> ClientCache {
        let mut cache = ClientCache::default();
        for range in [range(1, "", "m", 1), range(2, "m", "", 1)] {
            let leader = range.replicas[0];
            cache.insert(range, Some(leader));
        }
        cache
    }

    fn leader_store(cache: &ClientCache, key: &str) -> Option<u64> {
        cache.route(&enc(key)).unwrap().leader.map(|leader| leader.store.get())
    }

    #[test]
    fn not_leader_moves_or_clears_the_leader() {
        let mut cache = cache();
        let replicas = range(1, "", "m", 1).replicas.clone();
        let epoch = RangeEpoch::INITIAL;
        cache.on_not_leader(RangeId(1), epoch, Some(replicas[2]));
        assert_eq!(leader_store(&cache, "a"), Some(3));
        cache.on_not_leader(RangeId(1), RangeEpoch { conf_ver: 1, version: 7 }, None);
        assert_eq!(leader_store(&cache, "a"), Some(3), "an answer to another epoch is no news");
        cache.on_not_leader(RangeId(1), epoch, None);
        assert_eq!(leader_store(&cache, "a"), None);
        let stranger = ReplicaDescriptor { id: ReplicaId(99), ..replicas[0] };
        cache.on_not_leader(RangeId(1), epoch, Some(stranger));
        assert_eq!(cache.route(&enc("a")), None);
        assert_eq!(leader_store(&cache, "z"), Some(1), "others are untouched");
    }

    #[test]
    fn a_split_is_learnt_with_a_guess_at_the_new_leader() {
        let mut cache = cache();
        let halves = vec![(*range(1, "", "f", 2)).clone(), (*range(3, "f", "m", 2)).clone()];
        cache.on_epoch_changed(RangeId(1), halves);
        assert_eq!(cache.len(), 3);
        assert_eq!((leader_store(&cache, "a"), leader_store(&cache, "g")), (Some(1), Some(1)));
        assert_eq!(cache.route(&enc("g")).unwrap().descriptor.id, RangeId(3));
    }

    #[test]
    fn a_replica_that_is_behind_does_not_set_us_back() {
        let mut cache = cache();
        cache.insert(range(1, "", "f", 2), None);
        cache.on_epoch_changed(RangeId(1), vec![(*range(1, "", "m", 1)).clone()]);
        assert_eq!(cache.route_by_id(RangeId(1)).unwrap().descriptor, range(1, "", "f", 2));
        cache.on_epoch_changed(RangeId(1), Vec::new());
        assert_eq!(cache.route_by_id(RangeId(1)), None, "changed, but nobody says to what");
    }

    #[test]
    fn lost_ranges_and_stores() {
        let mut cache = cache();
        cache.on_gone(RangeId(1));
        assert_eq!((cache.route(&enc("a")), cache.len()), (None, 1));
        cache.on_store_failed(StoreId(2));
        assert_eq!(leader_store(&cache, "z"), Some(1));
        cache.on_store_failed(StoreId(1));
        assert_eq!(leader_store(&cache, "z"), None);
    }

    #[test]
    fn the_directory_corrects_a_leader_of_the_same_epoch() {
        let mut cache = cache();
        let known = range(1, "", "m", 1);
        assert_eq!(cache.insert(known.clone(), Some(known.replicas[1])), Inserted::Unchanged);
        assert_eq!(leader_store(&cache, "a"), Some(2));
    }

    #[test]
    fn the_least_recently_inserted_route_goes_first() {
        let mut cache = ClientCache::new(2);
        cache.insert(range(1, "a", "b", 1), None);
        cache.insert(range(2, "b", "c", 1), None);
        cache.insert(range(1, "a", "b", 2), None);
        cache.insert(range(3, "c", "d", 1), None);
        assert_eq!(cache.route_by_id(RangeId(2)), None);
        assert!(cache.route_by_id(RangeId(1)).is_some() && cache.route_by_id(RangeId(3)).is_some());
    }

    proptest! {
        /// Whatever comes in whatever order: bounded, and the books agree with the map.
        #[test]
        fn stays_bounded_and_consistent(
            changes in changes(),
            order in proptest::collection::vec(any::<proptest::sample::Index>(), 1..100),
            routes_max in 1_usize..6,
        ) {
            let history = History::run(&changes);
            let mut cache = ClientCache::new(routes_max);
            for (step, index) in order.iter().enumerate() {
                let descriptor = index.get(&history.all).clone();
                match step % 4 {
                    0 => cache.on_epoch_changed(descriptor.id, vec![(*descriptor).clone()]),
                    1 => cache.on_not_leader(descriptor.id, descriptor.epoch, descriptor.replicas.first().copied()),
                    _ => { cache.insert(descriptor.clone(), descriptor.replicas.first().copied()); }
                }
                prop_assert!(cache.len() <= routes_max);
                prop_assert_eq!(cache.len(), cache.sequences.len());
                prop_assert_eq!(cache.len(), cache.by_sequence.len());
                for entry in cache.map.iter() {
                    prop_assert!(cache.sequences.contains_key(&entry.descriptor.id));
                }
            }
        }
    }
}
