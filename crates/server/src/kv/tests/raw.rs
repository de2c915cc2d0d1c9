//! The raw API.

use cribwork_proto::kvrpcpb::*;
use cribwork_proto::tikvpb::tikv_server::Tikv;
use cribwork_types::Timestamp;
use cribwork_types::limits::{KEY_BYTES_MAX, SCAN_LIMIT_MAX, VALUE_BYTES_MAX};
use tonic::{Code, Request};

use crate::kv::testing::{HIGH, LOW, Node};

async fn put(node: &Node, key: &'static str, value: &'static str, ttl: u64) {
    let request = RawPutRequest {
        context: node.context(LOW),
        key: key.into(),
        value: value.into(),
        ttl,
        ..Default::default()
    };
    assert_eq!(node.call(request).await, RawPutResponse::default());
}

async fn get(node: &Node, key: &'static str) -> Option<String> {
    let request =
        RawGetRequest { context: node.context(LOW), key: key.into(), ..Default::default() };
    let answer = node.call(request).await;
    assert!(answer.region_error.is_none() && answer.error.is_empty());
    (!answer.not_found).then(|| String::from_utf8(answer.value.to_vec()).unwrap())
}

fn scan(node: &Node, start: &'static str, end: &'static str, reverse: bool) -> RawScanRequest {
    RawScanRequest {
        context: node.context(LOW),
        start_key: start.into(),
        end_key: end.into(),
        limit: 100,
        reverse,
        ..Default::default()
    }
}

async fn scanned(node: &Node, request: RawScanRequest) -> Vec<String> {
    let answer = node.call(request).await;
    assert!(answer.region_error.is_none());
    let text = |pair: &KvPair| String::from_utf8_lossy(&pair.key).into_owned();
    answer.kvs.iter().map(text).collect()
}

#[tokio::test]
async fn values_come_and_go() {
    let node = Node::single().await;
    put(&node, "a", "1", 0).await;
    put(&node, "b", "", 0).await;
    assert_eq!(get(&node, "a").await.as_deref(), Some("1"));
    assert_eq!(get(&node, "b").await.as_deref(), Some(""), "empty is not absent");
    assert_eq!(get(&node, "c").await, None);
    let context = node.context(LOW);
    let keys = vec!["c".into(), "b".into(), "a".into()];
    let several = RawBatchGetRequest { context: context.clone(), keys, ..Default::default() };
    assert_eq!(node.call(several).await.pairs.len(), 2, "absent keys are left out");
    let delete = RawDeleteRequest { context, key: "a".into(), ..Default::default() };
    assert_eq!(node.call(delete).await, RawDeleteResponse::default());
    assert_eq!(get(&node, "a").await, None);
    let other = RawGetRequest { context: node.context(LOW), key: "b".into(), cf: "write".into() };
    assert!(node.call(other).await.not_found, "each cf is a key space of its own");
}

#[tokio::test]
async fn batches_deletes_and_scans_are_clipped_to_the_range() {
    let node = Node::single().await;
    let pairs = ["a", "b", "c", "d"].map(|key| KvPair { key: key.into(), ..Default::default() });
    let request = RawBatchPutRequest {
        context: node.context(LOW),
        pairs: pairs.to_vec(),
        ttls: vec![0; 4],
        ..Default::default()
    };
    assert_eq!(node.call(request).await, RawBatchPutResponse::default());
    assert_eq!(scanned(&node, scan(&node, "b", "zzz", false)).await, ["b", "c", "d"]);
    assert_eq!(scanned(&node, scan(&node, "", "", false)).await.len(), 4);
    assert_eq!(scanned(&node, scan(&node, "zzz", "b", true)).await, ["d", "c", "b"]);
    assert_eq!(scanned(&node, scan(&node, "c", "", true)).await, ["b", "a"]);
    let limited = RawScanRequest { limit: 2, key_only: true, ..scan(&node, "a", "", false) };
    assert_eq!(scanned(&node, limited).await, ["a", "b"]);
    let nothing = RawScanRequest { limit: 0, ..scan(&node, "a", "", false) };
    assert!(scanned(&node, nothing).await.is_empty());
    let range = |start: &'static str, end: &'static str| KeyRange {
        start_key: start.into(),
        end_key: end.into(),
    };
    let several = RawBatchScanRequest {
        context: node.context(LOW),
        ranges: vec![range("c", ""), range("a", "c")],
        each_limit: 1,
        ..Default::default()
    };
    let keys: Vec<_> = node.call(several).await.kvs.into_iter().map(|pair| pair.key).collect();
    assert_eq!(keys, ["c", "a"]);
    let delete = RawDeleteRangeRequest {
        context: node.context(LOW),
        start_key: "b".into(),
        end_key: "d".into(),
        ..Default::default()
    };
    assert_eq!(node.call(delete).await, RawDeleteRangeResponse::default());
    assert_eq!(scanned(&node, scan(&node, "", "", false)).await, ["a", "d"]);
}

