//! Scenarios, and simulations that must settle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use cribwork_router::{evenly_split_bounds, tagged_bounds};
use cribwork_types::{
    KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole,
    StoreId, key,
};

use super::*;
use crate::{Operator, RangeView, StoreState, StoreView};

/// A small linear congruential generator: the same numbers on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }
}

fn stores(n: u64) -> Vec<StoreView> {
    (1..=n).map(|id| StoreView { id: StoreId(id), ..StoreView::default() }).collect()
}

fn range(id: u64, start: Bytes, stores: &[u64], leader: u64) -> RangeView {
    let replica = |store: &u64| ReplicaDescriptor {
        id: ReplicaId(100 * id + store),
        store: StoreId(*store),
        role: ReplicaRole::Voter,
    };
    let descriptor = RangeDescriptor {
        id: RangeId(id),
        span: KeyRange { start, end: Bytes::new() },
        epoch: RangeEpoch::INITIAL,
        replicas: stores.iter().map(replica).collect(),
    };
    let leader = descriptor.replica_on(StoreId(leader));
    RangeView { descriptor: Arc::new(descriptor), leader, term: 1, ..RangeView::default() }
}

/// `n` ungrouped ranges and the one on top, on stores 1, 2, 3, all led by store 1.
fn fresh(n: u32) -> ClusterView {
    let mut starts = vec![Bytes::new()];
    starts.extend(evenly_split_bounds(n).unwrap());
    let ranges =
        starts.into_iter().zip(1..).map(|(start, id)| range(id, start, &[1, 2, 3], 1)).collect();
    ClusterView { stores: stores(3), ranges, ..ClusterView::default() }
}

/// Leaders per store, the top range left out.
fn leaders(view: &ClusterView) -> BTreeMap<u64, u64> {
    let mut leaders: BTreeMap<u64, u64> =
        view.stores.iter().map(|store| (store.id.get(), 0)).collect();
    for range in &view.ranges {
        if let Some(leader) = range.leader
            && range.descriptor.span.start != key::top_bound()
        {
            *leaders.entry(leader.store.get()).or_default() += 1;
        }
    }
    leaders
}

fn spread(leaders: &BTreeMap<u64, u64>) -> u64 {
    leaders.values().max().unwrap() - leaders.values().min().unwrap()
}

fn transfer(view: &mut ClusterView, operator: Operator) {
    let Operator::TransferLeader { range, from, to } = operator else {
        panic!("leader balance changes no replicas: {operator:?}");
    };
    let range = view.ranges.iter_mut().find(|seen| seen.descriptor.id == range).unwrap();
    assert_eq!(range.leader.unwrap().store, from);
    range.leader = range.descriptor.replica_on(to);
    assert_eq!(range.leader.unwrap().role, ReplicaRole::Voter);
}

/// Decides and carries out at once.
fn round(view: &mut ClusterView, policy: &BalancePolicy) -> usize {
    let decisions = balance_leaders(view, policy);
    for decision in &decisions {
        transfer(view, decision.operator.unwrap());
    }
    decisions.len()
}

fn settle(view: &mut ClusterView) {
    let policy = BalancePolicy::default();
    for _ in 0..1000 {
        if round(view, &policy) == 0 {
            return;
        }
    }
    panic!("no end of transfers: {:?}", leaders(view));
}

/// `(G, C)` of the module's argument, from the view alone.
fn potential(view: &ClusterView) -> (u64, u64) {
    let mut groups: BTreeMap<Vec<u8>, BTreeMap<StoreId, u64>> = BTreeMap::new();
    let mut sizes: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut all: BTreeMap<StoreId, u64> = BTreeMap::new();
    for range in &view.ranges {
        if range.descriptor.span.start == key::top_bound() {
            continue;
        }
        let leader = range.leader.unwrap().store;
        *all.entry(leader).or_default() += 1;
        let start = key::decode(&range.descriptor.span.start).unwrap_or_default();
        if let Some(tag) = start.get(..4) {
            *sizes.entry(tag.to_vec()).or_default() += 1;
            *groups.entry(tag.to_vec()).or_default().entry(leader).or_default() += 1;
        }
    }
    groups.retain(|tag, _| sizes[tag] >= crate::GROUP_RANGES_MIN);
    let squares = |counts: &BTreeMap<StoreId, u64>| counts.values().map(|n| n * n).sum::<u64>();
    (groups.values().map(squares).sum(), squares(&all))
}

