//! Writes whose outcome is lost.

use std::pin::pin;
use std::time::Duration;

use cribwork_proto::kvrpcpb::*;
use cribwork_types::RuntimeExt;

use crate::kv::UNDETERMINED;
use crate::kv::testing::{LOW, Node};

/// A write whose outcome was given up may still sit in the log. Until that is decided, nobody may
/// evaluate a command on its keys: here a swap would find the old value, succeed, and then
/// overwrite what the earlier write, applied after all, had put there.
#[tokio::test]
async fn latches_of_a_lost_write_stay_until_its_fate_is_known() {
    let (nodes, wire) = Node::three(Duration::from_millis(250)).await;
    let node = &nodes[0];
    let pair = |key: &'static str, value: &'static str| KvPair {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    let first = RawBatchPutRequest {
        context: node.context(LOW),
        pairs: vec![pair("k", "first"), pair("evidence", "first")],
        for_cas: true,
        ..Default::default()
    };
    // The leader is established, and has the lease that lets it propose.
    let warm = RawPutRequest { context: node.context(LOW), key: "a".into(), ..Default::default() };
    assert_eq!(node.call(warm).await, RawPutResponse::default());

    wire.cut(true);
    let lost = node.call(first).await;
    assert!(lost.error.starts_with(UNDETERMINED), "{lost:?}");
    let mut taken = pin!(node.service.core.latch_for_test(b"k"));
    assert!(futures::poll!(taken.as_mut()).is_pending(), "the keys are latched");
    let second = node.call(RawCasRequest {
        context: node.context(LOW),
        key: "k".into(),
        value: "second".into(),
        previous_not_exist: true,
        ..Default::default()
    });
    let mut second = pin!(second);
    assert!(futures::poll!(second.as_mut()).is_pending());
    wire.cut(false);
    let runtime = &node.service.core.runtime;
    drop(runtime.timeout(Duration::from_secs(20), taken).await.expect("the fate is known at last"));
    let second = second.await;
    if second.region_error.is_some() || !second.error.is_empty() {
        return; // Another store leads now: the swap did not take place.
    }
    let get = async |key: &'static str| {
        let context = node.context(LOW);
        let request = RawGetRequest { context, key: key.into(), ..Default::default() };
        node.call(request).await
    };
    let (value, evidence) = (get("k").await, get("evidence").await);
    assert!(value.region_error.is_none() && evidence.region_error.is_none());
    assert_eq!(second.succeed, evidence.not_found, "the first write came first, or never");
    let expected = if second.succeed { "second" } else { "first" };
    assert_eq!(value.value, expected);
}
