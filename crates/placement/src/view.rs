//! What the schedulers know of the cluster, at one instant.

use std::collections::BTreeSet;
use std::sync::Arc;

use cribwork_types::{RangeDescriptor, RangeId, ReplicaDescriptor, StoreId};

use crate::{Operator, PlacementPolicy};

/// Where a store is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StoreState {
    /// In service.
    #[default]
    Up,
    /// Not heard of for too long.
    Down,
    /// About to stop: leaders move away.
    Draining,
    /// About to leave for good: replicas move away.
    Decommissioning,
    /// Gone for good.
    Decommissioned,
}

impl StoreState {
    /// The word used by the command line.
    pub const fn name(self) -> &'static str {
        match self {
            StoreState::Up => "up",
            StoreState::Down => "down",
            StoreState::Draining => "draining",
            StoreState::Decommissioning => "decommissioning",
            StoreState::Decommissioned => "decommissioned",
        }
    }
}

/// One store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreView {
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
    /// Time since its last heartbeat, or since placement's leader began to listen, milliseconds.
    pub heartbeat_age_ms: u64,
    /// Ranges that it said it leads. Schedulers count in [`ClusterView::ranges`] instead, which they
    /// see at one instant.
    pub leaders: u64,
    /// Replicas that it said it holds.
    pub replicas: u64,
    /// Bytes of the store's files.
    pub used_bytes: u64,
    /// Size of its file system, or 0 if unknown.
    pub capacity_bytes: u64,
}

impl StoreView {
    /// True if it was heard of a moment ago, whatever it is about to do.
    pub fn is_live(&self, policy: &PlacementPolicy) -> bool {
        !matches!(self.state, StoreState::Down | StoreState::Decommissioned)
            && self.heartbeat_age_ms <= policy.leaders.heartbeat_age_max_ms
    }

    /// True if it is in service, so that leaders may move here.
    pub fn may_lead(&self, policy: &PlacementPolicy) -> bool {
        self.state == StoreState::Up && self.is_live(policy)
    }
}

/// One range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeView {
    /// The range.
    pub descriptor: Arc<RangeDescriptor>,
    /// Its leader, if known.
    pub leader: Option<ReplicaDescriptor>,
    /// The term of that leader.
    pub term: u64,
    /// Bytes of its data, estimated.
    pub size_bytes: u64,
    /// Time since its descriptor last changed, or since it is known, milliseconds.
    pub unchanged_ms: u64,
}

/// All that the schedulers decide by. No store and no range is listed twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// All stores that were not forgotten.
    pub stores: Vec<StoreView>,
    /// All ranges of the key space (not the placement group).
    pub ranges: Vec<RangeView>,
    /// Operators that run now.
    pub operators: Vec<Operator>,
    /// Ranges to leave alone for a while, because something was done or failed to be done to them.
    pub recently_moved: BTreeSet<RangeId>,
}

impl ClusterView {
    /// The store with this id.
    pub fn store(&self, id: StoreId) -> Option<&StoreView> {
        self.stores.iter().find(|store| store.id == id)
    }

    /// The range with this id.
    pub fn range(&self, id: RangeId) -> Option<&RangeView> {
        self.ranges.iter().find(|range| range.descriptor.id == id)
    }
}
