//! Requests that are too large, and bounds that make no sense.

use bytes::Bytes;
use cribwork_proto::kvrpcpb::{
    GetRequest, KeyRange, KvPair, Mutation, PrewriteRequest, RawBatchDeleteRequest,
    RawBatchGetRequest, RawBatchPutRequest, RawBatchScanRequest, RawDeleteRangeRequest,
    RawGetRequest, RawPutRequest, RawScanRequest, ScanLockRequest, ScanRequest,
};
use cribwork_types::limits::{
    BATCH_KEYS_MAX, ENTRY_BYTES_MAX, KEY_BYTES_MAX, MESSAGE_BYTES_MAX, SCAN_LIMIT_MAX,
    VALUE_BYTES_MAX,
};
use tonic::Code;

use super::Wire;

fn bytes(length: usize) -> Bytes {
    Bytes::from(vec![b'k'; length])
}

#[test]
fn what_is_too_large_is_refused_and_says_the_limit() {
    let mut wire = Wire::start(1, 1);
    let context = Some(wire.context(b"k"));
    let mut tikv = wire.tikv(1);

    let put = |key: usize, value: usize| RawPutRequest {
        context: context.clone(),
        key: bytes(key),
        value: bytes(value),
        ..Default::default()
    };
    for (request, limit) in
        [(put(KEY_BYTES_MAX + 1, 1), KEY_BYTES_MAX), (put(1, VALUE_BYTES_MAX + 1), VALUE_BYTES_MAX)]
    {
        let answer = wire.ask(tikv.raw_put(request)).unwrap().into_inner();
        assert!(answer.error.contains(&limit.to_string()), "{:.300}", format!("{answer:?}"));
    }
    wire.put_and_get(&bytes(KEY_BYTES_MAX), &bytes(VALUE_BYTES_MAX));

    let mutation = Mutation { key: bytes(KEY_BYTES_MAX + 1), ..Default::default() };
    let request = PrewriteRequest {
        context: context.clone(),
        primary_lock: mutation.key.clone(),
        mutations: vec![mutation],
        start_version: 1,
        ..Default::default()
    };
    let answer = wire.ask(tikv.kv_prewrite(request)).unwrap().into_inner();
    assert!(answer.errors[0].abort.contains(&KEY_BYTES_MAX.to_string()));
    let request = GetRequest {
        context: context.clone(),
        key: bytes(KEY_BYTES_MAX + 1),
        version: 1,
        ..Default::default()
    };
    let answer = wire.ask(tikv.kv_get(request)).unwrap().into_inner();
    assert!(answer.error.unwrap().abort.contains(&KEY_BYTES_MAX.to_string()));
    wire.lives();
}

/// The one error that an answer of pairs has room for.
fn refusal(pairs: &[KvPair]) -> &str {
    assert_eq!(pairs.len(), 1);
    &pairs[0].error.as_ref().unwrap().abort
}

#[test]
fn batches_are_bounded() {
    let mut wire = Wire::start(1, 1);
    let context = Some(wire.context(b"k"));
    let mut tikv = wire.tikv(1);
    let keys = vec![bytes(3); BATCH_KEYS_MAX + 1];

    let request =
        RawBatchGetRequest { context: context.clone(), keys: keys.clone(), ..Default::default() };
    let answer = wire.ask(tikv.raw_batch_get(request)).unwrap().into_inner();
    assert!(refusal(&answer.pairs).contains(&BATCH_KEYS_MAX.to_string()), "{answer:?}");
    let request = RawBatchDeleteRequest { context: context.clone(), keys, ..Default::default() };
    let answer = wire.ask(tikv.raw_batch_delete(request)).unwrap().into_inner();
    assert!(answer.error.contains(&BATCH_KEYS_MAX.to_string()), "{answer:?}");

    // Fits into a message, and each value is allowed, but all together are too much for one entry.
    let pair = |key: &'static str| KvPair {
        key: Bytes::from_static(key.as_bytes()),
        value: bytes(VALUE_BYTES_MAX),
        ..Default::default()
    };
    assert!((ENTRY_BYTES_MAX..MESSAGE_BYTES_MAX).contains(&(2 * VALUE_BYTES_MAX)));
    let batch = |ttls: Vec<u64>| RawBatchPutRequest {
        context: context.clone(),
        pairs: vec![pair("large/a"), pair("large/b")],
        ttls,
        ..Default::default()
    };
    let answer = wire.ask(tikv.raw_batch_put(batch(Vec::new()))).unwrap().into_inner();
    let refused = answer.region_error.expect("an entry that is too large");
    assert!(refused.raft_entry_too_large.is_some(), "{refused:?}");
    let get =
        RawGetRequest { context: context.clone(), key: pair("large/a").key, ..Default::default() };
    assert!(wire.ask(tikv.raw_get(get)).unwrap().into_inner().not_found, "nothing was written");
    let answer = wire.ask(tikv.raw_batch_put(batch(vec![1, 2, 3]))).unwrap().into_inner();
    assert!(answer.error.contains("3 ttls for 2 pairs"), "{answer:?}");

    let request = RawPutRequest {
        context: context.clone(),
        key: bytes(1),
        value: bytes(MESSAGE_BYTES_MAX),
        ..Default::default()
    };
    let refused = wire.ask(tikv.raw_put(request)).unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    wire.lives();
}

