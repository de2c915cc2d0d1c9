//! Hostile requests of clients and stores, answered by a placement leader.

use std::cell::RefCell;

use bytes::Bytes;
use cribwork_fuzz::{Shape, target};
use cribwork_placement::IdKind;
use cribwork_proto::cribwork::admin::{
    ConfigRequest, DoubtfulReplica, HeartbeatRequest, MoveReplicaRequest, RangeReport,
    RegisterRequest,
};
use cribwork_proto::pdpb::{self, pd_server::Pd};
use cribwork_types::{RangeDescriptor, RangeId, StoreId, key};
use prost::Message;
use tonic::Request;

use crate::place::tests::harness::{CLUSTER, Life};

/// Requests after which a leader is replaced, so that what they made it believe does not pile up.
const REQUESTS_PER_LIFE: usize = 2_000;

/// A message, if the bytes are one.
fn read<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(Bytes::copy_from_slice(bytes)).ok()
}

/// Letters and blanks only: numbers and keys would make every answer a new shape.
fn words(answer: &impl std::fmt::Debug) -> String {
    let text = format!("{answer:?}");
    text.chars().filter(|letter| letter.is_ascii_alphabetic() || *letter == ' ').take(300).collect()
}

/// Asks `life` what the first byte says; none if the others are no such message.
fn ask(life: &Life, kind: u8, bytes: &[u8]) -> Option<String> {
    let place = &life.place;
    let pd = life.pd();
    macro_rules! pd {
        ($method:ident) => {
            words(&life.wait(pd.$method(Request::new(read(bytes)?))).map(|it| it.into_inner()))
        };
    }
    Some(match kind % 14 {
        0 => words(&life.wait(place.heartbeat(HeartbeatRequest {
            cluster_id: CLUSTER.get(),
            ..read::<HeartbeatRequest>(bytes)?
        }))),
        1 => words(&life.wait(place.register(read::<RegisterRequest>(bytes)?))),
        2 => pd!(get_region),
        3 => pd!(get_prev_region),
        4 => pd!(get_region_by_id),
        5 => pd!(scan_regions),
        6 => pd!(batch_scan_regions),
        7 => pd!(get_store),
        8 => pd!(update_gc_safe_point),
        9 => pd!(update_service_gc_safe_point),
        10 => {
            let ask = read::<ConfigRequest>(bytes)?;
            words(&life.wait(place.config(&ask.key, ask.value.as_deref())))
        }
        11 => words(&place.move_replica(&read::<MoveReplicaRequest>(bytes)?)),
        12 => pd!(alloc_id),
        _ => {
            let ask = read::<DoubtfulReplica>(bytes)?;
            let count = ask.conf_ver as u32;
            let ids = life.wait(place.alloc_ids(IdKind::Replica, count));
            let range = place.explain_range(RangeId(ask.range));
            words(&(ids.err(), range.err(), place.explain_store(StoreId(ask.replica)).err()))
        }
    })
}

fn heartbeat(life: &Life) -> HeartbeatRequest {
    let report = |range: &RangeDescriptor| RangeReport {
        descriptor: range.encode(),
        leader_replica: range.replicas[0].id.get(),
        term: 3,
        is_leader: true,
        size_bytes: 100,
        kept_whole: "unsplittable".into(),
    };
    HeartbeatRequest {
        cluster_id: CLUSTER.get(),
        store: 1,
        address: life.plan.stores[0].address.clone(),
        http: "h1:1".into(),
        full: true,
        ranges: life.plan.ranges.iter().map(report).collect(),
        doubtful: vec![DoubtfulReplica {
            range: 1,
            replica: 2,
            conf_ver: 1,
            version: 1,
            start: Some(Bytes::new()),
        }],
        ..HeartbeatRequest::default()
    }
}

fn seeds(life: &Life) -> Vec<Vec<u8>> {
    let encoded = |user: &[u8]| Bytes::from(key::encode(user));
    let span = pdpb::KeyRange { start_key: encoded(b"a"), end_key: encoded(b"m") };
    let register = RegisterRequest {
        cluster_id: CLUSTER.get(),
        address: "new:1".into(),
        http: "new:2".into(),
        instance: 9,
        ..RegisterRequest::default()
    };
    let region = pdpb::GetRegionRequest { region_key: encoded(b"b"), ..Default::default() };
    let by_id = pdpb::GetRegionByIdRequest { region_id: 1, ..Default::default() };
    let scan =
        pdpb::ScanRegionsRequest { start_key: encoded(b"a"), limit: 3, ..Default::default() };
    let scans =
        pdpb::BatchScanRegionsRequest { ranges: vec![span; 2], limit: 9, ..Default::default() };
    let service = pdpb::UpdateServiceGcSafePointRequest {
        service_id: "backup".into(),
        ttl: 9,
        safe_point: 7,
        ..Default::default()
    };
    let safe_point = pdpb::UpdateGcSafePointRequest { safe_point: 9, ..Default::default() };
    let config = ConfigRequest { key: "repair_after".into(), value: Some("90s".into()) };
    let ids = DoubtfulReplica { range: 1, replica: 2, conf_ver: 3, ..DoubtfulReplica::default() };
    let moved = MoveReplicaRequest { range: 1, from_store: 1, to_store: 2, watch: false };
    let region = region.encode_to_vec();
    let all = [
        (0, heartbeat(life).encode_to_vec()),
        (1, register.encode_to_vec()),
        (2, region.clone()),
        (3, region),
        (4, by_id.encode_to_vec()),
        (5, scan.encode_to_vec()),
        (6, scans.encode_to_vec()),
        (7, pdpb::GetStoreRequest { store_id: 2, ..Default::default() }.encode_to_vec()),
        (8, safe_point.encode_to_vec()),
        (9, service.encode_to_vec()),
        (10, config.encode_to_vec()),
        (11, moved.encode_to_vec()),
        (12, pdpb::AllocIdRequest::default().encode_to_vec()),
        (13, ids.encode_to_vec()),
    ];
    all.into_iter().map(|(kind, bytes)| [vec![kind], bytes].concat()).collect()
}

#[test]
fn placement_requests() {
    let life: RefCell<Option<(Life, usize)>> = RefCell::new(Some((Life::first(1), 0)));
    let seeds = life.borrow().as_ref().map(|(life, _)| seeds(life)).expect("it was just made");
    target("placement_requests").seeds(seeds).memory_unbounded().run(|bytes| {
        let Some((kind, bytes)) = bytes.split_first() else { return Shape::of(&0) };
        let mut life = life.borrow_mut();
        if life.as_ref().is_none_or(|(_, served)| *served >= REQUESTS_PER_LIFE) {
            *life = Some((Life::first(1), 0));
        }
        let (life, served) = life.as_mut().expect("just made");
        *served += 1;
        let answer = ask(life, *kind, bytes);
        if answer.is_some() {
            // Whatever was said, placement goes on: tables can be read, and time passes.
            life.wait(life.place.tso(1)).expect("a timestamp");
            life.place.all_ranges().and(life.place.stores().map(drop)).expect("the tables");
        }
        Shape::of(&(kind % 14, answer))
    });
}
