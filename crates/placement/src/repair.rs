//! Replica repair: every range has as many voters as the policy wants, each on a store that answers
//! and stays.
//!
//! A voter is *lost* if its store was silent for longer than `repair_after`, is to be decommissioned,
//! or is no store of the cluster. In this order:
//!
//! 1. more voters than wanted: the worst goes;
//! 2. a lost voter: one elsewhere takes its place, in one change;
//! 3. fewer voters than wanted: one more;
//! 4. a learner that no operator owns: it goes, at once from a lost store, else after a while.
//!
//! Nothing is done that would leave a majority of the voters silent. Ranges with the fewest voters
//! that answer come first.

use cribwork_types::{ReplicaDescriptor, ReplicaRole, StoreId};

use crate::operator::majority_is_live;
use crate::replicas::{Books, Urgency, Wanted, seconds};
use crate::{Candidate, Decision, Operator, RangeView, StoreState};

/// The name under which replica repair signs its decisions.
pub const REPAIR: &str = "repair";

/// What is wrong with a range.
enum Need {
    TooMany,
    /// The first to be replaced, and why it is lost.
    Replace(ReplicaDescriptor, String),
    TooFew,
    /// Why it goes.
    DropLearner(ReplicaDescriptor, String),
}

/// Plans what is needed most, as much as there is room for.
pub(crate) fn schedule(books: &mut Books<'_>) -> Vec<Decision> {
    let mut needy: Vec<(usize, &RangeView)> = Vec::new();
    for range in &books.view.ranges {
        if need(books, range).is_some() {
            let live = range.descriptor.voters().filter(|voter| books.is_live(voter.store));
            needy.push((live.count(), range));
        }
    }
    needy.sort_by_key(|(live, range)| (*live, range.descriptor.id));
    let mut decisions = Vec::new();
    for (_, range) in needy {
        if !books.has_room(Urgency::Repair) {
            break;
        }
        let decision = look(books, range, REPAIR);
        if let Some(operator) = &decision.operator {
            books.note(operator, Some(range));
            decisions.push(decision);
        }
    }
    decisions
}

/// True if the range has as many voters as wanted, none lost, and no learner to drop.
pub(crate) fn is_healthy(books: &Books<'_>, range: &RangeView) -> bool {
    need(books, range).is_none()
}

/// What repair does about a range, or why nothing.
pub(crate) fn look(books: &Books<'_>, range: &RangeView, scheduler: &'static str) -> Decision {
    let id = range.descriptor.id;
    let nothing = |candidates, why: String| Decision::nothing(id, scheduler, candidates, why);
    let Some(need) = need(books, range) else {
        return nothing(Vec::new(), healthy(books, range));
    };
    if let Some(why) = books.blocked(range) {
        return nothing(Vec::new(), why);
    }
    if !books.has_room(Urgency::Repair) {
        return nothing(Vec::new(), "as many changes as allowed are in flight".to_owned());
    }
    let (wanted, have) = (books.policy.replication_factor.get(), range.descriptor.voters().count());
    match need {
        Need::TooMany => {
            let worst = lost_voter(books, range).map(|(voter, _)| voter);
            let Some(worst) = worst.or_else(|| books.worst_voter(range)) else {
                return nothing(Vec::new(), "it has no voters".to_owned());
            };
            let why =
                format!("{have} replicas, {wanted} wanted: the one on store {} goes", worst.store);
            remove(books, range, scheduler, worst, why)
        }
        Need::DropLearner(learner, why) => {
            let why = format!("the learner on store {} goes: {why}", learner.store);
            remove(books, range, scheduler, learner, why)
        }
        Need::Replace(lost, why) => {
            let why = format!("store {} {why}", lost.store);
            add(books, range, scheduler, Some(lost.store), why)
        }
        Need::TooFew => {
            let why = format!("{have} of {wanted} replicas");
            add(books, range, scheduler, None, why)
        }
    }
}

fn add(
    books: &Books<'_>,
    range: &RangeView,
    scheduler: &'static str,
    lost: Option<StoreId>,
    why: String,
) -> Decision {
    let id = range.descriptor.id;
    let refuse = |_: &crate::StoreView| None;
    let wanted = Wanted { range, leaving: lost, urgency: Urgency::Repair, refuse: &refuse };
    let choice = books.choose(&wanted);
    let Some(store) = choice.chosen else {
        let why = format!("{why}, but {}", choice.why_none);
        return Decision::nothing(id, scheduler, choice.candidates, why);
    };
    let stays = range.descriptor.voters().map(|voter| voter.store);
    let after = stays.filter(|stays| Some(*stays) != lost).chain([store]);
    if !is_safe(books, range, after) {
        return Decision::nothing(id, scheduler, choice.candidates, unsafe_because(&why));
    }
    let summary = match lost {
        Some(_) => format!("range {id}: {why}: replaced by store {store}"),
        None => format!("range {id}: {why}: one more on store {store}"),
    };
    Decision {
        subject: id,
        scheduler,
        operator: Some(Operator::ChangeReplicas { range: id, add: Some(store), remove: lost }),
        chosen: Some(store),
        candidates: choice.candidates,
        summary,
    }
}

