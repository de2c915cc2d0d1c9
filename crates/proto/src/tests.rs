//! Field numbers (clients of TiKV depend on every one) and conversions.

use cribwork_types::{
    KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole,
    StoreId, Timestamp, key,
};
use prost::Message;
use prost::bytes::Bytes;

use crate::{ConvertError, FILE_DESCRIPTOR_SET, errorpb, kvrpcpb, metapb, pdpb, tikvpb};

fn hex(message: &impl Message) -> String {
    message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sample() -> RangeDescriptor {
    RangeDescriptor {
        id: RangeId(7),
        span: KeyRange::new(key::encode(b"a"), key::encode(b"m")),
        epoch: RangeEpoch { conf_ver: 3, version: 9 },
        replicas: vec![
            ReplicaDescriptor { id: ReplicaId(1), store: StoreId(1), role: ReplicaRole::Voter },
            ReplicaDescriptor { id: ReplicaId(5), store: StoreId(2), role: ReplicaRole::Learner },
        ],
    }
}

#[test]
fn golden_context() {
    let context = kvrpcpb::Context {
        region_id: 2,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 3 }),
        peer: Some(metapb::Peer { id: 4, store_id: 5, ..Default::default() }),
        term: 6,
        resolved_locks: vec![7],
        api_version: kvrpcpb::ApiVersion::V2.into(),
        committed_locks: vec![8],
        ..Default::default()
    };
    assert_eq!(
        hex(&context),
        "0802120408011003 1a0408041005 2806 6a0107 a80102 b2010108".replace(' ', "")
    );
}

#[test]
fn golden_raw_and_transactional_requests() {
    let put = kvrpcpb::RawPutRequest {
        context: None,
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"v"),
        cf: "c".into(),
        ttl: 1,
        for_cas: true,
    };
    assert_eq!(hex(&put), "12016b 1a0176 220163 2801 3001".replace(' ', ""));
    let prewrite = kvrpcpb::PrewriteRequest {
        mutations: vec![kvrpcpb::Mutation {
            op: kvrpcpb::Op::Insert.into(),
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
            assertion: kvrpcpb::Assertion::NotExist.into(),
        }],
        primary_lock: Bytes::from_static(b"k"),
        start_version: 1,
        lock_ttl: 2,
        txn_size: 3,
        min_commit_ts: 4,
        use_async_commit: true,
        try_one_pc: true,
        ..Default::default()
    };
    assert_eq!(
        hex(&prewrite),
        "120a 0804 12016b 1a0176 2002 1a016b 2001 2802 4003 5004 5801 6801".replace(' ', "")
    );
    let status = kvrpcpb::CheckTxnStatusResponse {
        lock_ttl: 1,
        commit_version: 2,
        action: kvrpcpb::Action::MinCommitTsPushed.into(),
        ..Default::default()
    };
    assert_eq!(hex(&status), "180120022803");
}

