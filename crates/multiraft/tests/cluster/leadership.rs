//! Failover, transfer, shutdown.

use std::time::{Duration, Instant};

use cribwork_types::StoreId;

use crate::harness::{Cluster, RANGE, stores, wait_for};

fn home(cluster: &Cluster) -> StoreId {
    stores()
        .into_iter()
        .filter(|store| cluster.nodes.contains_key(store))
        .find(|store| cluster.replica(*store, RANGE).unwrap().leader().is_self)
        .unwrap()
}

#[tokio::test]
async fn a_dead_leader_is_replaced_within_two_seconds() {
    let mut cluster = Cluster::start().await;
    cluster.put(RANGE, "k", "v").await;
    let dead = home(&cluster);
    let killed = Instant::now();
    let engine = cluster.kill(dead);
    cluster.put(RANGE, "k", "w").await;
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    cluster.boot(dead, engine);
    cluster.settle(RANGE).await;
    assert_eq!(cluster.get(RANGE, "k").await.as_deref(), Some(&b"w"[..]));
}

#[tokio::test]
async fn a_live_leader_is_not_deposed_while_idle() {
    let cluster = Cluster::start().await;
    cluster.put(RANGE, "k", "v").await;
    let before = cluster.leader(RANGE).await.leader();
    // Idle for several leases: no reads, no writes, no heartbeats; only nodes speak, once a period.
    let (wire, [first, second, third]) = (&cluster.wire, stores());
    let spoken = || {
        let pairs = [(first, second), (second, third), (third, first)];
        pairs.map(|(from, to)| wire.delivered(from, to))
    };
    let begun = spoken();
    wait_for("thirty periods of liveness", || {
        spoken().iter().zip(begun).all(|(now, begun)| now - begun >= 30)
    })
    .await;
    let after = cluster.leader(RANGE).await.leader();
    assert_eq!(before, after);
    assert_eq!(cluster.get(RANGE, "k").await.as_deref(), Some(&b"v"[..]));
}

#[tokio::test]
async fn leadership_is_handed_over() {
    let cluster = Cluster::start().await;
    cluster.put(RANGE, "k", "v").await;
    let from = home(&cluster);
    let to = stores().into_iter().find(|store| *store != from).unwrap();
    wait_for("liveness", || cluster.nodes[&from].multi.store_is_live(to)).await;
    cluster.replica(from, RANGE).unwrap().transfer_leader(to).await.unwrap();
    wait_for("the target to serve", || cluster.replica(to, RANGE).unwrap().leader().is_self).await;
    cluster.put(RANGE, "k", "w").await;
    assert_eq!(cluster.get(RANGE, "k").await.as_deref(), Some(&b"w"[..]));
}

#[tokio::test]
async fn a_transfer_to_a_dead_store_is_refused_and_harmless() {
    let mut cluster = Cluster::start().await;
    cluster.put(RANGE, "k", "v").await;
    let from = home(&cluster);
    let to = stores().into_iter().find(|store| *store != from).unwrap();
    cluster.kill(to);
    wait_for("the death to be noticed", || !cluster.nodes[&from].multi.store_is_live(to)).await;
    assert!(cluster.replica(from, RANGE).unwrap().transfer_leader(to).await.is_err());
    cluster.put(RANGE, "k", "w").await;
}

#[tokio::test]
async fn a_shutdown_hands_leaders_over_first() {
    let cluster = Cluster::start().await;
    cluster.put(RANGE, "k", "v").await;
    let from = home(&cluster);
    let others: Vec<_> = stores().into_iter().filter(|store| *store != from).collect();
    wait_for("liveness", || {
        others.iter().all(|store| cluster.nodes[&from].multi.store_is_live(*store))
    })
    .await;
    cluster.nodes[&from].multi.shutdown().await;
    wait_for("another leader", || {
        others.iter().any(|store| cluster.replica(*store, RANGE).unwrap().leader().is_self)
    })
    .await;
}

/// Streams of appends are numbered, and the numbers start over with the process.
#[tokio::test]
async fn a_restarted_node_can_lead_again() {
    let mut cluster = Cluster::start().await;
    let [first, second, _] = stores();
    let hand_over = async |cluster: &Cluster, to: StoreId| {
        let from = home(cluster);
        wait_for("liveness", || cluster.nodes[&from].multi.store_is_live(to)).await;
        cluster.replica(from, RANGE).unwrap().transfer_leader(to).await.unwrap();
        cluster.put(RANGE, "k", "v").await;
        assert_eq!(home(cluster), to);
    };
    for number in 0..200 {
        cluster.put(RANGE, &format!("k{number}"), "v").await;
    }
    for to in [second, first, second] {
        hand_over(&cluster, to).await;
    }
    let engine = cluster.kill(first);
    cluster.boot(first, engine);
    cluster.settle(RANGE).await;
    let restarted = Instant::now();
    hand_over(&cluster, first).await;
    assert!(restarted.elapsed() < Duration::from_secs(3), "{:?}", restarted.elapsed());
}
