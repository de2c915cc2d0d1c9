//! What all services of a node share, before and after it becomes a member of a cluster.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use cribwork_engine::{Engine, EngineError};
use cribwork_multiraft::Replica;
use cribwork_transport::Connector;
use cribwork_types::{ClusterId, RangeId, Runtime, StoreId};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::config::Config;
use crate::grpc::Gates;
use crate::identity::NodeRecords;
use crate::member::Member;
use crate::{AddressBook, HybridClock, PeerClients, ServerError, StoreInfo};

/// Services that health checks may ask for by name.
const MEMBER_SERVICES: [&str; 3] = ["tikvpb.Tikv", "pdpb.PD", "cribwork.admin.Admin"];

/// Called with the first failure of the store, which must end the process: what the store holds is
/// no longer known.
pub type FatalHook = Arc<dyn Fn(EngineError) + Send + Sync>;

/// One node.
pub(crate) struct NodeState {
    pub(crate) config: Config,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) records: Arc<NodeRecords>,
    pub(crate) registry: Arc<Mutex<Registry>>,
    pub(crate) clock: Arc<HybridClock>,
    pub(crate) addresses: Arc<AddressBook>,
    pub(crate) peers: Arc<PeerClients>,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) gates: Gates,
    pub(crate) health: HealthReporter,
    pub(crate) on_fatal: FatalHook,
    /// gRPC address under which others reach this node.
    pub(crate) address: String,
    /// HTTP address under which others reach this node.
    pub(crate) http: String,
    /// Random: names this process.
    pub(crate) instance: u64,
    /// Given when the node stops: ends servers, connections and background tasks.
    pub(crate) stop: CancellationToken,
    /// Set as soon as the node begins to stop, while it still serves.
    pub(crate) stopping: AtomicBool,
    /// Held while the node becomes a member, so that it becomes one only once.
    pub(crate) joining: tokio::sync::Mutex<()>,
    /// Held by the one initialisation that this node conducts.
    pub(crate) initialising: tokio::sync::Mutex<()>,
    pub(crate) member: OnceLock<Member>,
    pub(crate) is_member: watch::Sender<bool>,
}

impl NodeState {
    /// The parts of a member.
    pub(crate) fn member(&self) -> Result<&Member, ServerError> {
        self.member.get().ok_or(ServerError::Uninitialised)
    }

    /// What other stores are told about this one.
    pub(crate) fn own_info(&self, store: StoreId) -> StoreInfo {
        StoreInfo {
            id: store,
            address: self.address.clone(),
            http: self.http.clone(),
            zone: self.config.zone.clone(),
            ..StoreInfo::default()
        }
    }

    pub(crate) async fn set_member(&self, member: Member) {
        if self.member.set(member).is_err() {
            tracing::error!("became a member twice");
        }
        for service in MEMBER_SERVICES {
            self.health.set_service_status(service, ServingStatus::Serving).await;
        }
        self.is_member.send_replace(true);
    }

    /// Tells health checks that the node takes no more requests.
    pub(crate) async fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
        for service in MEMBER_SERVICES.into_iter().chain([""]) {
            self.health.set_service_status(service, ServingStatus::NotServing).await;
        }
    }

    /// Refuses a call that is meant for another cluster. 0 is a node that has none yet.
    pub(crate) fn check_cluster(&self, theirs: u64) -> Result<(), ServerError> {
        let ours = self.member()?.cluster();
        match theirs == ours.get() {
            true => Ok(()),
            false => Err(ServerError::WrongCluster { ours, theirs: ClusterId(theirs) }),
        }
    }

    /// Why the node cannot serve every range that it holds right now; `Ok` if it can.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Acquire) {
            return Err("stopping".to_owned());
        }
        let member = self.member().map_err(|error| error.to_string())?;
        let mut leaderless = member.multi.replicas().to_vec();
        leaderless.retain(|replica| is_leaderless(replica));
        match leaderless.first().map(|replica| replica.range_id()) {
            None => {}
            Some(RangeId::PLACEMENT) => {
                return Err("the placement group has no leader".to_owned());
            }
            Some(range) => {
                let count = leaderless.len();
                return Err(format!("{count} ranges have no leader, the first is range {range}"));
            }
        }
        match member.reporter.placement_leader() {
            Some(_) => Ok(()),
            None => Err("the placement leader does not answer".to_owned()),
        }
    }
}

fn is_leaderless(replica: &Replica) -> bool {
    let view = replica.leader();
    let leads = view.leader.is_some_and(|leader| leader.id == replica.replica_id());
    // A leader that has not applied its own barrier serves nothing yet.
    match leads {
        true => !view.is_self,
        // One that is only remembered, or whose node is gone, leads nothing.
        false => !replica.has_live_leader(),
    }
}
