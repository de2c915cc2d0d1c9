//! Who holds the placement group: up to three stores, replaced like the replicas of a range when one
//! is silent for too long or goes.

use crate::replicas::Books;
use crate::{
    ClusterView, Decision, PLACEMENT_MEMBERS_MAX, PlacementPolicy, RangeView, ReplicationFactor,
    repair,
};

/// The name under which the placement group's members are chosen.
pub const PLACEMENT_MEMBERS: &str = "placement-members";

/// What is to be done to the members of the placement group, or why nothing. The group is no part of
/// the view's ranges; its operators are. Whatever the replication factor of ranges is, the group has
/// three members as soon as there are stores for them.
pub fn placement_members(
    view: &ClusterView,
    group: &RangeView,
    policy: &PlacementPolicy,
) -> Decision {
    let factor = ReplicationFactor::new(PLACEMENT_MEMBERS_MAX as u64).unwrap_or_default();
    let policy = PlacementPolicy { replication_factor: factor, ..policy.clone() };
    repair::look(&Books::new(view, &policy), group, PLACEMENT_MEMBERS)
}
