//! How a started node finds its cluster: a fresh one registers with a cluster that is there already,
//! a member learns where the others are now.

use std::sync::Arc;
use std::time::Duration;

use cribwork_engine::StoreIdentity;
use cribwork_placement::{BootstrapPlan, IdAllocator, PlannedStore};
use cribwork_proto::cribwork::admin::{RegisterRequest, RegisterResponse};
use cribwork_types::{ClusterId, RangeDescriptor, RuntimeExt, StoreId};

use crate::node_state::NodeState;
use crate::{ServerError, StoreInfo, member};

/// Pause between two rounds over the join list.
const ROUND_PAUSE: Duration = Duration::from_millis(500);
/// Time for placement to register a store.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// Rounds between two lines in the log that say what the node waits for.
const ROUNDS_PER_LINE: u64 = 60;

/// Asks the nodes of the join list until one is a member of a cluster, and becomes a new store of
/// that. Ends when the node is a member, however it became one.
pub(crate) async fn find_cluster(node: Arc<NodeState>) {
    let mut rounds = 0u64;
    while node.member.get().is_none() && !node.stop.is_cancelled() {
        for address in node.config.join.iter().filter(|address| **address != node.address) {
            let Err(error) = try_join(&node, address).await else { continue };
            if rounds % ROUNDS_PER_LINE == 1 {
                tracing::info!(address, %error, "no member of a cluster yet");
            }
        }
        rounds += 1;
        node.runtime.sleep(ROUND_PAUSE).await;
    }
}

async fn try_join(node: &Arc<NodeState>, address: &str) -> Result<(), ServerError> {
    let answer = node.identify(address, 0).await?;
    if answer.cluster_id == 0 || answer.instance == node.instance {
        return Err(ServerError::Uninitialised);
    }
    // Held across the call: an initialisation that reaches this node meanwhile waits, and then finds
    // that it came too late.
    let _joining = node.joining.lock().await;
    if node.records.identity()?.is_some() || node.records.plan()?.is_some() {
        return Ok(());
    }
    let request = RegisterRequest {
        cluster_id: 0,
        address: node.address.clone(),
        http: node.http.clone(),
        zone: node.config.zone.clone(),
        store_id: 0,
        instance: node.instance,
    };
    let call = async {
        let mut client = node.peers.node_client(address).await?;
        Ok(client.register(request).await?.into_inner())
    };
    let registered = node.runtime.timeout(REGISTER_TIMEOUT, call).await;
    let registered = registered.unwrap_or(Err(ServerError::Timeout { what: "registering" }));
    let response = registered.inspect_err(|_| node.peers.forget(address))?;
    let identity = StoreIdentity {
        cluster: ClusterId(response.cluster_id),
        store: StoreId(response.store_id),
        boot_count: 1,
    };
    if identity.cluster.get() == 0 || identity.store.get() == 0 {
        return Err(ServerError::Invalid("placement gave no store id".to_owned()));
    }
    tracing::info!(cluster = %identity.cluster, store = %identity.store, "registered");
    node.become_member(identity, plan_of_newcomer(response)).await
}

/// What a store that joined later knows of the beginning: who was there, and no ranges of its own.
fn plan_of_newcomer(response: RegisterResponse) -> BootstrapPlan {
    let stores = response.stores.into_iter().map(|store| PlannedStore {
        id: StoreId(store.id),
        address: store.address,
        http: store.http,
    });
    BootstrapPlan {
        cluster: ClusterId(response.cluster_id),
        stores: stores.collect(),
        placement_members: response.placement_members.into_iter().map(StoreId).collect(),
        placement: RangeDescriptor::default(),
        ranges: Vec::new(),
        ids: IdAllocator::new(),
    }
}

/// Starts a member again.
pub(crate) async fn resume(
    node: &Arc<NodeState>,
    mut identity: StoreIdentity,
) -> Result<(), ServerError> {
    let missing = || ServerError::NotFound("the plan of this store's cluster".to_owned());
    let plan = node.records.plan()?.ok_or_else(missing)?;
    node.records.count_boot(&mut identity)?;
    member::start(node, identity, plan).await
}

/// Learns the addresses of the join list's nodes from themselves, until placement answers: after a
/// restart everybody may have moved, the placement leader too. Complains about other clusters.
pub(crate) async fn find_peers(node: Arc<NodeState>) {
    let mut complained = false;
    while let Ok(member) = node.member() {
        if node.stop.is_cancelled() || member.reporter.placement_leader().is_some() {
            return;
        }
        for address in node.config.join.iter().filter(|address| **address != node.address) {
            match node.identify(address, member.cluster().get()).await {
                Ok(peer) if peer.cluster_id == member.cluster().get() && peer.store_id != 0 => {
                    if peer.store_id != member.store().get() {
                        learn(&node, peer);
                    }
                }
                Err(error) if !complained && crate::bootstrap::is_other_cluster(&error) => {
                    complained = true;
                    tracing::error!(address, %error, "a node of the join list is not of our cluster");
                }
                Ok(_) | Err(_) => {}
            }
        }
        node.runtime.sleep(ROUND_PAUSE).await;
    }
}

fn learn(node: &NodeState, peer: cribwork_proto::cribwork::admin::IdentifyResponse) {
    let id = StoreId(peer.store_id);
    let state = node.addresses.get(id).map(|known| known.state).unwrap_or_default();
    let (address, http, zone) = (peer.address, peer.http, peer.zone);
    if node.addresses.set(StoreInfo { id, address, http, zone, state }) {
        tracing::info!(store = %id, "learnt a new address");
    }
}
