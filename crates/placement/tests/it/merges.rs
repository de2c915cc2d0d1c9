//! Merges: which are planned, and the steps of a single one.

use std::sync::Arc;

use cribwork_placement::{
    Decision, MERGE, Operator, StoreState, explain_range, explain_store, next_step, scatter,
    schedule,
};
use cribwork_types::{RangeEpoch, RangeId, ReplicaRole, StoreId, key};

use crate::model::{Fate, Model, describe, range, stores};
use crate::steps::walk;

const MIB: u64 = 1 << 20;

/// Range 2 goes into range 1.
fn merge() -> Operator {
    Operator::Merge { range: RangeId(2), into: RangeId(1) }
}

/// Range 1, led by store 1, to the left of range 2, led by its first member.
fn pair(store_count: u64, left: &[u64], right: &[u64]) -> Model {
    let ranges = vec![range(1, left, left[0]), range(2, right, right[0])];
    let mut model = Model::new(stores(store_count), ranges);
    model.policy.merge_below_bytes = 8 * MIB;
    model.pass(60_000);
    model
}

fn descriptor(model: &mut Model, id: u64) -> &mut cribwork_types::RangeDescriptor {
    Arc::make_mut(&mut model.range_mut(RangeId(id)).descriptor)
}

/// What is to be done to range 2 now.
fn next(model: &Model) -> String {
    let range = model.view.range(RangeId(2)).unwrap();
    describe(&next_step(&merge(), range, &model.view, &model.policy))
}

/// Which ranges go into which.
fn merges(decisions: &[Decision]) -> Vec<(u64, u64)> {
    let ids = |decision: &Decision| match decision.operator? {
        Operator::Merge { range, into } => Some((range.get(), into.get())),
        _ => None,
    };
    decisions.iter().filter_map(ids).collect()
}

fn planned(model: &Model) -> Vec<(u64, u64)> {
    merges(&schedule(&model.view, &model.policy))
}

fn why(model: &Model, id: u64) -> String {
    let decisions = explain_range(&model.view, &model.policy, RangeId(id));
    let mut of_merging = decisions.into_iter().filter(|decision| decision.scheduler == MERGE);
    of_merging.next().unwrap().summary
}

#[test]
fn on_the_same_stores_it_is_one_step() {
    let mut model = pair(3, &[1, 2, 3], &[3, 1, 2]);
    descriptor(&mut model, 2).epoch.version = 7;
    assert_eq!(walk(&mut model, merge()), ["absorbed by range 1"]);
    let left = &model.view.ranges[0].descriptor;
    assert_eq!(left.epoch, RangeEpoch { conf_ver: 1, version: 8 });
    assert!(left.span.end.is_empty() && model.view.ranges.len() == 1);
}

#[test]
fn replicas_move_one_at_a_time_and_the_leader_last() {
    let wanted = [
        "learner on store 4",
        "replica 1000001 votes, 2002 goes",
        "learner on store 5",
        "replica 1000003 votes, 2003 goes",
        "learner on store 6",
        "leader to store 4",
        "replica 1000005 votes, 2001 goes",
        "absorbed by range 1",
    ];
    assert_eq!(walk(&mut pair(6, &[4, 5, 6], &[1, 2, 3]), merge()), wanted);
    let alone = [
        "learner on store 1",
        "replica 1000001 votes",
        "leader to store 1",
        "replica 2002 goes",
        "absorbed by range 1",
    ];
    assert_eq!(walk(&mut pair(2, &[1], &[2]), merge()), alone);
}

#[test]
fn more_or_fewer_replicas_only_go_or_only_come() {
    let fewer = ["replica 2003 goes", "replica 2004 goes", "absorbed by range 1"];
    assert_eq!(walk(&mut pair(5, &[1, 2, 5], &[1, 2, 3, 4, 5]), merge()), fewer);
    let more = ["learner on store 3", "replica 1000001 votes", "absorbed by range 1"];
    assert_eq!(walk(&mut pair(3, &[1, 2, 3], &[1, 2]), merge()), more);
    // And on other stores, until there are as many.
    let steps = walk(&mut pair(5, &[1, 2, 3], &[1, 2, 4, 5]), merge());
    assert_eq!(steps[..2], ["replica 2004 goes", "learner on store 3"]);
    let steps = walk(&mut pair(4, &[1, 2, 3], &[1, 4]), merge());
    assert_eq!(steps[..2], ["learner on store 2", "replica 1000001 votes"]);
    assert_eq!(steps.last().unwrap(), "absorbed by range 1");
}

