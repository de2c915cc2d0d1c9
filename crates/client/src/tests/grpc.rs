//! The real channels, over loopback, to a server that knows just enough.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use cribwork_proto::cribwork::admin as adm;
use cribwork_proto::pdpb::pd_server::{Pd, PdServer};
use cribwork_proto::tikvpb::batch_commands_response::Response as BatchResponse;
use cribwork_proto::tikvpb::tikv_server::{Tikv, TikvServer};
use cribwork_proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use cribwork_proto::{kvrpcpb as kv, metapb, pdpb as pd};
use cribwork_types::{ClusterId, RangeId, Timestamp};
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::testing::{TestRuntime, bytes};
use crate::{AdminClient, Answer, Client, ClientError, ClientOptions, Command};

const CLUSTER: u64 = 42;

type Answered<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One store and the placement service of a cluster of one range.
#[derive(Clone, Default)]
struct Node {
    address: String,
    data: Arc<Mutex<BTreeMap<Bytes, Bytes>>>,
}

/// Methods of a service: those with a body answer what it says, the others that they do not exist.
macro_rules! rpcs {
    ($($name:ident($request:ty) -> $response:ty $(= |$node:ident, $argument:ident| $body:expr)?;)*) => {$(
        fn $name<'a, 'b>(&'a self, _request: Request<$request>) -> Answered<'b, $response>
        where
            'a: 'b,
            Self: 'b,
        {
            $(
                let ($node, $argument) = (self.clone(), _request.into_inner());
                return Box::pin(async move { $body });
            )?
            #[allow(unreachable_code)]
            Box::pin(async { Err(Status::unimplemented("not here")) })
        }
    )*};
}

fn ok<T>(answer: T) -> Result<Response<T>, Status> {
    Ok(Response::new(answer))
}

fn header() -> Option<pd::ResponseHeader> {
    Some(pd::ResponseHeader { cluster_id: CLUSTER, error: None })
}

impl Node {
    /// `None`: the store breaks the stream.
    fn execute(&self, command: Command) -> Option<Answer> {
        Some(match command {
            Command::RawPut(put) if put.key == "break" => return None,
            Command::RawPut(put) => {
                self.data.lock().insert(put.key, put.value);
                Answer::RawPut(Default::default())
            }
            Command::RawGet(get) => {
                let value = self.data.lock().get(&get.key).cloned();
                Answer::RawGet(kv::RawGetResponse {
                    not_found: value.is_none(),
                    value: value.unwrap_or_default(),
                    ..Default::default()
                })
            }
            _ => Answer::Empty(Default::default()),
        })
    }

    fn member(&self) -> pd::Member {
        let client_urls = vec![format!("http://{}", self.address)];
        pd::Member { client_urls, ..Default::default() }
    }

    fn region(&self) -> pd::GetRegionResponse {
        let leader = metapb::Peer { id: 1, store_id: 1, ..Default::default() };
        pd::GetRegionResponse {
            header: header(),
            region: Some(metapb::Region {
                id: 1,
                region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
                peers: vec![leader],
                ..Default::default()
            }),
            leader: Some(leader),
            ..Default::default()
        }
    }

    async fn serve() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let node = Node { address: address.clone(), ..Default::default() };
        let server = Server::builder()
            .add_service(TikvServer::new(node.clone()))
            .add_service(PdServer::new(node.clone()))
            .add_service(adm::admin_server::AdminServer::new(node))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        address
    }
}

impl Tikv for Node {
    type BatchCommandsStream = Streamed<BatchCommandsResponse>;

    fn batch_commands<'a, 'b>(
        &'a self,
        request: Request<Streaming<BatchCommandsRequest>>,
    ) -> Answered<'b, Self::BatchCommandsStream>
    where
        'a: 'b,
        Self: 'b,
    {
        let node = self.clone();
        let answers = request.into_inner().map(move |batch| {
            let batch = batch?;
            let mut answer = BatchCommandsResponse::default();
            for (id, request) in batch.request_ids.into_iter().zip(batch.requests).rev() {
                let cmd = node.execute(request.cmd.unwrap());
                let cmd = Some(cmd.ok_or_else(|| Status::internal("broken"))?);
                answer.request_ids.push(id);
                answer.responses.push(BatchResponse { cmd });
            }
            Ok(answer)
        });
        Box::pin(async { ok(answers.boxed()) })
    }

