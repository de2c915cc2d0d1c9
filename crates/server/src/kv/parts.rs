//! What the service is made of, and its limits.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cribwork_multiraft::MultiRaft;
use cribwork_types::{ClusterId, RangeDescriptor, RangeId, Runtime, StoreId, Timestamp};

use crate::kv::KvMetrics;
use crate::{HybridClock, ServerError};

/// What a range needs from the rest of the node, and through it from placement.
#[async_trait]
pub trait RangeOps: Send + Sync {
    /// Splits a range that this store leads at `bound` (encoded): takes ids from placement, then
    /// proposes the split. Gives left and right.
    ///
    /// # Errors
    /// [`ServerError`] from placement or from the replica.
    async fn split_here(
        &self,
        range: RangeId,
        bound: Bytes,
    ) -> Result<(RangeDescriptor, RangeDescriptor), ServerError>;

    /// Takes `count` timestamps; gives the last.
    ///
    /// # Errors
    /// [`ServerError`] if placement does not answer.
    async fn tso(&self, count: u32) -> Result<Timestamp, ServerError>;
}

/// Bounds of the service. Over each of them a request is answered `server_is_busy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvLimits {
    /// Commands of all clients that may be under way.
    pub commands_in_flight_max: usize,
    /// Commands of one batch stream that may be under way.
    pub stream_commands_max: usize,
    /// Commands that may wait for latches.
    pub latch_waiters_max: usize,
    /// What a refused client is told to wait, milliseconds.
    pub busy_backoff_ms: u64,
}

impl Default for KvLimits {
    fn default() -> Self {
        Self {
            commands_in_flight_max: 16_384,
            stream_commands_max: 4096,
            latch_waiters_max: 8192,
            busy_backoff_ms: 100,
        }
    }
}

/// What the service is made of.
pub struct KvParts {
    /// This node's store.
    pub store: StoreId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The local replicas.
    pub multi: MultiRaft,
    /// Clock and tasks.
    pub runtime: Arc<dyn Runtime>,
    /// By which raw values expire.
    pub clock: Arc<HybridClock>,
    /// Splits.
    pub ranges: Arc<dyn RangeOps>,
    /// Bounds.
    pub limits: KvLimits,
    /// Registered by the caller.
    pub metrics: KvMetrics,
}
