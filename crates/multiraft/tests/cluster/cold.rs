//! Idle replicas close their instances, and nobody notices.

use std::sync::Arc;
use std::time::Duration;

use cribwork_multiraft::{Replica, ReplicaState};
use cribwork_types::StoreId;

use crate::harness::{Cluster, RANGE, put, stores, wait_for};

fn replicas(cluster: &Cluster) -> Vec<Arc<Replica>> {
    cluster.nodes.keys().map(|store| cluster.replica(*store, RANGE).unwrap()).collect()
}

fn all_are(cluster: &Cluster, state: ReplicaState) -> bool {
    replicas(cluster).iter().all(|replica| replica.state() == state)
}

/// A range that was written to and then left alone until all of it is cold.
async fn cold_range() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.put(RANGE, "k", "v").await;
    for node in cluster.nodes.values() {
        node.multi.set_cold_after(Duration::from_millis(1));
    }
    wait_for("all replicas to go cold", || all_are(&cluster, ReplicaState::Cold)).await;
    cluster
}

fn home(replica: &Replica) -> StoreId {
    replica.descriptor().replica(replica.replica_id()).unwrap().store
}

#[tokio::test]
async fn a_new_range_begins_cold_and_led() {
    let cluster = Cluster::start().await;
    assert!(all_are(&cluster, ReplicaState::Cold));
    let first = cluster.leader(RANGE).await;
    assert_eq!((first.state(), first.leader().term), (ReplicaState::Cold, 1));
    cluster.put(RANGE, "k", "v").await;
    assert!(replicas(&cluster).iter().all(|replica| replica.leader().term == 1));
    assert_eq!(cluster.counted("cribwork_raft_campaigns_total"), 0);
}

#[tokio::test]
async fn an_idle_range_goes_cold_and_leads_on_when_it_is_needed() {
    let cluster = cold_range().await;
    let leader = cluster.leader(RANGE).await;
    let before = (leader.leader(), leader.applied_index());
    assert_eq!(leader.state(), ReplicaState::Cold, "asking who leads wakes nobody");
    assert_eq!(cluster.get(RANGE, "k").await.unwrap(), "v");
    assert_eq!(leader.state(), ReplicaState::Live);
    cluster.put(RANGE, "k", "w").await;
    cluster.settle(RANGE).await;
    assert_eq!(leader.leader(), before.0, "the same leader in the same term");
    assert_eq!(leader.applied_index(), before.1 + 1, "and no entry but the write");
    assert_eq!(cluster.counted("cribwork_raft_campaigns_total"), 0);
    wait_for("all to go cold again", || all_are(&cluster, ReplicaState::Cold)).await;
}

#[tokio::test]
async fn the_death_of_a_cold_leader_reaches_cold_followers() {
    let mut cluster = cold_range().await;
    let dead = home(cluster.leader(RANGE).await.as_ref());
    cluster.kill(dead);
    cluster.put(RANGE, "k", "w").await;
    assert_eq!(cluster.get(RANGE, "k").await.unwrap(), "w");
}

#[tokio::test]
async fn a_range_that_is_written_to_all_the_time_never_goes_cold() {
    let cluster = cold_range().await;
    let leader = cluster.leader(RANGE).await;
    for number in 0..2_000 {
        put(&leader, &format!("k{number}"), "v").await.unwrap();
        assert_eq!(leader.state(), ReplicaState::Live);
    }
}

#[tokio::test]
async fn a_restarted_node_is_told_who_leads() {
    let mut cluster = cold_range().await;
    let leader = home(cluster.leader(RANGE).await.as_ref());
    let other = stores().into_iter().find(|store| *store != leader).unwrap();
    let engine = cluster.kill(other);
    cluster.boot(other, engine);
    wait_for("the leader to be named", || cluster.replica(other, RANGE).unwrap().has_live_leader())
        .await;
    assert!(all_are(&cluster, ReplicaState::Cold), "that wakes nobody");
    cluster.put(RANGE, "k", "w").await;
    cluster.settle(RANGE).await;
    assert_eq!(cluster.counted("cribwork_raft_campaigns_total"), 0);
}

#[tokio::test]
async fn a_restarted_leader_is_not_trusted_to_lead_on() {
    let mut cluster = cold_range().await;
    let leader = cluster.leader(RANGE).await;
    let (store, term) = (home(&leader), leader.leader().term);
    drop(leader);
    let engine = cluster.kill(store);
    cluster.boot(store, engine);
    wait_for("an election", || {
        replicas(&cluster).iter().any(|it| it.leader().is_self && it.leader().term > term)
    })
    .await;
    assert_eq!(cluster.get(RANGE, "k").await.unwrap(), "v");
}
