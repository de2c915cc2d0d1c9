//! The choice of a store for one more replica of a range.

use std::cmp::Reverse;

use cribwork_types::{ReplicaRole, StoreId};

use super::{Books, Urgency};
use crate::{Candidate, RangeView, StoreView};

/// What a store is wanted for.
pub(crate) struct Wanted<'a> {
    pub(crate) range: &'a RangeView,
    /// The store whose replica goes in exchange.
    pub(crate) leaving: Option<StoreId>,
    pub(crate) urgency: Urgency,
    /// Why a store that could take the replica should not, if so.
    pub(crate) refuse: &'a dyn Fn(&StoreView) -> Option<String>,
}

/// The outcome.
pub(crate) struct Choice {
    pub(crate) chosen: Option<StoreId>,
    /// Every store but the leaving one, by id.
    pub(crate) candidates: Vec<Candidate>,
    /// If none was chosen.
    pub(crate) why_none: String,
}

/// A store that could take the replica. The least is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    zone_mates: usize,
    /// A store that has begun to take it, for whatever reason, need not begin again.
    begun: Reverse<bool>,
    load: u64,
    store: StoreId,
}

impl Books<'_> {
    pub(crate) fn choose(&self, wanted: &Wanted<'_>) -> Choice {
        let mut fits = Vec::new();
        let mut candidates = Vec::new();
        let stores = self.view.stores.iter().filter(|store| Some(store.id) != wanted.leaving);
        for store in stores {
            let rejected_because = self.reject(wanted, store);
            if rejected_because.is_none() {
                fits.push(self.fit(wanted, store.id));
            }
            candidates.push(Candidate {
                store: store.id,
                score: self.load(store.id),
                rejected_because,
            });
        }
        candidates.sort_by_key(|candidate| candidate.store);
        let fewest_mates = fits.iter().map(|fit| fit.zone_mates).min();
        let best = fits.iter().filter(|fit| Some(fit.zone_mates) == fewest_mates);
        let has_room = |fit: &&Fit| self.store_has_room(fit.store, wanted.urgency);
        let chosen = best.clone().filter(has_room).min().map(|fit| fit.store);
        for fit in &fits {
            if Some(fit.store) == chosen {
                continue;
            }
            let why = if Some(fit.zone_mates) != fewest_mates {
                "its zone holds more of the range's replicas than that of another store".to_owned()
            } else if !has_room(&fit) {
                format!("takes part in {} changes, which is the limit", self.changes(fit.store))
            } else {
                format!("store {} is at least as good", chosen.map_or(0, StoreId::get))
            };
            let place = candidates.binary_search_by_key(&fit.store, |it| it.store);
            if let Ok(place) = place {
                candidates[place].rejected_because = Some(why);
            }
        }
        let why_none = match best.min() {
            None => "no store could take a replica".to_owned(),
            Some(fit) => format!("store {}, the best place, is busy", fit.store),
        };
        Choice { chosen, candidates, why_none }
    }

    fn fit(&self, wanted: &Wanted<'_>, store: StoreId) -> Fit {
        Fit {
            zone_mates: self.zone_mates(wanted.range, store, wanted.leaving),
            begun: Reverse(wanted.range.descriptor.replica_on(store).is_some()),
            load: self.load(store),
            store,
        }
    }

    fn reject(&self, wanted: &Wanted<'_>, store: &StoreView) -> Option<String> {
        let held = wanted.range.descriptor.replica_on(store.id);
        if held.is_some_and(|replica| replica.role != ReplicaRole::Learner) {
            return Some("holds a replica already".to_owned());
        }
        self.unfit(store).or_else(|| (wanted.refuse)(store))
    }
}