/// A random cluster: tables of several sizes, ranges without a table, three replicas each.
fn random(seed: u64, store_count: u64) -> ClusterView {
    let mut numbers = Numbers(seed);
    let mut starts: Vec<Bytes> = evenly_split_bounds(1 + numbers.below(20) as u32).unwrap();
    for table in 0..numbers.below(5) {
        let tag = [b't', b'a', b'b', table as u8];
        starts.extend(tagged_bounds(tag, 1 + numbers.below(20) as u32));
    }
    let mut ranges = Vec::new();
    for (start, id) in starts.into_iter().zip(1..) {
        let mut places: Vec<u64> = (1..=store_count).collect();
        while places.len() > 3 {
            places.swap_remove(numbers.below(places.len()));
        }
        let leader = places[numbers.below(places.len())];
        ranges.push(range(id, start, &places, leader));
    }
    ClusterView { stores: stores(store_count), ranges, ..ClusterView::default() }
}

#[test]
fn sixteen_ranges_over_three_stores_end_up_five_or_six_each() {
    let mut view = fresh(16);
    settle(&mut view);
    assert_eq!(leaders(&view), BTreeMap::from([(1, 6), (2, 5), (3, 5)]));
    let top = view.ranges.last().unwrap();
    assert_eq!(top.leader.unwrap().store, StoreId(1), "the empty top range stays where it is");
}

#[test]
fn a_store_that_comes_back_gets_its_share() {
    let mut view = fresh(16);
    view.stores[2].state = StoreState::Down;
    settle(&mut view);
    assert_eq!(leaders(&view), BTreeMap::from([(1, 8), (2, 8), (3, 0)]));
    view.stores[2].state = StoreState::Up;
    view.stores[2].heartbeat_age_ms = crate::HEARTBEAT_AGE_MAX_MS + 1;
    assert!(balance_leaders(&view, &BalancePolicy::default()).is_empty(), "not heard of yet");
    view.stores[2].heartbeat_age_ms = 10;
    settle(&mut view);
    assert_eq!(spread(&leaders(&view)), 1);
}

#[test]
fn stores_that_are_leaving_get_nothing() {
    for state in [StoreState::Draining, StoreState::Decommissioning, StoreState::Decommissioned] {
        let mut view = fresh(8);
        view.stores[1].state = state;
        settle(&mut view);
        assert_eq!(leaders(&view), BTreeMap::from([(1, 4), (2, 0), (3, 4)]));
    }
}

#[test]
fn a_table_is_spread_even_if_the_whole_is_balanced() {
    let mut view = fresh(1);
    view.ranges.clear();
    for (at, start) in tagged_bounds(*b"bank", 8).into_iter().enumerate() {
        view.ranges.push(range(1 + at as u64, start, &[1, 2, 3], 1));
    }
    for (at, start) in tagged_bounds(*b"kvkv", 16).into_iter().enumerate() {
        view.ranges.push(range(20 + at as u64, start, &[1, 2, 3], 2 + at as u64 % 2));
    }
    assert_eq!(spread(&leaders(&view)), 0);
    settle(&mut view);
    let table = |from: usize, to: usize| {
        let ranges = view.ranges[from..to].to_vec();
        spread(&leaders(&ClusterView { ranges, ..view.clone() }))
    };
    assert_eq!((table(0, 8), table(8, 24), spread(&leaders(&view))), (1, 1, 0));
}

#[test]
fn random_clusters_settle_and_never_turn_back() {
    for seed in 0..60 {
        let store_count = 3 + seed % 4;
        let mut view = random(seed, store_count);
        let policy = BalancePolicy::default();
        let mut last = potential(&view);
        let mut settled = false;
        for _ in 0..1000 {
            let decisions = balance_leaders(&view, &policy);
            if settled {
                assert!(decisions.is_empty(), "seed {seed}: woke up again");
                continue;
            }
            settled = decisions.is_empty();
            for decision in decisions {
                transfer(&mut view, decision.operator.unwrap());
            }
            let now = potential(&view);
            assert!(settled || now < last, "seed {seed}: {last:?} to {now:?}");
            last = now;
        }
        assert!(settled, "seed {seed}");
        if store_count == 3 {
            assert!(spread(&leaders(&view)) <= 1, "seed {seed}: {:?}", leaders(&view));
        }
    }
}

