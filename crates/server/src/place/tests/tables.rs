//! What the tables promise over restarts.

use std::time::{Duration, Instant};

use cribwork_placement::IdKind;
use cribwork_proto::cribwork::admin::RegisterRequest;
use cribwork_types::{StoreId, Timestamp};
use tonic::Code;

use super::harness::{Life, eventually};
use crate::ServerError;

fn newcomer(address: &str, instance: u64) -> RegisterRequest {
    RegisterRequest { address: address.to_owned(), instance, ..RegisterRequest::default() }
}

#[test]
fn timestamps_rise_over_restarts() {
    let mut life = Life::first(2);
    let mut last = Timestamp::ZERO;
    for _ in 0..3 {
        for count in [1, 5, 64] {
            let next = life.wait(life.place.tso(count)).unwrap();
            assert!(next.logical() + 1 >= u64::from(count), "all in one millisecond");
            assert!(next.get() - u64::from(count) >= last.get(), "{next} after {last}");
            last = next;
        }
        life = life.crash();
    }
    let limit = Timestamp::LOGICAL_LIMIT as u32;
    assert!(life.wait(life.place.tso(limit)).unwrap() > last);
    for count in [0, limit + 1] {
        let error = life.wait(life.place.tso(count)).unwrap_err();
        assert_eq!(error.grpc_code(), Code::InvalidArgument, "{error}");
    }
}

#[test]
fn timestamps_for_many_at_once_are_all_different() {
    let life = Life::first(1);
    let asked = (0..200).map(|_| life.place.tso(3));
    let mut all: Vec<u64> = life
        .wait(futures::future::join_all(asked))
        .into_iter()
        .flat_map(|last| (0..3).map(move |back| last.as_ref().unwrap().get() - back))
        .collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 600);
}

#[test]
fn ids_are_never_handed_out_twice() {
    let mut life = Life::first(2);
    let mut next = 0;
    for round in 0..3 {
        for count in [1, 7] {
            let first = life.wait(life.place.alloc_ids(IdKind::Range, count)).unwrap();
            assert!(first >= next.max(4), "three ranges are planned; {first} in round {round}");
            next = first + u64::from(count);
        }
        life = life.crash();
    }
    assert!(life.wait(life.place.alloc_ids(IdKind::Replica, 1)).unwrap() > 9);
}

#[test]
fn a_newcomer_keeps_its_id() {
    let life = Life::first(1);
    let first = life.wait(life.place.register(newcomer("n:4", 9))).unwrap();
    assert_eq!((first.cluster_id, first.store_id), (77, 4));
    assert_eq!((first.stores.len(), first.placement_members), (4, vec![1]));
    let again = life.wait(life.place.register(newcomer("n:4", 9))).unwrap();
    assert_eq!(again.store_id, 4);
    let life = life.crash();
    assert_eq!(life.wait(life.place.register(newcomer("n:4", 9))).unwrap().store_id, 4);
    let wiped = life.wait(life.place.register(newcomer("n:4", 77))).unwrap_err();
    assert_eq!(wiped.grpc_code(), Code::InvalidArgument, "another process, without the data");
    for address in ["", "n", "n:", ":4", "n:0", "n:x", "n:70000"] {
        let refused = life.wait(life.place.register(newcomer(address, 1))).unwrap_err();
        assert_eq!(refused.grpc_code(), Code::InvalidArgument, "{address}: {refused}");
    }
    assert_eq!(life.wait(life.place.register(newcomer("n:5", 10))).unwrap().store_id, 5);
}

/// The state that the tables have of a store, as a heartbeat's answer tells it.
fn state(life: &Life, store: u64) -> String {
    let stores = life.beat_of(1, &life.plan.stores[0].address).stores;
    stores.into_iter().find(|it| it.id == store).expect("a store of the cluster").state
}

#[test]
fn who_comes_back_without_data_is_a_new_store_once_the_old_one_is_silent() {
    let life = Life::first(1);
    assert_eq!(life.wait(life.place.register(newcomer("n:4", 9))).unwrap().store_id, 4);
    life.beat_of(4, "n:4");
    let ask = || life.wait(life.place.register(newcomer("n:4", 77)));
    let refused = ask().unwrap_err().to_string();
    assert!(refused.contains("store 4") && refused.contains("a moment ago"), "{refused}");
    assert_eq!(state(&life, 4), "up");
    eventually("store 4 is silent", || ask().is_ok());
    assert_eq!(ask().unwrap().store_id, 5, "the same process is the same store");
    assert!(state(&life, 4).starts_with("decommission"));
    // It is all in the tables.
    let life = life.crash();
    let again = life.wait(life.place.register(newcomer("n:4", 77))).unwrap();
    assert_eq!(again.store_id, 5);
    assert!(state(&life, 4).starts_with("decommission"));
}

#[test]
fn a_store_of_the_plan_is_replaced_only_after_it_has_been_there() {
    let life = Life::first(1);
    let address = life.plan.stores[2].address.clone();
    let said_so = |life: &Life| {
        let refused = life.wait(life.place.register(newcomer(&address, 77))).unwrap_err();
        refused.to_string().contains("waits for its part of `init`")
    };
    assert!(said_so(&life));
    // However long it takes: nobody else hears of store 3 meanwhile.
    let life = life.crash();
    assert!(said_so(&life));
    life.beat(3, true, &[]);
    let life = life.crash();
    let ask = || life.wait(life.place.register(newcomer(&address, 77)));
    eventually("store 3 is silent", || ask().is_ok());
    assert_eq!(ask().unwrap().store_id, 4);
    assert!(state(&life, 3).starts_with("decommission"));
}

#[test]
fn a_newcomer_that_asks_twice_at_once_becomes_one_store() {
    let life = Life::first(1);
    let ask = || life.place.register(newcomer("n:4", 9));
    let (one, other) = life.wait(async { tokio::join!(ask(), ask()) });
    assert_eq!(one.unwrap().store_id, other.unwrap().store_id);
}

/// A caller's connection may break at any moment: whatever had begun, a new leader finds each
/// newcomer once, under the id that it was told.
#[test]
fn a_caller_that_goes_away_leaves_memory_and_tables_equal() {
    let life = Life::first(1);
    life.wait(life.place.tso(1)).unwrap();
    let mut told = Vec::new();
    for step in 1..80 {
        let request = newcomer(&format!("n:{step}"), step);
        let until = Instant::now() + Duration::from_micros(40 * step);
        life.wait(async {
            let mut call = Box::pin(life.place.register(request.clone()));
            while futures::poll!(&mut call).is_pending() && Instant::now() < until {
                tokio::task::yield_now().await;
            }
        });
        let answer = life.wait(life.place.register(request.clone())).unwrap();
        told.push((request.address, answer.store_id));
    }
    let life = life.crash();
    let stores = life.wait(life.place.register(newcomer("last:1", 1000))).unwrap().stores;
    for (address, id) in told {
        let found: Vec<_> = stores.iter().filter(|store| store.address == address).collect();
        assert_eq!(found.iter().map(|store| store.id).collect::<Vec<_>>(), [id], "{address}");
    }
}

#[test]
fn who_does_not_lead_refuses_what_was_passed_on() {
    let life = Life::of(StoreId(2), 1);
    let refused = life.wait(life.place.serve_tso(1, true)).unwrap_err();
    assert!(matches!(refused, ServerError::NotPlacementLeader { .. }), "{refused}");
    assert_eq!(refused.grpc_code(), Code::Unavailable);
}
