//! What all schedulers of replicas share: how much each store carries and is busy with, and the choice
//! of a store for one more replica.
//!
//! **Zones come first, load second.** Of the stores that could take a replica, those whose zone holds
//! the fewest other replicas of the range are compared by load. If all of these are busy, the range
//! waits: a second-best zone now would be a move more later. Stores without a zone are each a zone.

mod choice;

use std::collections::{BTreeMap, BTreeSet};

use cribwork_types::{RangeId, ReplicaDescriptor, StoreId};

use crate::{ClusterView, Operator, PlacementPolicy, RangeView, StoreState, StoreView};

pub(crate) use choice::Wanted;

/// How much a change may take of the bounds on changes in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// All of them.
    Repair,
    /// Half of them.
    Balance,
}

/// Loads and changes under way; grows with each change planned.
#[derive(Clone, Debug)]
pub(crate) struct Books<'a> {
    pub(crate) view: &'a ClusterView,
    pub(crate) policy: &'a PlacementPolicy,
    /// Bytes that each store carries, changes in flight counted as done.
    loads: BTreeMap<StoreId, u64>,
    /// Changes of replicas in flight or planned that each store gives to or takes from.
    changes: BTreeMap<StoreId, usize>,
    changes_total: usize,
    /// Ranges with an operator of any kind.
    busy: BTreeSet<RangeId>,
}

impl<'a> Books<'a> {
    pub(crate) fn new(view: &'a ClusterView, policy: &'a PlacementPolicy) -> Self {
        let mut books = Self {
            view,
            policy,
            loads: view.stores.iter().map(|store| (store.id, 0)).collect(),
            changes: BTreeMap::new(),
            changes_total: 0,
            busy: BTreeSet::new(),
        };
        for range in &view.ranges {
            for replica in &range.descriptor.replicas {
                *books.loads.entry(replica.store).or_default() += books.weight(range);
            }
        }
        for operator in &view.operators {
            books.note(operator, view.range(operator.range()));
        }
        books
    }

    /// Counts an operator as in flight.
    pub(crate) fn note(&mut self, operator: &Operator, range: Option<&RangeView>) {
        self.busy.extend(operator.ranges());
        let (add, remove) = match *operator {
            Operator::ChangeReplicas { add, remove, .. } => (add, remove),
            Operator::Merge { into, .. } => return self.note_merge(range, self.view.range(into)),
            Operator::TransferLeader { .. } => return,
        };
        self.changes_total += 1;
        // A dead store is no busier for what it loses.
        let live = |store: &StoreId| self.is_live(*store);
        let stores: Vec<StoreId> = [add, remove].into_iter().flatten().filter(live).collect();
        for store in stores {
            *self.changes.entry(store).or_default() += 1;
        }
        let Some(range) = range else {
            return;
        };
        let (weight, on) = (self.weight(range), |store| range.descriptor.replica_on(store));
        if let Some(store) = add.filter(|store| on(*store).is_none()) {
            *self.loads.entry(store).or_default() += weight;
        }
        if let Some(store) = remove.filter(|store| on(*store).is_some()) {
            let load = self.loads.entry(store).or_default();
            *load = load.saturating_sub(weight);
        }
    }

    /// What the source holds comes to lie where the target lies, in one replica instead of two.
    fn note_merge(&mut self, source: Option<&RangeView>, target: Option<&RangeView>) {
        let (Some(source), Some(target)) = (source, target) else {
            return;
        };
        for member in &source.descriptor.replicas {
            let weight = self.weight(source);
            let load = self.loads.entry(member.store).or_default();
            *load = load.saturating_sub(weight);
        }
        for member in &target.descriptor.replicas {
            *self.loads.entry(member.store).or_default() += source.size_bytes;
        }
    }

    /// True if an operator for the range is in flight or planned.
    pub(crate) fn is_busy(&self, range: RangeId) -> bool {
        self.busy.contains(&range)
    }