/// Transfers take a while, some fail, stores come and go; then the noise stops and it settles.
#[test]
fn settles_with_slow_and_failing_transfers() {
    for seed in 0..20 {
        let mut view = random(1000 + seed, 3);
        let mut numbers = Numbers(seed);
        let policy =
            BalancePolicy { operators_max: 5, operators_per_store_max: 3, ..Default::default() };
        for step in 0..1000 {
            let noisy = step < 500;
            view.recently_moved.clear();
            for operator in std::mem::take(&mut view.operators) {
                match numbers.below(if noisy { 4 } else { 2 }) {
                    0 => view.operators.push(operator),
                    3 => _ = view.recently_moved.insert(operator.range()),
                    _ => transfer(&mut view, operator),
                }
            }
            if noisy && numbers.below(20) == 0 {
                let store = numbers.below(3);
                view.stores[store].state =
                    if numbers.below(2) == 0 { StoreState::Up } else { StoreState::Down };
            } else if !noisy {
                view.stores.iter_mut().for_each(|store| store.state = StoreState::Up);
            }
            let decisions = balance_leaders(&view, &policy);
            view.operators.extend(decisions.iter().filter_map(|decision| decision.operator));
            check_limits(&view, &policy);
            assert!(step < 900 || view.operators.is_empty(), "seed {seed}: still busy at {step}");
        }
        assert!(spread(&leaders(&view)) <= 1, "seed {seed}: {:?}", leaders(&view));
    }
}

fn check_limits(view: &ClusterView, policy: &BalancePolicy) {
    assert!(view.operators.len() <= policy.operators_max);
    let mut per_store: BTreeMap<StoreId, usize> = BTreeMap::new();
    let mut ranges = BTreeSet::new();
    for operator in &view.operators {
        let range = operator.range();
        assert!(ranges.insert(range), "two operators for range {range}");
        operator.stores().for_each(|store| *per_store.entry(store).or_default() += 1);
    }
    assert!(per_store.values().all(|count| *count <= policy.operators_per_store_max));
}

/// The evenest choice of leaders, by trying them all.
fn brute_force(view: &ClusterView) -> u64 {
    let members: Vec<Vec<u64>> = view
        .ranges
        .iter()
        .map(|range| range.descriptor.replicas.iter().map(|member| member.store.get()).collect())
        .collect();
    let choices: usize = members.iter().map(Vec::len).product();
    let cost = |choice: usize| {
        let (mut rest, mut counts) = (choice, [0_u64; 8]);
        for places in &members {
            counts[places[rest % places.len()] as usize] += 1;
            rest /= places.len();
        }
        counts.iter().map(|count| count * count).sum()
    };
    (0..choices).map(cost).min().unwrap()
}

#[test]
fn reaches_the_optimum_where_replicas_are_not_everywhere() {
    let mut longer_paths = 0;
    for seed in 0..150 {
        let mut numbers = Numbers(seed);
        let mut view = ClusterView { stores: stores(5), ..ClusterView::default() };
        for id in 1..=9 {
            let first = 1 + numbers.below(5) as u64;
            let second = 1 + (first + numbers.below(4) as u64) % 5;
            let start = Bytes::from(key::encode(&[id as u8]));
            view.ranges.push(range(id, start, &[first, second], first));
        }
        let summaries = balance_leaders(&view, &BalancePolicy::default());
        longer_paths += summaries.iter().filter(|d| d.summary.contains("transfer 1 of")).count();
        settle(&mut view);
        assert_eq!(potential(&view).1, brute_force(&view), "seed {seed}");
    }
    assert!(longer_paths > 0, "the case with a store in between never came up");
}

#[test]
fn leaves_ranges_alone_that_are_being_moved() {
    let mut view = fresh(3);
    let policy = BalancePolicy::default();
    view.operators =
        vec![Operator::TransferLeader { range: RangeId(1), from: StoreId(1), to: StoreId(2) }];
    let subjects = |view: &ClusterView| -> Vec<_> {
        let decisions = balance_leaders(view, &policy);
        decisions
            .iter()
            .map(|decision| (decision.subject.get(), decision.chosen.unwrap().get()))
            .collect()
    };
    assert_eq!(subjects(&view), [(2, 3)], "the transfer in flight counts as done");
    view.recently_moved.insert(RangeId(2));
    assert_eq!(subjects(&view), [(3, 3)]);
    view.recently_moved.insert(RangeId(3));
    assert!(subjects(&view).is_empty());
}