    rpcs! {
        kv_get(kv::GetRequest) -> kv::GetResponse;
        kv_scan(kv::ScanRequest) -> kv::ScanResponse;
        kv_prewrite(kv::PrewriteRequest) -> kv::PrewriteResponse;
        kv_pessimistic_lock(kv::PessimisticLockRequest) -> kv::PessimisticLockResponse;
        kv_pessimistic_rollback(kv::PessimisticRollbackRequest) -> kv::PessimisticRollbackResponse;
        kv_txn_heart_beat(kv::TxnHeartBeatRequest) -> kv::TxnHeartBeatResponse;
        kv_check_txn_status(kv::CheckTxnStatusRequest) -> kv::CheckTxnStatusResponse;
        kv_check_secondary_locks(kv::CheckSecondaryLocksRequest) -> kv::CheckSecondaryLocksResponse;
        kv_commit(kv::CommitRequest) -> kv::CommitResponse;
        kv_cleanup(kv::CleanupRequest) -> kv::CleanupResponse;
        kv_batch_get(kv::BatchGetRequest) -> kv::BatchGetResponse;
        kv_batch_rollback(kv::BatchRollbackRequest) -> kv::BatchRollbackResponse;
        kv_scan_lock(kv::ScanLockRequest) -> kv::ScanLockResponse;
        kv_resolve_lock(kv::ResolveLockRequest) -> kv::ResolveLockResponse;
        kv_gc(kv::GcRequest) -> kv::GcResponse;
        kv_delete_range(kv::DeleteRangeRequest) -> kv::DeleteRangeResponse;
        raw_get(kv::RawGetRequest) -> kv::RawGetResponse;
        raw_batch_get(kv::RawBatchGetRequest) -> kv::RawBatchGetResponse;
        raw_put(kv::RawPutRequest) -> kv::RawPutResponse;
        raw_batch_put(kv::RawBatchPutRequest) -> kv::RawBatchPutResponse;
        raw_delete(kv::RawDeleteRequest) -> kv::RawDeleteResponse;
        raw_batch_delete(kv::RawBatchDeleteRequest) -> kv::RawBatchDeleteResponse;
        raw_scan(kv::RawScanRequest) -> kv::RawScanResponse;
        raw_delete_range(kv::RawDeleteRangeRequest) -> kv::RawDeleteRangeResponse;
        raw_batch_scan(kv::RawBatchScanRequest) -> kv::RawBatchScanResponse;
        raw_get_key_ttl(kv::RawGetKeyTtlRequest) -> kv::RawGetKeyTtlResponse =
            |_node, _request| ok(kv::RawGetKeyTtlResponse { ttl: 7, ..Default::default() });
        raw_compare_and_swap(kv::RawCasRequest) -> kv::RawCasResponse;
        raw_checksum(kv::RawChecksumRequest) -> kv::RawChecksumResponse;
        raw_coprocessor(kv::RawCoprocessorRequest) -> kv::RawCoprocessorResponse;
        unsafe_destroy_range(kv::UnsafeDestroyRangeRequest) -> kv::UnsafeDestroyRangeResponse;
        split_region(kv::SplitRegionRequest) -> kv::SplitRegionResponse;
        mvcc_get_by_key(kv::MvccGetByKeyRequest) -> kv::MvccGetByKeyResponse;
        get_store_safe_ts(kv::StoreSafeTsRequest) -> kv::StoreSafeTsResponse;
    }
}

impl Pd for Node {
    type TsoStream = Streamed<pd::TsoResponse>;

    fn tso<'a, 'b>(
        &'a self,
        request: Request<Streaming<pd::TsoRequest>>,
    ) -> Answered<'b, Self::TsoStream>
    where
        'a: 'b,
        Self: 'b,
    {
        let mut requests = request.into_inner();
        Box::pin(async move {
            // Nothing, not even headers, before the first request, as some servers do.
            let first = requests.next().await.ok_or_else(|| Status::internal("no request"))?;
            let mut last = 0;
            let answers = stream::iter([first]).chain(requests).map(move |request| {
                let count = request?.count;
                last += i64::from(count);
                let timestamp = Some(pd::Timestamp { physical: 5, logical: last, suffix_bits: 0 });
                Ok(pd::TsoResponse { header: header(), count, timestamp })
            });
            ok(answers.boxed() as Self::TsoStream)
        })
    }