fn remove(
    books: &Books<'_>,
    range: &RangeView,
    scheduler: &'static str,
    worst: ReplicaDescriptor,
    why: String,
) -> Decision {
    let id = range.descriptor.id;
    let after = range.descriptor.voters().map(|voter| voter.store);
    if !is_safe(books, range, after.filter(|store| *store != worst.store)) {
        return Decision::nothing(id, scheduler, Vec::new(), unsafe_because(&why));
    }
    let others = range.descriptor.replicas.iter().filter(|replica| replica.id != worst.id);
    let stays = |replica: &ReplicaDescriptor| Candidate {
        store: replica.store,
        score: books.load(replica.store),
        rejected_because: Some(format!("store {} loses its replica first", worst.store)),
    };
    let mut candidates: Vec<Candidate> = others.map(stays).collect();
    let (store, score) = (worst.store, books.load(worst.store));
    candidates.push(Candidate { store, score, rejected_because: None });
    candidates.sort_by_key(|candidate| candidate.store);
    Decision {
        subject: id,
        scheduler,
        operator: Some(Operator::ChangeReplicas { range: id, add: None, remove: Some(store) }),
        chosen: Some(store),
        candidates,
        summary: format!("range {id}: {why}"),
    }
}

fn unsafe_because(why: &str) -> String {
    format!("{why}, but too few of its voters answer for a change")
}

fn is_safe(books: &Books<'_>, range: &RangeView, after: impl Iterator<Item = StoreId>) -> bool {
    let before = range.descriptor.voters().map(|voter| voter.store);
    let is_live = |store| books.is_live(store);
    majority_is_live(before, is_live) && majority_is_live(after, is_live)
}

fn need(books: &Books<'_>, range: &RangeView) -> Option<Need> {
    let (wanted, have) = (books.policy.replication_factor.get(), range.descriptor.voters().count());
    if have > wanted {
        return Some(Need::TooMany);
    }
    if let Some((voter, why)) = lost_voter(books, range) {
        return Some(Need::Replace(voter, why));
    }
    if have < wanted {
        return Some(Need::TooFew);
    }
    let learners = range.descriptor.replicas.iter();
    for learner in learners.filter(|replica| replica.role == ReplicaRole::Learner) {
        if let Some(why) = lost(books, learner.store) {
            return Some(Need::DropLearner(*learner, format!("its store {why}")));
        }
        if range.unchanged_ms >= books.policy.stray_learner_ms {
            let why = "nobody has made it a voter".to_owned();
            return Some(Need::DropLearner(*learner, why));
        }
    }
    None
}

/// The lost voter to see to first, and why it is lost: silent ones before those that still serve.
fn lost_voter(books: &Books<'_>, range: &RangeView) -> Option<(ReplicaDescriptor, String)> {
    let voters = range.descriptor.voters();
    let lost = voters.filter_map(|voter| Some((voter, lost(books, voter.store)?)));
    lost.min_by_key(|(voter, _)| (books.is_live(voter.store), voter.store))
}

/// Why replicas on this store are lost, if so.
pub(crate) fn lost(books: &Books<'_>, store: StoreId) -> Option<String> {
    let Some(store) = books.view.store(store) else {
        return Some("is no store of this cluster".to_owned());
    };
    match store.state {
        StoreState::Decommissioning | StoreState::Decommissioned => {
            Some(format!("is {}", store.state.name()))
        }
        _ if store.heartbeat_age_ms > books.policy.repair_after_ms => {
            Some(format!("is silent for {}", seconds(store.heartbeat_age_ms)))
        }
        _ => None,
    }
}

/// Why nothing needs repair, in words.
fn healthy(books: &Books<'_>, range: &RangeView) -> String {
    let voters = range.descriptor.voters();
    let silent = voters.filter_map(|voter| books.view.store(voter.store));
    let silent = silent.filter(|store| !store.is_live(books.policy)).map(|store| {
        format!(
            "store {} is silent for {}, its replica is replaced after {}",
            store.id,
            seconds(store.heartbeat_age_ms),
            seconds(books.policy.repair_after_ms)
        )
    });
    let mut notes: Vec<String> = silent.collect();
    if range.descriptor.replicas.iter().any(|replica| replica.role == ReplicaRole::Learner) {
        notes.push("a learner waits to become a voter".to_owned());
    }
    if notes.is_empty() {
        return format!("it has its {} replicas", books.policy.replication_factor.get());
    }
    notes.join("; ")
}
