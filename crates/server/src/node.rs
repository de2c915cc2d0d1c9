//! The life of a node: open the store, listen, become a member, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cribwork_engine::{Engine, Watched};
use cribwork_multiraft::MultiRaft;
use cribwork_proto::cribwork::admin::InitResponse;
use cribwork_types::{ClusterId, Runtime, RuntimeExt, StoreId};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::bootstrap::InitOnly;
use crate::config::Config;
use crate::grpc::{self, Gates};
use crate::identity::NodeRecords;
use crate::incoming::Incoming;
use crate::kv::KvService;
use crate::network::TcpNetwork;
use crate::node_service::NodeService;
use crate::node_state::{FatalHook, NodeState};
use crate::place::Place;
use crate::process_metrics::ProcessMetrics;
use crate::{
    AddressBook, HybridClock, Network, PeerClients, ServerError, TokioRuntime, admin::InitHook,
    http, join, store,
};

/// How long leaderships may take to move away before the node stops anyway.
const HAND_OVER_MAX: Duration = Duration::from_secs(10);
/// Period of the look at whether the node is ready.
const READY_POLL: Duration = Duration::from_millis(20);

/// What a node is started with.
pub struct NodeOptions {
    /// Its settings.
    pub config: Config,
    /// Clock, randomness and tasks.
    pub runtime: Arc<dyn Runtime>,
    /// How it listens and connects.
    pub network: Arc<dyn Network>,
    /// Its store; by default the RocksDB in the settings' data directory.
    pub engine: Option<Arc<dyn Engine>>,
    /// What to do when the store fails; by default the process ends, because a store that failed
    /// once must not answer again.
    pub on_fatal: Option<FatalHook>,
}

impl NodeOptions {
    /// A node on disk and TCP, on the tokio runtime that calls this.
    pub fn new(config: Config) -> Self {
        let runtime = Arc::new(TokioRuntime::new(tokio::runtime::Handle::current()));
        Self { config, runtime, network: Arc::new(TcpNetwork), engine: None, on_fatal: None }
    }
}

/// Starts nodes.
pub struct Node;

impl Node {
    /// Opens the store and both ports. A node that is a member of a cluster serves when this
    /// returns; a fresh one waits for `init`, or for a cluster in its join list.
    ///
    /// # Errors
    /// [`ServerError::Config`], [`ServerError::Engine`] for a data directory that is foreign, in use
    /// or of another format, [`ServerError::Listen`] for a port that is taken.
    pub async fn start(options: NodeOptions) -> Result<RunningNode, ServerError> {
        let config = options.config;
        config.check()?;
        let NodeOptions { runtime, network, .. } = options;
        let connector = network.connector();
        let peers = Arc::new(PeerClients::new(connector.clone(), runtime.clone()));
        let engine: Arc<dyn Engine> = match options.engine {
            Some(engine) => engine,
            None => store::open(&config, &peers, &*runtime).await?,
        };
        let on_fatal = options.on_fatal.unwrap_or_else(|| store::end_process(&config, &runtime));
        let engine: Arc<dyn Engine> = Watched::new(engine, on_fatal.clone());
        let stop = CancellationToken::new();
        let bind = |address, limits| {
            Incoming::bind(&*network, address, limits, stop.clone(), runtime.clone())
        };
        let grpc = bind(&config.listen, grpc::limits()).await?;
        let http = bind(&config.http, http::limits()).await?;
        let (grpc_address, http_address) = (grpc.address(), http.address());
        let (health, health_service) = tonic_health::server::health_reporter();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessMetrics));
        let address = config.advertise.clone().unwrap_or_else(|| grpc_address.to_string());
        let state = Arc::new_cyclic(|node| NodeState {
            records: Arc::new(NodeRecords::new(engine.clone())),
            engine: engine.clone(),
            registry: Arc::new(Mutex::new(registry)),
            clock: Arc::new(HybridClock::new(runtime.clone())),
            addresses: Arc::new(AddressBook::new()),
            peers,
            connector,
            gates: Gates::new(InitOnly::new(node.clone())),
            health,
            on_fatal,
            http: reachable_http(&address, http_address),
            address,
            instance: runtime.random_u64(),
            stop: stop.clone(),
            stopping: AtomicBool::new(false),
            joining: tokio::sync::Mutex::default(),
            initialising: tokio::sync::Mutex::default(),
            member: std::sync::OnceLock::new(),
            is_member: watch::Sender::new(false),
            runtime: runtime.clone(),
            config,
        });
        let serving = grpc::serve(
            grpc,
            state.gates.clone(),
            NodeService::new(&state),
            health_service,
            runtime.clone(),
            stop.clone(),
        );
        let servers = [
            spawn_server(&*runtime, serving),
            spawn_server(&*runtime, http::serve(http, Arc::downgrade(&state), stop)),
        ];
        let node = RunningNode { state, grpc_address, http_address, servers };
        if let Err(error) = node.enter_cluster().await {
            node.stop_serving().await;
            return Err(error);
        }
        Ok(node)
    }
}

