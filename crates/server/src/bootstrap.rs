//! How a node becomes a member: by the initialisation of a new cluster, which one node conducts, or
//! by joining a cluster that is there.
//!
//! ```text
//!  init at A:  ask all of A's join list who they are: all fresh, else nothing is written
//!              store the plan at A
//!              send it to the node with the lowest address, then to all others
//!              all have acknowledged: finished
//! ```
//!
//! Invariants:
//! - a node becomes a member once: identity and plan in one durable write, and never again;
//! - the plan is stored at A before anybody hears of it, so that a repeated `init` resumes the same;
//! - of several initialisations that overlap, the one that the node with the lowest address took
//!   first goes on; the others find that out before any other node has taken their plan, and forget
//!   it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use cribwork_engine::StoreIdentity;
use cribwork_placement::{BootstrapPlan, PlannedStore};
use cribwork_proto::cribwork::admin::admin_server::Admin;
use cribwork_proto::cribwork::admin::{
    BootstrapRequest, ConfigRequest, ConfigResponse, DecommissionRequest, DrainRequest,
    ExplainRequest, ExplainResponse, GetRangeRequest, GetRangeResponse, IdentifyRequest,
    IdentifyResponse, InitRequest, InitResponse, MergeRequest, MoveReplicaRequest, NodesRequest,
    NodesResponse, Progress, RangesRequest, RangesResponse, SplitRequest, SplitResponse,
    StatusRequest, StatusResponse, TransferLeaderRequest, TransferLeaderResponse,
    VerifyRangeRequest, VerifyRangeResponse,
};
use cribwork_types::{ClusterId, CodedError, RuntimeExt, StoreId};
use futures::future::join_all;
use tonic::{Request, Response, Status};

use crate::admin::InitHook;
use crate::identity::InitProgress;
use crate::node_service::detached;
use crate::node_state::NodeState;
use crate::{ServerError, member};

/// How long an initialisation waits for the nodes of the join list.
const INIT_PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach a node.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(200);
/// Time for one node to say who it is.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for one node to take its part of the plan, which may be thousands of ranges.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(20);

impl NodeState {
    /// Makes a cluster out of this node and its join list, or resumes making it.
    pub(crate) async fn init(self: &Arc<Self>, ranges: u32) -> Result<InitResponse, ServerError> {
        let _one = self.initialising.lock().await;
        let plan = match (self.records.init_progress()?, self.records.identity()?) {
            (InitProgress::Begun, _) => self.stored_plan()?,
            (InitProgress::Finished, Some(identity)) | (InitProgress::None, Some(identity)) => {
                return Err(ServerError::AlreadyInitialised { cluster: identity.cluster });
            }
            (InitProgress::Finished | InitProgress::None, None) => self.begin_init(ranges).await?,
        };
        self.distribute(&plan).await?;
        self.records.finish_init()?;
        tracing::info!(cluster = %plan.cluster, stores = plan.stores.len(), "initialised");
        Ok(InitResponse {
            cluster_id: plan.cluster.get(),
            stores: plan.stores.len() as u32,
            ranges: plan.ranges.len() as u32,
        })
    }

    fn stored_plan(&self) -> Result<BootstrapPlan, ServerError> {
        self.records.plan()?.ok_or_else(|| ServerError::NotFound("the stored plan".to_owned()))
    }

    /// Plans the cluster and stores the plan.
    pub(crate) async fn begin_init(
        self: &Arc<Self>,
        ranges: u32,
    ) -> Result<BootstrapPlan, ServerError> {
        let stores = self.gather_stores(&self.config.join).await?;
        let cluster = loop {
            match self.runtime.random_u64() {
                0 => continue,
                id => break ClusterId(id),
            }
        };
        let plan = BootstrapPlan::make(cluster, stores, ranges.max(1))?;
        let _joining = self.joining.lock().await;
        if let Some(identity) = self.records.identity()? {
            return Err(ServerError::AlreadyInitialised { cluster: identity.cluster });
        }
        self.records.begin_init(&plan)?;
        Ok(plan)
    }

    /// Asks every address of the join list who it is, in parallel; stores 1..n in the list's order.
    /// A node that is in no list of its own becomes store 1.
    pub(crate) async fn gather_stores(
        self: &Arc<Self>,
        join: &[String],
    ) -> Result<Vec<PlannedStore>, ServerError> {
        let deadline = self.runtime.now() + INIT_PATIENCE;
        let answers =
            join_all(join.iter().map(|address| async move {
                (address, self.identify_until(address, deadline).await)
            }));
        let mut nodes: Vec<IdentifyResponse> = Vec::new();
        for (address, answer) in answers.await {
            let refused = |why: String| ServerError::InitRefused { address: address.clone(), why };
            let answer = answer.map_err(|error| refused(error.to_string()))?;
            if answer.cluster_id != 0 {
                return Err(refused(format!("it belongs to cluster {}", answer.cluster_id)));
            }
            // Two addresses may lead to one node.
            if nodes.iter().all(|node| node.instance != answer.instance) {
                nodes.push(answer);
            }
        }
        if nodes.iter().all(|node| node.instance != self.instance) {
            nodes.insert(0, self.identity_answer()?);
        }
        let planned = |(node, id): (IdentifyResponse, u64)| PlannedStore {
            id: StoreId(id),
            address: node.address,
            http: node.http,
        };
        Ok(nodes.into_iter().zip(1..).map(planned).collect())
    }

