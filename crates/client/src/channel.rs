//! The seam between the client's logic and the way its requests travel. gRPC is one implementation
//! ([`crate::GrpcConnector`]); a program that holds a node in its own process supplies another one
//! that calls it directly, and tests supply a scripted one.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cribwork_proto::cribwork::admin;
use cribwork_proto::{kvrpcpb, tikvpb};
use cribwork_types::{
    ClusterId, KeyRange, RangeDescriptor, RangeId, ReplicaDescriptor, StoreId, Timestamp,
};

/// A command that travels on the batch stream of a store.
pub type Command = tikvpb::batch_commands_request::request::Cmd;
/// The answer to a [`Command`], of the same name.
pub type Answer = tikvpb::batch_commands_response::response::Cmd;

/// Why no answer came. What a caller may do depends on whether the request can have taken effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The request never left: it certainly had no effect.
    #[error("not sent: {0}")]
    Unsent(String),
    /// Too much is under way on this channel: the request was not sent.
    #[error("not sent: {0} requests are under way")]
    Full(usize),
    /// The request left and no answer came: it may have taken effect, or may still do so.
    #[error("no answer: {0}")]
    Unknown(String),
    /// The other side answered that it will not do it: it had no effect.
    #[error("{message}")]
    Refused {
        /// Stable code, empty if the other side gave none.
        code: String,
        /// The reason in words.
        message: String,
        /// What to do about it; may be empty.
        hint: String,
        /// True if the same request may succeed later.
        retryable: bool,
    },
}

impl ChannelError {
    /// A refusal without a code.
    pub fn refused(message: impl Into<String>) -> Self {
        ChannelError::Refused {
            code: String::new(),
            message: message.into(),
            hint: String::new(),
            retryable: false,
        }
    }
}

/// Requests to a store that have no place on the batch stream.
#[derive(Clone, Debug, PartialEq)]
pub enum UnaryRequest {
    /// Atomic compare and swap.
    RawCompareAndSwap(kvrpcpb::RawCasRequest),
    /// Time to live of a raw key.
    RawGetKeyTtl(kvrpcpb::RawGetKeyTtlRequest),
    /// Checksum of raw keys.
    RawChecksum(kvrpcpb::RawChecksumRequest),
    /// Drops every version of every key in an interval, on one store.
    UnsafeDestroyRange(kvrpcpb::UnsafeDestroyRangeRequest),
    /// Splits a range.
    SplitRegion(kvrpcpb::SplitRegionRequest),
}

/// The answer to a [`UnaryRequest`], of the same name.
#[allow(clippy::large_enum_variant, reason = "one lives for one call: a box would cost more")]
#[derive(Clone, Debug, PartialEq)]
pub enum UnaryAnswer {
    /// Atomic compare and swap.
    RawCompareAndSwap(kvrpcpb::RawCasResponse),
    /// Time to live of a raw key.
    RawGetKeyTtl(kvrpcpb::RawGetKeyTtlResponse),
    /// Checksum of raw keys.
    RawChecksum(kvrpcpb::RawChecksumResponse),
    /// Drops every version of every key in an interval.
    UnsafeDestroyRange(kvrpcpb::UnsafeDestroyRangeResponse),
    /// Splits a range.
    SplitRegion(kvrpcpb::SplitRegionResponse),
}

/// The way to one store.
#[async_trait]
pub trait StoreChannel: Send + Sync + 'static {
    /// One command; the answer has the same name.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn call(&self, command: Command) -> Result<Answer, ChannelError>;

    /// One request that has no place on the batch stream.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn unary(&self, request: UnaryRequest) -> Result<UnaryAnswer, ChannelError>;
}

/// A range and who leads it, as the placement service tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The range; bounds are encoded.
    pub range: RangeDescriptor,
    /// Its leader, if known.
    pub leader: Option<ReplicaDescriptor>,
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAddress {
    /// The store.
    pub id: StoreId,
    /// `host:port` of its gRPC port.
    pub address: String,
}

/// Who makes up the placement service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The cluster.
    pub cluster: ClusterId,
    /// `host:port` of every member.
    pub addresses: Vec<String>,
    /// `host:port` of the leader, if known.
    pub leader: Option<String>,
}

