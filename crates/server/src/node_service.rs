//! What nodes ask of each other beside Raft traffic: the `Node` service.

use std::sync::{Arc, Weak};

use cribwork_multiraft::ReplicaChange;
use cribwork_placement::{BootstrapPlan, IdKind};
use cribwork_proto::cribwork::admin::node_server::Node;
use cribwork_proto::cribwork::admin::{
    self, AllocIdsRequest, AllocIdsResponse, BootstrapRequest, BootstrapResponse,
    ChangeReplicasRequest, ChangeReplicasResponse, CompareReplicasRequest, HeartbeatRequest,
    HeartbeatResponse, IdentifyRequest, IdentifyResponse, MergeStepRequest, MergeStepResponse,
    RangeInfo, ReadFingerprintRequest, RegisterRequest, RegisterResponse, ReplicaInfo, ReplicaSums,
    SplitRangeRequest, SplitRangeResponse, TransferRangeLeaderRequest, TransferRangeLeaderResponse,
    VerifyRangeResponse,
};
use cribwork_types::{
    BoxFuture, ClusterId, RangeDescriptor, RangeEpoch, RangeId, ReplicaId, Runtime, StoreId,
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::ServerError;
use crate::node_state::NodeState;
use crate::place::forward::is_forwarded;

/// Answers other nodes. Holds the node weakly: its connections may outlive it.
#[derive(Clone)]
pub(crate) struct NodeService {
    node: Weak<NodeState>,
}

impl NodeService {
    pub(crate) fn new(node: &Arc<NodeState>) -> Self {
        Self { node: Arc::downgrade(node) }
    }

    fn node(&self) -> Result<Arc<NodeState>, ServerError> {
        self.node.upgrade().ok_or(ServerError::Shutdown)
    }

    fn member_of(&self, cluster_id: u64) -> Result<Arc<NodeState>, ServerError> {
        let node = self.node()?;
        node.check_cluster(cluster_id)?;
        Ok(node)
    }
}

/// Runs `work` to its end even if the caller goes away meanwhile: what must not stop half-way.
pub(crate) async fn detached<T: Send + 'static>(
    runtime: &dyn Runtime,
    work: BoxFuture<Result<T, ServerError>>,
) -> Result<T, ServerError> {
    let (sender, receiver) = oneshot::channel();
    runtime.spawn(Box::pin(async move {
        let result = work.await;
        // Nobody listens any more if the caller has gone.
        drop(sender.send(result));
    }));
    receiver.await.unwrap_or(Err(ServerError::Shutdown))
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn identify(
        &self,
        request: Request<IdentifyRequest>,
    ) -> Result<Response<IdentifyResponse>, Status> {
        let answer = self.node()?.identity_answer()?;
        let (ours, theirs) = (answer.cluster_id, request.into_inner().cluster_id);
        if ours != 0 && theirs != 0 && ours != theirs {
            let (ours, theirs) = (ClusterId(ours), ClusterId(theirs));
            return Err(ServerError::WrongCluster { ours, theirs }.into());
        }
        Ok(Response::new(answer))
    }

    async fn bootstrap(
        &self,
        request: Request<BootstrapRequest>,
    ) -> Result<Response<BootstrapResponse>, Status> {
        let (node, request) = (self.node()?, request.into_inner());
        let plan = BootstrapPlan::decode(request.plan).map_err(ServerError::from)?;
        let (cluster, store) = (ClusterId(request.cluster_id), StoreId(request.store_id));
        let runtime = node.runtime.clone();
        let work = async move { node.accept_plan(cluster, store, plan).await };
        detached(&*runtime, Box::pin(work)).await?;
        Ok(Response::new(BootstrapResponse {}))
    }

    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let node = self.node()?;
        let newcomer = request.get_ref().store_id == 0;
        if request.get_ref().cluster_id != 0 || !newcomer {
            node.check_cluster(request.get_ref().cluster_id)?;
        }
        let forwarded = is_forwarded(&request);
        let place = &node.member()?.place;
        Ok(Response::new(place.serve_register(request.into_inner(), forwarded).await?))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let node = self.member_of(request.get_ref().cluster_id)?;
        let forwarded = is_forwarded(&request);
        let place = &node.member()?.place;
        Ok(Response::new(place.serve_heartbeat(request.into_inner(), forwarded).await?))
    }

    async fn alloc_ids(
        &self,
        request: Request<AllocIdsRequest>,
    ) -> Result<Response<AllocIdsResponse>, Status> {
        let node = self.member_of(request.get_ref().cluster_id)?;
        let kind = match request.get_ref().kind() {
            admin::IdKind::Store => IdKind::Store,
            admin::IdKind::Range => IdKind::Range,
            admin::IdKind::Replica => IdKind::Replica,
            admin::IdKind::Unspecified => {
                return Err(ServerError::Invalid("no kind of id".to_owned()).into());
            }
        };
        let (forwarded, count) = (is_forwarded(&request), request.into_inner().count);
        let first = node.member()?.place.serve_alloc_ids(kind, count, forwarded).await?;
        Ok(Response::new(AllocIdsResponse { first }))
    }

    async fn split_range(
        &self,
        request: Request<SplitRangeRequest>,
    ) -> Result<Response<SplitRangeResponse>, Status> {
        let node = self.member_of(request.get_ref().cluster_id)?;
        let request = request.into_inner();
        let ranges = node.member()?.ranges.clone();
        let epoch = RangeEpoch { conf_ver: request.conf_ver, version: request.version };
        let (range, bound) = (RangeId(request.range_id), request.bound);
        let store = node.member()?.store();
        let work = async move { ranges.split_at_epoch(range, epoch, bound).await };
        let (left, right) = detached(&*node.runtime, Box::pin(work)).await?;
        let (left, right) = (range_info(&left, store), range_info(&right, store));
        Ok(Response::new(SplitRangeResponse { left: Some(left), right: Some(right) }))
    }

    async fn transfer_range_leader(
        &self,
        request: Request<TransferRangeLeaderRequest>,
    ) -> Result<Response<TransferRangeLeaderResponse>, Status> {
        let node = self.member_of(request.get_ref().cluster_id)?;
        let request = request.into_inner();
        let ranges = node.member()?.ranges.clone();
        let (range, to) = (RangeId(request.range_id), StoreId(request.to_store));
        let work = async move { ranges.transfer_leader(range, to).await };
        detached(&*node.runtime, Box::pin(work)).await?;
        Ok(Response::new(TransferRangeLeaderResponse {}))
    }

    async fn change_replicas(
        &self,
        request: Request<ChangeReplicasRequest>,
    ) -> Result<Response<ChangeReplicasResponse>, Status> {
        let node = self.member_of(request.get_ref().cluster_id)?;
        let request = request.into_inner();
        let ids = |ids: Vec<u64>| ids.into_iter().map(ReplicaId).collect::<Vec<_>>();
        let change = match request.add_learner {
            Some(new) => {
                ReplicaChange::AddLearner { id: ReplicaId(new.replica), store: StoreId(new.store) }
            }
            None => ReplicaChange::Members {
                promote: ids(request.promote),
                remove: ids(request.remove),
            },
        };
        let ranges = node.member()?.ranges.clone();
        let range = RangeId(request.range_id);
        let work = async move { ranges.change_replicas(range, change).await };
        let descriptor = detached(&*node.runtime, Box::pin(work)).await?;
        Ok(Response::new(ChangeReplicasResponse { descriptor: descriptor.encode() }))
    }

    async fn merge_step(
        &self,
        request: Request<MergeStepRequest>,
    ) -> Result<Response<MergeStepResponse>, Status> {
        let node = self.member_of(request.get_ref().cluster_id)?;
        let step = request.into_inner();
        let ranges = node.member()?.ranges.clone();
        let work = async move { ranges.merge_step(step).await };
        let descriptor = detached(&*node.runtime, Box::pin(work)).await?;
        Ok(Response::new(MergeStepResponse { descriptor: descriptor.encode() }))
    }

    async fn compare_replicas(
        &self,
        request: Request<CompareReplicasRequest>,
    ) -> Result<Response<VerifyRangeResponse>, Status> {
        let node = self.member_of(request.get_ref().cluster_id)?;
        let range = RangeId(request.into_inner().range);
        Ok(Response::new(node.member()?.verifier.compare(range).await?))
    }

    async fn read_fingerprint(
        &self,
        request: Request<ReadFingerprintRequest>,
    ) -> Result<Response<ReplicaSums>, Status> {
        let node = self.member_of(request.get_ref().cluster_id)?;
        let ReadFingerprintRequest { range, index, .. } = request.into_inner();
        Ok(Response::new(node.member()?.verifier.read(RangeId(range), index).await?))
    }
}

/// A range that `leader` has just split: nobody knows its size yet.
fn range_info(range: &RangeDescriptor, leader: StoreId) -> RangeInfo {
    let replica = |replica: &cribwork_types::ReplicaDescriptor| ReplicaInfo {
        id: replica.id.get(),
        store: replica.store.get(),
        role: replica.role.name().to_owned(),
    };
    RangeInfo {
        id: range.id.get(),
        start: range.span.start.clone(),
        end: range.span.end.clone(),
        conf_ver: range.epoch.conf_ver,
        version: range.epoch.version,
        leader_store: leader.get(),
        replicas: range.replicas.iter().map(replica).collect(),
        size_bytes: 0,
        state: "ok".to_owned(),
    }
}
