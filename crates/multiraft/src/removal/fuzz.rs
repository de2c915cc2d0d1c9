//! Hostile bytes for tombstones, and for the keys that the records of a store lie under.

use cribwork_fuzz::{Shape, target};

use super::*;
use crate::fuzz::seal;

#[test]
fn tombstone_records() {
    target("tombstone_records").seed(encode(ReplicaId(77))).repair(seal).run(|bytes| {
        let decoded = decode(Bytes::copy_from_slice(bytes));
        if let Ok(id) = &decoded {
            assert_eq!(encode(*id), bytes, "a tombstone has one encoding");
        }
        Shape::decoded(&decoded, |_| 0)
    });
}

#[test]
fn keys_of_records() {
    let range = RangeId(7);
    let state = [keys::replica(range), keys::tombstone(range), keys::applied(range)];
    let raft = [keys::entry(range, 9), keys::vote(range), keys::purged(range)];
    target("keys_of_records").seeds(state).seeds(raft).run(|bytes| {
        let (found, index) = (keys::state_range(bytes), keys::index_of(bytes));
        if let Some(range) = found {
            assert_eq!(&keys::tombstone(range)[1..], &bytes[1..9], "the id as it was written");
        }
        if let Ok(index) = index {
            assert_eq!(&keys::entry(RangeId(1), index)[9..], &bytes[9..17], "so is the index");
        }
        Shape::of(&(found.is_some(), index.is_ok()))
    });
}
