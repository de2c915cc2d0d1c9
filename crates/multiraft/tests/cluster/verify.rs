//! Fingerprints of running replicas at one entry.

use std::time::Duration;

use cribwork_engine::Engine;
use cribwork_multiraft::{FamilySums, RaftError};
use cribwork_types::Cf;

use crate::harness::{Cluster, RANGE, one_put, stores, wait_for};

const LIMIT: Duration = Duration::from_secs(10);

async fn fingerprints(cluster: &Cluster) -> Vec<FamilySums> {
    let index = cluster.leader(RANGE).await.ask_for_fingerprints().await.unwrap();
    let mut all = Vec::new();
    for store in stores() {
        all.push(cluster.nodes[&store].multi.fingerprint_at(RANGE, index, LIMIT).await.unwrap());
    }
    all
}

fn rows(sums: &FamilySums, family: Cf) -> u32 {
    let (_, sum) = sums.sums.iter().find(|(cf, _)| *cf == family).unwrap();
    (sum >> 32) as u32
}

#[tokio::test]
async fn replicas_agree_at_one_entry_while_others_are_written() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader(RANGE).await;
    let writer = tokio::spawn({
        let leader = leader.clone();
        async move {
            for number in 0..400 {
                let token = leader.token().await.unwrap();
                leader.propose(&token, one_put(&format!("k{number}"), "v")).await.unwrap();
            }
        }
    });
    let (mut before, mut compared) = (0, 0);
    while !writer.is_finished() {
        let all = fingerprints(&cluster).await;
        assert!(all.iter().all(|one| one.sums == all[0].sums), "{all:?}");
        let now = rows(&all[0], Cf::Raw);
        assert!(now >= before, "{now} rows after {before}");
        before = now;
        compared += 1;
    }
    assert!(compared > 0, "the writer was done too soon");
    writer.await.unwrap();
    assert_eq!(rows(&fingerprints(&cluster).await[0], Cf::Raw), 400);
}

#[tokio::test]
async fn a_replica_that_differs_is_told_apart() {
    let cluster = Cluster::start().await;
    cluster.put(RANGE, "a", "1").await;
    cluster.settle(RANGE).await;
    let odd = stores()[2];
    cluster.nodes[&odd].engine.write(&one_put("b", "of nobody else")).unwrap();
    let all = fingerprints(&cluster).await;
    assert_eq!(all[0].sums, all[1].sums);
    assert_ne!(all[0].sums, all[2].sums);
    let differing: Vec<Cf> =
        all[0].sums.iter().zip(&all[2].sums).filter(|(a, b)| a != b).map(|(a, _)| a.0).collect();
    assert_eq!(differing, [Cf::Raw]);
}

#[tokio::test]
async fn who_was_not_there_at_the_entry_says_so() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader(RANGE).await;
    let home = leader.descriptor().replica(leader.replica_id()).unwrap().store;
    let late = stores().into_iter().find(|store| *store != home).unwrap();
    let index = leader.ask_for_fingerprints().await.unwrap();
    let multi = cluster.nodes[&late].multi.clone();
    multi.fingerprint_at(RANGE, index, LIMIT).await.unwrap();
    // What was taken is kept in memory only.
    cluster.put(RANGE, "a", "1").await;
    cluster.settle(RANGE).await;
    let engine = cluster.kill(late);
    cluster.boot(late, engine);
    wait_for("the replica to be back", || {
        cluster.replica(late, RANGE).is_some_and(|replica| replica.applied_index() > index)
    })
    .await;
    let multi = cluster.nodes[&late].multi.clone();
    match multi.fingerprint_at(RANGE, index, LIMIT).await {
        // It applied the entry again, and took the same once more.
        Ok(again) => {
            let others = cluster.nodes[&home].multi.fingerprint_at(RANGE, index, LIMIT).await;
            assert_eq!(again.sums, others.unwrap().sums);
        }
        Err(error) => assert!(matches!(error, RaftError::Refused { .. }), "{error}"),
    }
    let never = multi.fingerprint_at(RANGE, 1_000_000, Duration::from_millis(200)).await;
    assert!(matches!(never, Err(RaftError::Refused { .. })), "{never:?}");
}
