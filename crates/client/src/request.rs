//! What every request to a range has in common, so that routing, repair and retries are written
//! once.

use cribwork_proto::{errorpb, kvrpcpb};

use crate::channel::{Answer, ChannelError, Command, StoreChannel, UnaryAnswer, UnaryRequest};

/// What a repetition of a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes nothing.
    Read,
    /// A second execution finds the work done and changes nothing.
    Idempotent,
    /// A second execution may undo what somebody else wrote in between: never sent again unless it
    /// certainly had no effect.
    Once,
}

/// A request on its way.
pub(crate) enum Wire {
    Command(Command),
    Unary(UnaryRequest),
}

/// An answer on its way.
#[allow(clippy::large_enum_variant, reason = "one lives for one call: a box would cost more")]
pub(crate) enum WireAnswer {
    Command(Answer),
    Unary(UnaryAnswer),
}

impl Wire {
    pub(crate) async fn send(self, channel: &dyn StoreChannel) -> Result<WireAnswer, ChannelError> {
        match self {
            Wire::Command(command) => channel.call(command).await.map(WireAnswer::Command),
            Wire::Unary(request) => channel.unary(request).await.map(WireAnswer::Unary),
        }
    }
}

/// A request to one range.
pub(crate) trait RangeRequest: Clone + Send + Sync + 'static {
    type Response: Send + 'static;
    const EFFECT: Effect;

    fn context(&mut self) -> &mut Option<kvrpcpb::Context>;
    fn into_wire(self) -> Wire;
    /// `None` if the answer is one to another request.
    fn from_wire(answer: WireAnswer) -> Option<Self::Response>;
    fn take_region_error(response: &mut Self::Response) -> Option<errorpb::Error>;
}

macro_rules! range_requests {
    ($wire:ident($commands:ident, $answers:ident):
     $($effect:ident $name:ident: $request:ident => $response:ident;)*) => {$(
        impl RangeRequest for kvrpcpb::$request {
            type Response = kvrpcpb::$response;
            const EFFECT: Effect = Effect::$effect;

            fn context(&mut self) -> &mut Option<kvrpcpb::Context> {
                &mut self.context
            }

            fn into_wire(self) -> Wire {
                Wire::$wire($commands::$name(self))
            }

            fn from_wire(answer: WireAnswer) -> Option<Self::Response> {
                match answer {
                    WireAnswer::$wire($answers::$name(response)) => Some(response),
                    _ => None,
                }
            }

            fn take_region_error(response: &mut Self::Response) -> Option<errorpb::Error> {
                response.region_error.take()
            }
        }
    )*};
}

range_requests! { Command(Command, Answer):
    Read Get: GetRequest => GetResponse;
    Read BatchGet: BatchGetRequest => BatchGetResponse;
    Read Scan: ScanRequest => ScanResponse;
    Idempotent Prewrite: PrewriteRequest => PrewriteResponse;
    Idempotent Commit: CommitRequest => CommitResponse;
    Idempotent BatchRollback: BatchRollbackRequest => BatchRollbackResponse;
    Idempotent CheckTxnStatus: CheckTxnStatusRequest => CheckTxnStatusResponse;
    Idempotent CheckSecondaryLocks: CheckSecondaryLocksRequest => CheckSecondaryLocksResponse;
    Idempotent ResolveLock: ResolveLockRequest => ResolveLockResponse;
    Idempotent TxnHeartBeat: TxnHeartBeatRequest => TxnHeartBeatResponse;
    Read RawGet: RawGetRequest => RawGetResponse;
    Read RawBatchGet: RawBatchGetRequest => RawBatchGetResponse;
    Read RawScan: RawScanRequest => RawScanResponse;
    Once RawPut: RawPutRequest => RawPutResponse;
    Once RawBatchPut: RawBatchPutRequest => RawBatchPutResponse;
    Once RawDelete: RawDeleteRequest => RawDeleteResponse;
    Once RawBatchDelete: RawBatchDeleteRequest => RawBatchDeleteResponse;
    Once RawDeleteRange: RawDeleteRangeRequest => RawDeleteRangeResponse;
}

range_requests! { Unary(UnaryRequest, UnaryAnswer):
    Once RawCompareAndSwap: RawCasRequest => RawCasResponse;
    Read RawGetKeyTtl: RawGetKeyTtlRequest => RawGetKeyTtlResponse;
    Read RawChecksum: RawChecksumRequest => RawChecksumResponse;
    Idempotent SplitRegion: SplitRegionRequest => SplitRegionResponse;
}
