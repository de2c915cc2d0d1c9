//! Timestamps share round trips.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use crate::testing::{Cluster, Fault};

#[tokio::test(start_paused = true)]
async fn concurrent_callers_share_requests_and_get_distinct_timestamps() {
    let cluster = Cluster::new(&[]);
    let client = cluster.client().await;
    let before = client.timestamp().await.unwrap();
    cluster.tso_requests.store(0, Ordering::Relaxed);
    let asked = (0..100).map(|_| client.timestamp());
    let stamps = futures::future::try_join_all(asked).await.unwrap();
    let distinct: BTreeSet<_> = stamps.iter().copied().collect();
    assert_eq!(distinct.len(), 100);
    assert!(distinct.first().unwrap() > &before);
    assert!(cluster.tso_requests.load(Ordering::Relaxed) <= 2);
    assert!(client.timestamp().await.unwrap() > *distinct.last().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_is_repeated() {
    let cluster = Cluster::new(&[]);
    let client = cluster.client().await;
    cluster.fail_next("Tso", Fault::Unsent);
    client.timestamp().await.unwrap();
    assert_eq!(cluster.tso_requests.load(Ordering::Relaxed), 2);
}