    async fn identify_until(
        &self,
        address: &str,
        deadline: Duration,
    ) -> Result<IdentifyResponse, ServerError> {
        loop {
            let error = match self.identify(address, 0).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if self.runtime.now() >= deadline {
                return Err(error);
            }
            self.runtime.sleep(ATTEMPT_PAUSE).await;
        }
    }

    /// Asks the node at `address` who it is.
    pub(crate) async fn identify(
        &self,
        address: &str,
        cluster_id: u64,
    ) -> Result<IdentifyResponse, ServerError> {
        let call = async {
            let mut client = self.peers.node_client(address).await?;
            Ok(client.identify(IdentifyRequest { cluster_id }).await?.into_inner())
        };
        let answer = self.runtime.timeout(IDENTIFY_TIMEOUT, call).await;
        let answer = answer.unwrap_or(Err(ServerError::Timeout { what: "the answer" }));
        if answer.is_err() {
            self.peers.forget(address);
        }
        answer
    }

    /// Who this node is. A plan of its own that it has begun to send out counts as membership.
    pub(crate) fn identity_answer(&self) -> Result<IdentifyResponse, ServerError> {
        let identity = self.records.identity()?;
        let cluster = match identity {
            Some(identity) => identity.cluster,
            None => self.records.plan()?.map_or(ClusterId(0), |plan| plan.cluster),
        };
        Ok(IdentifyResponse {
            cluster_id: cluster.get(),
            store_id: identity.map_or(0, |identity| identity.store.get()),
            address: self.address.clone(),
            http: self.http.clone(),
            zone: self.config.zone.clone(),
            instance: self.instance,
        })
    }

    async fn distribute(self: &Arc<Self>, plan: &BootstrapPlan) -> Result<(), ServerError> {
        let deadline = self.runtime.now() + INIT_PATIENCE;
        let lowest = plan.stores.iter().min_by_key(|store| &store.address);
        if let Some(first) = lowest
            && let Err(error) = self.send_plan(plan, first, deadline).await
        {
            if is_other_cluster(&error) {
                // Nobody else was asked, so nobody else has taken this plan.
                self.records.abandon_init()?;
                return Err(init_refused(first, &error));
            }
            return Err(init_unfinished(first, &error));
        }
        let all = plan.stores.iter().map(|store| async move {
            let sent = self.send_plan(plan, store, deadline).await;
            sent.map_err(|error| init_unfinished(store, &error))
        });
        join_all(all).await.into_iter().collect()
    }

    /// Gives one store its part; tries again until it has it, or it is a member of another cluster.
    pub(crate) async fn send_plan(
        self: &Arc<Self>,
        plan: &BootstrapPlan,
        store: &PlannedStore,
        deadline: Duration,
    ) -> Result<(), ServerError> {
        if self.records.has_part(store.id)? {
            return Ok(());
        }
        loop {
            let sent = match store.address == self.address {
                true => self.accept_plan(plan.cluster, store.id, plan.clone()).await,
                false => self.send_plan_once(plan, store).await,
            };
            match sent {
                Err(error) if !is_other_cluster(&error) && self.runtime.now() < deadline => {
                    tracing::debug!(address = store.address, %error, "the plan is not there yet");
                    self.runtime.sleep(ATTEMPT_PAUSE).await;
                }
                done => {
                    done?;
                    return self.records.note_has_part(store.id);
                }
            }
        }
    }

    async fn send_plan_once(
        &self,
        plan: &BootstrapPlan,
        store: &PlannedStore,
    ) -> Result<(), ServerError> {
        let call = async {
            let mut client = self.peers.node_client(&store.address).await?;
            let request = BootstrapRequest {
                cluster_id: plan.cluster.get(),
                store_id: store.id.get(),
                plan: plan.encode(),
            };
            client.bootstrap(request).await?;
            Ok(())
        };
        let sent = self.runtime.timeout(BOOTSTRAP_TIMEOUT, call).await;
        let sent = sent.unwrap_or(Err(ServerError::Timeout { what: "taking the plan" }));
        if sent.is_err() {
            self.peers.forget(&store.address);
        }
        sent
    }