#[tokio::test]
async fn a_long_scan_comes_whole_in_either_direction() {
    let node = Node::single().await;
    let pairs: Vec<_> = (0..3000_u32)
        .map(|number| KvPair { key: format!("{number:05}").into(), ..Default::default() })
        .collect();
    let request = RawBatchPutRequest { context: node.context(LOW), pairs, ..Default::default() };
    assert_eq!(node.call(request).await, RawBatchPutResponse::default());
    let long = |reverse| RawScanRequest { limit: 5000, ..scan(&node, "", "", reverse) };
    let mut keys = scanned(&node, long(false)).await;
    assert!(keys.len() == 3000 && keys.is_sorted());
    keys.reverse();
    assert_eq!(scanned(&node, long(true)).await, keys);
}

#[tokio::test]
async fn time_runs_out_by_the_hybrid_clock() {
    let node = Node::single().await;
    put(&node, "a", "1", 100).await;
    put(&node, "b", "2", 0).await;
    let ttl = async |key: &'static str| {
        let context = node.context(LOW);
        let request = RawGetKeyTtlRequest { context, key: key.into(), ..Default::default() };
        let answer = node.call(request).await;
        (!answer.not_found).then_some(answer.ttl)
    };
    assert!(matches!(ttl("a").await, Some(90..=100)));
    assert_eq!(ttl("b").await, Some(0), "no time to live");
    assert_eq!(ttl("c").await, None);
    node.clock.observe(Timestamp::new(node.clock.now_ms() + 101_000, 0));
    assert_eq!((get(&node, "a").await, ttl("a").await), (None, None));
    assert_eq!(scanned(&node, scan(&node, "", "", false)).await, ["b"]);
    assert_eq!(ttl("b").await, Some(0));
}