#[test]
fn limits_are_kept() {
    let view = fresh(100);
    let policy = BalancePolicy { operators_max: 7, ..Default::default() };
    assert_eq!(balance_leaders(&view, &policy).len(), 7);
    let policy = BalancePolicy { operators_per_store_max: 3, ..Default::default() };
    assert_eq!(balance_leaders(&view, &policy).len(), 3);
    let policy = BalancePolicy { operators_max: 0, ..Default::default() };
    assert!(balance_leaders(&view, &policy).is_empty());
}

#[test]
fn odd_views_are_no_trouble() {
    let policy = BalancePolicy::default();
    assert!(balance_leaders(&ClusterView::default(), &policy).is_empty());
    let mut view = fresh(4);
    view.ranges[0].leader = None;
    view.ranges[1].leader =
        Some(ReplicaDescriptor { id: ReplicaId(1), store: StoreId(77), role: ReplicaRole::Voter });
    settle(&mut view);
    view.stores.clear();
    assert!(balance_leaders(&view, &policy).is_empty());
}

#[test]
fn a_learner_is_never_chosen() {
    let mut view = fresh(8);
    for range in &mut view.ranges {
        Arc::make_mut(&mut range.descriptor).replicas[1].role = ReplicaRole::Learner;
    }
    settle(&mut view);
    assert_eq!(leaders(&view), BTreeMap::from([(1, 4), (2, 0), (3, 4)]));
}

#[test]
fn decisions_say_why() {
    let mut view = fresh(4);
    view.stores.push(StoreView { id: StoreId(4), ..StoreView::default() });
    view.stores[1].state = StoreState::Draining;
    let decision = &balance_leaders(&view, &BalancePolicy::default())[0];
    assert_eq!(decision.scheduler, LEADER_BALANCE);
    assert_eq!(
        decision.operator,
        Some(Operator::TransferLeader { range: RangeId(1), from: StoreId(1), to: StoreId(3) })
    );
    assert_eq!(decision.chosen, Some(StoreId(3)));
    assert_eq!(decision.summary, "range 1: leader from store 1 (4 of 4 ranges) to store 3 (0)");
    let reasons: Vec<_> = decision
        .candidates
        .iter()
        .map(|candidate| {
            (candidate.store.get(), candidate.score, candidate.rejected_because.as_deref())
        })
        .collect();
    assert_eq!(
        reasons,
        [(2, 0, Some("is draining")), (3, 0, None), (4, 0, Some("holds no voter of the range"))]
    );
}

#[test]
fn explanations_also_say_why_nothing_happens() {
    let mut view = fresh(4);
    let policy = BalancePolicy::default();
    let why = |view: &ClusterView, range| explain_leader(view, &policy, RangeId(range)).unwrap();
    assert_eq!(why(&view, 1).chosen, Some(StoreId(2)));
    assert!(why(&view, 4).summary.ends_with("2 transfers of other ranges come first"));
    assert!(why(&view, 5).summary.contains("above all user keys"));
    view.recently_moved.insert(RangeId(1));
    assert!(why(&view, 1).summary.contains("moved recently"));
    view.recently_moved.clear();
    settle(&mut view);
    let decision = why(&view, 1);
    assert_eq!((decision.operator, decision.chosen, decision.candidates.len()), (None, None, 2));
    assert!(
        decision.summary.ends_with("operator limits would even them out"),
        "{}",
        decision.summary
    );
    assert!(decision.candidates.iter().all(|candidate| candidate.rejected_because.is_some()));
    view.ranges[0].leader = None;
    assert!(why(&view, 1).summary.contains("not known"));
    assert_eq!(explain_leader(&view, &policy, RangeId(99)), None);
}

#[test]
fn ranges_whose_members_change_keep_their_leader() {
    let mut view = fresh(2);
    let policy = BalancePolicy::default();
    let (range, add, remove) = (RangeId(1), Some(StoreId(4)), Some(StoreId(2)));
    view.operators = vec![Operator::ChangeReplicas { range, add, remove }];
    let subjects: Vec<_> =
        balance_leaders(&view, &policy).iter().map(|decision| decision.subject.get()).collect();
    assert_eq!(subjects, [2], "range 1 is in other hands");
    view.operators.clear();
    Arc::make_mut(&mut view.ranges[0].descriptor).replicas[1].role = ReplicaRole::Outgoing;
    assert_eq!(balance_leaders(&view, &policy)[0].subject, RangeId(2));
    let why = explain_leader(&view, &policy, RangeId(1)).unwrap();
    assert!(why.summary.ends_with("its members are changing"), "{}", why.summary);
}