    rpcs! {
        get_cluster_info(pd::GetClusterInfoRequest) -> pd::GetClusterInfoResponse;
        get_members(pd::GetMembersRequest) -> pd::GetMembersResponse = |node, _request| {
            let member = node.member();
            ok(pd::GetMembersResponse {
                header: header(),
                members: vec![member.clone()],
                leader: Some(member),
                etcd_leader: None,
            })
        };
        get_min_ts(pd::GetMinTsRequest) -> pd::GetMinTsResponse;
        is_bootstrapped(pd::IsBootstrappedRequest) -> pd::IsBootstrappedResponse;
        alloc_id(pd::AllocIdRequest) -> pd::AllocIdResponse;
        get_store(pd::GetStoreRequest) -> pd::GetStoreResponse = |node, request| {
            assert_eq!(request.header.unwrap().cluster_id, CLUSTER);
            let store =
                metapb::Store { id: request.store_id, address: node.address, ..Default::default() };
            ok(pd::GetStoreResponse { header: header(), store: Some(store) })
        };
        get_all_stores(pd::GetAllStoresRequest) -> pd::GetAllStoresResponse;
        get_region(pd::GetRegionRequest) -> pd::GetRegionResponse =
            |node, _request| ok(node.region());
        get_prev_region(pd::GetRegionRequest) -> pd::GetRegionResponse;
        get_region_by_id(pd::GetRegionByIdRequest) -> pd::GetRegionResponse;
        scan_regions(pd::ScanRegionsRequest) -> pd::ScanRegionsResponse;
        batch_scan_regions(pd::BatchScanRegionsRequest) -> pd::BatchScanRegionsResponse;
        get_cluster_config(pd::GetClusterConfigRequest) -> pd::GetClusterConfigResponse;
        get_gc_safe_point(pd::GetGcSafePointRequest) -> pd::GetGcSafePointResponse;
        update_gc_safe_point(pd::UpdateGcSafePointRequest) -> pd::UpdateGcSafePointResponse;
        update_service_gc_safe_point(pd::UpdateServiceGcSafePointRequest)
            -> pd::UpdateServiceGcSafePointResponse;
    }
}

impl adm::admin_server::Admin for Node {
    rpcs! {
        init(adm::InitRequest) -> adm::InitResponse = |_node, _request| {
            let mut status = Status::failed_precondition("already initialised");
            status.metadata_mut().insert("cribwork-code", "CW-SERVER-DONE".parse().unwrap());
            Err(status)
        };
        status(adm::StatusRequest) -> adm::StatusResponse =
            |_node, _request| ok(adm::StatusResponse { cluster_id: CLUSTER, ..Default::default() });
        nodes(adm::NodesRequest) -> adm::NodesResponse;
        ranges(adm::RangesRequest) -> adm::RangesResponse;
        get_range(adm::GetRangeRequest) -> adm::GetRangeResponse;
        split(adm::SplitRequest) -> adm::SplitResponse;
        transfer_leader(adm::TransferLeaderRequest) -> adm::TransferLeaderResponse;
        move_replica(adm::MoveReplicaRequest) -> adm::Progress;
        merge(adm::MergeRequest) -> adm::Progress;
        drain(adm::DrainRequest) -> adm::Progress;
        decommission(adm::DecommissionRequest) -> adm::Progress;
        explain(adm::ExplainRequest) -> adm::ExplainResponse;
        config(adm::ConfigRequest) -> adm::ConfigResponse;
        verify_range(adm::VerifyRangeRequest) -> adm::VerifyRangeResponse;
    }
}

async fn connect() -> Client {
    // The first endpoint is nobody's.
    let endpoints = ["127.0.0.1:1".to_owned(), Node::serve().await];
    Client::connect(ClientOptions::new(endpoints), TestRuntime::new()).await.unwrap()
}

#[tokio::test]
async fn commands_share_the_batch_stream() {
    let client = connect().await;
    let raw = client.raw();
    let puts = (0..200).map(|i| raw.put(format!("k{i}"), format!("v{i}")));
    futures::future::try_join_all(puts).await.unwrap();
    assert_eq!(raw.get("k7").await, Ok(Some(bytes("v7"))));
    assert_eq!(raw.get("absent").await, Ok(None));
    assert_eq!(raw.get_ttl("k7").await.unwrap().unwrap().as_secs(), 7);
    assert_eq!(client.cluster_id().await, Ok(ClusterId(CLUSTER)));
}

#[tokio::test]
async fn a_broken_stream_is_opened_again() {
    let raw = connect().await.raw();
    raw.put("k", "v").await.unwrap();
    let outcome = raw.put("break", "v").await;
    assert!(matches!(outcome, Err(ClientError::Unknown { .. })), "{outcome:?}");
    assert_eq!(raw.get("k").await, Ok(Some(bytes("v"))));
}

#[tokio::test]
async fn timestamps_come_in_order() {
    let client = connect().await;
    let first = client.timestamp().await.unwrap();
    let stamps = futures::future::try_join_all((0..50).map(|_| client.timestamp())).await.unwrap();
    assert!(stamps.iter().all(|ts| *ts > first));
    assert_eq!(stamps.iter().max(), Some(&Timestamp::new(5, 51)));
}

#[tokio::test]
async fn administration_tells_refusals_from_answers() {
    let options = ClientOptions::new([Node::serve().await]);
    let admin = AdminClient::new(options, TestRuntime::new());
    assert_eq!(admin.status().await.unwrap().cluster_id, CLUSTER);
    let refused = admin.init(1).await;
    let Err(ClientError::Refused { server_code, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(server_code, "CW-SERVER-DONE");
    let refused = admin.range(RangeId(1)).await;
    assert!(matches!(refused, Err(ClientError::Refused { .. })), "{refused:?}");
}
