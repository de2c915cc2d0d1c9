//! Scenarios of the epoch rule, and properties over random histories of splits, merges and
//! membership changes.

use cribwork_types::{RangeEpoch, ReplicaId, key};
use proptest::prelude::*;

use super::*;
use crate::testing::{History, changes, enc, range};

fn map_of(ranges: &[Arc<RangeDescriptor>]) -> RangeMap {
    let mut map = RangeMap::new();
    for range in ranges {
        assert_eq!(map.insert(range.clone()), Inserted::Applied { replaced: Vec::new() });
    }
    map
}

fn ids<'a>(entries: impl Iterator<Item = &'a RangeEntry>) -> Vec<u64> {
    entries.map(|entry| entry.descriptor.id.get()).collect()
}

#[test]
fn lookups() {
    let map = map_of(&[range(1, "", "f", 1), range(2, "f", "m", 1), range(3, "p", "", 1)]);
    let at = |key: &str| map.get(&enc(key)).map(|entry| entry.descriptor.id.get());
    assert_eq!((at(""), at("ezz"), at("f"), at("l")), (Some(1), Some(1), Some(2), Some(2)));
    assert_eq!((at("m"), at("n"), at("p"), at("zzz")), (None, None, Some(3), Some(3)));
    assert_eq!(map.get(b"").map(|entry| entry.descriptor.id), Some(RangeId(1)));

    let previous = |key: &str| map.previous(&enc(key)).map(|entry| entry.descriptor.id.get());
    assert_eq!((previous("a"), previous("g")), (None, Some(1)));
    assert_eq!((previous("n"), previous("q")), (None, None), "a gap has no neighbours");

    let scan = |start: &str, end: &str, limit| {
        let bound = |text: &str| {
            if text.is_empty() { Bytes::new() } else { enc(text) }
        };
        let span = KeyRange { start: bound(start), end: bound(end) };
        ids(map.scan(&span, limit))
    };
    assert_eq!(scan("", "", 9), [1, 2, 3]);
    assert_eq!(scan("", "", 2), [1, 2]);
    assert_eq!(scan("a", "f", 9), [1], "the end is exclusive");
    assert_eq!(scan("l", "q", 9), [2, 3]);
    assert_eq!(scan("m", "p", 9), [0; 0]);
    assert_eq!(scan("z", "a", 9), [0; 0]);
    assert_eq!(
        map.check_tiling(),
        Err(TilingError::Gap { span: KeyRange { start: enc("m"), end: enc("p") } })
    );
}

#[test]
fn a_child_displaces_its_parent_and_the_parent_comes_back_smaller() {
    let mut map = map_of(&[range(1, "", "", 1)]);
    let parent = map.get_by_id(RangeId(1)).unwrap().clone();
    assert_eq!(map.insert(range(2, "m", "", 2)), Inserted::Applied { replaced: vec![parent] });
    assert!(map.get(&enc("a")).is_none(), "nobody has told who holds it");
    assert_eq!(map.insert(range(1, "", "", 1)), Inserted::Stale { current: range(2, "m", "", 2) });
    assert_eq!(map.insert(range(1, "", "m", 2)), Inserted::Applied { replaced: Vec::new() });
    assert_eq!(map.insert(range(1, "", "m", 2)), Inserted::Unchanged);
    assert_eq!(map.check_tiling(), Ok(()));
}

#[test]
fn what_is_not_provably_newer_is_refused() {
    let mut map = map_of(&[range(1, "", "m", 3)]);
    let known = range(1, "", "m", 3);
    let stale = Inserted::Stale { current: known.clone() };
    assert_eq!(map.insert(range(2, "a", "b", 3)), stale, "same version, other range");
    assert_eq!(map.insert(range(1, "", "z", 3)), stale, "same epoch, other bounds");
    let crossing =
        RangeDescriptor { epoch: RangeEpoch { conf_ver: 0, version: 4 }, ..(*known).clone() };
    assert_eq!(map.insert(Arc::new(crossing)), stale, "newer in one part, older in the other");
    assert_eq!(map.insert(range(4, "x", "x", 9)), Inserted::Empty);
    assert_eq!(ids(map.iter()), [1]);
}

#[test]
fn leaders_by_term() {
    let mut map = map_of(&[range(1, "", "", 1)]);
    let replica = |store: usize| Some(range(1, "", "", 1).replicas[store - 1]);
    let id = RangeId(1);
    assert_eq!(map.update_leader(id, replica(1), 5), LeaderUpdate::Changed);
    assert_eq!(map.update_leader(id, replica(1), 5), LeaderUpdate::Unchanged);
    assert_eq!(map.update_leader(id, None, 5), LeaderUpdate::Unchanged);
    assert_eq!(map.update_leader(id, replica(2), 4), LeaderUpdate::Stale);
    assert_eq!(map.get_by_id(id).unwrap().leader, replica(1));
    assert_eq!(map.update_leader(id, None, 6), LeaderUpdate::Changed);
    assert_eq!(map.get_by_id(id).unwrap().leader, None);
    assert_eq!(map.update_leader(id, replica(2), 6), LeaderUpdate::Changed);
    let stranger = ReplicaDescriptor { id: ReplicaId(99), ..replica(2).unwrap() };
    assert_eq!(map.update_leader(id, Some(stranger), 7), LeaderUpdate::Unknown);
    assert_eq!(map.update_leader(RangeId(8), None, 7), LeaderUpdate::Unknown);
    map.forget_leader(id);
    assert_eq!((map.get_by_id(id).unwrap().leader, map.get_by_id(id).unwrap().term), (None, 6));
}

