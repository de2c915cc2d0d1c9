//! Who leads what, with transfers in flight counted as done.

use std::collections::{BTreeMap, BTreeSet};

use cribwork_types::{RangeDescriptor, RangeId, StoreId, key};

use crate::{BalancePolicy, ClusterView, Operator, StoreState, StoreView};

/// Which ranges are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those of a group, by its place in [`Books::groups`].
    Group(usize),
    /// All.
    All,
}

/// The stores that take part are numbered from 0 in the order of their ids, to index vectors by.
pub(super) type StoreIndex = usize;

/// A range that counts.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) descriptor: &'a RangeDescriptor,
    /// The store that leads, if it takes part.
    pub(super) leader: Option<StoreIndex>,
    /// The store that leads, or will once the transfer in flight is done.
    pub(super) leader_store: Option<StoreId>,
    /// Stores that take part and hold a voter.
    pub(super) voters: Vec<StoreIndex>,
    /// Index into [`Books::groups`].
    pub(super) group: Option<usize>,
    /// False while something is done to it or was recently.
    pub(super) movable: bool,
}

/// Ranges that share the first four bytes of their decoded start keys.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tag: [u8; 4],
    /// Indexes into [`Books::items`].
    pub(super) items: Vec<usize>,
    /// How many each store leads.
    pub(super) leaders: Vec<u64>,
}

/// One transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) item: usize,
    pub(super) from: StoreIndex,
    pub(super) to: StoreIndex,
}

/// The state that planning works on; changes with each transfer planned.
#[derive(Debug)]
pub(super) struct Books<'a> {
    pub(super) view: &'a ClusterView,
    pub(super) policy: &'a BalancePolicy,
    /// Stores that take part.
    pub(super) stores: Vec<StoreId>,
    pub(super) items: Vec<Item<'a>>,
    pub(super) groups: Vec<Group>,
    /// How many ranges each store leads.
    pub(super) leaders: Vec<u64>,
    /// Operators in flight or planned that each store takes part in.
    pub(super) operators: Vec<usize>,
    pub(super) operators_total: usize,
}

impl<'a> Books<'a> {
    pub(super) fn new(view: &'a ClusterView, policy: &'a BalancePolicy) -> Self {
        let taking_part = view.stores.iter().filter(|store| absent(store, policy).is_none());
        let stores: Vec<StoreId> =
            taking_part.map(|store| store.id).collect::<BTreeSet<_>>().into_iter().collect();
        let count = stores.len();
        let mut books = Self {
            view,
            policy,
            stores,
            items: Vec::with_capacity(view.ranges.len()),
            groups: Vec::new(),
            leaders: vec![0; count],
            operators: vec![0; count],
            operators_total: view.operators.len(),
        };
        books.enter_ranges();
        books.enter_groups();
        books
    }

    pub(super) fn index(&self, store: StoreId) -> Option<StoreIndex> {
        self.stores.binary_search(&store).ok()
    }

    fn enter_ranges(&mut self) {
        // Where leaders go; none for operators of another kind.
        let mut in_flight: BTreeMap<RangeId, Option<StoreId>> = BTreeMap::new();
        for operator in &self.view.operators {
            let to = match operator {
                Operator::TransferLeader { to, .. } => Some(*to),
                Operator::ChangeReplicas { .. } | Operator::Merge { .. } => None,
            };
            in_flight.extend(operator.ranges().map(|range| (range, to)));
            for store in operator.stores() {
                if let Some(index) = self.index(store) {
                    self.operators[index] += 1;
                }
            }
        }
        let top = key::top_bound();
        for range in &self.view.ranges {
            let descriptor = &*range.descriptor;
            if descriptor.span.start == top {
                continue;
            }
            let in_flight = in_flight.get(&descriptor.id);
            let leader_store =
                in_flight.copied().flatten().or(range.leader.map(|leader| leader.store));
            let leader = leader_store.and_then(|store| self.index(store));
            if let Some(leader) = leader {
                self.leaders[leader] += 1;
            }
            self.items.push(Item {
                descriptor,
                leader,
                leader_store,
                voters: descriptor.voters().filter_map(|voter| self.index(voter.store)).collect(),
                group: None,
                movable: in_flight.is_none()
                    && !descriptor.is_joint()
                    && !self.view.recently_moved.contains(&descriptor.id),
            });
        }
    }

    fn enter_groups(&mut self) {
        let mut by_tag: BTreeMap<[u8; 4], Vec<usize>> = BTreeMap::new();
        for (index, item) in self.items.iter().enumerate() {
            if let Some(tag) = tag(item.descriptor) {
                by_tag.entry(tag).or_default().push(index);
            }
        }
        for (tag, items) in by_tag {
            if items.len() < self.policy.group_ranges_min {
                continue;
            }
            let mut leaders = vec![0; self.stores.len()];
            for index in &items {
                let item = &mut self.items[*index];
                item.group = Some(self.groups.len());
                if let Some(leader) = item.leader {
                    leaders[leader] += 1;
                }
            }
            self.groups.push(Group { tag, items, leaders });
        }
    }

    /// How many of the compared ranges each store leads.
    pub(super) fn counts(&self, scope: Scope) -> &[u64] {
        match scope {
            Scope::Group(group) => &self.groups[group].leaders,
            Scope::All => &self.leaders,
        }
    }

    /// By how many more of the range's group `from` leads than `to`; 1 for a range without group.
    pub(super) fn group_lead(&self, item: &Item<'_>, from: StoreIndex, to: StoreIndex) -> i64 {
        item.group.map_or(1, |group| {
            let leaders = &self.groups[group].leaders;
            leaders[from] as i64 - leaders[to] as i64
        })
    }

    /// Notes a planned transfer.
    pub(super) fn carry_out(&mut self, hop: Hop) {
        let item = &mut self.items[hop.item];
        item.leader = Some(hop.to);
        item.leader_store = Some(self.stores[hop.to]);
        item.movable = false;
        let group = item.group.map(|group| &mut self.groups[group].leaders);
        for leaders in [Some(&mut self.leaders), group].into_iter().flatten() {
            leaders[hop.from] -= 1;
            leaders[hop.to] += 1;
        }
        self.operators[hop.from] += 1;
        self.operators[hop.to] += 1;
        self.operators_total += 1;
    }
}

/// Why a store takes no part, if it does not.
pub(super) fn absent(store: &StoreView, policy: &BalancePolicy) -> Option<String> {
    if store.state != StoreState::Up {
        return Some(format!("is {}", store.state.name()));
    }
    (store.heartbeat_age_ms > policy.heartbeat_age_max_ms)
        .then(|| format!("sent no heartbeat for {} ms", store.heartbeat_age_ms))
}

fn tag(descriptor: &RangeDescriptor) -> Option<[u8; 4]> {
    let start = key::decode(&descriptor.span.start).ok()?;
    start.first_chunk().copied()
}
