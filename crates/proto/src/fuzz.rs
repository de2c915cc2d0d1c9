//! Hostile bytes for everything that a node takes in over gRPC.

use std::fmt::Debug;

use cribwork_fuzz::{Shape, measure, target};
use prost::{Message, Name};

use crate::cribwork::admin::{
    AllocIdsRequest, BootstrapRequest, GetRangeRequest, HeartbeatRequest, IdentifyRequest,
    InitRequest, RangesRequest, RegisterRequest, SplitRangeRequest, SplitRequest,
    TransferLeaderRequest, TransferRangeLeaderRequest,
};
use crate::cribwork::peer::Frame;
use crate::kvrpcpb::*;
use crate::tikvpb::{BatchCommandsRequest, batch_commands_request};
use crate::{metapb, pdpb, weight};

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
    AllocIdsRequest, SplitRangeRequest, TransferRangeLeaderRequest, Frame,
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

#[test]
fn wire_messages() {
    let seeds = seeds().into_iter().flat_map(|bytes| {
        // The first byte chooses the message; other messages read the same bytes their own way.
        [0, 4, 14, 17].map(|message| [&[message], &bytes[..]].concat())
    });
    let all = (0..MESSAGES.len() as u8).map(|message| vec![message]);
    target("wire_messages").seeds(seeds).seeds(all).memory_unbounded().run(|bytes| {
        let Some((message, bytes)) = bytes.split_first() else { return Shape::of(&0) };
        let number = usize::from(*message) % MESSAGES.len();
        let decoded = MESSAGES[number](bytes);
        Shape::of(&(number, Shape::decoded(&decoded, |length| *length)))
    });
}
