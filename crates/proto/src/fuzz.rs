//! Hostile bytes for everything that a node takes in over gRPC: what others ask of it, and what they
//! answer.

use std::fmt::Debug;

use cribwork_fuzz::{Shape, measure, target};
use cribwork_types::{RangeDescriptor, Timestamp, key};
use prost::{Message, Name};

use crate::cribwork::admin::{
    AllocIdsRequest, AllocIdsResponse, BootstrapRequest, ChangeReplicasRequest,
    ChangeReplicasResponse, ConfigRequest, ConfigResponse, DecommissionRequest, DrainRequest,
    ExplainRequest, ExplainResponse, GetRangeRequest, HeartbeatRequest, HeartbeatResponse,
    IdentifyRequest, IdentifyResponse, InitRequest, MoveReplicaRequest, NewLearner, NodesResponse,
    Operator, Progress, RangeReport, RangesRequest, RangesResponse, RegisterRequest,
    RegisterResponse, SplitRangeRequest, SplitRangeResponse, SplitRequest, StatusResponse,
    TransferLeaderOperator, TransferLeaderRequest, TransferRangeLeaderRequest, operator,
};
use crate::cribwork::peer::{Ack, Frame};
use crate::kvrpcpb::*;
use crate::tikvpb::{BatchCommandsRequest, BatchCommandsResponse, batch_commands_request};
use crate::{ConvertError, metapb, pdpb, weight};

/// Decodes bytes as one message, and checks what must hold of any.
type Decode = fn(&[u8]) -> Result<usize, String>;

/// Bytes that decoding may ask for beside what was foreseen: a list grows to the next power of two, at
/// first to four elements, and is copied when it grows.
const SLACK_BYTES: usize = 16 * 1024;

fn decode<M: Message + Default + Name + PartialEq + Debug>(bytes: &[u8]) -> Result<usize, String> {
    let foreseen = weight::weight(&M::full_name(), bytes);
    let (message, taken) = measure(|| M::decode(bytes));
    // Texts and bytes are copied out of a slice, but shared with a buffer.
    let allowed =
        foreseen.saturating_add(bytes.len()).saturating_mul(4).saturating_add(SLACK_BYTES);
    assert!(taken <= allowed, "{}: {taken} bytes taken, {foreseen} foreseen", M::NAME);
    let message = message.map_err(|error| error.to_string())?;
    let again = M::decode(&*message.encode_to_vec()).expect("what was encoded is decoded");
    assert!(again == message, "{message:?} became {again:?}");
    Ok(message.encoded_len())
}

macro_rules! messages {
    ($($message:ty,)*) => {
        const MESSAGES: &[Decode] = &[$(decode::<$message>,)*];
    };
}

messages! {
    BatchCommandsRequest, GetRequest, BatchGetRequest, ScanRequest, PrewriteRequest, CommitRequest,
    CleanupRequest, BatchRollbackRequest, CheckTxnStatusRequest, TxnHeartBeatRequest, ScanLockRequest,
    ResolveLockRequest, DeleteRangeRequest, RawGetRequest, RawBatchGetRequest, RawGetKeyTtlRequest,
    RawScanRequest, RawBatchScanRequest, RawChecksumRequest, RawPutRequest, RawBatchPutRequest,
    RawDeleteRequest, RawBatchDeleteRequest, RawDeleteRangeRequest, RawCasRequest, SplitRegionRequest,
    PessimisticLockRequest, CheckSecondaryLocksRequest, pdpb::TsoRequest, pdpb::GetRegionRequest,
    pdpb::ScanRegionsRequest, pdpb::BatchScanRegionsRequest, pdpb::UpdateServiceGcSafePointRequest,
    pdpb::AllocIdRequest, InitRequest, RangesRequest, GetRangeRequest, SplitRequest,
    TransferLeaderRequest, IdentifyRequest, BootstrapRequest, RegisterRequest, HeartbeatRequest,
    AllocIdsRequest, SplitRangeRequest, TransferRangeLeaderRequest, Frame, ChangeReplicasRequest,
    ConfigRequest, DecommissionRequest, DrainRequest, ExplainRequest, MoveReplicaRequest,
    pdpb::GetStoreRequest, pdpb::GetRegionByIdRequest, pdpb::UpdateGcSafePointRequest,
    Ack, AllocIdsResponse, ChangeReplicasResponse, ConfigResponse, ExplainResponse,
    HeartbeatResponse, IdentifyResponse, NodesResponse, Progress, RangesResponse, RegisterResponse,
    SplitRangeResponse, StatusResponse, pdpb::GetRegionResponse, pdpb::ScanRegionsResponse,
    BatchCommandsResponse,
}

