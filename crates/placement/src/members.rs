//! Who holds the placement group: up to three stores, replaced like the replicas of a range when one
//! is silent for too long or goes.

use crate::replicas::Books;
use cribwork_types::StoreId;

use crate::{
    ClusterView, Decision, Operator, PLACEMENT_MEMBERS_MAX, PlacementPolicy, RangeView,
    ReplicationFactor, StoreState, repair,
};

/// The name under which the placement group's members are chosen.
pub const PLACEMENT_MEMBERS: &str = "placement-members";

/// What is to be done to the members of the placement group, or why nothing. The group is no part of
/// the view's ranges; its operators are. Whatever the replication factor of ranges is, the group has
/// three members as soon as there are stores for them. As long as there are not, it gets no second one,
/// with which either could stop it; but what it has, copies of the directory, it keeps.
pub fn placement_members(
    view: &ClusterView,
    group: &RangeView,
    policy: &PlacementPolicy,
) -> Decision {
    let leaves = |state| matches!(state, StoreState::Decommissioning | StoreState::Decommissioned);
    let stay = view.stores.iter().filter(|store| !leaves(store.state)).count();
    let wanted = if stay < PLACEMENT_MEMBERS_MAX { 1 } else { PLACEMENT_MEMBERS_MAX as u64 };
    let factor = ReplicationFactor::new(wanted).unwrap_or_default();
    let voters = group.descriptor.voters().count();
    let state = |store: StoreId| view.stores.iter().find(|it| it.id == store).map(|it| it.state);
    let all_stay =
        group.descriptor.voters().all(|it| state(it.store).is_some_and(|it| !leaves(it)));
    if wanted == 1 && voters > 1 && all_stay {
        let why = format!("{voters} members, and too few stores for {PLACEMENT_MEMBERS_MAX}");
        return Decision::nothing(group.descriptor.id, PLACEMENT_MEMBERS, Vec::new(), why);
    }
    let policy = PlacementPolicy { replication_factor: factor, ..policy.clone() };
    repair::look(&Books::new(view, &policy), group, PLACEMENT_MEMBERS)
}

/// Whom the placement group's leadership goes to, because the store that has it is drained or leaves.
pub fn placement_handover(view: &ClusterView, group: &RangeView) -> Option<Decision> {
    let from = group.leader?.store;
    let state = |store: StoreId| view.stores.iter().find(|it| it.id == store).map(|it| it.state);
    let leaves = !matches!(state(from), Some(StoreState::Up | StoreState::Down) | None);
    let mut others = group.descriptor.voters().filter(|voter| voter.store != from);
    let to = others.find(|voter| state(voter.store) == Some(StoreState::Up))?.store;
    let under_way =
        view.operators.iter().flat_map(Operator::ranges).any(|it| it == group.descriptor.id);
    (leaves && !under_way).then(|| Decision {
        subject: group.descriptor.id,
        scheduler: PLACEMENT_MEMBERS,
        operator: Some(Operator::TransferLeader { range: group.descriptor.id, from, to }),
        chosen: Some(to),
        candidates: Vec::new(),
        summary: format!("placement is led by store {to} from now on: store {from} goes"),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cribwork_types::{RangeDescriptor, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole};

    use super::*;
    use crate::StoreView;

    fn store(id: u64, state: StoreState) -> StoreView {
        let capacity_bytes = 1 << 40;
        StoreView { id: StoreId(id), state, capacity_bytes, ..StoreView::default() }
    }

    fn view(states: &[StoreState]) -> ClusterView {
        let stores = states.iter().zip(1..).map(|(state, id)| store(id, *state));
        ClusterView { stores: stores.collect(), ..ClusterView::default() }
    }

    fn group(stores: &[u64]) -> RangeView {
        let voter = |store: &u64| ReplicaDescriptor {
            id: ReplicaId(*store),
            store: StoreId(*store),
            role: ReplicaRole::Voter,
        };
        let replicas: Vec<_> = stores.iter().map(voter).collect();
        let leader = replicas.first().copied();
        let descriptor =
            RangeDescriptor { id: RangeId::PLACEMENT, replicas, ..RangeDescriptor::default() };
        RangeView {
            descriptor: Arc::new(descriptor),
            leader,
            term: 1,
            size_bytes: 0,
            unchanged_ms: 60_000,
        }
    }

    fn change(view: &ClusterView, group: &RangeView) -> (Option<StoreId>, Option<StoreId>) {
        match placement_members(view, group, &PlacementPolicy::default()).operator {
            Some(Operator::ChangeReplicas { add, remove, .. }) => (add, remove),
            _ => (None, None),
        }
    }

    use StoreState::{Decommissioning, Draining, Up};

    #[test]
    fn the_group_grows_once_there_are_three_stores() {
        assert_eq!(change(&view(&[Up]), &group(&[1])), (None, None));
        assert_eq!(change(&view(&[Up, Up]), &group(&[1])), (None, None));
        let three = view(&[Up, Up, Up]);
        assert_eq!(change(&three, &group(&[1])), (Some(StoreId(2)), None));
        assert_eq!(change(&three, &group(&[1, 2])), (Some(StoreId(3)), None));
        assert_eq!(change(&three, &group(&[1, 2, 3])), (None, None));
    }

    #[test]
    fn a_member_that_leaves_is_replaced_or_the_group_shrinks() {
        let four = view(&[Up, Decommissioning, Up, Up]);
        assert_eq!(change(&four, &group(&[1, 2, 3])), (Some(StoreId(4)), Some(StoreId(2))));
        let three = view(&[Up, Decommissioning, Up]);
        assert_eq!(change(&three, &group(&[1, 2, 3])), (None, Some(StoreId(2))));
        assert_eq!(change(&three, &group(&[1, 3])), (None, None));
        assert_eq!(change(&three, &group(&[1])), (None, None));
        assert_eq!(change(&view(&[Up, Up]), &group(&[1, 2])), (None, None));
    }

    #[test]
    fn a_leader_that_is_drained_hands_over() {
        let to = |view: &ClusterView, group: &RangeView| {
            placement_handover(view, group).and_then(|decision| decision.chosen)
        };
        assert_eq!(to(&view(&[Up, Up, Up]), &group(&[1, 2, 3])), None);
        assert_eq!(to(&view(&[Draining, Up, Up]), &group(&[1, 2, 3])), Some(StoreId(2)));
        assert_eq!(to(&view(&[Draining, Draining, Up]), &group(&[1, 2, 3])), Some(StoreId(3)));
        assert_eq!(to(&view(&[Draining, Up, Up]), &group(&[1])), None);
    }
}
