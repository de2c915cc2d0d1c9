//! The path of a write and of a read.

use std::sync::Arc;

use cribwork_multiraft::RaftError;
use cribwork_types::{Cf, WriteBatch, limits};

use crate::harness::{Cluster, RANGE, one_put, put, stores, wait_for};

#[tokio::test]
async fn a_write_reaches_every_replica() {
    let cluster = Cluster::start().await;
    cluster.put(RANGE, "k", "v").await;
    assert_eq!(cluster.get(RANGE, "k").await.as_deref(), Some(&b"v"[..]));
    cluster.settle(RANGE).await;
    for store in stores() {
        let engine = &cluster.nodes[&store].engine;
        let value = cribwork_engine::Engine::get(engine.as_ref(), Cf::Raw, b"k").unwrap();
        assert_eq!(value.as_deref(), Some(&b"v"[..]), "store {store}");
    }
}

#[tokio::test]
async fn concurrent_writes_share_entries() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader(RANGE).await;
    let before = leader.applied_index();
    let mut writers = Vec::new();
    for number in 0..200 {
        let leader = leader.clone();
        writers.push(tokio::spawn(async move {
            put(&leader, &format!("k{number}"), "v").await.unwrap();
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let entries = leader.applied_index() - before;
    assert!(entries < 100, "200 commands took {entries} entries: nothing was batched");
    for number in 0..200 {
        assert!(cluster.get(RANGE, &format!("k{number}")).await.is_some());
    }
}

#[tokio::test]
async fn a_follower_refuses_and_names_the_leader() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader(RANGE).await;
    cluster.put(RANGE, "k", "v").await;
    let follower = cluster
        .nodes
        .values()
        .filter_map(|node| node.multi.replica(RANGE))
        .find(|replica| replica.replica_id() != leader.replica_id())
        .unwrap();
    wait_for("the follower to learn of its leader", || follower.leader().leader.is_some()).await;
    for error in [follower.token().await.err(), follower.read().await.err()] {
        match error {
            Some(RaftError::NotLeader { leader: Some(named), .. }) => {
                assert_eq!(named.id, leader.replica_id());
            }
            other => panic!("expected a hint at the leader, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_evaluated_under_another_leader_has_no_effect() {
    let cluster = Cluster::start().await;
    let first = cluster.leader(RANGE).await;
    let stale = first.token().await.unwrap();
    let other = *stores()
        .iter()
        .find(|store| cluster.replica(**store, RANGE).unwrap().replica_id() != first.replica_id())
        .unwrap();
    wait_for("liveness", || cluster.nodes[&stores()[0]].multi.store_is_live(other)).await;
    first.transfer_leader(other).await.unwrap();
    wait_for("the new leader", || cluster.replica(other, RANGE).unwrap().leader().is_self).await;
    // Back again: same replica, later term.
    let second = cluster.leader(RANGE).await;
    let home = first.descriptor().replica(first.replica_id()).unwrap().store;
    second.transfer_leader(home).await.unwrap();
    wait_for("the old leader to lead again", || first.leader().is_self).await;
    let refused = first.propose(&stale, one_put("stale", "v")).await;
    assert!(matches!(refused, Err(RaftError::NotLeader { .. })), "{refused:?}");
    assert_eq!(cluster.get(RANGE, "stale").await, None);
}

#[tokio::test]
async fn an_oversized_command_is_refused_before_the_log() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader(RANGE).await;
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raw, "k", vec![0; limits::ENTRY_BYTES_MAX]);
    let token = leader.token().await.unwrap();
    let refused = leader.propose(&token, batch).await;
    assert!(matches!(refused, Err(RaftError::TooLarge { .. })), "{refused:?}");
    put(&leader, "small", "v").await.unwrap();
}

#[tokio::test]
async fn an_isolated_leader_neither_reads_nor_writes() {
    let cluster = Cluster::start().await;
    let old = cluster.leader(RANGE).await;
    cluster.put(RANGE, "k", "1").await;
    let home = old.descriptor().replica(old.replica_id()).unwrap().store;
    cluster.wire.isolate(home);
    let others: Vec<_> = stores().into_iter().filter(|store| *store != home).collect();
    wait_for("a new leader", || {
        others.iter().any(|store| cluster.replica(*store, RANGE).unwrap().leader().is_self)
    })
    .await;
    let new = others
        .iter()
        .map(|store| cluster.replica(*store, RANGE).unwrap())
        .find(|replica| replica.leader().is_self)
        .unwrap();
    put(&new, "k", "2").await.unwrap();
    assert!(old.try_read().is_none(), "the old leader's lease must be over");
    assert!(old.read().await.is_err());
    let write = put(&Arc::clone(&old), "k", "3").await;
    assert!(write.is_err(), "{write:?}");
    cluster.wire.heal(home);
    wait_for("the old leader to follow", || !old.leader().is_self).await;
    assert_eq!(cluster.get(RANGE, "k").await.as_deref(), Some(&b"2"[..]));
}
