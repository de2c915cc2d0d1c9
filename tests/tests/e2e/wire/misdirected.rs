//! Requests for the wrong cluster, store, replica, range, epoch or key.

use cribwork_proto::errorpb;
use cribwork_proto::kvrpcpb::{Context, RawGetRequest, RawPutRequest};
use cribwork_proto::metapb::{Peer, RegionEpoch};

use super::Wire;

impl Wire {
    /// The answer of `store` to a put that belongs somewhere else: always a range error.
    #[track_caller]
    fn misdirect(&self, store: u64, context: Option<Context>, key: &'static str) -> errorpb::Error {
        let mut tikv = self.tikv(store);
        let key = bytes::Bytes::from_static(key.as_bytes());
        let get =
            RawGetRequest { context: context.clone(), key: key.clone(), ..Default::default() };
        let got = self.ask(tikv.raw_get(get)).unwrap().into_inner();
        let put = RawPutRequest { context, key, value: "x".into(), ..Default::default() };
        let written = self.ask(tikv.raw_put(put)).unwrap().into_inner();
        assert!(written.error.is_empty(), "a range error stands alone: {written:?}");
        let error = written.region_error.expect("a range error");
        assert_eq!(got.region_error.as_ref(), Some(&error), "reads are refused as writes are");
        assert!(!error.message.is_empty(), "{error:?}");
        error
    }
}

#[test]
fn misdirected_requests_learn_where_they_belong() {
    let mut wire = Wire::start(3, 2);
    let right = wire.context(b"a");
    let leader = right.peer.unwrap();
    let store = leader.store_id;
    let with = |change: &dyn Fn(&mut Context)| {
        let mut context = right.clone();
        change(&mut context);
        Some(context)
    };

    assert!(wire.misdirect(store, None, "a").region_not_found.is_some());
    assert!(wire.misdirect(store, Some(Context::default()), "a").store_not_match.is_some());
    let error = wire.misdirect(store, with(&|it| it.region_id = 0), "a");
    assert!(error.region_not_found.is_some(), "the placement group is nobody's: {error:?}");
    let error = wire.misdirect(store, with(&|it| it.region_id = 999_999), "a");
    assert_eq!(error.region_not_found.map(|found| found.region_id), Some(999_999));
    let elsewhere = Peer { store_id: 77, ..leader };
    let error = wire.misdirect(store, with(&|it| it.peer = Some(elsewhere)), "a");
    let stores = error.store_not_match.expect("the stores");
    assert_eq!((stores.request_store_id, stores.actual_store_id), (77, store));
    let another = Peer { id: leader.id + 1000, ..leader };
    let error = wire.misdirect(store, with(&|it| it.peer = Some(another)), "a");
    assert!(error.mismatch_peer_id.is_some(), "{error:?}");
    let error = wire.misdirect(store, with(&|it| it.term = 1_000_000), "a");
    assert!(error.stale_command.is_some(), "{error:?}");
    for epoch in [None, Some(RegionEpoch { version: 1_000_000, conf_ver: 1 })] {
        let error = wire.misdirect(store, with(&|it| it.region_epoch = epoch), "a");
        let current = error.epoch_not_match.expect("what there is now").current_regions;
        assert_eq!((current[0].id, current[0].region_epoch), (right.region_id, right.region_epoch));
    }
    let error = wire.misdirect(store, Some(right.clone()), "\u{10FFFF}");
    assert_eq!(error.key_not_in_region.map(|found| found.region_id), Some(right.region_id));

    let (range, _) = wire.range_of(b"a");
    for follower in range.peers.iter().filter(|peer| peer.id != leader.id) {
        let context = with(&|it| it.peer = Some(*follower));
        let error = wire.misdirect(follower.store_id, context, "a");
        let known = error.not_leader.expect("not the leader").leader;
        assert_eq!(known, Some(leader), "it names the leader");
    }
    wire.lives();
}

#[test]
fn requests_for_another_cluster_are_refused() {
    let mut wire = Wire::start(1, 1);
    let other = wire.cluster_id ^ 1;
    let context = Some(Context { cluster_id: other, ..wire.context(b"a") });
    let put = RawPutRequest { context, key: "a".into(), value: "x".into(), ..Default::default() };
    let answer = wire.ask(wire.tikv(1).raw_put(put)).unwrap().into_inner();
    for id in [other, wire.cluster_id] {
        assert!(answer.error.contains(&id.to_string()), "both are named: {answer:?}");
    }
    let context = Some(wire.context(b"a"));
    let get = RawGetRequest { context, key: "a".into(), ..Default::default() };
    assert!(wire.ask(wire.tikv(1).raw_get(get)).unwrap().into_inner().not_found);
    wire.lives();
}
