//! The steps of single operators.

use std::sync::Arc;

use cribwork_placement::{Operator, Step, StoreState, next_step};
use cribwork_types::{RangeId, ReplicaRole, StoreId};

use crate::model::{Model, describe, range, stores};

fn change(add: Option<u64>, remove: Option<u64>) -> Operator {
    let (add, remove) = (add.map(StoreId), remove.map(StoreId));
    Operator::ChangeReplicas { range: RangeId(1), add, remove }
}

fn transfer(from: u64, to: u64) -> Operator {
    Operator::TransferLeader { range: RangeId(1), from: StoreId(from), to: StoreId(to) }
}

fn model(store_count: u64, members: &[u64]) -> Model {
    Model::new(stores(store_count), vec![range(1, members, 1)])
}

/// The steps that an operator takes, in words, while each is carried out at once; until its range is
/// merged away, if it is.
pub(crate) fn walk(model: &mut Model, operator: Operator) -> Vec<String> {
    let mut steps = Vec::new();
    let id = operator.range();
    while steps.len() < 20 {
        let Some(range) = model.view.range(id) else {
            break;
        };
        let step = next_step(&operator, range, &model.view, &model.policy);
        steps.push(describe(&step));
        if matches!(step, Step::Wait { .. } | Step::Done | Step::Abort { .. }) {
            break;
        }
        model.carry_out(id, &step, false);
    }
    steps
}

#[test]
fn a_replica_moves_by_learner_and_one_change() {
    let steps = walk(&mut model(4, &[1, 2, 3]), change(Some(4), Some(2)));
    assert_eq!(steps, ["learner on store 4", "replica 1000001 votes, 1002 goes", "done"]);
}

#[test]
fn a_leader_hands_over_before_it_goes() {
    let mut three = model(4, &[1, 2, 3]);
    three.store_mut(2).leaders = 9;
    let steps = walk(&mut three, change(Some(4), Some(1)));
    let wanted =
        ["learner on store 4", "leader to store 3", "replica 1000001 votes, 1001 goes", "done"];
    assert_eq!(steps, wanted, "to the store that leads least");
    let steps = walk(&mut model(2, &[1]), change(Some(2), Some(1)));
    let alone = [
        "learner on store 2",
        "replica 1000001 votes",
        "leader to store 2",
        "replica 1001 goes",
        "done",
    ];
    assert_eq!(steps, alone, "the only voter waits for its successor");
}

#[test]
fn what_is_half_done_is_taken_up_where_it_is() {
    let mut model = model(4, &[1, 2, 3]);
    Arc::make_mut(&mut model.view.ranges[0].descriptor).replicas[1].role = ReplicaRole::Learner;
    assert_eq!(walk(&mut model, change(Some(2), None)), ["replica 1002 votes", "done"]);
    assert_eq!(walk(&mut model, change(None, Some(4))), ["done"]);
    Arc::make_mut(&mut model.view.ranges[0].descriptor).replicas[2].role = ReplicaRole::Outgoing;
    let steps = walk(&mut model, change(Some(4), Some(2)));
    assert_eq!(steps, ["waits: its leader is finishing a change of members"]);
    model.view.ranges[0].leader = None;
    assert!(walk(&mut model, change(Some(4), Some(2)))[0].starts_with("waits"));
}

#[test]
fn what_makes_no_sense_any_more_is_given_up() {
    let dead = |store| {
        let mut model = model(4, &[1, 2, 3]);
        model.store_mut(store).state = StoreState::Down;
        model
    };
    let steps = walk(&mut dead(4), change(Some(4), Some(2)));
    assert_eq!(steps, ["given up: store 4 does not answer any more"]);
    let steps = walk(&mut dead(3), change(None, Some(2)));
    assert_eq!(steps, ["given up: too few of its voters would be left that answer"]);
    assert_eq!(walk(&mut dead(3), change(None, Some(3))), ["replica 1003 goes", "done"]);
    let steps = walk(&mut model(1, &[1]), change(None, Some(1)));
    assert_eq!(steps, ["given up: its leader would have to go and nobody could follow it"]);
    let mut model = model(4, &[1, 2, 3]);
    assert_eq!(walk(&mut model, transfer(1, 2)), ["leader to store 2", "done"]);
    assert_eq!(walk(&mut model, transfer(1, 3)), ["given up: store 2 leads it by now"]);
    let steps = walk(&mut model, transfer(2, 4));
    assert_eq!(steps, ["given up: store 4 holds no voter of it any more"]);
}
