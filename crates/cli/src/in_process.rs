//! Channels to nodes of this process: commands go to the node's service without gRPC, timestamps to
//! its placement host. What is rare (administration, routes, unary requests) goes over gRPC.
//!
//! Every call runs on the runtime of the node that serves it, so that a node does its own work on its
//! own thread, as if the request had come over the network.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cribwork_client::{
    AdminChannel, Answer, ChannelError, Command, Connector, GrpcConnector, Members, PdChannel,
    Placed, StoreAddress, StoreChannel, UnaryAnswer, UnaryRequest,
};
use cribwork_server::kv::KvService;
use cribwork_server::place::Place;
use cribwork_types::{CodedError, KeyRange, RangeId, Runtime, StoreId, Timestamp};
use tokio::sync::oneshot;

/// A node of this process.
#[derive(Clone)]
pub(crate) struct LocalNode {
    pub(crate) kv: KvService,
    pub(crate) place: Place,
    /// The node's own.
    pub(crate) runtime: Arc<dyn Runtime>,
}

impl LocalNode {
    /// Runs `work` on the node's runtime; `None` if the node ended meanwhile.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (done, outcome) = oneshot::channel();
        self.runtime.spawn(Box::pin(async move {
            // A caller that has gone away does not want the answer.
            let _ = done.send(work.await);
        }));
        outcome.await.ok()
    }
}

/// Opens channels to the nodes of this process, and over gRPC to all others.
pub(crate) struct InProcessConnector {
    nodes: HashMap<String, LocalNode>,
    grpc: GrpcConnector,
}

impl InProcessConnector {
    /// `nodes` by the gRPC address that they advertise.
    pub(crate) fn new(nodes: HashMap<String, LocalNode>, grpc: GrpcConnector) -> Self {
        Self { nodes, grpc }
    }
}

#[async_trait]
impl Connector for InProcessConnector {
    async fn connect_store(&self, address: &str) -> Result<Arc<dyn StoreChannel>, ChannelError> {
        let remote = self.grpc.connect_store(address).await?;
        Ok(match self.nodes.get(address) {
            Some(node) => Arc::new(LocalStore { node: node.clone(), remote }),
            None => remote,
        })
    }

    async fn connect_pd(&self, endpoints: &[String]) -> Result<Arc<dyn PdChannel>, ChannelError> {
        let remote = self.grpc.connect_pd(endpoints).await?;
        let leader = remote.members().await?.leader;
        // The one that leads placement spares a hop; any other one forwards.
        let node = leader.and_then(|address| self.nodes.get(&address));
        Ok(match node.or_else(|| self.nodes.values().next()) {
            Some(node) => Arc::new(LocalPd { node: node.clone(), remote }),
            None => remote,
        })
    }

    async fn connect_admin(&self, endpoint: &str) -> Result<Arc<dyn AdminChannel>, ChannelError> {
        self.grpc.connect_admin(endpoint).await
    }
}

struct LocalStore {
    node: LocalNode,
    remote: Arc<dyn StoreChannel>,
}

#[async_trait]
impl StoreChannel for LocalStore {
    async fn call(&self, command: Command) -> Result<Answer, ChannelError> {
        let kv = self.node.kv.clone();
        let answer = self.node.run(async move { kv.execute(command).await }).await;
        answer.ok_or_else(|| ChannelError::Unknown("the node has ended".to_owned()))
    }

    async fn unary(&self, request: UnaryRequest) -> Result<UnaryAnswer, ChannelError> {
        self.remote.unary(request).await
    }
}

struct LocalPd {
    node: LocalNode,
    remote: Arc<dyn PdChannel>,
}

#[async_trait]
impl PdChannel for LocalPd {
    async fn tso(&self, count: u32) -> Result<Timestamp, ChannelError> {
        let place = self.node.place.clone();
        match self.node.run(async move { place.tso(count).await }).await {
            Some(Ok(last)) => Ok(last),
            Some(Err(error)) => Err(ChannelError::Refused {
                code: error.code().to_owned(),
                message: error.to_string(),
                hint: error.hint().to_owned(),
                retryable: error.is_retryable(),
            }),
            None => self.remote.tso(count).await,
        }
    }

    async fn get_region(&self, key: Bytes) -> Result<Option<Placed>, ChannelError> {
        self.remote.get_region(key).await
    }

    async fn get_prev_region(&self, key: Bytes) -> Result<Option<Placed>, ChannelError> {
        self.remote.get_prev_region(key).await
    }

    async fn get_region_by_id(&self, id: RangeId) -> Result<Option<Placed>, ChannelError> {
        self.remote.get_region_by_id(id).await
    }

    async fn scan_regions(&self, span: KeyRange, limit: u32) -> Result<Vec<Placed>, ChannelError> {
        self.remote.scan_regions(span, limit).await
    }

    async fn get_store(&self, id: StoreId) -> Result<StoreAddress, ChannelError> {
        self.remote.get_store(id).await
    }

    async fn get_all_stores(&self) -> Result<Vec<StoreAddress>, ChannelError> {
        self.remote.get_all_stores().await
    }

    async fn members(&self) -> Result<Members, ChannelError> {
        self.remote.members().await
    }

    async fn gc_safe_point(&self) -> Result<Timestamp, ChannelError> {
        self.remote.gc_safe_point().await
    }

    async fn update_gc_safe_point(&self, ts: Timestamp) -> Result<Timestamp, ChannelError> {
        self.remote.update_gc_safe_point(ts).await
    }
}
