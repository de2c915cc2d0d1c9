//! All schedulers in one: in which order they look, and what each thinks of a range or a store.

use cribwork_types::{RangeId, StoreId};

use crate::replica_balance::Spread;
use crate::replicas::{Books, mib, seconds};
use crate::{
    ClusterView, DRAIN, Decision, LEADER_BALANCE, Operator, PlacementPolicy, REPAIR,
    REPLICA_BALANCE, StoreState, StoreView, balance_leaders, drain, explain_leader, merge, repair,
    replica_balance, zones,
};

/// What is to be done now, as much as the policy lets in beside what is in flight, each for another
/// range. What is urgent comes first: repair, then drain, then zones; loads are balanced and
/// small neighbours are merged only while nothing needs repair, and leaders come last, where they find
/// what the others left.
pub fn schedule(view: &ClusterView, policy: &PlacementPolicy) -> Vec<Decision> {
    let mut view = view.clone();
    let mut decisions = Vec::new();
    let repairs = repair::schedule(&mut Books::new(&view, policy));
    let calm = repairs.is_empty();
    take_in(&mut view, &mut decisions, repairs);
    let drains = drain::schedule(&view, policy);
    take_in(&mut view, &mut decisions, drains);
    let spreads = zones::schedule(&mut Books::new(&view, policy));
    take_in(&mut view, &mut decisions, spreads);
    if calm {
        let moves = replica_balance::schedule(&mut Books::new(&view, policy));
        take_in(&mut view, &mut decisions, moves);
        let merges = merge::schedule(&view, policy);
        take_in(&mut view, &mut decisions, merges);
    }
    decisions.extend(balance_leaders(&view, &policy.leaders));
    decisions
}

fn take_in(view: &mut ClusterView, decisions: &mut Vec<Decision>, news: Vec<Decision>) {
    view.operators.extend(news.iter().filter_map(|decision| decision.operator));
    decisions.extend(news);
}

/// What each scheduler thinks of a range: what it would do now, or why nothing. Empty if the range is
/// not in the view.
pub fn explain_range(
    view: &ClusterView,
    policy: &PlacementPolicy,
    range: RangeId,
) -> Vec<Decision> {
    let Some(seen) = view.range(range) else {
        return Vec::new();
    };
    let books = Books::new(view, policy);
    let mut decisions = vec![
        repair::look(&books, seen, REPAIR),
        drain::look(view, policy, seen),
        zones::look(&books, seen),
        replica_balance::look(&books, seen),
        merge::look(&books, seen),
    ];
    decisions.extend(explain_leader(view, &policy.leaders, range));
    decisions
}

/// What a scheduler thinks of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreNote {
    /// Which scheduler.
    pub scheduler: &'static str,
    /// In one sentence.
    pub summary: String,
}

/// What each scheduler thinks of a store. Empty if the store is not in the view.
pub fn explain_store(
    view: &ClusterView,
    policy: &PlacementPolicy,
    store: StoreId,
) -> Vec<StoreNote> {
    let Some(seen) = view.store(store) else {
        return Vec::new();
    };
    let books = Books::new(view, policy);
    let members = view.ranges.iter().flat_map(|range| &range.descriptor.replicas);
    let held = members.filter(|member| member.store == store).count();
    let led = view.ranges.iter().filter_map(|range| range.leader);
    let led = led.filter(|leader| leader.store == store).count();
    let changing = |operator: &&Operator| operator.stores().any(|it| it == store);
    let operators = view.operators.iter().filter(changing).count();
    let note = |scheduler, summary| StoreNote { scheduler, summary };
    vec![
        note(REPAIR, of_repair(&books, seen, held)),
        note(DRAIN, of_drain(seen, held, led)),
        note(REPLICA_BALANCE, of_balance(&books, seen, held)),
        note(
            LEADER_BALANCE,
            format!(
                "store {store}: leads {led} of {} ranges; operators in flight: {operators}",
                view.ranges.len()
            ),
        ),
    ]
}

fn of_repair(books: &Books<'_>, store: &StoreView, held: usize) -> String {
    let id = store.id;
    if let Some(why) = repair::lost(books, id) {
        return match held {
            0 => format!("store {id}: {why}, and holds no replica"),
            _ => format!("store {id}: {why}: {held} replicas are to be replaced"),
        };
    }
    let age = store.heartbeat_age_ms;
    if store.is_live(books.policy) {
        return format!("store {id}: heard of {} ago", seconds(age));
    }
    let left = books.policy.repair_after_ms.saturating_sub(age);
    format!(
        "store {id}: silent for {}; its {held} replicas are replaced in {}",
        seconds(age),
        seconds(left)
    )
}

fn of_drain(store: &StoreView, held: usize, led: usize) -> String {
    let id = store.id;
    match store.state {
        StoreState::Draining => format!("store {id}: is draining, {led} leaders are left"),
        StoreState::Decommissioning => {
            format!("store {id}: is decommissioning, {held} replicas are left, {led} of them lead")
        }
        StoreState::Decommissioned => format!("store {id}: is decommissioned"),
        StoreState::Up | StoreState::Down => format!("store {id}: was not told to go"),
    }
}

fn of_balance(books: &Books<'_>, store: &StoreView, held: usize) -> String {
    let (id, load, spread) = (store.id, mib(books.load(store.id)), Spread::of(books));
    if let Some(why) = books.unfit(store) {
        return format!("store {id}: gets no replicas: {why}");
    }
    format!(
        "store {id}: carries {load} in {held} replicas; the mean of {} stores is {}, differences of \
         {} are left alone",
        spread.stores,
        mib(spread.mean),
        mib(spread.allowed)
    )
}
