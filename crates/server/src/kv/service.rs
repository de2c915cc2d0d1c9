//! The gRPC service, and the same calls in process.

use std::sync::Arc;

use cribwork_proto::kvrpcpb::*;
use cribwork_proto::tikvpb::batch_commands_request::request::Cmd;
use cribwork_proto::tikvpb::batch_commands_response::response::Cmd as Reply;
use cribwork_proto::tikvpb::tikv_server::Tikv;
use cribwork_proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response as Answered, Status, Streaming};

use crate::kv::answer::Answer;
use crate::kv::batch::{MESSAGES_QUEUED_MAX, Pump, Starter};
use crate::kv::call::Command;
use crate::kv::checks;
use crate::kv::core::Core;
use crate::kv::parts::KvParts;

/// `tikvpb.Tikv` over the local replicas. Cheap to clone.
#[derive(Clone)]
pub struct KvService {
    pub(crate) core: Arc<Core>,
}

impl KvService {
    /// Builds the service; it starts no task before the first call.
    pub fn new(parts: KvParts) -> Self {
        Self { core: Core::new(parts) }
    }

    /// Serves one command of the batch stream in process. A command that holds latches is run to its
    /// end even if the returned future is dropped.
    pub async fn execute(&self, cmd: Cmd) -> Reply {
        let mut answered = None;
        let run = Starter::detached(&self.core, &cmd).start(cmd, |answer| answered = Some(answer));
        match run {
            Some(run) => run.await.reply,
            None => answered.expect("a command that is not to be run is answered").reply,
        }
    }

    async fn unary<C: Command>(&self, request: Request<C>) -> Result<Answered<C::Answer>, Status> {
        let outcome = self.core.serve_detached(request.into_inner()).await;
        Ok(Answered::new(outcome.or_else(C::Answer::of_unary)?))
    }

    /// Serves a stream of batches whose messages come from anywhere.
    pub(crate) fn pump<S>(&self, input: S) -> ReceiverStream<Result<BatchCommandsResponse, Status>>
    where
        S: futures::Stream<Item = Result<BatchCommandsRequest, Status>> + Send + Unpin + 'static,
    {
        let (output, answers) = mpsc::channel(MESSAGES_QUEUED_MAX);
        let pump = Pump::new(self.core.clone(), input, output);
        self.core.runtime.spawn(Box::pin(pump.run()));
        ReceiverStream::new(answers)
    }
}

fn unimplemented<T>(call: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{call} is not supported by this server")))
}

macro_rules! tikv {
    (
        served { $($call:ident($request:ty) -> $answer:ty;)* }
        missing { $($absent:ident($name:literal, $asked:ty) -> $never:ty;)* }
        $($rest:tt)*
    ) => {
        #[tonic::async_trait]
        impl Tikv for KvService {
            $(async fn $call(
                &self,
                request: Request<$request>,
            ) -> Result<Answered<$answer>, Status> {
                self.unary(request).await
            })*

            $(async fn $absent(&self, _: Request<$asked>) -> Result<Answered<$never>, Status> {
                unimplemented($name)
            })*

            $($rest)*
        }
    };
}

tikv! {
    served {
        kv_get(GetRequest) -> GetResponse;
        kv_batch_get(BatchGetRequest) -> BatchGetResponse;
        kv_scan(ScanRequest) -> ScanResponse;
        kv_prewrite(PrewriteRequest) -> PrewriteResponse;
        kv_commit(CommitRequest) -> CommitResponse;
        kv_cleanup(CleanupRequest) -> CleanupResponse;
        kv_batch_rollback(BatchRollbackRequest) -> BatchRollbackResponse;
        kv_check_txn_status(CheckTxnStatusRequest) -> CheckTxnStatusResponse;
        kv_txn_heart_beat(TxnHeartBeatRequest) -> TxnHeartBeatResponse;
        kv_scan_lock(ScanLockRequest) -> ScanLockResponse;
        kv_resolve_lock(ResolveLockRequest) -> ResolveLockResponse;
        kv_delete_range(DeleteRangeRequest) -> DeleteRangeResponse;
        raw_get(RawGetRequest) -> RawGetResponse;
        raw_batch_get(RawBatchGetRequest) -> RawBatchGetResponse;
        raw_get_key_ttl(RawGetKeyTtlRequest) -> RawGetKeyTtlResponse;
        raw_scan(RawScanRequest) -> RawScanResponse;
        raw_batch_scan(RawBatchScanRequest) -> RawBatchScanResponse;
        raw_checksum(RawChecksumRequest) -> RawChecksumResponse;
        raw_put(RawPutRequest) -> RawPutResponse;
        raw_batch_put(RawBatchPutRequest) -> RawBatchPutResponse;
        raw_delete(RawDeleteRequest) -> RawDeleteResponse;
        raw_batch_delete(RawBatchDeleteRequest) -> RawBatchDeleteResponse;
        raw_delete_range(RawDeleteRangeRequest) -> RawDeleteRangeResponse;
        raw_compare_and_swap(RawCasRequest) -> RawCasResponse;
        split_region(SplitRegionRequest) -> SplitRegionResponse;
    }
    missing {
        kv_pessimistic_lock("KvPessimisticLock", PessimisticLockRequest) -> PessimisticLockResponse;
        kv_pessimistic_rollback("KVPessimisticRollback", PessimisticRollbackRequest)
            -> PessimisticRollbackResponse;
        kv_check_secondary_locks("KvCheckSecondaryLocks", CheckSecondaryLocksRequest)
            -> CheckSecondaryLocksResponse;
        kv_gc("KvGC", GcRequest) -> GcResponse;
        unsafe_destroy_range("UnsafeDestroyRange", UnsafeDestroyRangeRequest)
            -> UnsafeDestroyRangeResponse;
        mvcc_get_by_key("MvccGetByKey", MvccGetByKeyRequest) -> MvccGetByKeyResponse;
        get_store_safe_ts("GetStoreSafeTS", StoreSafeTsRequest) -> StoreSafeTsResponse;
    }

    async fn raw_coprocessor(
        &self,
        _: Request<RawCoprocessorRequest>,
    ) -> Result<Answered<RawCoprocessorResponse>, Status> {
        let outcome = checks::unsupported("RawCoprocessor");
        Ok(Answered::new(outcome.unwrap_or_else(RawCoprocessorResponse::of)))
    }

    type BatchCommandsStream = ReceiverStream<Result<BatchCommandsResponse, Status>>;

    async fn batch_commands(
        &self,
        request: Request<Streaming<BatchCommandsRequest>>,
    ) -> Result<Answered<Self::BatchCommandsStream>, Status> {
        Ok(Answered::new(self.pump(request.into_inner())))
    }
}
