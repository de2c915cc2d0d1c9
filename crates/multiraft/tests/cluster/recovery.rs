//! Crashes, restarts, replicas that fell behind.

use cribwork_multiraft::ReplicaState;
use cribwork_types::{Cf, KeyRange, RangeId, WriteBatch, key};

use crate::harness::{Cluster, RANGE, put, stores, wait_for};

#[tokio::test]
async fn acknowledged_writes_survive_a_power_cut_of_all() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader(RANGE).await;
    let mut writers = Vec::new();
    for number in 0..50 {
        let leader = leader.clone();
        writers.push(tokio::spawn(async move {
            put(&leader, &format!("k{number}"), "v").await.is_ok().then_some(number)
        }));
    }
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(!acknowledged.is_empty());
    let engines = stores().map(|store| (store, cluster.kill(store)));
    for (store, engine) in engines {
        cluster.boot(store, engine);
    }
    for number in acknowledged {
        assert!(cluster.get(RANGE, &format!("k{number}")).await.is_some(), "k{number} is lost");
    }
}

#[tokio::test]
async fn start_up_builds_no_instance_until_it_is_needed() {
    let mut cluster = Cluster::start().await;
    cluster.put(RANGE, "k", "v").await;
    let store = stores()[2];
    cluster.settle(RANGE).await;
    let engine = cluster.kill(store);
    cluster.wire.isolate(store);
    cluster.boot(store, engine);
    assert_eq!(cluster.replica(store, RANGE).unwrap().state(), ReplicaState::Cold);
    cluster.wire.heal(store);
    cluster.put(RANGE, "k", "w").await;
    wait_for("the first message to wake it", || {
        cluster.replica(store, RANGE).unwrap().state() == ReplicaState::Live
    })
    .await;
    cluster.settle(RANGE).await;
}

#[tokio::test]
async fn a_closed_instance_comes_back_where_it_was() {
    let cluster = Cluster::start().await;
    cluster.put(RANGE, "k", "v").await;
    cluster.settle(RANGE).await;
    let leader = cluster.leader(RANGE).await;
    let store = stores()
        .into_iter()
        .find(|store| cluster.replica(*store, RANGE).unwrap().replica_id() != leader.replica_id())
        .unwrap();
    let before = cluster.replica(store, RANGE).unwrap().applied_index();
    cluster.nodes[&store].multi.close_instance(RANGE).await.unwrap();
    let replica = cluster.replica(store, RANGE).unwrap();
    assert_eq!((replica.state(), replica.applied_index()), (ReplicaState::Cold, before));
    cluster.put(RANGE, "k", "w").await;
    cluster.settle(RANGE).await;
}

#[tokio::test]
async fn a_replica_behind_a_cut_log_gets_a_snapshot() {
    let mut cluster = Cluster::start_tuned(|options| {
        options.log_entries_max = 40;
        options.log_entries_kept = 5;
    })
    .await;
    cluster.put(RANGE, "before", "v").await;
    cluster.settle(RANGE).await;
    let leader = cluster.leader(RANGE).await;
    let home = leader.descriptor().replica(leader.replica_id()).unwrap().store;
    let behind = stores().into_iter().find(|store| *store != home).unwrap();
    let engine = cluster.kill(behind);
    let large = "x".repeat(300_000);
    cluster.put(RANGE, "large", &large).await;
    for number in 0..120 {
        cluster.put(RANGE, &format!("k{number}"), "v").await;
    }
    cluster.wait_for_cut_log(home, RANGE).await;
    cluster.boot(behind, engine);
    cluster.settle(RANGE).await;
    let engine = &cluster.nodes[&behind].engine;
    for name in ["before", "k0", "k119"] {
        let value = cribwork_engine::Engine::get(engine.as_ref(), Cf::Raw, name.as_bytes());
        assert_eq!(value.unwrap().as_deref(), Some(&b"v"[..]), "{name}");
    }
    let value = cribwork_engine::Engine::get(engine.as_ref(), Cf::Raw, b"large").unwrap();
    assert_eq!(value.map(|value| value.len()), Some(large.len()));
}

/// The placement group's tables lie outside the key space, and its snapshot carries them all the same.
#[tokio::test]
async fn a_placement_replica_behind_a_cut_log_gets_its_tables() {
    let mut cluster = Cluster::start_tuned(|options| {
        options.log_entries_max = 40;
        options.log_entries_kept = 5;
    })
    .await;
    let group = RangeId::PLACEMENT;
    let nothing = bytes::Bytes::from(key::encode(b""));
    let mut placement = crate::harness::descriptor();
    placement.id = group;
    placement.span = KeyRange { start: nothing.clone(), end: nothing };
    for replica in &mut placement.replicas {
        replica.id.0 += 100;
    }
    let first = placement.replicas[0];
    for node in cluster.nodes.values() {
        node.multi.create_range(placement.clone(), first).await.unwrap();
    }
    let leader = cluster.leader(group).await;
    let home = leader.descriptor().replica(leader.replica_id()).unwrap().store;
    let behind = stores().into_iter().find(|store| *store != home).unwrap();
    let write = async |number: u32| {
        let mut batch = WriteBatch::new();
        batch.put(Cf::Meta, "window", number.to_string());
        let token = leader.token().await.unwrap();
        leader.propose(&token, batch).await.unwrap();
    };
    write(0).await;
    cluster.settle(group).await;
    let engine = cluster.kill(behind);
    for number in 1..=120 {
        write(number).await;
    }
    cluster.wait_for_cut_log(home, group).await;
    cluster.boot(behind, engine);
    cluster.settle(group).await;
    let engine = &cluster.nodes[&behind].engine;
    let value = cribwork_engine::Engine::get(engine.as_ref(), Cf::Meta, b"window").unwrap();
    assert_eq!(value.as_deref(), Some(&b"120"[..]));
}
