//! Splits: routing, fencing by epoch, crashes, members that slept through one.

use cribwork_multiraft::{NewRange, RaftError};
use cribwork_types::{Cf, KeyRange, RangeId, ReplicaId};

use crate::harness::{Cluster, RANGE, bound, descriptor, one_put, put, stores, wait_for};

pub const RIGHT: RangeId = RangeId(2);

pub fn new_range() -> NewRange {
    let replicas = stores().map(|store| (store, ReplicaId(store.get() + 200))).to_vec();
    NewRange { id: RIGHT, replicas }
}

async fn split(cluster: &Cluster, at: &str) {
    let leader = cluster.leader(RANGE).await;
    let token = leader.token().await.unwrap();
    let (left, right) = leader.split(&token, bound(at), new_range()).await.unwrap();
    assert_eq!((left.span.end.clone(), right.span.start.clone()), (bound(at), bound(at)));
    assert_eq!((left.epoch.version, right.epoch.version), (2, 2));
}

#[tokio::test]
async fn both_sides_of_a_split_serve() {
    let cluster = Cluster::start().await;
    cluster.put(RANGE, "a", "1").await;
    cluster.put(RANGE, "z", "2").await;
    split(&cluster, "m").await;
    cluster.put(RIGHT, "z", "3").await;
    cluster.put(RANGE, "a", "4").await;
    assert_eq!(cluster.get(RIGHT, "z").await.as_deref(), Some(&b"3"[..]));
    assert_eq!(cluster.get(RANGE, "a").await.as_deref(), Some(&b"4"[..]));
    cluster.settle(RIGHT).await;
    for node in cluster.nodes.values() {
        assert_eq!(node.multi.replica_for_key(&bound("z")).unwrap().range_id(), RIGHT);
        assert_eq!(node.multi.replica_for_key(&bound("a")).unwrap().range_id(), RANGE);
    }
}

#[tokio::test]
async fn a_command_from_before_the_split_has_no_effect() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader(RANGE).await;
    let stale = leader.token().await.unwrap();
    split(&cluster, "m").await;
    match leader.propose(&stale, one_put("z", "late")).await {
        Err(RaftError::EpochChanged { epoch, current, .. }) => {
            assert_eq!((epoch.version, current[0].id), (2, RANGE));
        }
        other => panic!("expected an epoch error, got {other:?}"),
    }
    assert_eq!(cluster.get(RIGHT, "z").await, None);
}

#[tokio::test]
async fn a_split_that_does_not_fit_is_refused() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader(RANGE).await;
    let token = leader.token().await.unwrap();
    let raw = bytes::Bytes::from_static(b"not encoded");
    for (key, right) in [(raw, new_range()), (bound("m"), NewRange { id: RANGE, ..new_range() })] {
        let refused = leader.split(&token, key, right).await;
        assert!(matches!(refused, Err(RaftError::Refused { .. })), "{refused:?}");
    }
    put(&leader, "k", "v").await.unwrap();
}

#[tokio::test]
async fn a_split_at_a_key_that_another_split_took_away_is_an_old_route() {
    let cluster = Cluster::start().await;
    split(&cluster, "m").await;
    let leader = cluster.leader(RANGE).await;
    let token = leader.token().await.unwrap();
    match leader.split(&token, bound("z"), NewRange { id: RangeId(3), ..new_range() }).await {
        Err(RaftError::EpochChanged { current, .. }) => assert_eq!(current[0].span.end, bound("m")),
        other => panic!("expected an epoch error, got {other:?}"),
    }
}

#[tokio::test]
async fn a_split_survives_a_power_cut_of_all() {
    let mut cluster = Cluster::start().await;
    cluster.put(RANGE, "z", "1").await;
    split(&cluster, "m").await;
    cluster.put(RIGHT, "z", "2").await;
    for (store, engine) in stores().map(|store| (store, cluster.kill(store))) {
        cluster.boot(store, engine);
    }
    assert_eq!(cluster.get(RIGHT, "z").await.as_deref(), Some(&b"2"[..]));
    cluster.put(RANGE, "a", "3").await;
    assert_eq!(cluster.leader(RANGE).await.descriptor().span.end, bound("m"));
}

