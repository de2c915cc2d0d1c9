//! Decisions in words.

use cribwork_types::{RangeId, key};

use super::books::{Books, Hop, Item, Scope, absent};
use super::path::GAIN_MIN;
use super::{LEADER_BALANCE, balance_leaders};
use crate::{BalancePolicy, Candidate, ClusterView, Decision, Operator, StoreView};

/// The decision to make `hop`, which is number `step` of a path of `steps`, in the state before it.
pub(super) fn decision(
    books: &Books<'_>,
    scope: Scope,
    hop: Hop,
    step: usize,
    steps: usize,
) -> Decision {
    let item = &books.items[hop.item];
    let (from, to) = (books.stores[hop.from], books.stores[hop.to]);
    let counts = books.counts(scope);
    let stores = books.view.stores.iter().filter(|store| store.id != from);
    let mut candidates: Vec<Candidate> =
        stores.map(|store| candidate(books, scope, item, store, Some(hop))).collect();
    candidates.sort_by_key(|candidate| candidate.store);
    let mut summary = format!(
        "range {}: leader from store {from} ({} of {}) to store {to} ({})",
        item.descriptor.id,
        counts[hop.from],
        describe(books, scope),
        counts[hop.to],
    );
    if steps > 1 {
        summary += &format!(", transfer {} of {steps} that even them out together", step + 1);
    }
    Decision {
        subject: item.descriptor.id,
        scheduler: LEADER_BALANCE,
        operator: Some(Operator::TransferLeader { range: item.descriptor.id, from, to }),
        chosen: Some(to),
        candidates,
        summary,
    }
}

/// What leader balance thinks of one range: the decision it would make now, or one without an
/// operator that says why the leader stays. `None` if the range is not in the view.
pub fn explain_leader(
    view: &ClusterView,
    policy: &BalancePolicy,
    range: RangeId,
) -> Option<Decision> {
    let seen = view.ranges.iter().find(|seen| seen.descriptor.id == range)?;
    let decisions = balance_leaders(view, policy);
    let planned = decisions.len();
    if let Some(decision) = decisions.into_iter().find(|decision| decision.subject == range) {
        return Some(decision);
    }
    let stays = |candidates, why: String| Decision {
        subject: range,
        scheduler: LEADER_BALANCE,
        operator: None,
        chosen: None,
        candidates,
        summary: format!("range {range}: no transfer: {why}"),
    };
    let books = Books::new(view, policy);
    if seen.descriptor.span.start == key::top_bound() {
        return Some(stays(Vec::new(), "the empty range above all user keys is ignored".into()));
    }
    let item = books.items.iter().find(|item| item.descriptor.id == range)?;
    let why = if view.operators.iter().flat_map(Operator::ranges).any(|busy| busy == range) {
        "an operator for it is in flight".to_owned()
    } else if seen.descriptor.is_joint() {
        "its members are changing".to_owned()
    } else if !item.movable {
        "it was moved recently".to_owned()
    } else {
        match (item.leader_store, item.leader) {
            (None, _) => "its leader is not known".to_owned(),
            (Some(store), None) => format!("its leader, store {store}, takes no part in balancing"),
            (Some(store), Some(leader)) if planned == 0 => format!(
                "store {store} leads {} of {}, and no transfer within the operator limits would even \
                 them out",
                books.leaders[leader],
                describe(&books, Scope::All)
            ),
            (Some(_), Some(_)) => format!("{planned} transfers of other ranges come first"),
        }
    };
    let scope = item.group.map_or(Scope::All, Scope::Group);
    let stores = view.stores.iter().filter(|store| Some(store.id) != item.leader_store);
    let mut candidates: Vec<Candidate> =
        stores.map(|store| candidate(&books, scope, item, store, None)).collect();
    candidates.sort_by_key(|candidate| candidate.store);
    Some(stays(candidates, why))
}

/// A store as a possible taker of `item`.
fn candidate(
    books: &Books<'_>,
    scope: Scope,
    item: &Item<'_>,
    store: &StoreView,
    chosen: Option<Hop>,
) -> Candidate {
    let index = books.index(store.id);
    let score = match index {
        Some(index) => books.counts(scope)[index],
        // Not in the books: count what it leads by name.
        None => {
            let led = |item: &&Item<'_>| item.leader_store == Some(store.id);
            let compared = |item: &&Item<'_>| match scope {
                Scope::Group(group) => item.group == Some(group),
                Scope::All => true,
            };
            books.items.iter().filter(compared).filter(led).count() as u64
        }
    };
    let rejected_because = if index.is_some() && index == chosen.map(|hop| hop.to) {
        None
    } else {
        Some(rejection(books, scope, item, store, chosen))
    };
    Candidate { store: store.id, score, rejected_because }
}

fn rejection(
    books: &Books<'_>,
    scope: Scope,
    item: &Item<'_>,
    store: &StoreView,
    chosen: Option<Hop>,
) -> String {
    if let Some(why) = absent(store, books.policy) {
        return why;
    }
    let Some(to) = books.index(store.id).filter(|to| item.voters.contains(to)) else {
        return "holds no voter of the range".to_owned();
    };
    if !books.has_room(to, 1) {
        return format!("takes part in {} operators, which is the limit", books.operators[to]);
    }
    let Some(from) = item.leader else {
        return "the present leader takes no part in balancing".to_owned();
    };
    let counts = books.counts(scope);
    if counts[to] + GAIN_MIN > counts[from] {
        return format!(
            "leads {} of {}, the present leader {}: a move would gain nothing",
            counts[to],
            describe(books, scope),
            counts[from]
        );
    }
    if scope == Scope::All && books.group_lead(item, from, to) < 1 {
        return "leads as many of the ranges that share the first 4 bytes as the present leader"
            .to_owned();
    }
    match chosen {
        Some(hop) => format!("store {} is at least as good", books.stores[hop.to]),
        None => "other moves come first".to_owned(),
    }
}

fn describe(books: &Books<'_>, scope: Scope) -> String {
    match scope {
        Scope::All => format!("{} ranges", books.items.len()),
        Scope::Group(group) => {
            let group = &books.groups[group];
            format!("{} ranges of \"{}\"", group.items.len(), group.tag.escape_ascii())
        }
    }
}
