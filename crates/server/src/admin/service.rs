//! The `Admin` service, over the placement leader's tables.

use std::sync::Arc;
use std::time::Duration;

use cribwork_placement::StoreState;
use cribwork_proto::cribwork::admin::admin_client::AdminClient;
use cribwork_proto::cribwork::admin::admin_server::Admin;
use cribwork_proto::cribwork::admin::{
    CompareReplicasRequest, ConfigRequest, ConfigResponse, DecommissionRequest, DrainRequest,
    ExplainRequest, ExplainResponse, GetRangeRequest, GetRangeResponse, InitRequest, InitResponse,
    MergeRequest, MoveReplicaRequest, NodeInfo, NodesRequest, NodesResponse, Progress, RangeInfo,
    RangesRequest, RangesResponse, ReplicaInfo, SplitRangeRequest, SplitRequest, SplitResponse,
    StatusRequest, StatusResponse, TransferLeaderRequest, TransferLeaderResponse,
    VerifyRangeRequest, VerifyRangeResponse, explain_request,
};
use cribwork_types::{BoxFuture, KeyRange, RangeId, StoreId, limits};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::ServerError;
use crate::place::forward::{forwarded, is_forwarded};
use crate::place::view::{StoreRow, encoded};
use crate::place::{Place, RangeRow};

/// Ranges that one answer holds at most; the caller goes on behind the last.
const RANGES_PER_ANSWER_MAX: usize = 4096;
/// How long a split is tried while its range moves.
const SPLIT_PATIENCE: Duration = Duration::from_secs(5);
/// Time limit of a call that is passed on: longer than anything it may do.
const ADMIN_PATIENCE: Duration = Duration::from_secs(8);
/// Pause between two attempts.
const SPLIT_PAUSE: Duration = Duration::from_millis(25);

/// Makes a cluster; placement does not exist before that.
#[tonic::async_trait]
pub trait InitHook: Send + Sync + 'static {
    /// Makes a cluster with `ranges` ranges.
    ///
    /// # Errors
    /// [`ServerError::AlreadyInitialised`], [`ServerError::InitRefused`],
    /// [`ServerError::InitUnfinished`].
    async fn init(&self, ranges: u32) -> Result<InitResponse, ServerError>;
}

/// Serves people and scripts on any node.
#[derive(Clone)]
pub struct AdminService {
    place: Place,
    init: Arc<dyn InitHook>,
}

type Call<R> = BoxFuture<Result<Response<R>, Status>>;

impl AdminService {
    /// Over the node's share in placement.
    pub fn new(place: Place, init: Arc<dyn InitHook>) -> Self {
        Self { place, init }
    }

