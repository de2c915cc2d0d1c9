//! Transactions: atomicity, conflicts, locks of others, lost answers.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_proto::kvrpcpb::LockInfo;
use cribwork_proto::kvrpcpb::{Op, PrewriteRequest};
use cribwork_types::{BoxFuture, KeyRange, Runtime, Timestamp};

use crate::testing::{Cluster, Fault, bytes};
use crate::{Client, ClientError, TransactOptions};

async fn setup() -> (Arc<Cluster>, Client) {
    let cluster = Cluster::new(&["d", "m"]);
    let client = cluster.client().await;
    (cluster, client)
}

async fn put(client: &Client, pairs: &[(&'static str, &'static str)]) -> Timestamp {
    let transaction = client.begin().await.unwrap();
    for (key, value) in pairs {
        transaction.put(*key, *value).unwrap();
    }
    transaction.commit().await.unwrap()
}

async fn get(client: &Client, key: &'static str) -> Option<Bytes> {
    let ts = client.timestamp().await.unwrap();
    client.snapshot(ts).get(key).await.unwrap()
}

/// Waits until the work that transactions leave to the background is done.
async fn unlocked(cluster: &Cluster) {
    for _ in 0..1000 {
        if cluster.data.lock().locks.is_empty() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{:?}", cluster.data.lock().locks);
}

/// Leaves locks of a transaction whose client is gone, with the primary first.
async fn abandon(cluster: &Cluster, client: &Client, keys: &[&'static str]) -> Timestamp {
    let start_ts = client.timestamp().await.unwrap();
    for key in keys {
        let lock = LockInfo {
            primary_lock: bytes(keys[0]),
            lock_version: start_ts.get(),
            key: bytes(key),
            lock_ttl: 3000,
            lock_type: Op::Put.into(),
            min_commit_ts: start_ts.get() + 1,
            ..Default::default()
        };
        cluster.data.lock().locks.insert(bytes(key), (lock, bytes("abandoned")));
    }
    start_ts
}

#[tokio::test(start_paused = true)]
async fn a_transaction_reads_its_writes_and_commits_across_ranges() {
    let (cluster, client) = setup().await;
    put(&client, &[("a", "1"), ("f", "1"), ("z", "1")]).await;
    let transaction = client.begin().await.unwrap();
    transaction.put("b", "2").unwrap();
    transaction.delete("f").unwrap();
    transaction.insert("n", "2").unwrap();
    assert_eq!(transaction.get("b").await, Ok(Some(bytes("2"))));
    assert_eq!(transaction.get("f").await, Ok(None));
    assert_eq!(transaction.get("a").await, Ok(Some(bytes("1"))));
    let keys =
        |rows: Vec<(Bytes, Bytes)>| rows.iter().map(|row| row.0[0] as char).collect::<String>();
    assert_eq!(keys(transaction.scan(KeyRange::all(), 10).await.unwrap()), "abnz");
    assert_eq!(keys(transaction.scan(KeyRange::all(), 2).await.unwrap()), "ab");
    assert_eq!(keys(transaction.reverse_scan(KeyRange::new("a", "z"), 10).await.unwrap()), "nba");
    assert_eq!(keys(transaction.batch_get(["z", "f", "n"]).await.unwrap()), "nz");
    assert_eq!(get(&client, "b").await, None, "nothing is visible yet");
    let commit_ts = transaction.commit().await.unwrap();
    assert_eq!(transaction.commit().await, Err(ClientError::Finished));
    assert_eq!(client.snapshot(commit_ts).get("b").await, Ok(Some(bytes("2"))));
    assert_eq!(client.snapshot(commit_ts.prev()).get("b").await, Ok(None));
    assert_eq!(get(&client, "f").await, None);
    unlocked(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn without_writes_commit_asks_nobody() {
    let (cluster, client) = setup().await;
    let transaction = client.begin().await.unwrap();
    assert_eq!(transaction.commit().await, Ok(transaction.start_ts()));
    assert!(cluster.log.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_first_committer_wins() {
    let (cluster, client) = setup().await;
    let (first, second) = (client.begin().await.unwrap(), client.begin().await.unwrap());
    first.put("f", "first").unwrap();
    second.put("a", "second").unwrap();
    second.put("f", "second").unwrap();
    let winner = (first.start_ts(), first.commit().await.unwrap());
    let error = second.commit().await.unwrap_err();
    let ClientError::Conflict(conflict) = &error else { panic!("{error}") };
    assert_eq!((conflict.winner_start_ts, conflict.winner_commit_ts), winner);
    assert_eq!(conflict.key, bytes("f"));
    assert!(error.is_transaction_retryable());
    unlocked(&cluster).await;
    assert_eq!((get(&client, "a").await, get(&client, "f").await), (None, Some(bytes("first"))));
}

#[tokio::test(start_paused = true)]
async fn a_lock_guards_what_was_only_read() {
    let (_, client) = setup().await;
    let reader = client.begin().await.unwrap();
    reader.lock("a").unwrap();
    reader.put("z", "depends on a").unwrap();
    put(&client, &[("a", "changed")]).await;
    assert!(matches!(reader.commit().await, Err(ClientError::Conflict(_))));
}

#[tokio::test(start_paused = true)]
async fn an_insert_fails_if_the_key_exists() {
    let (_, client) = setup().await;
    put(&client, &[("a", "1")]).await;
    let transaction = client.begin().await.unwrap();
    transaction.insert("a", "2").unwrap();
    transaction.delete("a").unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error, ClientError::AlreadyExists { key: bytes("a") });
    let transaction = client.begin().await.unwrap();
    transaction.insert("b", "2").unwrap();
    transaction.delete("b").unwrap();
    assert_eq!(transaction.commit().await, Ok(transaction.start_ts()));
}

#[tokio::test(start_paused = true)]
async fn transact_runs_again_after_a_conflict() {
    let (_, client) = setup().await;
    put(&client, &[("n", "0")]).await;
    let increments = (0..8).map(|_| {
        client.transact(TransactOptions::default(), |transaction| async move {
            let value = transaction.get("n").await?.unwrap_or_default();
            let value: u64 = String::from_utf8_lossy(&value).parse().unwrap();
            transaction.put("n", (value + 1).to_string())?;
            Ok(value)
        })
    });
    let done = futures::future::try_join_all(increments).await.unwrap();
    assert_eq!(get(&client, "n").await, Some(bytes("8")));
    let mut seen: Vec<_> = done.iter().map(|done| done.value).collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(done.iter().any(|done| done.retries > 0));
}

#[tokio::test(start_paused = true)]
async fn transact_does_not_hide_an_unknown_outcome_and_gives_up() {
    let (cluster, client) = setup().await;
    let mut runs = 0;
    let outcome = client
        .transact(TransactOptions::default(), |_| {
            runs += 1;
            ready(Err::<(), _>(ClientError::Unknown { what: "commit", why: String::new() }))
        })
        .await;
    assert!(matches!(outcome, Err(ClientError::Unknown { .. })) && runs == 1);
    let options = TransactOptions { attempts_max: 3, ..Default::default() };
    let outcome = client
        .transact(options, |_| {
            runs += 1;
            ready(Err::<(), _>(ClientError::Aborted { why: String::new() }))
        })
        .await;
    assert!(matches!(outcome, Err(ClientError::Aborted { .. })) && runs == 4);
    assert!(cluster.log.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn transact_may_run_in_a_task() {
    let (cluster, client) = setup().await;
    let (sender, done) = tokio::sync::oneshot::channel();
    let task: BoxFuture<()> = Box::pin(async move {
        let key = &"a".to_owned();
        let outcome = client
            .transact(TransactOptions::default(), |transaction| async move {
                transaction.get(key.clone()).await?;
                transaction.put(key.clone(), "1")
            })
            .await;
        let _ = sender.send(outcome);
    });
    cluster.runtime.spawn(task);
    done.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn lost_answers_on_the_way_do_not_matter() {
    for name in ["Prewrite", "Commit"] {
        for fault in [Fault::LostRequest, Fault::LostAnswer, Fault::Silent] {
            let (cluster, client) = setup().await;
            cluster.fail_next(name, fault);
            put(&client, &[("a", "1"), ("z", "1")]).await;
            assert_eq!(get(&client, "a").await, Some(bytes("1")));
            assert_eq!(get(&client, "z").await, Some(bytes("1")));
        }
    }
}

/// Loses every attempt to commit within the call's time, the last of them as `last` says.
fn lose_commits(cluster: &Cluster, executed: bool) {
    if executed {
        cluster.fail_next("Commit", Fault::LostAnswer);
    }
    for _ in 0..4 {
        cluster.fail_next("Commit", Fault::Silent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_commit_is_looked_up() {
    let (cluster, client) = setup().await;
    lose_commits(&cluster, true);
    put(&client, &[("a", "1"), ("z", "1")]).await;
    assert!(cluster.sent("CheckTxnStatus") >= 1);
    assert_eq!(get(&client, "z").await, Some(bytes("1")));

    let (cluster, client) = setup().await;
    lose_commits(&cluster, false);
    let transaction = client.begin().await.unwrap();
    transaction.put("a", "1").unwrap();
    let outcome = transaction.commit().await;
    assert!(matches!(outcome, Err(ClientError::Aborted { .. })), "{outcome:?}");
    assert_eq!(get(&client, "a").await, None);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_cannot_be_learnt_is_unknown() {
    let (cluster, client) = setup().await;
    lose_commits(&cluster, true);
    for _ in 0..4 {
        cluster.fail_next("CheckTxnStatus", Fault::Silent);
    }
    let transaction = client.begin().await.unwrap();
    transaction.put("a", "1").unwrap();
    assert!(matches!(transaction.commit().await, Err(ClientError::Unknown { .. })));
    assert_eq!(cluster.sent("BatchRollback"), 0, "it may have been committed");
}

#[tokio::test(start_paused = true)]
async fn readers_finish_what_others_left() {
    let (cluster, client) = setup().await;
    let start_ts = abandon(&cluster, &client, &["a", "z"]).await;
    // Before its time is up, it is passed by: it can only commit above the reader.
    assert_eq!(get(&client, "z").await, None);
    assert!(cluster.runtime.now() < Duration::from_secs(1));
    // The primary is committed: so is the other.
    let commit_ts = client.timestamp().await.unwrap();
    cluster.data.lock().commit(&cribwork_proto::kvrpcpb::CommitRequest {
        start_version: start_ts.get(),
        keys: vec![bytes("a")],
        commit_version: commit_ts.get(),
        context: None,
    });
    assert_eq!(get(&client, "z").await, Some(bytes("abandoned")));
    assert!(cluster.data.lock().locks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_expired_transaction_is_rolled_back_by_whoever_meets_it() {
    let (cluster, client) = setup().await;
    abandon(&cluster, &client, &["a", "z"]).await;
    put(&client, &[("z", "1")]).await;
    let took = cluster.runtime.now();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!((get(&client, "a").await, get(&client, "z").await), (None, Some(bytes("1"))));
}

#[tokio::test(start_paused = true)]
async fn a_missing_primary_is_waited_for() {
    let (cluster, client) = setup().await;
    abandon(&cluster, &client, &["a", "z"]).await;
    // Its prewrite is still on its way.
    cluster.data.lock().locks.remove(&bytes("a"));
    put(&client, &[("z", "1")]).await;
    assert!(cluster.runtime.now() >= Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn scans_and_batches_pass_locks_by() {
    let (cluster, client) = setup().await;
    put(&client, &[("a", "1"), ("b", "1"), ("z", "1")]).await;
    abandon(&cluster, &client, &["b", "z"]).await;
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    let rows = snapshot.scan(KeyRange::all(), 10).await.unwrap();
    assert!(rows.len() == 3 && rows.iter().all(|(_, value)| value == "1"), "{rows:?}");
    assert_eq!(snapshot.batch_get(["z", "b"]).await.unwrap().len(), 2);
    assert_eq!(snapshot.reverse_scan(KeyRange::all(), 2).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_lasts_is_reported() {
    let (cluster, client) = setup().await;
    let holder = abandon(&cluster, &client, &["a"]).await;
    cluster.data.lock().locks.get_mut(&bytes("a")).unwrap().0.lock_ttl = 60_000;
    let transaction = client.begin().await.unwrap();
    transaction.put("a", "1").unwrap();
    let outcome = transaction.commit().await;
    assert_eq!(outcome, Err(ClientError::Locked { key: bytes("a"), holder }));
}

#[tokio::test(start_paused = true)]
async fn one_that_holds_locks_gives_way_to_an_older_one_and_waits_for_a_younger_one() {
    // Each holds what the other wants next: if both waited, both would run out of time.
    let (cluster, client) = setup().await;
    let older = client.begin().await.unwrap();
    let younger = client.begin().await.unwrap();
    for (transaction, has) in [(&older, "a"), (&younger, "z")] {
        let start_ts = transaction.start_ts();
        let lock = LockInfo {
            primary_lock: bytes(has),
            lock_version: start_ts.get(),
            key: bytes(has),
            lock_ttl: 60_000,
            lock_type: Op::Put.into(),
            min_commit_ts: start_ts.get() + 1,
            ..Default::default()
        };
        cluster.data.lock().locks.insert(bytes(has), (lock, bytes("prewritten")));
    }
    for transaction in [&older, &younger] {
        for key in ["a", "z"] {
            transaction.put(key, "1").unwrap();
        }
    }
    let (first, second) = tokio::join!(older.commit(), younger.commit());
    assert!(
        matches!(second, Err(ClientError::Locked { holder, .. }) if holder == older.start_ts())
    );
    assert!(first.is_ok(), "{first:?}");
    let took = cluster.runtime.now();
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_async_commit_is_decided_by_its_secondaries() {
    for complete in [true, false] {
        let (cluster, client) = setup().await;
        abandon(&cluster, &client, &["a", "f", "z"]).await;
        for (lock, _) in cluster.data.lock().locks.values_mut() {
            lock.use_async_commit = true;
            // Its owner has been silent for long enough.
            lock.lock_ttl = 1;
        }
        cluster.data.lock().locks.get_mut(&bytes("a")).unwrap().0.secondaries =
            vec![bytes("f"), bytes("z")];
        if !complete {
            cluster.data.lock().locks.remove(&bytes("f"));
        }
        let value = complete.then(|| bytes("abandoned"));
        assert_eq!(get(&client, "z").await, value);
        assert_eq!(get(&client, "a").await, value);
        assert!(cluster.data.lock().locks.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_commit_keeps_its_locks_alive() {
    let (cluster, client) = setup().await;
    // Prewritten, then silent for as long as an attempt may take.
    cluster.fail_next("Commit", Fault::Silent);
    put(&client, &[("a", "1")]).await;
    assert!(cluster.sent("TxnHeartBeat") >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_commit_pushed_by_a_reader_takes_a_later_timestamp() {
    let (cluster, client) = setup().await;
    let transaction = client.begin().await.unwrap();
    transaction.put("a", "1").unwrap();
    // The lock is there already, pushed far ahead.
    let pushed = transaction.start_ts().get() + 3;
    cluster.data.lock().prewrite(&PrewriteRequest {
        mutations: vec![cribwork_proto::kvrpcpb::Mutation {
            key: bytes("a"),
            value: bytes("1"),
            ..Default::default()
        }],
        primary_lock: bytes("a"),
        start_version: transaction.start_ts().get(),
        lock_ttl: 3000,
        min_commit_ts: pushed,
        ..Default::default()
    });
    // The prewrite is found done.
    let commit_ts = transaction.commit().await.unwrap();
    assert!(commit_ts.get() >= pushed);
}