    /// What a replica of `range` adds to the load of its store.
    pub(crate) fn weight(&self, range: &RangeView) -> u64 {
        range.size_bytes + self.policy.replica_weight_bytes
    }

    /// What `store` carries.
    pub(crate) fn load(&self, store: StoreId) -> u64 {
        self.loads.get(&store).copied().unwrap_or_default()
    }

    pub(crate) fn is_live(&self, store: StoreId) -> bool {
        self.view.store(store).is_some_and(|store| store.is_live(self.policy))
    }

    /// True if one more change may begin.
    pub(crate) fn has_room(&self, urgency: Urgency) -> bool {
        self.changes_total < bound(self.policy.replica_changes_max, urgency)
    }

    /// True if one more change that `store` takes part in may begin.
    pub(crate) fn store_has_room(&self, store: StoreId, urgency: Urgency) -> bool {
        self.changes(store) < bound(self.policy.replica_changes_per_store_max, urgency)
    }

    fn changes(&self, store: StoreId) -> usize {
        self.changes.get(&store).copied().unwrap_or_default()
    }

    /// Why no change of this range may begin now, whatever for.
    pub(crate) fn blocked(&self, range: &RangeView) -> Option<String> {
        let leader = range.leader.filter(|leader| self.is_live(leader.store));
        if self.is_busy(range.descriptor.id) {
            Some("an operator for it is in flight".to_owned())
        } else if range.descriptor.is_joint() {
            Some("its members are changing".to_owned())
        } else if leader.is_none() {
            Some("it has no leader, so its members cannot change".to_owned())
        } else if self.view.recently_moved.contains(&range.descriptor.id) {
            Some("it was moved a moment ago, or could not be".to_owned())
        } else {
            None
        }
    }

    /// How many other voters of `range` share the zone of `store`, if `leaving` goes.
    pub(crate) fn zone_mates(
        &self,
        range: &RangeView,
        store: StoreId,
        leaving: Option<StoreId>,
    ) -> usize {
        let zone = self.view.store(store).map_or("", |store| store.zone.as_str());
        if zone.is_empty() {
            return 0;
        }
        let others = range.descriptor.voters().map(|voter| voter.store);
        let others = others.filter(|other| *other != store && Some(*other) != leaving);
        let shares = |other: &StoreId| self.view.store(*other).is_some_and(|it| it.zone == zone);
        others.filter(shares).count()
    }

    /// Why `store` may take no replica of any range, if so.
    pub(crate) fn unfit(&self, store: &StoreView) -> Option<String> {
        if store.state != StoreState::Up {
            return Some(format!("is {}", store.state.name()));
        }
        if !store.is_live(self.policy) {
            return Some(format!("sent no heartbeat for {} ms", store.heartbeat_age_ms));
        }
        let used = store.used_bytes.saturating_mul(100);
        let percent = used.checked_div(store.capacity_bytes).unwrap_or_default();
        (percent > self.policy.disk_used_max_percent)
            .then(|| format!("uses {percent} % of its file system"))
    }

    /// The voter to lose first: one that is silent, else one whose zone holds others, else one on a
    /// store that carries much, followers first.
    pub(crate) fn worst_voter(&self, range: &RangeView) -> Option<ReplicaDescriptor> {
        range.descriptor.voters().max_by_key(|voter| {
            (
                !self.is_live(voter.store),
                self.zone_mates(range, voter.store, None),
                range.leader.map(|leader| leader.id) != Some(voter.id),
                self.load(voter.store),
                voter.store,
            )
        })
    }
}

fn bound(most: usize, urgency: Urgency) -> usize {
    match urgency {
        Urgency::Repair => most,
        Urgency::Balance => most.div_ceil(2),
    }
}

/// Bytes for people: in MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// A time for people.
pub(crate) fn seconds(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        _ => format!("{} s", ms / 1000),
    }
}