#[test]
fn learners_of_the_source_go_or_get_their_vote() {
    let learner = |model: &mut Model, store| {
        let other = range(2, &[store], store).descriptor.replicas[0];
        let learner = cribwork_types::ReplicaDescriptor { role: ReplicaRole::Learner, ..other };
        descriptor(model, 2).replicas.push(learner);
    };
    let mut begun = pair(5, &[1, 4, 5], &[1, 2, 3]);
    learner(&mut begun, 5);
    let steps = walk(&mut begun, merge());
    assert_eq!(steps[0], "replica 2005 votes, 2002 goes", "what has begun goes on");
    let mut stray = pair(5, &[1, 2, 4], &[1, 2, 3]);
    learner(&mut stray, 5);
    assert_eq!(walk(&mut stray, merge())[..2], ["replica 2005 goes", "learner on store 4"]);
}

#[test]
fn it_waits_for_what_passes() {
    let mut model = pair(4, &[1, 2, 3], &[1, 2, 4]);
    descriptor(&mut model, 2).replicas[1].role = ReplicaRole::Incoming;
    assert_eq!(next(&model), "waits: its leader is finishing a change of members");
    descriptor(&mut model, 2).replicas[1].role = ReplicaRole::Voter;
    descriptor(&mut model, 1).replicas[1].role = ReplicaRole::Incoming;
    assert_eq!(next(&model), "waits: range 1: its leader is finishing a change of members");
    descriptor(&mut model, 1).replicas[1].role = ReplicaRole::Learner;
    assert_eq!(next(&model), "waits: range 1: a learner waits to become a voter");
    descriptor(&mut model, 1).replicas[1].role = ReplicaRole::Voter;
    let leader = model.range_mut(RangeId(1)).leader.take();
    assert_eq!(next(&model), "waits: range 1: it has no leader");
    model.range_mut(RangeId(1)).leader = leader;
    model.range_mut(RangeId(2)).leader = None;
    assert_eq!(next(&model), "waits: it has no leader");
}

#[test]
fn it_is_given_up_if_a_store_is_silent() {
    for (store, joint) in [(3, false), (4, false), (2, true)] {
        let mut model = pair(4, &[1, 2, 3], &[1, 2, 4]);
        model.kill(store);
        // Even while it would wait for something else: repair may have to wait for this to end.
        if joint {
            descriptor(&mut model, 2).replicas[0].role = ReplicaRole::Outgoing;
            model.range_mut(RangeId(2)).leader = None;
        }
        assert_eq!(next(&model), format!("given up: store {store} does not answer"));
        model.revive(store);
        model.store_mut(store).heartbeat_age_ms = model.policy.leaders.heartbeat_age_max_ms + 1;
        assert_eq!(next(&model), format!("given up: store {store} does not answer"));
    }
    let mut model = pair(4, &[1, 2, 3], &[1, 2, 4]);
    model.view.stores.retain(|store| store.id != StoreId(3));
    assert_eq!(next(&model), "given up: store 3 does not answer", "it was forgotten");
}

#[test]
fn it_is_given_up_if_they_are_no_neighbours_any_more() {
    let mut model = pair(3, &[1, 2, 3], &[1, 2, 3]);
    // The left one was split, and the new range lies between.
    descriptor(&mut model, 1).span.end = key::encode(&[0, 1, 5]).into();
    assert_eq!(next(&model), "given up: range 1 is not its left neighbour any more");
    // The source was merged into it: whoever still sees both is done.
    descriptor(&mut model, 1).span.end = bytes::Bytes::new();
    model.range_mut(RangeId(2)).leader = None;
    assert_eq!(next(&model), "done");
    model.view.ranges.remove(0);
    assert_eq!(next(&model), "given up: range 1 is no more");
    let mut model = pair(3, &[1, 2, 3], &[1, 2, 3]);
    let backwards = Operator::Merge { range: RangeId(1), into: RangeId(2) };
    let wanted = ["given up: range 2 is not its left neighbour any more"];
    assert_eq!(walk(&mut model, backwards), wanted);
}

#[test]
fn the_empty_range_above_all_user_keys_stays() {
    let mut model = pair(3, &[1, 2, 3], &[1, 2, 3]);
    descriptor(&mut model, 2).span.start = key::top_bound();
    descriptor(&mut model, 1).span.end = key::top_bound();
    assert_eq!(planned(&model), []);
    let wanted = "range 1: not with range 2: the empty range above all user keys stays";
    assert_eq!(why(&model, 1), wanted);
    assert_eq!(next(&model), "given up: the empty range above all user keys stays");
}

