//! Replica balance: stores carry about the same load. The load of a store is the bytes of its replicas
//! and a fixed weight for each: where there is little data it is the count that is balanced.
//!
//! **It settles.** A replica of weight `w` moves from a store to one whose load is at least `2 w` less,
//! so the sum of squared loads falls with every move, no two stores change places, and nothing is
//! undone. While two stores are far apart, what is moved is of the weight that is usual on the fuller one,
//! so that numbers of replicas become even with loads. At the end the largest weight that fits goes: it
//! leaves the pair as close as possible, far below the spread at which the next move begins, so that loads
//! that only tremble move nothing.
//!
//! No move makes the zones of a range worse, so this and zone spread do not fight.

use std::collections::BTreeMap;

use cribwork_types::StoreId;

use crate::replicas::{Books, Urgency, Wanted, mib};
use crate::{Decision, Operator, RangeView, StoreView, repair};

/// The name under which replica balance signs its decisions.
pub const REPLICA_BALANCE: &str = "replica-balance";

struct Move<'a> {
    range: &'a RangeView,
    from: StoreId,
    to: StoreId,
}

/// How far loads may differ, and their mean.
pub(crate) struct Spread {
    pub(crate) mean: u64,
    pub(crate) allowed: u64,
    pub(crate) stores: usize,
}

impl Spread {
    pub(crate) fn of(books: &Books<'_>) -> Self {
        let loads: Vec<u64> = taking_part(books).map(|store| books.load(store.id)).collect();
        let mean = loads.iter().sum::<u64>() / loads.len().max(1) as u64;
        let allowed = mean.saturating_mul(books.policy.load_spread_percent) / 100;
        Self { mean, allowed, stores: loads.len() }
    }
}

fn taking_part<'a>(books: &Books<'a>) -> impl Iterator<Item = &'a StoreView> {
    let policy = books.policy;
    books.view.stores.iter().filter(move |store| store.may_lead(policy))
}

/// Plans moves from stores that carry much to stores that carry little.
pub(crate) fn schedule(books: &mut Books<'_>) -> Vec<Decision> {
    let mut decisions = Vec::new();
    let mut by_store: BTreeMap<StoreId, Vec<&RangeView>> = BTreeMap::new();
    for range in &books.view.ranges {
        for voter in range.descriptor.voters() {
            by_store.entry(voter.store).or_default().push(range);
        }
    }
    while books.has_room(Urgency::Balance)
        && let Some(found) = best_move(books, &by_store)
    {
        let decision = decision(books, &found);
        if let Some(operator) = &decision.operator {
            books.note(operator, Some(found.range));
        }
        decisions.push(decision);
    }
    decisions
}

/// Excesses of this many usual weights and more are far.
const FAR: u64 = 4;

/// Between the most different stores that can exchange something.
fn best_move<'a>(
    books: &Books<'a>,
    by_store: &BTreeMap<StoreId, Vec<&'a RangeView>>,
) -> Option<Move<'a>> {
    let spread = Spread::of(books);
    let mut stores: Vec<&StoreView> = taking_part(books).collect();
    stores.sort_by_key(|store| (books.load(store.id), store.id));
    for from in stores.iter().rev() {
        for to in &stores {
            let excess = books.load(from.id).saturating_sub(books.load(to.id));
            if excess <= spread.allowed {
                break;
            }
            let busy = |store| !books.store_has_room(store, Urgency::Balance);
            if busy(from.id) || busy(to.id) || books.unfit(to).is_some() {
                continue;
            }
            let held = by_store.get(&from.id).map(Vec::as_slice).unwrap_or_default();
            let usual = books.load(from.id) / held.len().max(1) as u64;
            let is_far = excess / FAR >= usual;
            let given = held.iter().filter(|range| may_move(books, range, from.id, to.id, excess));
            let best = given.min_by_key(|range| {
                let leads = range.leader.is_some_and(|leader| leader.store == from.id);
                let weight = books.weight(range);
                let miss = if is_far { weight.abs_diff(usual) } else { excess - weight };
                (leads, miss, range.descriptor.id)
            });
            if let Some(range) = best {
                return Some(Move { range, from: from.id, to: to.id });
            }
        }
    }
    None
}

