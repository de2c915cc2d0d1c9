//! Optimistic transactions.

use cribwork_proto::kvrpcpb::*;

use crate::kv::testing::{LOW, Node};

fn ts(physical_ms: u64) -> u64 {
    physical_ms << 18
}

fn mutation(op: Op, key: &'static str, value: &'static str) -> Mutation {
    Mutation { op: op.into(), key: key.into(), value: value.into(), ..Default::default() }
}

fn prewrite(node: &Node, start: u64, mutations: Vec<Mutation>) -> PrewriteRequest {
    PrewriteRequest {
        context: node.context(LOW),
        primary_lock: mutations[0].key.clone(),
        mutations,
        start_version: start,
        lock_ttl: 3000,
        txn_size: 1,
        ..Default::default()
    }
}

fn commit(node: &Node, start: u64, commit: u64, keys: &[&'static str]) -> CommitRequest {
    CommitRequest {
        context: node.context(LOW),
        start_version: start,
        commit_version: commit,
        keys: keys.iter().map(|key| (*key).into()).collect(),
    }
}

fn get(node: &Node, key: &'static str, version: u64) -> GetRequest {
    GetRequest { context: node.context(LOW), key: key.into(), version, ..Default::default() }
}

async fn write(node: &Node, key: &'static str, value: &'static str, start: u64, end: u64) {
    let answer = node.call(prewrite(node, start, vec![mutation(Op::Put, key, value)])).await;
    assert_eq!(answer, PrewriteResponse::default());
    let answer = node.call(commit(node, start, end, &[key])).await;
    assert_eq!(answer, CommitResponse { commit_version: end, ..Default::default() });
}

#[tokio::test]
async fn what_is_committed_is_read_at_and_after_its_timestamp() {
    let node = Node::single().await;
    write(&node, "a", "1", ts(10), ts(20)).await;
    let long: &'static str = "x".repeat(1000).leak();
    write(&node, "a", long, ts(30), ts(40)).await;
    assert!(node.call(get(&node, "a", ts(19))).await.not_found);
    assert_eq!(node.call(get(&node, "a", ts(20))).await.value, "1");
    assert_eq!(node.call(get(&node, "a", ts(40))).await.value, long);
    assert_eq!(node.call(get(&node, "a", u64::MAX)).await.value, long);
    // A repeat changes nothing and gives the same answer.
    let again = node.call(commit(&node, ts(30), ts(40), &["a"])).await;
    assert_eq!(again.commit_version, ts(40));
    let keys = vec!["a".into(), "b".into()];
    let request =
        BatchGetRequest { context: node.context(LOW), keys, version: ts(50), ..Default::default() };
    assert_eq!(node.call(request).await.pairs.len(), 1);
}

#[tokio::test]
async fn locks_block_readers_and_conflicts_refuse_writers() {
    let node = Node::single().await;
    write(&node, "a", "1", ts(10), ts(20)).await;
    let late = node.call(prewrite(&node, ts(15), vec![mutation(Op::Put, "a", "2")])).await;
    let conflict = late.errors[0].conflict.as_ref().unwrap();
    assert_eq!((conflict.start_ts, conflict.conflict_ts), (ts(15), ts(10)));
    assert_eq!(conflict.conflict_commit_ts, ts(20));
    assert_eq!(conflict.reason, write_conflict::Reason::Optimistic as i32);

    let both = vec![mutation(Op::Put, "a", "3"), mutation(Op::Del, "b", "")];
    assert!(node.call(prewrite(&node, ts(30), both)).await.errors.is_empty());
    let locked = node.call(get(&node, "a", ts(31))).await.error.unwrap().locked.unwrap();
    assert_eq!((locked.lock_version, locked.lock_ttl), (ts(30), 3000));
    assert_eq!((&locked.primary_lock[..], &locked.key[..]), (&b"a"[..], &b"a"[..]));
    assert_eq!(node.call(get(&node, "a", ts(29))).await.value, "1");
    let scan = ScanRequest {
        context: node.context(LOW),
        limit: 10,
        version: ts(31),
        ..Default::default()
    };
    let pairs = node.call(scan.clone()).await.pairs;
    assert!(pairs.len() == 2 && pairs.iter().all(|pair| pair.error.is_some()));
    let other = node.call(prewrite(&node, ts(40), vec![mutation(Op::Put, "b", "")])).await;
    assert_eq!(other.errors[0].locked.as_ref().unwrap().lock_version, ts(30));

    let mut passing = scan;
    passing.context.as_mut().unwrap().resolved_locks = vec![ts(30)];
    assert_eq!(node.call(passing).await.pairs[0].value, "1");
    let mut reading = get(&node, "a", ts(31));
    reading.context.as_mut().unwrap().committed_locks = vec![ts(30)];
    assert_eq!(node.call(reading).await.value, "3");
}

#[tokio::test]
async fn locks_are_found_and_resolved() {
    let node = Node::single().await;
    // More locks than one proposal finishes.
    let keys: Vec<&'static str> = (0..600).map(|number| &*format!("k{number:04}").leak()).collect();
    let all = keys.iter().map(|key| mutation(Op::Put, key, "v")).collect();
    assert!(node.call(prewrite(&node, ts(10), all)).await.errors.is_empty());
    assert!(
        node.call(prewrite(&node, ts(11), vec![mutation(Op::Put, "a", "1")]))
            .await
            .errors
            .is_empty()
    );
    let locks = ScanLockRequest {
        context: node.context(LOW),
        max_version: ts(10),
        start_key: "b".into(),
        end_key: "zzz".into(),
        limit: 1000,
    };
    assert_eq!(node.call(locks.clone()).await.locks.len(), 600);
    let primary = node.call(commit(&node, ts(10), ts(20), &keys[..1])).await;
    assert!(primary.error.is_none());
    let lite = ResolveLockRequest {
        context: node.context(LOW),
        start_version: ts(10),
        commit_version: ts(20),
        keys: vec!["k0005".into()],
        ..Default::default()
    };
    assert_eq!(node.call(lite.clone()).await, ResolveLockResponse::default());
    assert_eq!(node.call(locks.clone()).await.locks.len(), 598);
    let rest = ResolveLockRequest { keys: Vec::new(), ..lite };
    assert_eq!(node.call(rest.clone()).await, ResolveLockResponse::default());
    assert!(node.call(locks).await.locks.is_empty());
    assert_eq!(node.call(get(&node, "k0599", ts(30))).await.value, "v");
    assert_eq!(node.call(rest).await, ResolveLockResponse::default(), "a repeat is fine");
    // The other transaction's lock is left alone.
    assert!(node.call(get(&node, "a", ts(30))).await.error.unwrap().locked.is_some());
}

fn status(node: &Node, lock_ts: u64, current_ts: u64) -> CheckTxnStatusRequest {
    CheckTxnStatusRequest {
        context: node.context(LOW),
        primary_key: "a".into(),
        lock_ts,
        current_ts,
        verify_is_primary: true,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_transactions_status_has_three_shapes() {
    let node = Node::single().await;
    let missing = node.call(status(&node, ts(10), ts(10))).await;
    assert!(missing.error.unwrap().txn_not_found.is_some());
    node.call(prewrite(&node, ts(10), vec![mutation(Op::Put, "a", "1")])).await;
    let alive = node.call(status(&node, ts(10), ts(11))).await;
    assert!(alive.lock_ttl == 3000 && alive.lock_info.is_some() && alive.commit_version == 0);
    let beat = TxnHeartBeatRequest {
        context: node.context(LOW),
        primary_lock: "a".into(),
        start_version: ts(10),
        advise_lock_ttl: 5000,
        ..Default::default()
    };
    assert_eq!(node.call(beat).await.lock_ttl, 5000);
    let dead = node.call(status(&node, ts(10), ts(5011))).await;
    assert_eq!(dead.action, Action::TtlExpireRollback as i32);
    assert!(dead.lock_ttl == 0 && dead.lock_info.is_none() && dead.commit_version == 0);
    let too_late = node.call(commit(&node, ts(10), ts(20), &["a"])).await;
    assert!(too_late.error.unwrap().txn_lock_not_found.is_some());
    write(&node, "a", "2", ts(6000), ts(6001)).await;
    let committed = node.call(status(&node, ts(6000), ts(6002))).await;
    assert_eq!((committed.commit_version, committed.lock_ttl), (ts(6001), 0));
}

#[tokio::test]
async fn a_rollback_outruns_its_prewrite() {
    let node = Node::single().await;
    let rollback = BatchRollbackRequest {
        context: node.context(LOW),
        start_version: ts(10),
        keys: vec!["a".into()],
    };
    assert_eq!(node.call(rollback).await, BatchRollbackResponse::default());
    let late = node.call(prewrite(&node, ts(10), vec![mutation(Op::Put, "a", "1")])).await;
    let conflict = late.errors[0].conflict.as_ref().unwrap();
    assert_eq!(conflict.reason, write_conflict::Reason::SelfRolledBack as i32);
    write(&node, "b", "1", ts(20), ts(30)).await;
    let cleanup = CleanupRequest {
        context: node.context(LOW),
        key: "b".into(),
        start_version: ts(20),
        ..Default::default()
    };
    assert_eq!(node.call(cleanup).await.commit_version, ts(30));
}

#[tokio::test]
async fn a_deleted_span_is_gone_with_its_locks() {
    let node = Node::single().await;
    write(&node, "a", "1", ts(10), ts(20)).await;
    write(&node, "c", "1", ts(10), ts(20)).await;
    node.call(prewrite(&node, ts(30), vec![mutation(Op::Put, "b", "1")])).await;
    let delete = DeleteRangeRequest {
        context: node.context(LOW),
        start_key: "a".into(),
        end_key: "c".into(),
        ..Default::default()
    };
    assert_eq!(node.call(delete).await, DeleteRangeResponse::default());
    for (key, gone) in [("a", true), ("b", true), ("c", false)] {
        let answer = node.call(get(&node, key, ts(40))).await;
        assert!(answer.error.is_none() && answer.not_found == gone, "{key}");
    }
}

#[tokio::test]
async fn features_that_are_missing_name_themselves() {
    let node = Node::single().await;
    let base = prewrite(&node, ts(10), vec![mutation(Op::Put, "a", "1")]);
    let with = |change: fn(&mut PrewriteRequest)| {
        let mut request = base.clone();
        change(&mut request);
        request
    };
    for (request, word) in [
        (with(|it| it.use_async_commit = true), "use_async_commit"),
        (with(|it| it.try_one_pc = true), "try_one_pc"),
        (with(|it| it.for_update_ts = 5), "for_update_ts"),
        (with(|it| it.pessimistic_actions = vec![1]), "pessimistic_actions"),
        (with(|it| it.mutations[0].op = Op::PessimisticLock.into()), "PessimisticLock"),
        (with(|it| it.mutations[0].op = 4711), "4711"),
        (with(|it| it.mutations.push(it.mutations[0].clone())), "twice"),
        (with(|it| it.context.as_mut().unwrap().api_version = 2), "api_version"),
    ] {
        let answer = node.call(request).await;
        assert!(answer.errors[0].abort.contains(word), "{answer:?}");
    }
    let mut read = get(&node, "a", ts(20));
    read.context.as_mut().unwrap().isolation_level = IsolationLevel::Rc.into();
    let refused = node.call(read).await.error.unwrap();
    assert!(refused.abort.contains("isolation level"));
    // None of them left anything behind.
    assert!(node.call(get(&node, "a", ts(20))).await.not_found);
}