#[test]
fn it_makes_no_zone_fuller() {
    let mut model = pair(4, &[1, 2, 4], &[1, 2, 3]);
    for (id, zone) in [(1, "a"), (2, "b"), (3, "c"), (4, "a")] {
        model.store_mut(id).zone = zone.to_owned();
    }
    // Else zone spread would move the left one first.
    (model.store_mut(3).used_bytes, model.store_mut(3).capacity_bytes) = (99, 100);
    assert_eq!(planned(&model), []);
    let wanted = "range 2: not with range 1: range 1 has more replicas in a zone than range 2";
    assert_eq!(why(&model, 2), wanted);
    model.store_mut(4).zone = "c".to_owned();
    assert_eq!(planned(&model), [(2, 1)]);
}

/// What explanations say while something else is in the way.
#[test]
fn it_says_what_comes_first() {
    let mut model = pair(3, &[1, 2, 3], &[1, 2, 3]);
    assert_eq!(planned(&model), [(2, 1)]);
    let of_both = "0 MiB and 0 MiB are together less than 8 MiB; they lie on the same stores";
    assert_eq!(why(&model, 1), format!("range 1: absorbs range 2: {of_both}"));
    assert_eq!(why(&model, 2), format!("range 2: goes into range 1: {of_both}"));
    model.view.recently_moved.insert(RangeId(1));
    assert!(why(&model, 2).ends_with("range 1: it was moved a moment ago, or could not be"));
    assert_eq!(planned(&model), []);
    model.view.recently_moved.clear();
    model.policy.merges_max = 0;
    let wanted = "range 2: not with range 1: as many merges as allowed are in flight";
    assert_eq!(why(&model, 2), wanted);
    model.policy.merges_max = 1;
    model.view.ranges.push(range(3, &[1, 2], 1));
    model.tile();
    assert_eq!(planned(&model), [], "range 3 lacks a replica");
    assert!(why(&model, 1).ends_with("not with range 2: repairs come first"));
    assert!(why(&model, 2).ends_with("not with range 3: range 3: it needs repair first"));
    model.view.ranges.truncate(1);
    assert_eq!(why(&model, 1), "range 1: it has no neighbour");
}

/// A learner that an attempt left behind is taken up by the next one; one of the target is waited for.
#[test]
fn only_the_target_must_have_no_learner() {
    for (id, wanted) in [(1, vec![]), (2, vec![(2, 1)])] {
        let mut model = pair(4, &[1, 2, 3], &[1, 2, 3]);
        model.policy.load_spread_percent = 1000;
        let other = range(9, &[4], 4).descriptor.replicas[0];
        let learner = cribwork_types::ReplicaDescriptor { role: ReplicaRole::Learner, ..other };
        descriptor(&mut model, id).replicas.push(learner);
        assert_eq!(planned(&model), wanted, "range {id} has a learner");
    }
}

/// A range is part of one pair, and pairs that need no move come first, then small ones.
#[test]
fn the_cheapest_pairs_come_first() {
    let sizes = [2, 2, 1, 1, 9, 3, 3];
    let ranges = (1..=7).map(|id| {
        let mut range = range(id, if id < 6 { &[1, 2, 3] } else { &[1, 2, 4] }, 1);
        range.size_bytes = sizes[id as usize - 1] * MIB;
        range
    });
    let mut model = Model::new(stores(4), ranges.collect());
    model.policy.merge_below_bytes = 8 * MIB;
    assert_eq!(planned(&model), [], "they have come to be just now");
    model.pass(model.policy.merge_unchanged_ms);
    // Loads are even enough.
    model.policy.load_spread_percent = 1000;
    assert_eq!(planned(&model), [(4, 3), (2, 1), (7, 6)]);
    model.policy.merges_max = 1;
    assert_eq!(planned(&model), [(4, 3)]);
    let wanted = "range 1: not with range 2: other merges come first";
    assert_eq!(why(&model, 1), wanted);
    model.range_mut(RangeId(4)).descriptor = {
        let mut moved = range(4, &[1, 2, 4], 1).descriptor;
        Arc::make_mut(&mut moved).span.end = key::encode(&[0, 5]).into();
        moved
    };
    assert_eq!(planned(&model), [(3, 2)], "range 4 would have to move first");
}

