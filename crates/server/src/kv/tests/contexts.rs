//! For whom a request is: each check of the context has its error.

use cribwork_proto::errorpb;
use cribwork_proto::kvrpcpb::*;
use cribwork_proto::metapb::{Peer, RegionEpoch};
use cribwork_types::{RangeDescriptor, key};

use crate::kv::testing::{CLUSTER, HIGH, LOW, Node};

async fn get(node: &Node, context: Option<Context>, key: &'static str) -> RawGetResponse {
    node.call(RawGetRequest { context, key: key.into(), ..Default::default() }).await
}

async fn get_error(node: &Node, change: impl FnOnce(&mut Context)) -> errorpb::Error {
    let mut context = node.context(LOW).unwrap();
    change(&mut context);
    let answer = get(node, Some(context), "a").await;
    assert!(answer.error.is_empty() && !answer.not_found);
    answer.region_error.unwrap()
}

#[tokio::test]
async fn each_check_has_its_error_in_tikvs_order() {
    let node = Node::single().await;
    assert!(get(&node, node.context(LOW), "a").await.not_found);
    let no_context = get(&node, None, "a").await.region_error.unwrap();
    assert!(no_context.region_not_found.is_some() && no_context.message.contains("no context"));

    // Everything wrong at once: what is checked first wins; then it is put right, and so on.
    let wrong = |context: &mut Context| {
        context.region_id = 99;
        context.peer = Some(Peer { id: 98, store_id: 97, ..Default::default() });
        context.term = 96;
        context.region_epoch = Some(RegionEpoch { conf_ver: 1, version: 95 });
    };
    let error = get_error(&node, wrong).await;
    let store = error.store_not_match.unwrap();
    assert_eq!((store.request_store_id, store.actual_store_id), (97, 1));
    let error = get_error(&node, |context| {
        wrong(context);
        context.peer.as_mut().unwrap().store_id = 1;
    });
    assert_eq!(error.await.region_not_found.unwrap().region_id, 99);
    let error = get_error(&node, |context| {
        wrong(context);
        context.peer.as_mut().unwrap().store_id = 1;
        context.region_id = LOW.get();
    });
    let peer = error.await.mismatch_peer_id.unwrap();
    assert_eq!((peer.request_peer_id, peer.store_peer_id), (98, 11));
    let right = node.context(LOW).unwrap();
    let error = get_error(&node, |context| {
        wrong(context);
        (context.peer, context.region_id) = (right.peer, right.region_id);
    });
    assert!(error.await.stale_command.is_some());
    let error = get_error(&node, |context| context.region_epoch.as_mut().unwrap().version = 95);
    let current = error.await.epoch_not_match.unwrap().current_regions;
    assert_eq!(current.len(), 1);
    assert_eq!(RangeDescriptor::try_from(current[0].clone()).unwrap().id, LOW);
    let outside = get(&node, node.context(LOW), "z").await.region_error.unwrap();
    let outside = outside.key_not_in_region.unwrap();
    assert_eq!((&outside.key[..], &outside.end_key[..]), (&b"z"[..], &key::encode(b"m")[..]));
}

#[tokio::test]
async fn what_is_missing_finds_nothing() {
    let node = Node::single().await;
    let error = get_error(&node, |context| context.peer = None).await;
    assert_eq!(error.store_not_match.unwrap().request_store_id, 0);
    let error = get_error(&node, |context| context.region_id = 0).await;
    assert!(error.region_not_found.is_some());
    let error = get_error(&node, |context| context.region_epoch = None).await;
    // Both ranges: the request may have missed the split between them.
    assert_eq!(error.epoch_not_match.unwrap().current_regions.len(), 2);
    // A change of members leaves the bounds as they are.
    let mut context = node.context(LOW).unwrap();
    context.region_epoch.as_mut().unwrap().conf_ver += 5;
    assert!(get(&node, Some(context), "a").await.not_found);
}

#[tokio::test]
async fn a_follower_names_the_leader() {
    let (nodes, _wire) = Node::three(std::time::Duration::from_secs(3)).await;
    let put = RawPutRequest {
        context: nodes[0].context(LOW),
        key: "a".into(),
        value: "1".into(),
        ..Default::default()
    };
    assert_eq!(nodes[0].call(put).await, RawPutResponse::default());
    let error = get(&nodes[1], nodes[1].context(LOW), "a").await.region_error.unwrap();
    let not_leader = error.not_leader.unwrap();
    assert_eq!(not_leader.region_id, LOW.get());
    assert_eq!(not_leader.leader.unwrap().store_id, 1);
}

#[tokio::test]
async fn other_versions_and_clusters_are_refused_by_name() {
    let node = Node::single().await;
    for (change, word) in [
        (Context { api_version: ApiVersion::V2 as i32, ..Default::default() }, "api_version"),
        (Context { cluster_id: 5, ..Default::default() }, "cluster 77"),
    ] {
        let mut context = node.context(LOW).unwrap();
        context.api_version = change.api_version;
        context.cluster_id = change.cluster_id;
        let answer = get(&node, Some(context), "a").await;
        assert!(answer.error.contains(word), "{}", answer.error);
    }
    let mut context = node.context(LOW).unwrap();
    context.cluster_id = CLUSTER.get();
    assert!(get(&node, Some(context), "a").await.not_found);
}

#[tokio::test]
async fn a_split_tells_old_clients_what_took_the_ranges_place() {
    let node = Node::single().await;
    let old = node.context(LOW);
    let split = SplitRegionRequest {
        context: old.clone(),
        // Out of order, one twice.
        split_keys: vec!["f".into(), "c".into(), "f".into()],
        ..Default::default()
    };
    let answer = node.call(split).await;
    assert!(answer.region_error.is_none() && answer.errors.is_empty(), "{answer:?}");
    let bounds: Vec<_> = answer.regions.iter().map(|it| &it.start_key[..]).collect();
    assert_eq!(bounds, [&b""[..], &key::encode(b"c")[..], &key::encode(b"f")[..]]);
    assert_eq!(answer.regions[0].id, LOW.get());
    assert_eq!(answer.right.as_ref(), answer.regions.last());

    let stale = get(&node, old, "a").await.region_error.unwrap();
    let current = stale.epoch_not_match.unwrap().current_regions;
    assert_eq!(current, answer.regions);
    // Every one of them serves, and splitting where there is a bound changes nothing.
    for (region, key) in answer.regions.iter().zip(["b", "d", "g"]) {
        assert!(get(&node, node.context(region.id.into()), key).await.not_found);
    }
    let again = SplitRegionRequest {
        context: node.context(HIGH),
        split_keys: vec!["m".into()],
        ..Default::default()
    };
    assert_eq!(node.call(again).await.regions.len(), 1);
    let outside = SplitRegionRequest {
        context: node.context(HIGH),
        split_keys: vec!["a".into()],
        ..Default::default()
    };
    assert!(node.call(outside).await.region_error.unwrap().key_not_in_region.is_some());
}