    /// Becomes `store` of the planned cluster. Asked again, changes nothing.
    pub(crate) async fn accept_plan(
        self: &Arc<Self>,
        cluster: ClusterId,
        store: StoreId,
        plan: BootstrapPlan,
    ) -> Result<(), ServerError> {
        let _joining = self.joining.lock().await;
        if let Some(identity) = self.records.identity()? {
            if identity.cluster != cluster {
                let ours = identity.cluster;
                return Err(ServerError::WrongCluster { ours, theirs: cluster });
            }
            identity.verify(cluster, store)?;
            // With an identity, the ranges are made before the node serves.
            return self.member().map(drop);
        }
        if plan.cluster != cluster || plan.stores.iter().all(|planned| planned.id != store) {
            return Err(ServerError::Invalid("the plan is for others".to_owned()));
        }
        let own = self.records.plan()?.map(|own| own.cluster);
        if let Some(own) = own.filter(|own| *own != cluster) {
            let why = format!("it has begun to initialise cluster {own} itself");
            return Err(ServerError::InitUnfinished { address: self.address.clone(), why });
        }
        self.become_member(StoreIdentity { cluster, store, boot_count: 1 }, plan).await
    }

    /// Stores the identity and starts what a member runs. The caller holds `joining`.
    pub(crate) async fn become_member(
        self: &Arc<Self>,
        identity: StoreIdentity,
        plan: BootstrapPlan,
    ) -> Result<(), ServerError> {
        self.records.join(&identity, &plan)?;
        member::start(self, identity, plan).await.inspect_err(|error| {
            // Restarted, the node goes on from what is stored.
            tracing::error!(%error, "cannot start as a member; restart this node");
        })
    }
}

pub(crate) fn is_other_cluster(error: &ServerError) -> bool {
    let wrong = ServerError::WrongCluster { ours: ClusterId(0), theirs: ClusterId(0) };
    match error {
        ServerError::Remote { code, .. } => code == wrong.code(),
        error => error.code() == wrong.code(),
    }
}

fn init_refused(store: &PlannedStore, error: &ServerError) -> ServerError {
    ServerError::InitRefused { address: store.address.clone(), why: error.to_string() }
}

fn init_unfinished(store: &PlannedStore, error: &ServerError) -> ServerError {
    ServerError::InitUnfinished { address: store.address.clone(), why: error.to_string() }
}

/// `Init`, and nothing else: the admin service of a node that is no member yet, and what the full
/// one calls. Holds the node weakly, because the node holds its services.
pub(crate) struct InitOnly {
    node: Weak<NodeState>,
}

impl InitOnly {
    pub(crate) fn new(node: Weak<NodeState>) -> Self {
        Self { node }
    }
}

#[tonic::async_trait]
impl InitHook for InitOnly {
    async fn init(&self, ranges: u32) -> Result<InitResponse, ServerError> {
        let node = self.node.upgrade().ok_or(ServerError::Shutdown)?;
        let runtime = node.runtime.clone();
        detached(&*runtime, Box::pin(async move { node.init(ranges).await })).await
    }
}

fn uninitialised<T>() -> Result<Response<T>, Status> {
    Err(ServerError::Uninitialised.into())
}

#[tonic::async_trait]
impl Admin for InitOnly {
    async fn init(&self, request: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        let ranges = request.into_inner().ranges;
        Ok(Response::new(InitHook::init(self, ranges).await?))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        uninitialised()
    }

    async fn nodes(&self, _: Request<NodesRequest>) -> Result<Response<NodesResponse>, Status> {
        uninitialised()
    }

    async fn ranges(&self, _: Request<RangesRequest>) -> Result<Response<RangesResponse>, Status> {
        uninitialised()
    }

    async fn get_range(
        &self,
        _: Request<GetRangeRequest>,
    ) -> Result<Response<GetRangeResponse>, Status> {
        uninitialised()
    }

    async fn split(&self, _: Request<SplitRequest>) -> Result<Response<SplitResponse>, Status> {
        uninitialised()
    }

    async fn transfer_leader(
        &self,
        _: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        uninitialised()
    }

    async fn move_replica(
        &self,
        _: Request<MoveReplicaRequest>,
    ) -> Result<Response<Progress>, Status> {
        uninitialised()
    }

    async fn merge(&self, _: Request<MergeRequest>) -> Result<Response<Progress>, Status> {
        uninitialised()
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<Progress>, Status> {
        uninitialised()
    }

    async fn decommission(
        &self,
        _: Request<DecommissionRequest>,
    ) -> Result<Response<Progress>, Status> {
        uninitialised()
    }

    async fn explain(
        &self,
        _: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        uninitialised()
    }

    async fn config(&self, _: Request<ConfigRequest>) -> Result<Response<ConfigResponse>, Status> {
        uninitialised()
    }

    async fn verify_range(
        &self,
        _: Request<VerifyRangeRequest>,
    ) -> Result<Response<VerifyRangeResponse>, Status> {
        uninitialised()
    }
}
