//! The raw API over several ranges.

use std::time::Duration;

use bytes::Bytes;
use cribwork_types::KeyRange;
use cribwork_types::limits::{KEY_BYTES_MAX, SCAN_LIMIT_MAX};

use crate::testing::{Cluster, bytes};
use crate::{Checksum, ClientError, RawClient};

const KEYS: [&str; 6] = ["a", "c", "f", "h", "p", "z"];

async fn filled() -> RawClient {
    let cluster = Cluster::new(&["d", "m"]);
    let raw = cluster.client().await.raw();
    raw.batch_put(KEYS.map(|key| (key, key))).await.unwrap();
    raw
}

fn keys(rows: Vec<(Bytes, Bytes)>) -> String {
    rows.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn single_keys() {
    let raw = filled().await;
    assert_eq!(raw.get("a").await, Ok(Some(bytes("a"))));
    raw.put("a", "").await.unwrap();
    assert_eq!(raw.get("a").await, Ok(Some(Bytes::new())), "empty is not absent");
    raw.delete("a").await.unwrap();
    raw.delete("a").await.unwrap();
    assert_eq!(raw.get("a").await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn batches_span_ranges() {
    let raw = filled().await;
    let rows = raw.batch_get(["z", "a", "absent", "f"]).await.unwrap();
    assert_eq!(keys(rows), "afz");
    raw.batch_delete(["a", "z"]).await.unwrap();
    assert_eq!(keys(raw.scan(KeyRange::all(), 100).await.unwrap()), "cfhp");
}

#[tokio::test(start_paused = true)]
async fn scans_go_both_ways_across_ranges() {
    let raw = filled().await;
    let all = KeyRange::all;
    assert_eq!(keys(raw.scan(all(), 100).await.unwrap()), "acfhpz");
    assert_eq!(keys(raw.scan(all(), 4).await.unwrap()), "acfh");
    assert_eq!(keys(raw.scan(KeyRange::new("c", "p"), 100).await.unwrap()), "cfh");
    assert_eq!(keys(raw.scan(KeyRange::new("c", ""), 0).await.unwrap()), "");
    assert_eq!(keys(raw.scan(KeyRange::new("p", "c"), 9).await.unwrap()), "");
    assert_eq!(keys(raw.reverse_scan(all(), 100).await.unwrap()), "zphfca");
    assert_eq!(keys(raw.reverse_scan(all(), 3).await.unwrap()), "zph");
    assert_eq!(keys(raw.reverse_scan(KeyRange::new("c", "p"), 100).await.unwrap()), "hfc");
    // The upper bound is where a range begins.
    let bound = Bytes::from(cribwork_types::key::encode(b"d"));
    assert_eq!(keys(raw.reverse_scan(KeyRange::new("", bound), 100).await.unwrap()), "ca");
}

#[tokio::test(start_paused = true)]
async fn ranges_of_keys_are_deleted_and_summed_up() {
    let raw = filled().await;
    let sum = raw.checksum(KeyRange::new("c", "z")).await.unwrap();
    let crc64_xor = u64::from(b'c' ^ b'f' ^ b'h' ^ b'p');
    assert_eq!(sum, Checksum { crc64_xor, keys: 4, bytes: 8 });
    raw.delete_range(KeyRange::new("c", "p")).await.unwrap();
    assert_eq!(keys(raw.scan(KeyRange::all(), 100).await.unwrap()), "apz");
}

#[tokio::test(start_paused = true)]
async fn compare_and_swap() {
    let raw = filled().await;
    let outcome = raw.compare_and_swap("a", None, "new").await.unwrap();
    assert_eq!((outcome.swapped, outcome.previous), (false, Some(bytes("a"))));
    let outcome = raw.compare_and_swap("a", Some(bytes("a")), "new").await.unwrap();
    assert_eq!((outcome.swapped, outcome.previous), (true, Some(bytes("a"))));
    let outcome = raw.compare_and_swap("new", None, "new").await.unwrap();
    assert_eq!((outcome.swapped, outcome.previous), (true, None));
}

#[tokio::test(start_paused = true)]
async fn impossible_arguments_are_refused_here() {
    let raw = filled().await;
    let large = vec![0; KEY_BYTES_MAX + 1];
    for refused in [raw.get("").await, raw.get(large).await] {
        assert!(matches!(refused, Err(ClientError::Invalid { what: "key", .. })));
    }
    let refused = raw.scan(KeyRange::all(), SCAN_LIMIT_MAX + 1).await;
    assert!(matches!(refused, Err(ClientError::Invalid { what: "limit", .. })));
    let value = vec![0; cribwork_types::limits::VALUE_BYTES_MAX + 1];
    let refused = raw.put_with_ttl("k", value, Duration::ZERO).await;
    assert!(matches!(refused, Err(ClientError::Invalid { what: "value", .. })));
}
