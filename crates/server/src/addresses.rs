//! Where the other nodes are, and open connections to them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cribwork_placement::{BootstrapPlan, StoreState};
use cribwork_proto::cribwork::admin;
use cribwork_proto::cribwork::admin::node_client::NodeClient;
use cribwork_proto::pdpb::pd_client::PdClient;
use cribwork_transport::{AddressResolver, Connector, TransportError};
use cribwork_types::limits::MESSAGE_BYTES_MAX;
use cribwork_types::{Runtime, RuntimeExt, StoreId};
use parking_lot::{Mutex, RwLock};
use tonic::transport::Channel;

use crate::ServerError;

/// Most connections that a node keeps open to others for calls (Raft messages have their own).
const CHANNELS_MAX: usize = 256;
/// Time for a connection to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What is known of one store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreInfo {
    /// Its id.
    pub id: StoreId,
    /// gRPC address, `host:port`.
    pub address: String,
    /// HTTP address, `host:port`.
    pub http: String,
    /// Failure domain; empty for none.
    pub zone: String,
    /// Where it is in its life.
    pub state: StoreState,
}

impl StoreInfo {
    /// The state with this name; a name of a later build counts as up.
    pub fn state_named(name: &str) -> StoreState {
        use StoreState::{Decommissioned, Decommissioning, Down, Draining, Up};
        let all = [Down, Draining, Decommissioning, Decommissioned];
        all.into_iter().find(|state| state.name() == name).unwrap_or(Up)
    }
}

impl From<&StoreInfo> for admin::StoreInfo {
    fn from(store: &StoreInfo) -> Self {
        Self {
            id: store.id.get(),
            address: store.address.clone(),
            http: store.http.clone(),
            state: store.state.name().to_owned(),
            zone: store.zone.clone(),
        }
    }
}

impl From<admin::StoreInfo> for StoreInfo {
    fn from(store: admin::StoreInfo) -> Self {
        Self {
            id: StoreId(store.id),
            state: StoreInfo::state_named(&store.state),
            address: store.address,
            http: store.http,
            zone: store.zone,
        }
    }
}

/// All stores of the cluster, as last heard from placement.
#[derive(Default)]
pub struct AddressBook {
    stores: RwLock<BTreeMap<StoreId, StoreInfo>>,
}

impl AddressBook {
    /// An empty book.
    pub fn new() -> Self {
        Self::default()
    }

    /// The stores of a fresh cluster.
    pub fn from_plan(plan: &BootstrapPlan) -> Self {
        let book = Self::new();
        for store in &plan.stores {
            book.set(StoreInfo {
                id: store.id,
                address: store.address.clone(),
                http: store.http.clone(),
                ..StoreInfo::default()
            });
        }
        book
    }

    /// Takes in what is known of one store; true if that is news.
    pub fn set(&self, store: StoreInfo) -> bool {
        let mut stores = self.stores.write();
        if stores.get(&store.id) == Some(&store) {
            return false;
        }
        stores.insert(store.id, store);
        true
    }

    /// What is known of `store`.
    pub fn get(&self, store: StoreId) -> Option<StoreInfo> {
        self.stores.read().get(&store).cloned()
    }

    /// All stores, by id.
    pub fn all(&self) -> Vec<StoreInfo> {
        self.stores.read().values().cloned().collect()
    }
}

impl AddressResolver for AddressBook {
    fn address(&self, store: StoreId) -> Option<String> {
        self.stores.read().get(&store).map(|store| store.address.clone())
    }
}

/// Connections for calls to other nodes, by address; opened at the first need, kept, and opened anew
/// after [`PeerClients::forget`].
pub struct PeerClients {
    connector: Arc<dyn Connector>,
    runtime: Arc<dyn Runtime>,
    channels: Mutex<HashMap<String, Channel>>,
}

impl PeerClients {
    /// No connection is open yet.
    pub fn new(connector: Arc<dyn Connector>, runtime: Arc<dyn Runtime>) -> Self {
        Self { connector, runtime, channels: Mutex::default() }
    }

    /// For calls of the `Node` service at `address`.
    ///
    /// # Errors
    /// [`ServerError::Transport`] if no connection comes about within a second.
    pub async fn node_client(&self, address: &str) -> Result<NodeClient<Channel>, ServerError> {
        Ok(NodeClient::new(self.channel(address).await?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// For calls of the `PD` service at `address`.
    ///
    /// # Errors
    /// As [`PeerClients::node_client`].
    pub async fn pd_client(&self, address: &str) -> Result<PdClient<Channel>, ServerError> {
        Ok(PdClient::new(self.channel(address).await?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// A call failed for the connection's sake: the next one gets a new connection.
    pub fn forget(&self, address: &str) {
        self.channels.lock().remove(address);
    }

    /// The connection to `address`, for other services there.
    ///
    /// # Errors
    /// As [`PeerClients::node_client`].
    pub async fn channel(&self, address: &str) -> Result<Channel, ServerError> {
        if let Some(channel) = self.channels.lock().get(address) {
            return Ok(channel.clone());
        }
        let opened = self.runtime.timeout(CONNECT_TIMEOUT, self.connector.connect(address)).await;
        let channel = opened.unwrap_or(Err(TransportError::Stalled { what: "connecting" }))?;
        let mut channels = self.channels.lock();
        if channels.len() >= CHANNELS_MAX {
            // More addresses than any cluster has: old ones. Calls under way keep theirs alive.
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_tells_news_from_repetition() {
        let book = AddressBook::new();
        let mut store = StoreInfo { id: StoreId(2), address: "b:1".into(), ..StoreInfo::default() };
        assert!(book.set(store.clone()));
        assert!(!book.set(store.clone()));
        store.address = "c:1".into();
        assert!(book.set(store));
        assert_eq!(book.address(StoreId(2)).as_deref(), Some("c:1"));
        assert_eq!(book.address(StoreId(3)), None);
    }

    #[test]
    fn states_round_trip() {
        for state in [StoreState::Up, StoreState::Down, StoreState::Decommissioned] {
            let info = StoreInfo { state, ..StoreInfo::default() };
            assert_eq!(StoreInfo::from(admin::StoreInfo::from(&info)), info);
        }
    }
}