#[tokio::test]
async fn a_member_that_slept_through_a_split_catches_up() {
    let mut cluster = Cluster::start().await;
    cluster.put(RANGE, "z", "1").await;
    cluster.settle(RANGE).await;
    let leader = cluster.leader(RANGE).await;
    let home = leader.descriptor().replica(leader.replica_id()).unwrap().store;
    let behind = stores().into_iter().find(|store| *store != home).unwrap();
    let engine = cluster.kill(behind);
    split(&cluster, "m").await;
    cluster.put(RIGHT, "z", "2").await;
    cluster.boot(behind, engine);
    wait_for("the right side on the late member", || {
        cluster.replica(behind, RIGHT).is_some_and(|replica| replica.applied_index() > 0)
    })
    .await;
    cluster.settle(RIGHT).await;
    cluster.settle(RANGE).await;
}

/// In a cluster of more nodes than a range has replicas, every node's part of the key space has gaps.
/// A message for the right side of a split that comes before the split itself must not make a second
/// replica beside the one that the split makes.
#[tokio::test]
async fn messages_that_overtake_their_split_make_no_replica() {
    let mut low = descriptor();
    low.span.end = bound("m");
    let mut high = descriptor();
    high.id = RangeId(50);
    high.span.start = bound("t");
    for replica in &mut high.replicas {
        replica.id.0 += 50;
    }
    let cluster = Cluster::start_with(|_| {}, vec![low, high]).await;
    let names: Vec<String> = (1..=12).rev().map(|number| format!("k{number:02}")).collect();
    for (number, name) in (100..).zip(&names) {
        cluster.put(RANGE, "a", name).await;
        let leader = cluster.leader(RANGE).await;
        let replicas = stores().map(|store| (store, ReplicaId(number * 10 + store.get())));
        let right = NewRange { id: RangeId(number), replicas: replicas.to_vec() };
        let token = leader.token().await.unwrap();
        leader.split(&token, bound(name), right).await.unwrap();
        // A raw key is inside of encoded bounds only if it is longer than the bound.
        cluster.put(RangeId(number), &format!("{name}x"), "v").await;
    }
    for number in 100..112 {
        cluster.settle(RangeId(number)).await;
    }
    assert_eq!(cluster.counted("cribwork_raft_made_uninitialised_total"), 0);
    assert_eq!(cluster.counted("cribwork_raft_snapshots_sent_total"), 0);
}

/// Same log, same bytes: everything that a replica holds at one applied index, splits included.
#[tokio::test]
async fn replicas_hold_the_same_bytes() {
    let cluster = Cluster::start().await;
    for number in 0..60 {
        let name = format!("{}{number}", if number % 3 == 0 { "z" } else { "a" });
        cluster.put(RANGE, &name, &number.to_string()).await;
    }
    split(&cluster, "m").await;
    for number in 0..20 {
        cluster.put(RIGHT, &format!("z{number}"), "again").await;
        cluster.put(RANGE, &format!("a{number}"), "again").await;
    }
    for range in [RANGE, RIGHT] {
        cluster.settle(range).await;
    }
    let bytes = |store| {
        let snapshot = cribwork_engine::Engine::snapshot(cluster.nodes[&store].engine.as_ref());
        let mut rows = Vec::new();
        for cf in Cf::DATA {
            let mut cursor = snapshot.cursor(cf, &KeyRange::all());
            let mut found = cursor.seek_to_first().unwrap();
            while found {
                rows.push((cf, cursor.key().to_vec(), cursor.value().to_vec()));
                found = cursor.next().unwrap();
            }
        }
        rows
    };
    let [first, others @ ..] = stores();
    assert_eq!(bytes(first).len(), 80);
    for store in others {
        assert!(bytes(store) == bytes(first), "store {store} differs from store {first}");
    }
}

