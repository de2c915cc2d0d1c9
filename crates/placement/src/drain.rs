//! Drain: leaders leave stores that are about to stop or to go, to the voter whose store leads least.

use std::collections::{BTreeMap, BTreeSet};

use cribwork_types::{RangeId, StoreId};

use crate::{Candidate, ClusterView, Decision, Operator, PlacementPolicy, RangeView, StoreState};

/// The name under which drain signs its decisions.
pub const DRAIN: &str = "drain";

/// Leaders a store, transfers in flight counted as done; grows with each transfer planned.
struct Leaders<'a> {
    view: &'a ClusterView,
    policy: &'a PlacementPolicy,
    led: BTreeMap<StoreId, u64>,
    operators: BTreeMap<StoreId, usize>,
    operators_total: usize,
    busy: BTreeSet<RangeId>,
}

/// Plans transfers away from draining and decommissioning stores.
pub(crate) fn schedule(view: &ClusterView, policy: &PlacementPolicy) -> Vec<Decision> {
    if !view.stores.iter().any(|store| is_leaving(store.state)) {
        return Vec::new();
    }
    let mut leaders = Leaders::new(view, policy);
    let mut decisions = Vec::new();
    for range in &view.ranges {
        if leaders.operators_total >= policy.leaders.operators_max {
            break;
        }
        let decision = leaders.look(range);
        if let Some(operator) = &decision.operator {
            leaders.note(operator);
            decisions.push(decision);
        }
    }
    decisions
}

/// What drain does about a range, or why nothing.
pub(crate) fn look(view: &ClusterView, policy: &PlacementPolicy, range: &RangeView) -> Decision {
    Leaders::new(view, policy).look(range)
}

fn is_leaving(state: StoreState) -> bool {
    matches!(state, StoreState::Draining | StoreState::Decommissioning)
}

impl<'a> Leaders<'a> {
    fn new(view: &'a ClusterView, policy: &'a PlacementPolicy) -> Self {
        let mut leaders = Self {
            view,
            policy,
            led: BTreeMap::new(),
            operators: BTreeMap::new(),
            operators_total: 0,
            busy: BTreeSet::new(),
        };
        let mut moving: BTreeMap<RangeId, StoreId> = BTreeMap::new();
        for operator in &view.operators {
            leaders.enter(operator);
            if let Operator::TransferLeader { range, to, .. } = operator {
                moving.insert(*range, *to);
            }
        }
        for range in &view.ranges {
            let to = moving.get(&range.descriptor.id).copied();
            if let Some(leader) = to.or(range.leader.map(|leader| leader.store)) {
                *leaders.led.entry(leader).or_default() += 1;
            }
        }
        leaders
    }

    fn enter(&mut self, operator: &Operator) {
        self.busy.extend(operator.ranges());
        self.operators_total += 1;
        for store in operator.stores() {
            *self.operators.entry(store).or_default() += 1;
        }
    }

    /// Enters an operator that was planned just now.
    fn note(&mut self, operator: &Operator) {
        self.enter(operator);
        if let Operator::TransferLeader { from, to, .. } = *operator {
            let from = self.led.entry(from).or_default();
            *from = from.saturating_sub(1);
            *self.led.entry(to).or_default() += 1;
        }
    }

    fn led(&self, store: StoreId) -> u64 {
        self.led.get(&store).copied().unwrap_or_default()
    }

    fn is_full(&self, store: StoreId) -> bool {
        let operators = self.operators.get(&store).copied().unwrap_or_default();
        operators >= self.policy.leaders.operators_per_store_max
    }

    fn look(&self, range: &RangeView) -> Decision {
        let id = range.descriptor.id;
        let nothing = |candidates, why: String| Decision::nothing(id, DRAIN, candidates, why);
        let Some(leader) = range.leader else {
            return nothing(Vec::new(), "it has no leader".to_owned());
        };
        let from = leader.store;
        let state = self.view.store(from).map(|store| store.state).unwrap_or_default();
        if !is_leaving(state) {
            return nothing(Vec::new(), format!("store {from}, which leads it, stays"));
        }
        if self.busy.contains(&id) {
            return nothing(Vec::new(), "an operator for it is in flight".to_owned());
        }
        if range.descriptor.is_joint() {
            return nothing(Vec::new(), "its members are changing".to_owned());
        }
        if self.view.recently_moved.contains(&id) {
            let why = "it was moved a moment ago, or could not be".to_owned();
            return nothing(Vec::new(), why);
        }
        if self.is_full(from) {
            let why = format!("store {from} takes part in as many operators as allowed");
            return nothing(Vec::new(), why);
        }
        let mut candidates = self.candidates(range, from);
        let fit = candidates.iter().filter(|candidate| candidate.rejected_because.is_none());
        let best = fit.min_by_key(|candidate| (candidate.score, candidate.store));
        let Some(to) = best.map(|best| best.store) else {
            let why = format!("store {from} is {}, but no other voter could lead it", state.name());
            return nothing(candidates, why);
        };
        for candidate in &mut candidates {
            if candidate.store != to && candidate.rejected_because.is_none() {
                candidate.rejected_because = Some(format!("store {to} is at least as good"));
            }
        }
        Decision {
            subject: id,
            scheduler: DRAIN,
            operator: Some(Operator::TransferLeader { range: id, from, to }),
            chosen: Some(to),
            candidates,
            summary: format!("range {id}: store {from} is {}: store {to} leads it", state.name()),
        }
    }

    fn candidates(&self, range: &RangeView, from: StoreId) -> Vec<Candidate> {
        let voters = range.descriptor.voters().filter(|voter| voter.store != from);
        let candidate = |store: StoreId| {
            let seen = self.view.store(store);
            let rejected_because = match seen {
                None => Some("is no store of this cluster".to_owned()),
                Some(seen) if seen.state != StoreState::Up => {
                    Some(format!("is {}", seen.state.name()))
                }
                Some(seen) if !seen.may_lead(self.policy) => {
                    Some(format!("sent no heartbeat for {} ms", seen.heartbeat_age_ms))
                }
                Some(_) if self.is_full(store) => {
                    Some("takes part in as many operators as allowed".to_owned())
                }
                Some(_) => None,
            };
            Candidate { store, score: self.led(store), rejected_because }
        };
        let mut candidates: Vec<Candidate> = voters.map(|voter| candidate(voter.store)).collect();
        candidates.sort_by_key(|candidate| candidate.store);
        candidates
    }
}

/// Decommissioning stores that no range has a member on any more.
pub fn decommissioned_stores(view: &ClusterView) -> Vec<StoreId> {
    let leaving = view.stores.iter().filter(|store| store.state == StoreState::Decommissioning);
    let mut leaving: BTreeSet<StoreId> = leaving.map(|store| store.id).collect();
    let members = view.ranges.iter().flat_map(|range| &range.descriptor.replicas);
    members.for_each(|member| _ = leaving.remove(&member.store));
    leaving.into_iter().collect()
}
