//! Zone spread: no zone holds more replicas of a range than it must.
//!
//! A move takes a voter from a zone to one with fewer others of the range, so the sum over zones of
//! the squared number of voters falls with every move, and it ends.

use crate::replicas::{Books, Urgency, Wanted};
use crate::{Decision, Operator, RangeView, StoreView, repair};

/// The name under which zone spread signs its decisions.
pub const ZONE_SPREAD: &str = "zone-spread";

/// Plans moves for ranges that share a zone without need.
pub(crate) fn schedule(books: &mut Books<'_>) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for range in &books.view.ranges {
        if !books.has_room(Urgency::Balance) {
            break;
        }
        if crowding(books, range) == 0 {
            continue;
        }
        let decision = look(books, range);
        if let Some(operator) = &decision.operator {
            books.note(operator, Some(range));
            decisions.push(decision);
        }
    }
    decisions
}

/// The most other voters that any voter shares its zone with.
pub(crate) fn crowding(books: &Books<'_>, range: &RangeView) -> usize {
    let voters = range.descriptor.voters();
    voters.map(|voter| books.zone_mates(range, voter.store, None)).max().unwrap_or_default()
}

/// What zone spread does about a range, or why nothing.
pub(crate) fn look(books: &Books<'_>, range: &RangeView) -> Decision {
    let id = range.descriptor.id;
    let nothing = |candidates, why: String| Decision::nothing(id, ZONE_SPREAD, candidates, why);
    let crowding = crowding(books, range);
    if crowding == 0 {
        return nothing(Vec::new(), "no two of its replicas share a zone".to_owned());
    }
    if let Some(why) = books.blocked(range) {
        return nothing(Vec::new(), why);
    }
    if !repair::is_healthy(books, range) {
        return nothing(Vec::new(), "it needs repair first".to_owned());
    }
    if !books.has_room(Urgency::Balance) {
        return nothing(Vec::new(), "as many changes as allowed are in flight".to_owned());
    }
    let crowded = range.descriptor.voters().filter(|voter| {
        books.zone_mates(range, voter.store, None) == crowding
            && books.store_has_room(voter.store, Urgency::Balance)
    });
    let leader = range.leader.map(|leader| leader.id);
    let leaving = crowded
        .max_by_key(|voter| (leader != Some(voter.id), books.load(voter.store), voter.store));
    let Some(leaving) = leaving else {
        return nothing(Vec::new(), "the stores that share a zone are busy".to_owned());
    };
    let refuse = |store: &StoreView| {
        let mates = books.zone_mates(range, store.id, Some(leaving.store));
        (mates >= crowding).then(|| "its zone holds as many of the range's replicas".to_owned())
    };
    let leaves = Some(leaving.store);
    let wanted = Wanted { range, leaving: leaves, urgency: Urgency::Balance, refuse: &refuse };
    let choice = books.choose(&wanted);
    let Some(store) = choice.chosen else {
        let why = format!("replicas share a zone, but {}", choice.why_none);
        return nothing(choice.candidates, why);
    };
    Decision {
        subject: id,
        scheduler: ZONE_SPREAD,
        operator: Some(Operator::ChangeReplicas { range: id, add: Some(store), remove: leaves }),
        chosen: Some(store),
        candidates: choice.candidates,
        summary: format!(
            "range {id}: store {} shares its zone ({crowding} other replicas there): moved to store {store}",
            leaving.store
        ),
    }
}