#[test]
fn limits_and_bounds_of_scans_are_checked() {
    let mut wire = Wire::start(1, 1);
    let context = Some(wire.context(b"k"));
    let mut tikv = wire.tikv(1);
    for key in [b"a", b"b", b"c"] {
        wire.put_and_get(key, b"x");
    }

    let scan = |start: &'static str, end: &'static str, limit: u32| RawScanRequest {
        context: context.clone(),
        start_key: start.into(),
        end_key: end.into(),
        limit,
        ..Default::default()
    };
    let answer = wire.ask(tikv.raw_scan(scan("a", "z", u32::MAX))).unwrap().into_inner();
    assert!(refusal(&answer.kvs).contains(&SCAN_LIMIT_MAX.to_string()), "{answer:?}");
    for (start, end, limit, rows) in [
        ("a", "z", SCAN_LIMIT_MAX, 3),
        ("a", "z", 0, 0),
        ("a", "a", 10, 0),
        ("z", "a", 10, 0),
        ("", "", 10, 3),
    ] {
        let answer = wire.ask(tikv.raw_scan(scan(start, end, limit))).unwrap().into_inner();
        assert!(answer.region_error.is_none(), "{answer:?}");
        assert_eq!(answer.kvs.len(), rows, "{start:?}..{end:?} limit {limit}");
    }
    let span = |start: &'static str, end: &'static str| KeyRange {
        start_key: start.into(),
        end_key: end.into(),
    };
    let request = RawBatchScanRequest {
        context: context.clone(),
        ranges: vec![span("c", "a"), span("a", "c"), span("b", "b")],
        each_limit: 10,
        ..Default::default()
    };
    let answer = wire.ask(tikv.raw_batch_scan(request)).unwrap().into_inner();
    assert_eq!(answer.kvs.len(), 2, "{answer:?}");
    for (start, end) in [("c", "a"), ("b", "b")] {
        let request = RawDeleteRangeRequest {
            context: context.clone(),
            start_key: start.into(),
            end_key: end.into(),
            ..Default::default()
        };
        let answer = wire.ask(tikv.raw_delete_range(request)).unwrap().into_inner();
        assert!(answer.error.is_empty() && answer.region_error.is_none(), "{answer:?}");
    }
    let left = wire.ask(tikv.raw_scan(scan("a", "z", 10))).unwrap().into_inner();
    assert_eq!(left.kvs.len(), 3, "crossed bounds delete nothing");
    for (start, end, limit) in [("a", "z", u32::MAX), ("z", "a", u32::MAX), ("a", "a", 1)] {
        let request = ScanRequest {
            context: context.clone(),
            start_key: start.into(),
            end_key: end.into(),
            limit,
            version: u64::MAX,
            ..Default::default()
        };
        let answer = wire.ask(tikv.kv_scan(request)).unwrap().into_inner();
        assert!(answer.region_error.is_none() && answer.error.is_none(), "{answer:?}");
        assert!(answer.pairs.is_empty(), "raw values are another world");
    }
    wire.lives();
}

#[test]
fn limits_of_nothing_and_of_everything_are_limits() {
    let mut wire = Wire::start(1, 1);
    wire.cluster.run(&["txn", "put", "a", "x"]).ok();
    wire.put_and_get(b"a", b"x");
    let context = Some(wire.context(b"k"));
    let mut tikv = wire.tikv(1);

    let scan = |limit| ScanRequest {
        context: context.clone(),
        limit,
        version: u64::MAX,
        ..Default::default()
    };
    for (limit, rows) in [(0, 0), (1, 1), (u32::MAX, 1)] {
        let answer = wire.ask(tikv.kv_scan(scan(limit))).unwrap().into_inner();
        assert!(answer.region_error.is_none() && answer.error.is_none(), "{answer:?}");
        assert_eq!(answer.pairs.len(), rows, "limit {limit}: {answer:?}");
    }

    let locks = |limit| ScanLockRequest {
        context: context.clone(),
        max_version: u64::MAX,
        limit,
        ..Default::default()
    };
    // Zero means all of them here.
    let answer = wire.ask(tikv.kv_scan_lock(locks(0))).unwrap().into_inner();
    assert!(answer.error.is_none() && answer.locks.is_empty(), "{answer:?}");
    let answer = wire.ask(tikv.kv_scan_lock(locks(u32::MAX))).unwrap().into_inner();
    let refused = answer.error.expect("more than an answer may hold").abort;
    assert!(refused.contains("locks in one answer"), "{refused}");

    let scans = |ranges: usize, each_limit| RawBatchScanRequest {
        context: context.clone(),
        ranges: vec![KeyRange::default(); ranges],
        each_limit,
        ..Default::default()
    };
    let answer = wire.ask(tikv.raw_batch_scan(scans(1, u32::MAX))).unwrap().into_inner();
    assert!(refusal(&answer.kvs).contains(&SCAN_LIMIT_MAX.to_string()), "{answer:?}");
    let many = scans(BATCH_KEYS_MAX + 1, 1);
    let answer = wire.ask(tikv.raw_batch_scan(many)).unwrap().into_inner();
    assert!(refusal(&answer.kvs).contains(&BATCH_KEYS_MAX.to_string()), "{answer:?}");
    let answer = wire.ask(tikv.raw_batch_scan(scans(3, 0))).unwrap().into_inner();
    assert!(answer.kvs.is_empty() && answer.region_error.is_none(), "{answer:?}");
    wire.lives();
}