#[test]
fn golden_errors_and_placement() {
    let error = errorpb::Error {
        undetermined_result: Some(errorpb::UndeterminedResult::default()),
        server_is_busy: Some(errorpb::ServerIsBusy { backoff_ms: 5, ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(hex(&error), "32021005b20100");
    let tso = pdpb::TsoResponse {
        header: Some(pdpb::ResponseHeader { cluster_id: 1, error: None }),
        count: 2,
        timestamp: Some(pdpb::Timestamp { physical: 3, logical: 4, suffix_bits: 0 }),
    };
    assert_eq!(hex(&tso), "0a02080110021a0408031004");
    let scan = pdpb::ScanRegionsRequest {
        header: None,
        start_key: Bytes::from_static(b"a"),
        limit: 1,
        end_key: Bytes::from_static(b"b"),
    };
    assert_eq!(hex(&scan), "1201611801220162");
}

/// The numbers of TiKV's batch stream; both directions use the same.
#[test]
fn every_command_of_the_batch_stream_has_its_number() {
    const NUMBERS: [(u32, &str); 27] = [
        (1, "Get"),
        (2, "Scan"),
        (3, "Prewrite"),
        (4, "Commit"),
        (6, "Cleanup"),
        (7, "BatchGet"),
        (8, "BatchRollback"),
        (9, "ScanLock"),
        (10, "ResolveLock"),
        (11, "GC"),
        (12, "DeleteRange"),
        (13, "RawGet"),
        (14, "RawBatchGet"),
        (15, "RawPut"),
        (16, "RawBatchPut"),
        (17, "RawDelete"),
        (18, "RawBatchDelete"),
        (19, "RawScan"),
        (20, "RawDeleteRange"),
        (21, "RawBatchScan"),
        (23, "PessimisticLock"),
        (24, "PessimisticRollback"),
        (25, "CheckTxnStatus"),
        (26, "TxnHeartBeat"),
        (33, "CheckSecondaryLocks"),
        (34, "RawCoprocessor"),
        (255, "Empty"),
    ];
    let text = include_str!("../../../proto/tikvpb.proto");
    for direction in ["Request", "Response"] {
        let found: Vec<(u32, &str)> = text
            .split(&format!("  message {direction} {{"))
            .nth(1)
            .and_then(|rest| rest.split("    }").next())
            .unwrap()
            .lines()
            .filter_map(|line| line.trim().strip_suffix(';')?.split_once(" = "))
            .map(|(left, number)| (number.parse().unwrap(), left.rsplit(' ').next().unwrap()))
            .collect();
        assert_eq!(found, NUMBERS, "{direction}");
    }
}

#[test]
fn a_batch_of_commands_is_as_tikv_encodes_it() {
    use tikvpb::batch_commands_request::{Request, request::Cmd};
    let get = kvrpcpb::RawGetRequest { key: Bytes::from_static(b"k"), ..Default::default() };
    let batch = tikvpb::BatchCommandsRequest {
        requests: vec![
            Request { cmd: Some(Cmd::RawGet(get)) },
            Request { cmd: Some(Cmd::CheckSecondaryLocks(Default::default())) },
            Request { cmd: Some(Cmd::Empty(Default::default())) },
        ],
        request_ids: vec![1, 2, 3],
    };
    assert_eq!(hex(&batch), "0a05 6a03 12016b 0a03 8a0200 0a03 fa0f00 1203010203".replace(' ', ""));
}

#[test]
fn descriptors_name_every_service() {
    let services = ["Tikv", "PD", "Admin", "Node", "Peer"];
    for service in services {
        let found =
            FILE_DESCRIPTOR_SET.windows(service.len()).any(|part| part == service.as_bytes());
        assert!(found, "{service}");
    }
}

#[test]
fn ranges_round_trip() {
    let region = metapb::Region::from(&sample());
    assert_eq!(region.peers[1].role(), metapb::PeerRole::Learner);
    assert_eq!(RangeDescriptor::try_from(region).unwrap(), sample());
}

#[test]
fn ranges_that_nobody_may_send_are_refused() {
    let good = metapb::Region::from(&sample());
    let fails = |change: &dyn Fn(&mut metapb::Region)| {
        let mut region = good.clone();
        change(&mut region);
        RangeDescriptor::try_from(region).unwrap_err()
    };
    let missing = fails(&|region| region.region_epoch = None);
    assert_eq!(missing, ConvertError::Missing { message: "metapb.Region", field: "region_epoch" });
    assert!(matches!(fails(&|region| region.id = 0), ConvertError::Missing { field: "id", .. }));
    assert!(matches!(
        fails(&|region| region.start_key = Bytes::from_static(b"plain")),
        ConvertError::Invalid { field: "start_key", .. }
    ));
    assert!(matches!(
        fails(&|region| std::mem::swap(&mut region.start_key, &mut region.end_key)),
        ConvertError::Invalid { field: "end_key", .. }
    ));
    assert!(matches!(
        fails(&|region| region.peers[0].role = 9),
        ConvertError::Invalid { field: "role", .. }
    ));
    assert!(matches!(
        fails(&|region| region.peers[0].store_id = 0),
        ConvertError::Missing { field: "store_id", .. }
    ));
}

#[test]
fn timestamps_round_trip() {
    let ts = Timestamp::new(1_700_000_000_123, 77);
    assert_eq!(Timestamp::try_from(pdpb::Timestamp::from(ts)).unwrap(), ts);
    let negative = pdpb::Timestamp { physical: -1, ..Default::default() };
    assert!(Timestamp::try_from(negative).is_err());
    let overflow = pdpb::Timestamp { logical: 1 << 18, ..Default::default() };
    assert!(Timestamp::try_from(overflow).is_err());
}
