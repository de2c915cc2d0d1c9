//! The `PD` service: routes each call to the placement leader and checks the cluster id.

use cribwork_placement::IdKind;
use cribwork_proto::pdpb::pd_client::PdClient;
use cribwork_proto::pdpb::{self, pd_server::Pd};
use cribwork_types::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::answers;
use crate::ServerError;
use crate::place::Place;
use crate::place::forward::{forwarded, is_forwarded};

/// Replicas that a range has.
const REPLICAS: u32 = 3;

/// Serves `pdpb.PD` on any node.
#[derive(Clone)]
pub struct PdService {
    place: Place,
}

impl PdService {
    /// Over the node's share in placement.
    pub fn new(place: Place) -> Self {
        Self { place }
    }

    /// Answers `request` here if this node leads placement, else has the leader answer it.
    async fn answer<Q, R>(
        &self,
        request: Request<Q>,
        local: impl Fn(Self, Q) -> BoxFuture<Result<R, ServerError>> + Send + Sync,
        remote: impl Fn(PdClient<Channel>, Request<Q>) -> Call<R> + Send + Sync + Copy + 'static,
    ) -> Result<Response<R>, Status>
    where
        Q: Clone + Send + Sync + 'static,
        R: Send + 'static,
    {
        let passed_on = is_forwarded(&request);
        let query = request.into_inner();
        let ask = |address: String| -> BoxFuture<Result<R, ServerError>> {
            let (place, query) = (self.place.clone(), query.clone());
            Box::pin(async move {
                let client = place.parts().peers.pd_client(&address).await?;
                Ok(remote(client, forwarded(query)).await?.into_inner())
            })
        };
        let answer = {
            let here = || local(self.clone(), query.clone());
            self.place.route(passed_on, here, ask).await?
        };
        Ok(Response::new(answer))
    }

    /// True if a request with this header is meant for another cluster.
    fn is_foreign(&self, header: &Option<pdpb::RequestHeader>) -> Option<u64> {
        let theirs = header.as_ref().map_or(0, |header| header.cluster_id);
        (theirs != 0 && theirs != self.place.cluster().get()).then_some(theirs)
    }
}

type Call<R> = BoxFuture<Result<Response<R>, Status>>;

/// Answers a request for another cluster with an error in the header, as PD does.
macro_rules! own_cluster {
    ($self:ident, $request:ident, $response:ident) => {
        if let Some(theirs) = $self.is_foreign(&$request.get_ref().header) {
            let header = answers::wrong_cluster(&$self.place, theirs);
            return Ok(Response::new(pdpb::$response { header, ..Default::default() }));
        }
    };
}

/// Has the leader's `PD` service run a method.
macro_rules! remote {
    ($method:ident) => {
        |mut client, request| Box::pin(async move { client.$method(request).await })
    };
}

/// Answers a query from the tables of this node.
macro_rules! local {
    (|$it:ident, $query:ident: $type:ty| $body:expr) => {
        |$it: Self, $query: $type| -> BoxFuture<_> { Box::pin(async move { $body }) }
    };
}

#[tonic::async_trait]
impl Pd for PdService {
    type TsoStream = BoxStream<'static, Result<pdpb::TsoResponse, Status>>;

    async fn get_cluster_info(
        &self,
        _: Request<pdpb::GetClusterInfoRequest>,
    ) -> Result<Response<pdpb::GetClusterInfoResponse>, Status> {
        Err(Status::unimplemented("GetClusterInfo: this server has one mode, PD"))
    }

    async fn get_members(
        &self,
        request: Request<pdpb::GetMembersRequest>,
    ) -> Result<Response<pdpb::GetMembersResponse>, Status> {
        own_cluster!(self, request, GetMembersResponse);
        Ok(Response::new(answers::members(&self.place)))
    }

    async fn tso(
        &self,
        request: Request<Streaming<pdpb::TsoRequest>>,
    ) -> Result<Response<Self::TsoStream>, Status> {
        let passed_on = is_forwarded(&request);
        let stream = tso_stream(self.clone(), request.into_inner(), passed_on);
        Ok(Response::new(stream.boxed()))
    }

    async fn get_min_ts(
        &self,
        request: Request<pdpb::GetMinTsRequest>,
    ) -> Result<Response<pdpb::GetMinTsResponse>, Status> {
        own_cluster!(self, request, GetMinTsResponse);
        let ts = self.place.serve_tso(1, is_forwarded(&request)).await?;
        let (header, timestamp) = (answers::header(&self.place), Some(ts.into()));
        Ok(Response::new(pdpb::GetMinTsResponse { header, timestamp }))
    }

    async fn is_bootstrapped(
        &self,
        request: Request<pdpb::IsBootstrappedRequest>,
    ) -> Result<Response<pdpb::IsBootstrappedResponse>, Status> {
        own_cluster!(self, request, IsBootstrappedResponse);
        let header = answers::header(&self.place);
        Ok(Response::new(pdpb::IsBootstrappedResponse { header, bootstrapped: true }))
    }

    async fn alloc_id(
        &self,
        request: Request<pdpb::AllocIdRequest>,
    ) -> Result<Response<pdpb::AllocIdResponse>, Status> {
        own_cluster!(self, request, AllocIdResponse);
        let id = self.place.serve_alloc_ids(IdKind::Range, 1, is_forwarded(&request)).await?;
        Ok(Response::new(pdpb::AllocIdResponse { header: answers::header(&self.place), id }))
    }

    async fn get_store(
        &self,
        request: Request<pdpb::GetStoreRequest>,
    ) -> Result<Response<pdpb::GetStoreResponse>, Status> {
        own_cluster!(self, request, GetStoreResponse);
        let local =
            local!(|it, q: pdpb::GetStoreRequest| answers::get_store(&it.place, q.store_id));
        self.answer(request, local, remote!(get_store)).await
    }