fn context() -> Option<Context> {
    Some(Context {
        region_id: 7,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peer: Some(metapb::Peer { id: 71, store_id: 1, ..Default::default() }),
        resolved_locks: vec![1, 1 << 40],
        ..Default::default()
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let (key, value) = (prost::bytes::Bytes::from_static(b"key"), "value".into());
    let mutation = Mutation { key: key.clone(), value, ..Default::default() };
    let prewrite = PrewriteRequest {
        context: context(),
        mutations: vec![mutation; 3],
        primary_lock: key.clone(),
        start_version: 9,
        secondaries: vec![key.clone(), key.clone()],
        ..Default::default()
    };
    let range = KeyRange { start_key: key.clone(), end_key: Default::default() };
    let scan = RawBatchScanRequest {
        context: context(),
        ranges: vec![range; 3],
        each_limit: 10,
        ..Default::default()
    };
    let cmd = batch_commands_request::request::Cmd::Prewrite(prewrite.clone());
    let batch = BatchCommandsRequest {
        requests: vec![batch_commands_request::Request { cmd: Some(cmd) }; 2],
        request_ids: vec![1, 2],
    };
    [batch.encode_to_vec(), prewrite.encode_to_vec(), scan.encode_to_vec()].into()
}

/// What the members of a cluster say to each other, behind the number of the message.
fn member_seeds() -> Vec<Vec<u8>> {
    let transfer = TransferLeaderOperator { range: 7, to_store: 2 };
    let step = Some(operator::Step::TransferLeader(transfer));
    let answer = HeartbeatResponse {
        operators: vec![Operator { step }],
        gone: vec![key_bytes()],
        tso_physical_ms: 1 << 40,
        ..Default::default()
    };
    let report = RangeReport { descriptor: key_bytes(), term: 3, ..Default::default() };
    let heartbeat = HeartbeatRequest { store: 1, ranges: vec![report; 2], ..Default::default() };
    let change = ChangeReplicasRequest {
        range_id: 7,
        add_learner: Some(NewLearner { replica: 8, store: 3 }),
        promote: vec![1, 2],
        remove: vec![3, 1 << 40],
        ..Default::default()
    };
    fn named<M: Message + Default + Name + PartialEq + Debug>(message: &M) -> Vec<u8> {
        let number =
            MESSAGES.iter().position(|it| std::ptr::fn_addr_eq(*it, decode::<M> as Decode));
        [vec![number.expect("it is listed") as u8], message.encode_to_vec()].concat()
    }
    vec![named(&answer), named(&heartbeat), named(&change)]
}

fn key_bytes() -> prost::bytes::Bytes {
    prost::bytes::Bytes::from_static(b"key")
}

#[test]
fn wire_messages() {
    let seeds = seeds().into_iter().flat_map(|bytes| {
        // The first byte chooses the message; other messages read the same bytes their own way.
        [0, 4, 14, 17].map(|message| [&[message], &bytes[..]].concat())
    });
    let all = (0..MESSAGES.len() as u8).map(|message| vec![message]);
    target("wire_messages").seeds(seeds).seeds(member_seeds()).seeds(all).memory_unbounded().run(
        |bytes| {
            let Some((message, bytes)) = bytes.split_first() else { return Shape::of(&0) };
            let number = usize::from(*message) % MESSAGES.len();
            let decoded = MESSAGES[number](bytes);
            Shape::of(&(number, Shape::decoded(&decoded, |length| *length)))
        },
    );
}

#[test]
fn ranges_and_times_of_others() {
    let peer = |id, role: metapb::PeerRole| metapb::Peer {
        id,
        store_id: id + 10,
        role: role.into(),
        is_witness: false,
    };
    use metapb::PeerRole::{DemotingVoter, IncomingVoter, Learner, Voter};
    let region = metapb::Region {
        id: 7,
        start_key: key::encode(b"a").into(),
        end_key: key::encode(b"m").into(),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 3, version: 9 }),
        peers: vec![
            peer(1, Voter),
            peer(2, Learner),
            peer(3, IncomingVoter),
            peer(4, DemotingVoter),
        ],
    };
    let ts = pdpb::Timestamp { physical: 1 << 40, logical: 9, suffix_bits: 0 };
    let seeds = [region.encode_to_vec(), ts.encode_to_vec()];
    target("ranges_and_times_of_others").seeds(seeds).run(|bytes| {
        let region = metapb::Region::decode(bytes).ok().map(RangeDescriptor::try_from);
        if let Some(Ok(range)) = &region {
            let again = RangeDescriptor::try_from(metapb::Region::from(range));
            assert_eq!(again.as_ref(), Ok(range), "what was understood is said the same way");
            assert!(!range.span.is_empty() && range.id.get() != 0);
        }
        let ts = pdpb::Timestamp::decode(bytes).ok().map(Timestamp::try_from);
        if let Some(Ok(ts)) = &ts {
            assert_eq!(Timestamp::try_from(pdpb::Timestamp::from(*ts)), Ok(*ts));
        }
        let roles = |range: RangeDescriptor| range.replicas.len().checked_ilog2();
        let words = |error: ConvertError| error.to_string();
        let region = region.map(|region| region.map(roles).map_err(words));
        Shape::of(&(region, ts.map(|ts| ts.map(|_| 0).map_err(words))))
    });
}
