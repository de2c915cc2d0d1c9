//! What stores report, and what follows from it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cribwork_proto::cribwork::admin::operator::Step;
use cribwork_router::split;
use cribwork_types::{RangeDescriptor, RangeId, ReplicaId, StoreId, key};

use super::harness::{Beat, Life, eventually};
use crate::place::RangeRow;

fn look(life: &Life, encoded: &[u8]) -> RangeRow {
    // A new life has to take over first.
    life.wait(life.place.tso(1)).unwrap();
    life.place.range_of(encoded).unwrap()
}

fn leader(life: &Life, encoded: &[u8]) -> Option<StoreId> {
    look(life, encoded).leader.map(|leader| leader.store)
}

fn transfers(beat: &Beat) -> Vec<(u64, u64)> {
    let steps = beat.operators.iter().filter_map(|operator| operator.step.as_ref());
    steps.map(|Step::TransferLeader(transfer)| (transfer.range, transfer.to_store)).collect()
}

/// The ranges below the empty one on top.
fn user_ranges(life: &Life) -> Vec<RangeDescriptor> {
    let ranges = life.plan.ranges.iter();
    ranges.filter(|range| range.span.start != key::top_bound()).cloned().collect()
}

#[test]
fn a_split_is_found_after_a_restart() {
    let life = Life::first(1);
    let parent = life.plan.ranges[0].clone();
    assert_eq!(life.beat(1, true, &[(parent.clone(), 1)]).placement_leader_store, 1);
    let bound = Bytes::from(key::encode(b"m"));
    let ids: Vec<_> =
        parent.replicas.iter().zip(50..).map(|(it, id)| (it.store, ReplicaId(id))).collect();
    let (left, right) = split(&parent, &bound, RangeId(9), &ids).unwrap();
    life.beat(1, false, &[(left.clone(), 1), (right.clone(), 1)]);
    // Late and repeated reports of the old shape change nothing.
    life.beat(1, false, &[(parent, 1)]);

    let below = key::encode(b"lzz");
    let life = life.crash();
    for (asked, wanted) in [(&below[..], &left), (&bound[..], &right), (b"", &left)] {
        assert_eq!(*look(&life, asked).descriptor, *wanted);
    }
    assert_eq!(leader(&life, &bound), None, "nobody has reported since");
    let beat = life.beat(2, false, &[(right.clone(), 4)]);
    assert!(beat.want_full, "a new leader knows nothing of this store");
    assert!(!life.beat(2, true, &[(right.clone(), 4)]).want_full);
    assert_eq!(leader(&life, &bound), Some(StoreId(2)));
    life.beat(1, true, &[(right.clone(), 3)]);
    assert_eq!(leader(&life, &bound), Some(StoreId(2)), "of an earlier term");
}

#[test]
fn a_store_that_leads_too_much_is_told_to_hand_over() {
    let life = Life::first(16);
    let ranges: Vec<_> = user_ranges(&life).into_iter().map(|range| (range, 1)).collect();
    life.beat(2, true, &[]);
    life.beat(3, true, &[]);
    let mut told = Vec::new();
    eventually("operators", || {
        life.beat(2, true, &[]);
        life.beat(3, true, &[]);
        told = transfers(&life.beat(1, true, &ranges));
        !told.is_empty()
    });
    assert!(told.len() >= 10, "16 of 16 with store 1, so 10 or 11 must go: {told:?}");
    let to = |store| told.iter().filter(|(_, to)| *to == store).count();
    assert!(to(2) >= 5 && to(3) >= 5 && to(1) == 0, "{told:?}");
    assert!(transfers(&life.beat(2, false, &[])).is_empty(), "store 2 has nothing to give");
}

#[test]
fn balanced_leaders_stay() {
    let life = Life::first(16);
    let led = |store: u64| {
        let ranges = user_ranges(&life).into_iter().enumerate();
        let mine = ranges.filter(|(at, _)| *at as u64 % 3 + 1 == store);
        mine.map(|(_, range)| (range, 1)).collect::<Vec<_>>()
    };
    // Several periods of the scheduler.
    let until = Instant::now() + Duration::from_millis(1_600);
    while Instant::now() < until {
        for store in 1..=3 {
            assert!(transfers(&life.beat(store, true, &led(store))).is_empty());
        }
    }
}