#[test]
fn a_new_epoch_keeps_the_leader_only_if_it_is_still_a_member() {
    let mut map = map_of(&[range(1, "", "", 1)]);
    let leader = range(1, "", "", 1).replicas[1];
    map.update_leader(RangeId(1), Some(leader), 5);
    map.insert(range(1, "", "m", 2));
    assert_eq!(map.get_by_id(RangeId(1)).unwrap().leader, Some(leader));
    let mut without = (*range(1, "", "m", 2)).clone();
    without.epoch.conf_ver = 2;
    without.replicas.remove(1);
    map.insert(Arc::new(without));
    let entry = map.get_by_id(RangeId(1)).unwrap();
    assert_eq!((entry.leader, entry.term), (None, 5));
}

#[test]
fn removal_leaves_a_gap() {
    let mut map = map_of(&[range(1, "", "m", 1), range(2, "m", "", 1)]);
    assert_eq!(map.remove(RangeId(1)).unwrap().descriptor, range(1, "", "m", 1));
    assert_eq!(map.remove(RangeId(1)), None);
    assert_eq!((map.len(), map.is_empty(), map.get(&enc("a"))), (1, false, None));
    assert_eq!(
        map.check_tiling(),
        Err(TilingError::Gap { span: KeyRange { start: Bytes::new(), end: enc("m") } })
    );
}

/// What `RangeMap` promises, by looking at everything.
fn naive_get<'a>(now: &'a [Arc<RangeDescriptor>], key: &[u8]) -> Option<&'a RangeDescriptor> {
    now.iter().map(|range| &**range).find(|range| range.span.contains(key))
}

fn descriptors(map: &RangeMap) -> Vec<Arc<RangeDescriptor>> {
    map.iter().map(|entry| entry.descriptor.clone()).collect()
}

proptest! {
    #[test]
    fn a_history_in_order_tiles_and_is_found(
        changes in changes(),
        keys in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 1..20),
    ) {
        let history = History::run(&changes);
        let mut map = RangeMap::new();
        for descriptor in &history.all {
            let applied = matches!(map.insert(descriptor.clone()), Inserted::Applied { .. });
            prop_assert!(applied);
        }
        prop_assert_eq!(map.check_tiling(), Ok(()));
        for key in keys {
            let key = key::encode(&key);
            let found = map.get(&key).map(|entry| &*entry.descriptor);
            prop_assert_eq!(found, naive_get(&history.now, &key));
            let at = history.now.iter().position(|range| range.span.contains(&key)).unwrap();
            let before = at.checked_sub(1).map(|before| &*history.now[before]);
            prop_assert_eq!(map.previous(&key).map(|entry| &*entry.descriptor), before);
            let span = KeyRange { start: Bytes::from(key), end: enc("\u{7f}") };
            let scanned: Vec<_> =
                map.scan(&span, usize::MAX).map(|entry| entry.descriptor.clone()).collect();
            let mut expected = history.now.clone();
            expected.retain(|range| range.span.overlaps(&span));
            prop_assert_eq!(scanned, expected);
        }
    }

    /// Reports come late, twice and out of order; in the end only the newest count, and while they
    /// come, nothing that holds now is ever displaced.
    #[test]
    fn stale_descriptors_never_win(
        changes in changes(),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..200),
        rest in any::<u64>(),
    ) {
        let history = History::run(&changes);
        let mut reports: Vec<_> = order.iter().map(|index| index.get(&history.all)).collect();
        let mut remaining: Vec<_> = history.all.iter().collect();
        remaining.rotate_left((rest % history.all.len() as u64) as usize);
        reports.extend(remaining);
        let mut map = RangeMap::new();
        for report in reports {
            let held: Vec<_> = descriptors(&map);
            let outcome = map.insert(report.clone());
            if history.now.contains(report) {
                let refused = matches!(outcome, Inserted::Stale { .. } | Inserted::Empty);
                prop_assert!(!refused, "what holds now was refused");
            }
            let after = descriptors(&map);
            for descriptor in held.iter().filter(|held| history.now.contains(held)) {
                prop_assert!(after.contains(descriptor), "what holds now was displaced");
            }
            prop_assert!(after.windows(2).all(|pair| !pair[0].span.overlaps(&pair[1].span)));
            prop_assert_eq!(map.starts.len(), map.by_start.len());
        }
        prop_assert_eq!(descriptors(&map), history.now);
    }
}