fn may_move(books: &Books<'_>, range: &RangeView, from: StoreId, to: StoreId, excess: u64) -> bool {
    books.weight(range).saturating_mul(2) <= excess
        && range.descriptor.replica_on(to).is_none()
        && books.zone_mates(range, to, Some(from)) <= books.zone_mates(range, from, None)
        && books.blocked(range).is_none()
        && repair::is_healthy(books, range)
}

fn decision(books: &Books<'_>, found: &Move<'_>) -> Decision {
    let Move { range, from, to } = *found;
    let id = range.descriptor.id;
    Decision {
        subject: id,
        scheduler: REPLICA_BALANCE,
        operator: Some(Operator::ChangeReplicas { range: id, add: Some(to), remove: Some(from) }),
        chosen: Some(to),
        candidates: candidates(books, range, from, Some(to)),
        summary: format!(
            "range {id}: {} from store {from} ({}) to store {to} ({})",
            mib(books.weight(range)),
            mib(books.load(from)),
            mib(books.load(to))
        ),
    }
}

fn candidates(
    books: &Books<'_>,
    range: &RangeView,
    from: StoreId,
    chosen: Option<StoreId>,
) -> Vec<crate::Candidate> {
    let load = books.load(from);
    let refuse = |store: &StoreView| {
        let excess = load.saturating_sub(books.load(store.id));
        let mates = books.zone_mates(range, store.id, Some(from));
        if mates > books.zone_mates(range, from, None) {
            Some("its zone holds more of the range's replicas".to_owned())
        } else if books.weight(range).saturating_mul(2) > excess {
            Some("carries too much for a move to make loads more even".to_owned())
        } else if excess <= Spread::of(books).allowed {
            Some("carries about as much".to_owned())
        } else {
            None
        }
    };
    let wanted = Wanted { range, leaving: Some(from), urgency: Urgency::Balance, refuse: &refuse };
    let mut candidates = books.choose(&wanted).candidates;
    for candidate in &mut candidates {
        if Some(candidate.store) == chosen {
            candidate.rejected_because = None;
        } else if candidate.rejected_because.is_none() {
            let why = match chosen {
                Some(chosen) => format!("store {chosen} carries less"),
                None => "other moves come first".to_owned(),
            };
            candidate.rejected_because = Some(why);
        }
    }
    candidates
}

/// What replica balance does about a range, or why nothing.
pub(crate) fn look(books: &Books<'_>, range: &RangeView) -> Decision {
    let id = range.descriptor.id;
    let nothing = |candidates, why: String| Decision::nothing(id, REPLICA_BALANCE, candidates, why);
    if let Some(why) = books.blocked(range) {
        return nothing(Vec::new(), why);
    }
    if !repair::is_healthy(books, range) {
        return nothing(Vec::new(), "it needs repair first".to_owned());
    }
    let planned = schedule(&mut books.clone());
    let count = planned.len();
    if let Some(decision) = planned.into_iter().find(|decision| decision.subject == id) {
        return decision;
    }
    let fullest = range.descriptor.voters().max_by_key(|voter| books.load(voter.store));
    let Some(from) = fullest.map(|voter| voter.store) else {
        return nothing(Vec::new(), "it has no voters".to_owned());
    };
    let spread = Spread::of(books);
    let why = match count {
        0 => format!(
            "no move within the limits evens out loads: the mean is {}, differences of {} are left \
             alone",
            mib(spread.mean),
            mib(spread.allowed)
        ),
        _ => format!("{count} moves of other ranges come first"),
    };
    nothing(candidates(books, range, from, None), why)
}
