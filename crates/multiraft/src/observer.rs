//! What a node wants to hear of its replicas.

use std::sync::Arc;

use cribwork_types::{RangeDescriptor, RangeId, ReplicaDescriptor};

/// Receives changes. Called from inside the node's tasks: implementations must not block.
pub trait Observer: Send + Sync + 'static {
    /// The leader of `range` as seen here changed. `is_self` once this replica leads AND its own
    /// barrier is applied, so that it can serve.
    fn leader_changed(
        &self,
        range: RangeId,
        leader: Option<ReplicaDescriptor>,
        term: u64,
        is_self: bool,
    );

    /// Bounds, epoch or members of a range changed, or the range is new here.
    fn range_changed(&self, descriptor: Arc<RangeDescriptor>);
}

/// Hears nothing.
pub struct NoObserver;

impl Observer for NoObserver {
    fn leader_changed(&self, _: RangeId, _: Option<ReplicaDescriptor>, _: u64, _: bool) {}
    fn range_changed(&self, _: Arc<RangeDescriptor>) {}
}