/// The way to the placement service. Every request may be repeated.
#[async_trait]
pub trait PdChannel: Send + Sync + 'static {
    /// `count` consecutive timestamps: the last of them.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn tso(&self, count: u32) -> Result<Timestamp, ChannelError>;

    /// The range that contains `key` (compared with the bounds as bytes), if the service knows it.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn get_region(&self, key: Bytes) -> Result<Option<Placed>, ChannelError>;

    /// The range that ends where the one that contains `key` begins; none before the first.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn get_prev_region(&self, key: Bytes) -> Result<Option<Placed>, ChannelError>;

    /// A range by its id.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn get_region_by_id(&self, id: RangeId) -> Result<Option<Placed>, ChannelError>;

    /// The first `limit` ranges (0: all) that overlap `span`, in order.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn scan_regions(&self, span: KeyRange, limit: u32) -> Result<Vec<Placed>, ChannelError>;

    /// Where a store is.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn get_store(&self, id: StoreId) -> Result<StoreAddress, ChannelError>;

    /// Every store that has not left for good.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn get_all_stores(&self) -> Result<Vec<StoreAddress>, ChannelError>;

    /// The members of the service, and the cluster that they serve.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn members(&self) -> Result<Members, ChannelError>;

    /// Versions below this timestamp may be gone.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn gc_safe_point(&self) -> Result<Timestamp, ChannelError>;

    /// Raises the safe point; answers what holds now, which may be above what was asked.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn update_gc_safe_point(&self, ts: Timestamp) -> Result<Timestamp, ChannelError>;
}

/// The way to one node's administration service.
#[async_trait]
pub trait AdminChannel: Send + Sync + 'static {
    /// Makes a cluster.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn init(&self, request: admin::InitRequest) -> Result<admin::InitResponse, ChannelError>;

    /// The cluster in numbers.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn status(&self) -> Result<admin::StatusResponse, ChannelError>;

    /// Every node.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn nodes(&self) -> Result<admin::NodesResponse, ChannelError>;

    /// One page of ranges.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn ranges(
        &self,
        request: admin::RangesRequest,
    ) -> Result<admin::RangesResponse, ChannelError>;

    /// One range.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn range(&self, id: RangeId) -> Result<admin::GetRangeResponse, ChannelError>;

    /// Splits a range.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn split(
        &self,
        request: admin::SplitRequest,
    ) -> Result<admin::SplitResponse, ChannelError>;

    /// Moves the leadership of a range.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn transfer_leader(&self, range: RangeId, to: StoreId) -> Result<(), ChannelError>;

    /// Begins to move a replica, or says how far that is.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn move_replica(
        &self,
        request: admin::MoveReplicaRequest,
    ) -> Result<admin::Progress, ChannelError>;

    /// Begins to merge a range with its right neighbour, or says how far that is.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn merge(&self, request: admin::MergeRequest) -> Result<admin::Progress, ChannelError>;

    /// Compares the replicas of a range.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn verify_range(&self, id: RangeId) -> Result<admin::VerifyRangeResponse, ChannelError>;

    /// Has leaders leave a node, or says how far that is.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn drain(&self, request: admin::DrainRequest) -> Result<admin::Progress, ChannelError>;

    /// Has replicas leave a node for good, or says how far that is.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn decommission(
        &self,
        request: admin::DecommissionRequest,
    ) -> Result<admin::Progress, ChannelError>;

    /// Why placement does what it does.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn explain(
        &self,
        request: admin::ExplainRequest,
    ) -> Result<admin::ExplainResponse, ChannelError>;

    /// Reads settings of the cluster, or changes one.
    ///
    /// # Errors
    /// [`ChannelError`].
    async fn config(
        &self,
        request: admin::ConfigRequest,
    ) -> Result<admin::ConfigResponse, ChannelError>;
}

/// Opens channels.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// The way to the store at `address`.
    ///
    /// # Errors
    /// [`ChannelError`] if there is none now.
    async fn connect_store(&self, address: &str) -> Result<Arc<dyn StoreChannel>, ChannelError>;

    /// The way to the placement service, by any of the nodes at `endpoints`.
    ///
    /// # Errors
    /// [`ChannelError`] if there is none now.
    async fn connect_pd(&self, endpoints: &[String]) -> Result<Arc<dyn PdChannel>, ChannelError>;

    /// The way to the administration service of the node at `endpoint`.
    ///
    /// # Errors
    /// [`ChannelError`] if there is none now.
    async fn connect_admin(&self, endpoint: &str) -> Result<Arc<dyn AdminChannel>, ChannelError>;
}