/// While a merge is in flight, both its ranges are left alone, and its number is bounded.
#[test]
fn nobody_else_touches_what_is_merged() {
    let ranges: Vec<_> = (1..=4).map(|id| range(id, &[1, 2, 3], 1)).collect();
    let mut model = Model::new(stores(6), ranges);
    model.policy.merge_below_bytes = 8 * MIB;
    model.pass(60_000);
    let touched = |model: &Model| {
        let mut ids: Vec<u64> = Vec::new();
        let all = model.view.ranges.iter().map(|it| it.descriptor.id).collect();
        let decisions = schedule(&model.view, &model.policy);
        for decision in decisions.iter().chain(&scatter(&model.view, &model.policy, &all)) {
            let ranges = decision.operator.unwrap().ranges();
            ids.extend(ranges.map(RangeId::get));
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    assert_eq!(touched(&model), [1, 2, 3, 4]);
    model.view.operators = vec![Operator::Merge { range: RangeId(3), into: RangeId(2) }];
    assert_eq!(touched(&model), [1, 4]);
    for state in [StoreState::Draining, StoreState::Decommissioning] {
        model.store_mut(1).state = state;
        assert_eq!(touched(&model), [1, 4], "{state:?}");
    }
    for id in [2, 3] {
        for decision in explain_range(&model.view, &model.policy, RangeId(id)) {
            assert_eq!(decision.operator, None, "{}", decision.summary);
        }
    }
    assert_eq!(explain_store(&model.view, &model.policy, StoreId(1)).len(), 4);
}

/// What is merged weighs what it will weigh, so nothing is moved for a difference that is about to go.
#[test]
fn balance_counts_a_merge_as_done() {
    let mut ranges: Vec<_> = (1..=2).map(|id| range(id, &[1], 1)).collect();
    ranges.push(range(3, &[2], 2));
    ranges.push(range(4, &[2], 2));
    ranges.push(range(5, &[1], 1));
    ranges.push(range(6, &[1], 1));
    let mut model = Model::new(stores(2), ranges);
    model.policy.replication_factor = cribwork_placement::ReplicationFactor::new(1).unwrap();
    let moves = |model: &Model| {
        let decisions = schedule(&model.view, &model.policy);
        decisions.iter().filter(|it| it.scheduler == "replica-balance").count()
    };
    assert_eq!(moves(&model), 1, "16 MiB and 8 MiB");
    model.view.operators = vec![Operator::Merge { range: RangeId(6), into: RangeId(5) }];
    assert_eq!(moves(&model), 0, "12 MiB and 8 MiB");
}

/// As large a cluster as there may be, and all of it small.
#[test]
fn ten_thousand_small_ranges_become_few() {
    let ranges = (1..=10_000).map(|id| range(id, &[1, 2, 3], 1 + id % 3)).collect();
    let mut model = Model::new(stores(3), ranges);
    assert_eq!(planned(&model), [], "off, as it is unless it is asked for");
    model.policy.merge_below_bytes = 1;
    model.policy.merges_max = 5_000;
    model.policy.merge_unchanged_ms = 0;
    let decisions = schedule(&model.view, &model.policy);
    assert_eq!(merges(&decisions).len(), 5_000, "every one with its neighbour");
}

/// What is small is merged as far as that goes, wherever it lies, and nothing happens after that.
#[test]
fn it_ends() {
    for seed in 0..20_u64 {
        let ranges = (1..=30).map(|id| {
            let on = [0, 1, 2].map(|step| (seed + id + step * (1 + seed % 2)) % 5 + 1);
            let mut range = range(id, &on, on[0]);
            range.size_bytes = ((id * 7 + seed) % 5) * MIB;
            range
        });
        let mut model = Model::new(stores(5), ranges.collect());
        model.policy.merge_below_bytes = 16 * MIB;
        let (mut quiet, mut merged) = (0, 0);
        for at in 0.. {
            let round = model.round(&mut || Fate::Done);
            merged += merges(&round.decisions).len();
            let idle = round.decisions.is_empty() && round.steps.is_empty() && model.is_idle();
            quiet = if idle { quiet + 1 } else { 0 };
            if quiet == 100 {
                break;
            }
            assert!(at < 1_000, "seed {seed} does not settle");
        }
        let left = model.view.ranges.len();
        assert_eq!(30 - merged, left, "seed {seed}: no merge was begun in vain");
        let sizes: Vec<u64> = model.view.ranges.iter().map(|range| range.size_bytes).collect();
        assert!(sizes.windows(2).all(|pair| pair[0] + pair[1] >= 16 * MIB), "{sizes:?}");
    }
}