/// A caller that goes away in the middle of a split leaves the fence up until the split is decided.
#[tokio::test]
async fn reads_wait_for_a_split_whose_caller_has_left() {
    let cluster = Cluster::start().await;
    cluster.put(RANGE, "z", "1").await;
    let leader = cluster.leader(RANGE).await;
    let token = leader.token().await.unwrap();
    assert!(leader.read().await.is_ok() && leader.try_read().is_some());
    {
        let splitting = leader.split(&token, bound("m"), new_range());
        // Polled once, so that it is under way, and dropped.
        assert!(futures::poll!(std::pin::pin!(splitting)).is_pending());
    }
    let mut served = 0;
    while leader.descriptor().epoch.version == 1 {
        if let Some(handle) = leader.try_read() {
            // It may have been decided since the loop looked.
            served += u32::from(handle.descriptor.epoch.version == 1);
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(served, 0, "read while the fate of the split was open");
    wait_for("reads of the left side", || leader.try_read().is_some()).await;
    assert_eq!(cluster.get(RIGHT, "z").await.as_deref(), Some(&b"1"[..]));
}

#[tokio::test]
async fn a_member_that_got_the_split_by_snapshot_has_both_sides() {
    let mut cluster = Cluster::start_tuned(|options| {
        options.log_entries_max = 20;
        options.log_entries_kept = 2;
    })
    .await;
    cluster.put(RANGE, "z", "1").await;
    cluster.settle(RANGE).await;
    let leader = cluster.leader(RANGE).await;
    let home = leader.descriptor().replica(leader.replica_id()).unwrap().store;
    let behind = stores().into_iter().find(|store| *store != home).unwrap();
    let engine = cluster.kill(behind);
    split(&cluster, "m").await;
    cluster.put(RIGHT, "zz", "2").await;
    for number in 0..80 {
        cluster.put(RANGE, &format!("a{number}"), "v").await;
    }
    cluster.wait_for_cut_log(home, RANGE).await;
    cluster.boot(behind, engine);
    cluster.settle(RANGE).await;
    cluster.put(RIGHT, "zz", "3").await;
    wait_for("the right side by snapshot", || {
        let engine = &cluster.nodes[&behind].engine;
        let get =
            |name: &[u8]| cribwork_engine::Engine::get(engine.as_ref(), Cf::Raw, name).unwrap();
        get(b"z").is_some() && get(b"zz").as_deref() == Some(&b"3"[..])
    })
    .await;
}

#[tokio::test]
async fn a_member_without_data_votes_when_the_leader_is_gone() {
    let mut cluster = Cluster::start_tuned(|options| {
        options.log_entries_max = 20;
        options.log_entries_kept = 2;
    })
    .await;
    let leader = cluster.leader(RANGE).await;
    let home = leader.descriptor().replica(leader.replica_id()).unwrap().store;
    let others: Vec<_> = stores().into_iter().filter(|store| *store != home).collect();
    let (behind, stays) = (others[0], others[1]);
    let engine = cluster.kill(behind);
    split(&cluster, "m").await;
    cluster.put(RIGHT, "zz", "1").await;
    for number in 0..80 {
        cluster.put(RANGE, &format!("a{number}"), "v").await;
    }
    cluster.settle(RANGE).await;
    cluster.settle(RIGHT).await;
    cluster.wait_for_cut_log(stays, RANGE).await;
    // The one that slept gets the left side by snapshot, so nothing but the right side's members can
    // tell it of the right side, and the one that leads those is gone.
    cluster.kill(home);
    cluster.boot(behind, engine);
    let vote = |cluster: &Cluster| cluster.replica(behind, RIGHT).and_then(|it| it.saved_vote());
    wait_for("its vote", || vote(&cluster).is_some()).await;
    // It remembers that it voted, data or no data.
    let given = vote(&cluster).unwrap();
    let engine = cluster.kill(behind);
    cluster.boot(behind, engine);
    assert!(cluster.replica(behind, RIGHT).unwrap().leader().term >= given.term);
    cluster.settle(RANGE).await;
    assert_eq!(cluster.get(RIGHT, "zz").await.as_deref(), Some(&b"1"[..]));
    cluster.put(RIGHT, "zz", "2").await;
    cluster.settle(RIGHT).await;
    let late = cluster.replica(behind, RIGHT).unwrap();
    assert!(late.applied_index() > 0);
}