fn spawn_server(
    runtime: &dyn Runtime,
    server: impl Future<Output = ()> + Send + 'static,
) -> oneshot::Receiver<()> {
    let (ended, has_ended) = oneshot::channel();
    runtime.spawn(Box::pin(async move {
        server.await;
        drop(ended);
    }));
    has_ended
}

/// The HTTP address for others: if the port listens on every address, the host by which they know
/// the gRPC port.
fn reachable_http(address: &str, http: SocketAddr) -> String {
    match (http.ip().is_unspecified(), address.rsplit_once(':')) {
        (true, Some((host, _))) => format!("{host}:{}", http.port()),
        _ => http.to_string(),
    }
}

/// A node that runs. Dropping it leaves it running until its tokio runtime ends; only
/// [`RunningNode::shutdown`] hands leaderships over.
pub struct RunningNode {
    state: Arc<NodeState>,
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    /// Closed when the servers have ended.
    servers: [oneshot::Receiver<()>; 2],
}

impl RunningNode {
    async fn enter_cluster(&self) -> Result<(), ServerError> {
        let (state, runtime) = (&self.state, &self.state.runtime);
        match state.records.identity()? {
            Some(identity) => {
                let _joining = state.joining.lock().await;
                join::resume(state, identity).await?;
                runtime.spawn(Box::pin(join::find_peers(state.clone())));
            }
            None => runtime.spawn(Box::pin(join::find_cluster(state.clone()))),
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> &Arc<NodeState> {
        &self.state
    }

    /// Where the gRPC port really listens.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where the HTTP port really listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_address
    }

    /// The gRPC address that other nodes and clients are told.
    pub fn advertised(&self) -> &str {
        &self.state.address
    }

    /// Cluster and store, once the node is a member.
    pub fn identity(&self) -> Option<(ClusterId, StoreId)> {
        self.state.member.get().map(|member| (member.cluster(), member.store()))
    }

    /// The groups of a member.
    pub fn multi(&self) -> Option<MultiRaft> {
        self.state.member.get().map(|member| member.multi.clone())
    }

    /// The key-value service of a member, for clients in this process.
    pub fn kv(&self) -> Option<KvService> {
        self.state.member.get().map(|member| member.kv.clone())
    }

    /// The placement host of a member, for clients in this process.
    pub fn place(&self) -> Option<Place> {
        self.state.member.get().map(|member| member.place.clone())
    }

    /// The node's own metrics.
    pub fn registry(&self) -> Arc<Mutex<Registry>> {
        self.state.registry.clone()
    }

    /// Makes a cluster of this node and its join list, as the command `init` does.
    ///
    /// # Errors
    /// [`ServerError::AlreadyInitialised`], [`ServerError::InitRefused`] (nothing was written),
    /// [`ServerError::InitUnfinished`] (call again).
    pub async fn init(&self, ranges: u32) -> Result<InitResponse, ServerError> {
        InitHook::init(&InitOnly::new(Arc::downgrade(&self.state)), ranges).await
    }

    /// Completes when the node is a member of a cluster.
    pub async fn wait_member(&self) {
        let mut is_member = self.state.is_member.subscribe();
        // The sender lives in the state, so the wait never fails.
        let _ = is_member.wait_for(|is_member| *is_member).await;
    }

    /// Why the node is not ready, as `/ready` says; `Ok` if it is.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn readiness(&self) -> Result<(), String> {
        self.state.readiness()
    }

    /// Completes when every local range has a leader and placement answers.
    pub async fn wait_ready(&self) {
        while self.readiness().is_err() {
            self.state.runtime.sleep(READY_POLL).await;
        }
    }

    /// Hands every leadership to another node, ends all connections, and makes everything durable.
    ///
    /// # Errors
    /// [`ServerError::Engine`] if the last flush fails.
    pub async fn shutdown(self) -> Result<(), ServerError> {
        let state = &self.state;
        state.set_stopping().await;
        if let Some(member) = state.member.get() {
            let handed_over = state.runtime.timeout(HAND_OVER_MAX, member.multi.shutdown()).await;
            if handed_over.is_err() {
                tracing::warn!("stopping although not all leaderships have moved");
            }
        }
        let engine: Arc<dyn Engine> = state.engine.clone();
        let writer = state.member.get().map(|member| member.writer.clone());
        self.stop_serving().await;
        if let Some(writer) = writer {
            writer.close().await;
        }
        Ok(engine.flush()?)
    }

    async fn stop_serving(self) {
        self.state.stop.cancel();
        if let Some(member) = self.state.member.get() {
            member.disconnect();
        }
        for server in self.servers {
            grpc::wait_briefly(&*self.state.runtime, async {
                // An error means that the server ended, which is all that is waited for.
                let _ = server.await;
            })
            .await;
        }
    }
}
