//! Scatter: the replicas and leaders of a few ranges (what a split or a table made, say) go apart, so
//! that load that is about to come to them does not meet on one store.
//!
//! Only the ranges asked for are counted. A replica moves from the store that holds most of them to one
//! that holds at least two less, and so do leaders: it ends, and what it asks for then is nothing.

use std::collections::{BTreeMap, BTreeSet};

use cribwork_types::{RangeId, StoreId};

use crate::replicas::{Books, Urgency, Wanted};
use crate::{ClusterView, Decision, Operator, PlacementPolicy, RangeView, StoreView, repair};

/// The name under which scatter signs its decisions.
pub const SCATTER: &str = "scatter";

/// A move is made only if the two stores differ by this much: with less, they would change places.
const GAIN_MIN: u64 = 2;

type Counts = BTreeMap<StoreId, u64>;

fn count(counts: &Counts, store: StoreId) -> u64 {
    counts.get(&store).copied().unwrap_or_default()
}

/// What would bring the given ranges further apart now, each range at most once. None if they are as
/// far apart as they can be within the limits.
pub fn scatter(
    view: &ClusterView,
    policy: &PlacementPolicy,
    ranges: &BTreeSet<RangeId>,
) -> Vec<Decision> {
    let mut books = Books::new(view, policy);
    let set: Vec<&RangeView> =
        view.ranges.iter().filter(|range| ranges.contains(&range.descriptor.id)).collect();
    let (mut held, mut led) = counts(view, &set);
    let mut decisions = Vec::new();
    for range in set {
        let moved = move_replica(&books, range, &held);
        let Some(decision) = moved.or_else(|| move_leader(&books, range, &led)) else {
            continue;
        };
        match decision.operator {
            Some(Operator::TransferLeader { from, to, .. }) => {
                shift(&mut led, Some(from), Some(to))
            }
            Some(Operator::ChangeReplicas { add, remove, .. }) => shift(&mut held, remove, add),
            Some(Operator::Merge { .. }) | None => {}
        }
        if let Some(operator) = &decision.operator {
            books.note(operator, Some(range));
        }
        decisions.push(decision);
    }
    decisions
}

/// Who holds and who leads the ranges once what is in flight is done.
fn counts(view: &ClusterView, set: &[&RangeView]) -> (Counts, Counts) {
    let (mut held, mut led) = (Counts::new(), Counts::new());
    for range in set {
        let mut holders: BTreeSet<StoreId> =
            range.descriptor.voters().map(|voter| voter.store).collect();
        let mut leader = range.leader.map(|leader| leader.store);
        let id = range.descriptor.id;
        match view.operators.iter().find(|operator| operator.ranges().any(|it| it == id)) {
            Some(Operator::TransferLeader { to, .. }) => leader = Some(*to),
            Some(Operator::ChangeReplicas { add, remove, .. }) => {
                remove.iter().for_each(|store| _ = holders.remove(store));
                holders.extend(add);
            }
            // It will be no more.
            Some(Operator::Merge { range, .. }) if *range == id => continue,
            Some(Operator::Merge { .. }) | None => {}
        }
        holders.into_iter().for_each(|store| *held.entry(store).or_default() += 1);
        leader.into_iter().for_each(|store| *led.entry(store).or_default() += 1);
    }
    (held, led)
}

fn shift(counts: &mut Counts, from: Option<StoreId>, to: Option<StoreId>) {
    if let Some(from) = from {
        let from = counts.entry(from).or_default();
        *from = from.saturating_sub(1);
    }
    if let Some(to) = to {
        *counts.entry(to).or_default() += 1;
    }
}

fn move_replica(books: &Books<'_>, range: &RangeView, held: &Counts) -> Option<Decision> {
    if books.blocked(range).is_some()
        || !repair::is_healthy(books, range)
        || !books.has_room(Urgency::Balance)
    {
        return None;
    }
    let id = range.descriptor.id;
    let leader = range.leader.map(|leader| leader.id);
    let voters = range.descriptor.voters();
    let free = voters.filter(|voter| books.store_has_room(voter.store, Urgency::Balance));
    let from = free.max_by_key(|voter| (count(held, voter.store), leader != Some(voter.id)))?.store;
    let refuse = |store: &StoreView| {
        let zone_mates = books.zone_mates(range, store.id, Some(from));
        if zone_mates > books.zone_mates(range, from, None) {
            Some("its zone holds more of the range's replicas".to_owned())
        } else if count(held, store.id) + GAIN_MIN > count(held, from) {
            Some(format!("holds {} of these ranges", count(held, store.id)))
        } else {
            None
        }
    };
    let wanted = Wanted { range, leaving: Some(from), urgency: Urgency::Balance, refuse: &refuse };
    let choice = books.choose(&wanted);
    let to = choice.chosen?;
    Some(Decision {
        subject: id,
        scheduler: SCATTER,
        operator: Some(Operator::ChangeReplicas { range: id, add: Some(to), remove: Some(from) }),
        chosen: Some(to),
        candidates: choice.candidates,
        summary: format!(
            "range {id}: from store {from}, which holds {} of these ranges, to store {to} ({})",
            count(held, from),
            count(held, to)
        ),
    })
}

fn move_leader(books: &Books<'_>, range: &RangeView, led: &Counts) -> Option<Decision> {
    if books.blocked(range).is_some() {
        return None;
    }
    let (id, from) = (range.descriptor.id, range.leader?.store);
    let others = range.descriptor.voters().map(|voter| voter.store).filter(|store| *store != from);
    let ready = |store: &StoreId| {
        books.view.store(*store).is_some_and(|store| store.may_lead(books.policy))
    };
    let to = others.filter(ready).min_by_key(|store| (count(led, *store), *store))?;
    if count(led, to) + GAIN_MIN > count(led, from) {
        return None;
    }
    Some(Decision {
        subject: id,
        scheduler: SCATTER,
        operator: Some(Operator::TransferLeader { range: id, from, to }),
        chosen: Some(to),
        candidates: Vec::new(),
        summary: format!(
            "range {id}: leader from store {from}, which leads {} of these ranges, to store {to} ({})",
            count(led, from),
            count(led, to)
        ),
    })
}