    async fn get_all_stores(
        &self,
        request: Request<pdpb::GetAllStoresRequest>,
    ) -> Result<Response<pdpb::GetAllStoresResponse>, Status> {
        own_cluster!(self, request, GetAllStoresResponse);
        let local = local!(|it, asked: pdpb::GetAllStoresRequest| {
            answers::all_stores(&it.place, asked.exclude_tombstone_stores)
        });
        self.answer(request, local, remote!(get_all_stores)).await
    }

    async fn get_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        own_cluster!(self, request, GetRegionResponse);
        let local = local!(|it, q: pdpb::GetRegionRequest| {
            Ok(answers::one(&it.place, Some(it.place.range_of(&q.region_key)?)))
        });
        self.answer(request, local, remote!(get_region)).await
    }

    async fn get_prev_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        own_cluster!(self, request, GetRegionResponse);
        let local = local!(|it, q: pdpb::GetRegionRequest| {
            Ok(answers::one(&it.place, it.place.range_before(&q.region_key)?))
        });
        self.answer(request, local, remote!(get_prev_region)).await
    }

    async fn get_region_by_id(
        &self,
        request: Request<pdpb::GetRegionByIdRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        own_cluster!(self, request, GetRegionResponse);
        let local =
            local!(|it, q: pdpb::GetRegionByIdRequest| answers::by_id(&it.place, q.region_id));
        self.answer(request, local, remote!(get_region_by_id)).await
    }

    async fn scan_regions(
        &self,
        request: Request<pdpb::ScanRegionsRequest>,
    ) -> Result<Response<pdpb::ScanRegionsResponse>, Status> {
        own_cluster!(self, request, ScanRegionsResponse);
        let local = local!(|it, q: pdpb::ScanRegionsRequest| answers::scan(&it.place, &q));
        self.answer(request, local, remote!(scan_regions)).await
    }

    async fn batch_scan_regions(
        &self,
        request: Request<pdpb::BatchScanRegionsRequest>,
    ) -> Result<Response<pdpb::BatchScanRegionsResponse>, Status> {
        own_cluster!(self, request, BatchScanRegionsResponse);
        let local =
            local!(|it, q: pdpb::BatchScanRegionsRequest| answers::batch_scan(&it.place, &q));
        self.answer(request, local, remote!(batch_scan_regions)).await
    }

    async fn get_cluster_config(
        &self,
        request: Request<pdpb::GetClusterConfigRequest>,
    ) -> Result<Response<pdpb::GetClusterConfigResponse>, Status> {
        own_cluster!(self, request, GetClusterConfigResponse);
        let id = self.place.cluster().get();
        let cluster = Some(cribwork_proto::metapb::Cluster { id, max_peer_count: REPLICAS });
        let header = answers::header(&self.place);
        Ok(Response::new(pdpb::GetClusterConfigResponse { header, cluster }))
    }

    async fn get_gc_safe_point(
        &self,
        request: Request<pdpb::GetGcSafePointRequest>,
    ) -> Result<Response<pdpb::GetGcSafePointResponse>, Status> {
        own_cluster!(self, request, GetGcSafePointResponse);
        let local = local!(|it, _q: pdpb::GetGcSafePointRequest| {
            let (header, safe_point) = (answers::header(&it.place), it.place.safe_point()?);
            Ok(pdpb::GetGcSafePointResponse { header, safe_point })
        });
        self.answer(request, local, remote!(get_gc_safe_point)).await
    }

    async fn update_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateGcSafePointRequest>,
    ) -> Result<Response<pdpb::UpdateGcSafePointResponse>, Status> {
        own_cluster!(self, request, UpdateGcSafePointResponse);
        let local = local!(|it, q: pdpb::UpdateGcSafePointRequest| {
            let new_safe_point = it.place.raise_safe_point(q.safe_point).await?;
            let header = answers::header(&it.place);
            Ok(pdpb::UpdateGcSafePointResponse { header, new_safe_point })
        });
        self.answer(request, local, remote!(update_gc_safe_point)).await
    }

    async fn update_service_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateServiceGcSafePointRequest>,
    ) -> Result<Response<pdpb::UpdateServiceGcSafePointResponse>, Status> {
        own_cluster!(self, request, UpdateServiceGcSafePointResponse);
        let local = local!(|it, q: pdpb::UpdateServiceGcSafePointRequest| {
            let (service_id, ttl) = (q.service_id, q.ttl);
            let point = it.place.service_safe_point(service_id.clone(), ttl, q.safe_point);
            let (min_safe_point, header) = (point.await?, answers::header(&it.place));
            Ok(pdpb::UpdateServiceGcSafePointResponse { header, service_id, ttl, min_safe_point })
        });
        self.answer(request, local, remote!(update_service_gc_safe_point)).await
    }
}

/// One answer for each request, in order.
fn tso_stream(
    service: PdService,
    requests: Streaming<pdpb::TsoRequest>,
    passed_on: bool,
) -> impl Stream<Item = Result<pdpb::TsoResponse, Status>> + Send + 'static {
    requests.then(move |request| {
        let service = service.clone();
        async move {
            let request = request?;
            let place = &service.place;
            if let Some(theirs) = service.is_foreign(&request.header) {
                let header = answers::wrong_cluster(place, theirs);
                return Ok(pdpb::TsoResponse { header, ..Default::default() });
            }
            let last = place.serve_tso(request.count, passed_on).await?;
            let (header, timestamp) = (answers::header(place), Some(last.into()));
            Ok(pdpb::TsoResponse { header, count: request.count, timestamp })
        }
    })
}