#[tokio::test]
async fn compare_and_swap_tells_what_was_there() {
    let node = Node::single().await;
    let swap = async |from: Option<&'static str>, to: &'static str| {
        let request = RawCasRequest {
            context: node.context(LOW),
            key: "a".into(),
            value: to.into(),
            previous_not_exist: from.is_none(),
            previous_value: from.unwrap_or_default().into(),
            ..Default::default()
        };
        let answer = node.call(request).await;
        assert!(answer.error.is_empty() && answer.region_error.is_none());
        let before = (!answer.previous_not_exist).then_some(answer.previous_value);
        (answer.succeed, before)
    };
    assert_eq!(swap(Some("1"), "2").await, (false, None));
    assert_eq!(swap(None, "1").await, (true, None));
    assert_eq!(swap(None, "2").await, (false, Some("1".into())));
    assert_eq!(swap(Some("1"), "2").await, (true, Some("1".into())));
    assert_eq!(get(&node, "a").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn concurrent_swaps_of_one_key_all_count() {
    let node = std::sync::Arc::new(Node::single().await);
    put(&node, "a", "0", 0).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let node = node.clone();
        tasks.spawn(async move {
            let mut done = 0;
            while done < 25 {
                let seen = get(&node, "a").await.unwrap();
                let request = RawCasRequest {
                    context: node.context(LOW),
                    key: "a".into(),
                    value: (seen.parse::<u32>().unwrap() + 1).to_string().into(),
                    previous_value: seen.into(),
                    ..Default::default()
                };
                done += u32::from(node.call(request).await.succeed);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(get(&node, "a").await.as_deref(), Some("200"));
}

#[tokio::test]
async fn checksums_of_parts_add_up() {
    let node = Node::single().await;
    for key in ["a", "b", "c"] {
        put(&node, key, "value", 0).await;
    }
    let sum = async |parts: &[(&'static str, &'static str)]| {
        let ranges = parts
            .iter()
            .map(|(start, end)| KeyRange { start_key: (*start).into(), end_key: (*end).into() });
        let context = node.context(LOW);
        let request =
            RawChecksumRequest { context, ranges: ranges.collect(), ..Default::default() };
        node.call(request).await
    };
    let whole = sum(&[("", "")]).await;
    assert_eq!((whole.total_kvs, whole.total_bytes), (3, 18));
    assert_eq!(sum(&[("b", ""), ("a", "b")]).await, whole);
    assert_ne!(sum(&[("b", "")]).await.checksum, whole.checksum);
}

#[tokio::test]
async fn limits_are_named() {
    let node = Node::single().await;
    let long_key = vec![b'a'; KEY_BYTES_MAX + 1];
    let put =
        RawPutRequest { context: node.context(LOW), key: long_key.into(), ..Default::default() };
    assert!(node.call(put).await.error.contains("8192"));
    let large = RawPutRequest {
        context: node.context(LOW),
        key: "a".into(),
        value: vec![0; VALUE_BYTES_MAX + 1].into(),
        ..Default::default()
    };
    assert!(node.call(large).await.error.contains("6291456"));
    let bad_cf =
        RawGetRequest { cf: "raft".into(), context: node.context(LOW), ..Default::default() };
    assert!(node.call(bad_cf).await.error.contains("unknown cf"));
    let ttls = RawBatchPutRequest {
        context: node.context(LOW),
        pairs: vec![KvPair::default(); 3],
        ttls: vec![1, 2],
        ..Default::default()
    };
    assert_eq!(node.call(ttls).await.error, "2 ttls for 3 pairs");
    let long = RawScanRequest { limit: SCAN_LIMIT_MAX + 1, ..scan(&node, "", "", false) };
    let unary = node.service.raw_scan(Request::new(long.clone())).await.unwrap().into_inner();
    for answer in [unary, node.call(long).await] {
        assert!(answer.kvs[0].error.as_ref().unwrap().abort.contains("10240"), "{answer:?}");
    }
    // Three values that are allowed, and an entry that is not.
    let pair = |key: &'static str| KvPair {
        key: key.into(),
        value: vec![0; VALUE_BYTES_MAX / 2].into(),
        ..Default::default()
    };
    let entry = RawBatchPutRequest {
        context: node.context(LOW),
        pairs: vec![pair("a"), pair("b"), pair("c")],
        ..Default::default()
    };
    let error = node.call(entry).await.region_error.unwrap();
    assert!(error.raft_entry_too_large.unwrap().entry_size > 9 << 20);
}

#[tokio::test]
async fn what_is_missing_says_so() {
    let node = Node::single().await;
    let copr = RawCoprocessorRequest::default();
    let answer = node.service.raw_coprocessor(Request::new(copr)).await.unwrap();
    assert!(answer.into_inner().error.contains("RawCoprocessor"));
    let gc = node.service.kv_gc(Request::new(GcRequest::default())).await.unwrap_err();
    assert_eq!(gc.code(), Code::Unimplemented);
    let range =
        RawDeleteRequest { context: node.context(HIGH), key: "a".into(), ..Default::default() };
    assert!(node.call(range).await.region_error.unwrap().key_not_in_region.is_some());
}
