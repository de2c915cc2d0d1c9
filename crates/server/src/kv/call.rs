//! Requests: what all of them have in common.

use std::sync::Arc;

use cribwork_proto::kvrpcpb::{self, Context};
use cribwork_types::Timestamp;

use crate::kv::answer::Answer;
use crate::kv::core::{Core, Opened};
use crate::kv::failure::Failure;
use crate::kv::metrics::Kind;

/// A request to one range.
pub(crate) trait Call: Send + Sync + 'static {
    /// What answers it.
    type Answer: Answer;
    /// Its name.
    const KIND: Kind;
    /// For whom it is.
    fn context(&self) -> Option<&Context>;
}

/// A request and how it is served.
pub(crate) trait Command: Call + Sized {
    /// Serves it.
    fn run(self, core: &Arc<Core>) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;

    /// True if it may hold latches: then it is run to its end even if its caller goes away, because
    /// latches must not open before the fate of what was proposed under them is known.
    fn must_finish(&self) -> bool {
        false
    }
}

/// A read of few keys: answered without a task if the lease holds.
pub(crate) trait PointRead: Call {
    /// The snapshot that it reads; zero for raw reads.
    fn ts(&self) -> Timestamp {
        Timestamp::ZERO
    }

    /// Whether it is small enough to be answered between two others.
    fn is_small(&self) -> bool {
        true
    }

    /// Reads.
    fn read(&self, core: &Core, at: &Opened<'_>) -> Result<Self::Answer, Failure>;
}

macro_rules! calls {
    ($($kind:ident: $request:ident => $answer:ident;)*) => {$(
        impl Call for kvrpcpb::$request {
            type Answer = kvrpcpb::$answer;
            const KIND: Kind = Kind::$kind;

            fn context(&self) -> Option<&Context> {
                self.context.as_ref()
            }
        }
    )*};
}

calls! {
    Get: GetRequest => GetResponse;
    BatchGet: BatchGetRequest => BatchGetResponse;
    Scan: ScanRequest => ScanResponse;
    Prewrite: PrewriteRequest => PrewriteResponse;
    Commit: CommitRequest => CommitResponse;
    Cleanup: CleanupRequest => CleanupResponse;
    BatchRollback: BatchRollbackRequest => BatchRollbackResponse;
    CheckTxnStatus: CheckTxnStatusRequest => CheckTxnStatusResponse;
    TxnHeartBeat: TxnHeartBeatRequest => TxnHeartBeatResponse;
    ScanLock: ScanLockRequest => ScanLockResponse;
    ResolveLock: ResolveLockRequest => ResolveLockResponse;
    DeleteRange: DeleteRangeRequest => DeleteRangeResponse;
    RawGet: RawGetRequest => RawGetResponse;
    RawBatchGet: RawBatchGetRequest => RawBatchGetResponse;
    RawGetKeyTtl: RawGetKeyTtlRequest => RawGetKeyTtlResponse;
    RawScan: RawScanRequest => RawScanResponse;
    RawBatchScan: RawBatchScanRequest => RawBatchScanResponse;
    RawChecksum: RawChecksumRequest => RawChecksumResponse;
    RawPut: RawPutRequest => RawPutResponse;
    RawBatchPut: RawBatchPutRequest => RawBatchPutResponse;
    RawDelete: RawDeleteRequest => RawDeleteResponse;
    RawBatchDelete: RawBatchDeleteRequest => RawBatchDeleteResponse;
    RawDeleteRange: RawDeleteRangeRequest => RawDeleteRangeResponse;
    RawCompareAndSwap: RawCasRequest => RawCasResponse;
    SplitRegion: SplitRegionRequest => SplitRegionResponse;
}

macro_rules! point_reads {
    ($($request:ident)*) => {$(
        impl Command for kvrpcpb::$request {
            async fn run(self, core: &Arc<Core>) -> Result<Self::Answer, Failure> {
                core.point_read(&self).await
            }
        }
    )*};
}

point_reads! { GetRequest BatchGetRequest RawGetRequest RawBatchGetRequest RawGetKeyTtlRequest }
