//! What people order, and what they are told. The other stores are mute: what is ordered stays under way.

use cribwork_proto::cribwork::admin::{DecisionInfo, MoveReplicaRequest, RegisterRequest};
use cribwork_types::{RangeId, StoreId};
use tonic::Code;

use super::harness::{Life, eventually};

/// A cluster of four stores, of which the fourth has joined later and holds nothing; all are heard.
fn four_stores(ranges: u32) -> Life {
    let life = Life::first(ranges);
    let request =
        RegisterRequest { address: "127.0.0.1:9".to_owned(), instance: 1, ..Default::default() };
    assert_eq!(life.wait(life.place.register(request)).unwrap().store_id, 4);
    life
}

/// All stores say that they live; store 1 leads everything.
fn all_beat(life: &Life) {
    let led: Vec<_> = life.plan.ranges.iter().map(|range| (range.clone(), 1)).collect();
    life.beat(1, true, &led);
    for store in [2, 3] {
        life.beat(store, true, &[]);
    }
    life.beat_of(4, "127.0.0.1:9");
}

fn move_replica(range: u64, from_store: u64, to_store: u64, watch: bool) -> MoveReplicaRequest {
    MoveReplicaRequest { range, from_store, to_store, watch }
}

fn says(decisions: &[DecisionInfo], text: &str) -> bool {
    decisions.iter().any(|decision| decision.summary.contains(text))
}

#[test]
fn a_move_is_begun_once_and_every_mistake_has_its_words() {
    let life = four_stores(1);
    all_beat(&life);
    let ask = |ask: MoveReplicaRequest| life.place.move_replica(&ask);
    assert_eq!(ask(move_replica(99, 1, 4, false)).unwrap_err().grpc_code(), Code::NotFound);
    for (from, to, words) in [
        (4, 77, "store 4 holds no replica"),
        (1, 2, "holds a replica of range 1 already"),
        (1, 77, "store 77 is down"),
    ] {
        let error = ask(move_replica(1, from, to, false)).unwrap_err();
        assert!(error.to_string().contains(words), "{from} to {to}: {error}");
    }
    let watched = ask(move_replica(1, 2, 4, true)).unwrap_err();
    assert!(watched.to_string().contains("did not move"), "{watched}");

    assert!(!ask(move_replica(1, 2, 4, false)).unwrap().done);
    let again = ask(move_replica(1, 2, 4, false)).unwrap();
    assert!(!again.done, "the same order again: {again:?}");
    let other = ask(move_replica(1, 3, 4, false)).unwrap_err();
    assert_eq!(other.grpc_code(), Code::ResourceExhausted, "{other}");
    let explained = life.place.explain_range(RangeId(1)).unwrap();
    assert_eq!(explained.subject, "range 1");
    assert!(says(&explained.decisions, "as somebody asked"), "{explained:?}");
    assert!(says(&explained.decisions, "under way"), "{explained:?}");
}

#[test]
fn an_order_takes_its_first_step() {
    let life = four_stores(1);
    all_beat(&life);
    life.place.move_replica(&move_replica(1, 2, 4, false)).unwrap();
    eventually("a step", || {
        all_beat(&life);
        let explained = life.place.explain_range(RangeId(1)).unwrap();
        says(&explained.decisions, "takes in a replica without a vote")
    });
}

#[test]
fn a_store_stays_what_it_was_told_to_be() {
    let life = four_stores(4);
    all_beat(&life);
    let drained = life.wait(life.place.drain(StoreId(1), false)).unwrap();
    assert!(!drained.done && drained.text.contains("leads 5 ranges"), "{drained:?}");
    let mute = life.wait(life.place.drain(StoreId(2), false)).unwrap();
    assert!(mute.done, "it leads nothing: {mute:?}");
    all_beat(&life);
    let state =
        |life: &Life, store: usize| life.place.stores().unwrap()[store - 1].info.state.name();
    assert_eq!((state(&life, 1), state(&life, 3)), ("draining", "up"), "heartbeats change nothing");

    let life = life.crash();
    life.wait(life.place.tso(1)).unwrap();
    all_beat(&life);
    assert_eq!(state(&life, 1), "draining");
    let explained = life.place.explain_store(StoreId(1)).unwrap();
    assert!(says(&explained.decisions, "is draining"), "{explained:?}");
    assert!(life.wait(life.place.drain(StoreId(1), true)).unwrap().done);
    assert_eq!(state(&life, 1), "up");
    let unknown = life.wait(life.place.drain(StoreId(9), false)).unwrap_err();
    assert_eq!(unknown.grpc_code(), Code::NotFound);
}

#[test]
fn a_store_that_holds_nothing_is_gone_at_once_and_one_that_is_needed_stays() {
    let life = four_stores(1);
    all_beat(&life);
    assert!(!life.wait(life.place.decommission(StoreId(4))).unwrap().done);
    eventually("store 4 is decommissioned", || {
        all_beat(&life);
        life.wait(life.place.decommission(StoreId(4))).unwrap().done
    });
    let refused = life.wait(life.place.decommission(StoreId(3))).unwrap_err();
    assert!(refused.to_string().contains("add a node first"), "{refused}");
    let back = life.wait(life.place.drain(StoreId(4), true)).unwrap_err();
    assert!(back.to_string().contains("decommissioned"), "{back}");
}

#[test]
fn settings_hold_over_restarts() {
    let life = Life::first(1);
    life.wait(life.place.tso(1)).unwrap();
    let set = life.wait(life.place.config("repair_after", Some("10s"))).unwrap();
    assert_eq!((set.len(), set[0].value.as_str()), (1, "10s"));
    let wrong = life.wait(life.place.config("replication_factor", Some("4"))).unwrap_err();
    assert_eq!(wrong.grpc_code(), Code::InvalidArgument);
    let life = life.crash();
    life.wait(life.place.tso(1)).unwrap();
    let all = life.wait(life.place.config("", None)).unwrap();
    let values: Vec<_> = all.iter().map(|it| (it.key.as_str(), it.value.as_str())).collect();
    let kept = [
        ("replication_factor", "3"),
        ("repair_after", "10s"),
        ("split_size", "96MiB"),
        ("merge_below", "0B"),
        ("cold_after", "30s"),
    ];
    assert_eq!(values, kept);
}

#[test]
fn a_new_leader_counts_silence_from_when_it_began_to_listen() {
    let life = four_stores(1);
    life.wait(life.place.config("repair_after", Some("1m"))).unwrap();
    let life = life.crash();
    life.wait(life.place.tso(1)).unwrap();
    let led: Vec<_> = life.plan.ranges.iter().map(|range| (range.clone(), 1)).collect();
    life.beat(1, true, &led);
    life.beat(2, true, &[]);
    life.beat_of(4, "127.0.0.1:9");
    let explained = life.place.explain_range(RangeId(1)).unwrap();
    assert!(says(&explained.decisions, "its replica is replaced after"), "{explained:?}");
    assert!(!says(&explained.decisions, "replaced by"), "{explained:?}");
}
