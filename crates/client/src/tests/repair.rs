//! What the client does about every region error and every way to lose an answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cribwork_proto::errorpb::{self, Error};
use cribwork_proto::kvrpcpb;
use cribwork_types::{KeyRange, Runtime};

use crate::request::Effect;
use crate::testing::{Cluster, Fault, bytes};
use crate::{Client, ClientError};

/// A client that knows the routes already.
async fn warm(bounds: &[&str]) -> (Arc<Cluster>, Client) {
    let cluster = Cluster::new(bounds);
    let client = cluster.client().await;
    client.raw().scan(KeyRange::all(), 10).await.unwrap();
    cluster.log.lock().clear();
    (cluster, client)
}

#[tokio::test(start_paused = true)]
async fn every_passing_region_error_is_repaired() {
    let errors = [
        Error { not_leader: Some(Default::default()), ..Default::default() },
        Error { region_not_found: Some(Default::default()), ..Default::default() },
        Error { key_not_in_region: Some(Default::default()), ..Default::default() },
        Error { epoch_not_match: Some(Default::default()), ..Default::default() },
        Error { server_is_busy: Some(Default::default()), ..Default::default() },
        Error { stale_command: Some(Default::default()), ..Default::default() },
        Error { store_not_match: Some(Default::default()), ..Default::default() },
        Error { max_timestamp_not_synced: Some(Default::default()), ..Default::default() },
        Error { read_index_not_ready: Some(Default::default()), ..Default::default() },
        Error { proposal_in_merging_mode: Some(Default::default()), ..Default::default() },
        Error { data_is_not_ready: Some(Default::default()), ..Default::default() },
        Error { region_not_initialized: Some(Default::default()), ..Default::default() },
        Error { mismatch_peer_id: Some(Default::default()), ..Default::default() },
        Error { message: "from the future".into(), ..Default::default() },
    ];
    for error in errors {
        let (cluster, client) = warm(&["m"]).await;
        cluster.refuse_next("RawPut", error.clone());
        client.raw().put("a", "1").await.unwrap_or_else(|failure| panic!("{error:?}: {failure}"));
        assert_eq!(cluster.data.lock().raw[&bytes("a")], bytes("1"));
        assert!(cluster.sent("RawPut") >= 2, "{error:?}");
        assert!(cluster.runtime.now() < Duration::from_secs(2), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_named_leader_is_asked_at_once() {
    let (cluster, client) = warm(&[]).await;
    cluster.lead(1, 3);
    client.raw().put("a", "1").await.unwrap();
    assert_eq!(*cluster.log.lock(), [(1, "RawPut"), (3, "RawPut")]);
    assert_eq!(cluster.runtime.now(), Duration::ZERO);
    assert_eq!(cluster.lookups.load(Ordering::Relaxed), 1, "the cache was repaired");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_leader_is_sought_among_the_other_replicas() {
    let (cluster, client) = warm(&[]).await;
    cluster.lead(1, 3);
    // Neither the old leader nor its first successor knows.
    for _ in 0..2 {
        cluster.refuse_next(
            "RawPut",
            Error { not_leader: Some(Default::default()), ..Default::default() },
        );
    }
    client.raw().put("a", "1").await.unwrap();
    assert_eq!(cluster.log.lock().last(), Some(&(3, "RawPut")));
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_left_for_the_next_one() {
    let (cluster, client) = warm(&[]).await;
    cluster.dead.lock().push(1);
    // Until the election is over, the others name the dead one.
    let dead = cluster.ranges.lock()[0].leader.map(Into::into);
    for _ in 0..3 {
        let not_leader = Some(errorpb::NotLeader { region_id: 1, leader: dead });
        cluster.refuse_next("RawPut", Error { not_leader, ..Default::default() });
    }
    cluster.lead(1, 2);
    client.raw().put("a", "1").await.unwrap();
    assert_eq!(cluster.log.lock().last(), Some(&(2, "RawPut")));
    assert!(cluster.runtime.now() < Duration::from_millis(900), "{:?}", cluster.runtime.now());
}

#[tokio::test(start_paused = true)]
async fn a_split_is_learnt_from_the_error() {
    let (cluster, client) = warm(&[]).await;
    cluster.split("m", 2);
    client.raw().put("z", "1").await.unwrap();
    assert_eq!(cluster.sent("RawPut"), 2);
    assert_eq!(cluster.lookups.load(Ordering::Relaxed), 1);
    client.raw().batch_put([("a", "1"), ("y", "2")]).await.unwrap();
    assert_eq!(cluster.sent("RawBatchPut"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_grouped_again_after_a_split() {
    let (cluster, client) = warm(&[]).await;
    cluster.split("m", 2);
    client.raw().batch_put([("a", "1"), ("z", "2")]).await.unwrap();
    assert_eq!(cluster.sent("RawBatchPut"), 3, "one refused, then one for each range");
}

#[tokio::test(start_paused = true)]
async fn a_busy_store_gets_the_time_it_asks_for() {
    let (cluster, client) = warm(&[]).await;
    let busy = errorpb::ServerIsBusy { backoff_ms: 700, ..Default::default() };
    cluster.refuse_next("RawPut", Error { server_is_busy: Some(busy), ..Default::default() });
    client.raw().put("a", "1").await.unwrap();
    assert!(cluster.runtime.now() >= Duration::from_millis(700));
}

#[tokio::test(start_paused = true)]
async fn errors_that_do_not_pass_end_the_call() {
    let (cluster, client) = warm(&[]).await;
    cluster
        .refuse_next("RawPut", Error { disk_full: Some(Default::default()), ..Default::default() });
    cluster.refuse_next(
        "RawPut",
        Error { raft_entry_too_large: Some(Default::default()), ..Default::default() },
    );
    let raw = client.raw();
    assert!(matches!(raw.put("a", "1").await, Err(ClientError::DiskFull { .. })));
    assert!(matches!(raw.put("a", "1").await, Err(ClientError::Invalid { .. })));
    assert_eq!(cluster.sent("RawPut"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_put_that_may_have_been_done_is_not_done_again() {
    let undetermined =
        Error { undetermined_result: Some(Default::default()), ..Default::default() };
    let faults = [
        Fault::LostRequest,
        Fault::LostAnswer,
        Fault::Silent,
        Fault::Region(Box::new(undetermined)),
    ];
    for fault in faults {
        let (cluster, client) = warm(&[]).await;
        cluster.fail_next("RawPut", fault);
        let outcome = client.raw().put("a", "1").await;
        assert!(matches!(outcome, Err(ClientError::Unknown { .. })), "{outcome:?}");
        assert_eq!(cluster.sent("RawPut"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn reads_and_unsent_writes_are_repeated() {
    let (cluster, client) = warm(&[]).await;
    cluster.fail_next("RawPut", Fault::Unsent);
    client.raw().put("a", "1").await.unwrap();
    for fault in [Fault::LostRequest, Fault::LostAnswer, Fault::Silent] {
        cluster.fail_next("RawGet", fault);
        assert_eq!(client.raw().get("a").await, Ok(Some(bytes("1"))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_when_its_time_is_up() {
    let (cluster, client) = warm(&[]).await;
    cluster.ranges.lock()[0].leader = None;
    let outcome = client.raw().put("a", "1").await;
    assert!(matches!(outcome, Err(ClientError::Timeout { .. })), "{outcome:?}");
    let took = cluster.runtime.now();
    assert!(took > Duration::from_secs(9) && took <= Duration::from_secs(10), "{took:?}");
}

/// Nothing is sent whose answer nobody would wait for: of a write, the outcome would be unknown.
#[tokio::test(start_paused = true)]
async fn a_call_without_time_left_sends_nothing_and_says_so() {
    let (cluster, client) = warm(&[]).await;
    let core = client.core();
    let mut call = core.call("raw put", Effect::Once);
    call.deadline = cluster.runtime.now();
    let (key, value) = (bytes("a"), bytes("1"));
    let request = kvrpcpb::RawPutRequest { key: key.clone(), value, ..Default::default() };
    match core.send_key(&mut call, &key, &request).await {
        Err(ClientError::Timeout { why, .. }) => {
            assert_eq!(why, "the time was up before store 1 was asked");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(cluster.sent("RawPut"), 0);
}

#[tokio::test(start_paused = true)]
async fn one_lost_group_makes_a_batch_unknown() {
    let (cluster, client) = warm(&["m"]).await;
    cluster.fail_next("RawBatchPut", Fault::LostAnswer);
    let outcome = client.raw().batch_put([("a", "1"), ("z", "2")]).await;
    assert!(matches!(outcome, Err(ClientError::Unknown { .. })), "{outcome:?}");
    let value = Bytes::from_static(b"2");
    assert_eq!(cluster.data.lock().raw.get(&bytes("z")), Some(&value), "the other one is done");
}