    async fn answer<Q, R>(
        &self,
        request: Request<Q>,
        local: impl Fn(Self, Q) -> BoxFuture<Result<R, ServerError>> + Send + Sync,
        remote: impl Fn(AdminClient<Channel>, Request<Q>) -> Call<R> + Send + Sync + Copy + 'static,
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
                let channel = place.parts().peers.channel(&address).await?;
                let client =
                    AdminClient::new(channel).max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
                Ok(remote(client, forwarded(query)).await?.into_inner())
            })
        };
        let answer = {
            let here = || local(self.clone(), query.clone());
            self.place.route_slow(passed_on, ADMIN_PATIENCE, here, ask).await?
        };
        Ok(Response::new(answer))
    }

    fn status_here(&self) -> Result<StatusResponse, ServerError> {
        let (stores, ranges) = (self.place.stores()?, self.place.all_ranges()?);
        let (operators, tso_physical_ms) = self.place.running()?;
        let stays = |store: &&StoreRow| store.info.state != StoreState::Decommissioned;
        let up = stores.iter().filter(stays).filter(|store| store.is_live).count();
        let all = stores.iter().filter(stays).count();
        let count = |wanted: &dyn Fn(&RangeRow) -> bool| {
            ranges.iter().filter(|range| wanted(range)).count() as u64
        };
        Ok(StatusResponse {
            cluster_id: self.place.cluster().get(),
            nodes_up: up as u32,
            nodes_down: (all - up) as u32,
            ranges: ranges.len() as u64,
            under_replicated: count(&|range| range.missing > 0),
            leaderless: count(&|range| range.leader.is_none()),
            operators,
            tso_physical_ms,
            placement_stores: self.place.members().into_iter().map(StoreId::get).collect(),
            placement_leader: self.place.parts().store.get(),
        })
    }

    /// Splits at a user's key: finds the range, has its leader split it, again while it moves.
    async fn split_here(&self, key: &[u8]) -> Result<SplitResponse, ServerError> {
        if key.len() > limits::KEY_BYTES_MAX {
            let (length, max) = (key.len(), limits::KEY_BYTES_MAX);
            let why = format!("the key has {length} bytes, at most {max} fit");
            return Err(ServerError::Invalid(why));
        }
        let bound = encoded(key);
        let runtime = &self.place.parts().runtime;
        let deadline = runtime.now() + SPLIT_PATIENCE;
        loop {
            let row = match self.place.range_of(&bound) {
                Err(ServerError::DirectoryGap) if runtime.now() < deadline => {
                    runtime.sleep(SPLIT_PAUSE).await;
                    continue;
                }
                found => found?,
            };
            if row.descriptor.span.start == bound {
                let id = row.descriptor.id;
                let why = format!("range {id} begins at this key already");
                return Err(ServerError::Invalid(why));
            }
            match self.ask_leader(&row, bound.clone()).await {
                Err(error) if error.is_transient() && runtime.now() < deadline => {
                    runtime.sleep(SPLIT_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn ask_leader(
        &self,
        row: &RangeRow,
        bound: bytes::Bytes,
    ) -> Result<SplitResponse, ServerError> {
        let range = row.descriptor.id;
        let leaderless = cribwork_multiraft::RaftError::NotLeader { range, leader: None };
        let leader = row.leader.ok_or(leaderless)?;
        let parts = self.place.parts();
        let unknown = || ServerError::NotFound(format!("store {}", leader.store));
        let address = parts.addresses.get(leader.store).ok_or_else(unknown)?.address;
        let mut client = parts.peers.node_client(&address).await?;
        let request = SplitRangeRequest {
            cluster_id: self.place.cluster().get(),
            range_id: range.get(),
            conf_ver: row.descriptor.epoch.conf_ver,
            version: row.descriptor.epoch.version,
            bound,
        };
        let answer = client.split_range(forwarded(request)).await?.into_inner();
        Ok(SplitResponse { left: answer.left, right: answer.right })
    }

    /// Has the leader of a range compare its replicas.
    async fn verify_here(&self, range: RangeId) -> Result<VerifyRangeResponse, ServerError> {
        let missing = || ServerError::NotFound(format!("range {range}"));
        let row = self.place.range_by_id(range)?.ok_or_else(missing)?;
        let leaderless = cribwork_multiraft::RaftError::NotLeader { range, leader: None };
        let leader = row.leader.ok_or(leaderless)?;
        let parts = self.place.parts();
        let unknown = || ServerError::NotFound(format!("store {}", leader.store));
        let address = parts.addresses.get(leader.store).ok_or_else(unknown)?.address;
        let mut client = parts.peers.node_client(&address).await?;
        let (cluster_id, range) = (self.place.cluster().get(), range.get());
        let request = CompareReplicasRequest { cluster_id, range };
        Ok(client.compare_replicas(forwarded(request)).await?.into_inner())
    }

    async fn transfer_here(&self, range: RangeId, to: StoreId) -> Result<(), ServerError> {
        let missing = || ServerError::NotFound(format!("range {range}"));
        let row = self.place.range_by_id(range)?.ok_or_else(missing)?;
        if row.descriptor.replica_on(to).is_none() {
            let why = format!("store {to} holds no replica of range {range}");
            return Err(ServerError::Invalid(why));
        }
        let leaderless = cribwork_multiraft::RaftError::NotLeader { range, leader: None };
        let leader = row.leader.ok_or(leaderless)?;
        if leader.store == to {
            return Ok(());
        }
        self.place.order_transfer(range, leader.store, to).await
    }
}

fn range_info(row: &RangeRow) -> RangeInfo {
    let replica = |replica: &cribwork_types::ReplicaDescriptor| ReplicaInfo {
        id: replica.id.get(),
        store: replica.store.get(),
        role: replica.role.name().to_owned(),
    };
    let range = &row.descriptor;
    RangeInfo {
        id: range.id.get(),
        start: range.span.start.clone(),
        end: range.span.end.clone(),
        conf_ver: range.epoch.conf_ver,
        version: range.epoch.version,
        leader_store: row.leader.map_or(0, |leader| leader.store.get()),
        replicas: range.replicas.iter().map(replica).collect(),
        size_bytes: row.size_bytes,
        state: row.state().to_owned(),
    }
}

fn node_info(row: StoreRow) -> NodeInfo {
    NodeInfo {
        store: row.info.id.get(),
        address: row.info.address,
        http: row.info.http,
        zone: row.info.zone,
        state: row.info.state.name().to_owned(),
        leaders: row.leaders,
        replicas: row.replicas,
        used_bytes: row.used_bytes,
        capacity_bytes: row.capacity_bytes,
    }
}

/// Has the leader's `Admin` service run a method.
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
impl Admin for AdminService {
    async fn init(&self, request: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        Ok(Response::new(self.init.init(request.into_inner().ranges).await?))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let local = local!(|it, _query: StatusRequest| it.status_here());
        self.answer(request, local, remote!(status)).await
    }

    async fn nodes(
        &self,
        request: Request<NodesRequest>,
    ) -> Result<Response<NodesResponse>, Status> {
        let local = local!(|it, _query: NodesRequest| {
            let nodes = it.place.stores()?.into_iter().map(node_info).collect();
            Ok(NodesResponse { nodes })
        });
        self.answer(request, local, remote!(nodes)).await
    }

    async fn ranges(
        &self,
        request: Request<RangesRequest>,
    ) -> Result<Response<RangesResponse>, Status> {
        let local = local!(|it, query: RangesRequest| {
            let limit = match query.limit as usize {
                0 => RANGES_PER_ANSWER_MAX,
                limit => limit.min(RANGES_PER_ANSWER_MAX),
            };
            let span = KeyRange::new(query.start_key, bytes::Bytes::new());
            let ranges = it.place.ranges(&span, limit)?.iter().map(range_info).collect();
            Ok(RangesResponse { ranges })
        });
        self.answer(request, local, remote!(ranges)).await
    }

    async fn get_range(
        &self,
        request: Request<GetRangeRequest>,
    ) -> Result<Response<GetRangeResponse>, Status> {
        let local = local!(|it, query: GetRangeRequest| {
            let row = it.place.range_by_id(RangeId(query.id))?;
            Ok(GetRangeResponse { range: row.as_ref().map(range_info) })
        });
        self.answer(request, local, remote!(get_range)).await
    }

    async fn split(
        &self,
        request: Request<SplitRequest>,
    ) -> Result<Response<SplitResponse>, Status> {
        let local = local!(|it, query: SplitRequest| it.split_here(&query.key).await);
        self.answer(request, local, remote!(split)).await
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let local = local!(|it, query: TransferLeaderRequest| {
            it.transfer_here(RangeId(query.range), StoreId(query.store)).await?;
            Ok(TransferLeaderResponse {})
        });
        self.answer(request, local, remote!(transfer_leader)).await
    }

    async fn move_replica(
        &self,
        request: Request<MoveReplicaRequest>,
    ) -> Result<Response<Progress>, Status> {
        let local = local!(|it, query: MoveReplicaRequest| it.place.move_replica(&query));
        self.answer(request, local, remote!(move_replica)).await
    }

    async fn merge(&self, request: Request<MergeRequest>) -> Result<Response<Progress>, Status> {
        let local = local!(|it, query: MergeRequest| it.place.merge(&query));
        self.answer(request, local, remote!(merge)).await
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<Progress>, Status> {
        let local = local!(|it, query: DrainRequest| {
            it.place.drain(StoreId(query.store), query.undo).await
        });
        self.answer(request, local, remote!(drain)).await
    }

    async fn decommission(
        &self,
        request: Request<DecommissionRequest>,
    ) -> Result<Response<Progress>, Status> {
        let local = local!(|it, query: DecommissionRequest| {
            it.place.decommission(StoreId(query.store)).await
        });
        self.answer(request, local, remote!(decommission)).await
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        let local = local!(|it, query: ExplainRequest| match query.subject {
            Some(explain_request::Subject::Range(id)) => it.place.explain_range(RangeId(id)),
            Some(explain_request::Subject::Store(id)) => it.place.explain_store(StoreId(id)),
            None => Err(ServerError::Invalid("explain what?".to_owned())),
        });
        self.answer(request, local, remote!(explain)).await
    }

    async fn config(
        &self,
        request: Request<ConfigRequest>,
    ) -> Result<Response<ConfigResponse>, Status> {
        let local = local!(|it, query: ConfigRequest| {
            let settings = it.place.config(&query.key, query.value.as_deref()).await?;
            Ok(ConfigResponse { settings })
        });
        self.answer(request, local, remote!(config)).await
    }

    async fn verify_range(
        &self,
        request: Request<VerifyRangeRequest>,
    ) -> Result<Response<VerifyRangeResponse>, Status> {
        let local =
            local!(|it, query: VerifyRangeRequest| it.verify_here(RangeId(query.range)).await);
        self.answer(request, local, remote!(verify_range)).await
    }
}
