//! What is to be done to a range, and the next step towards it.
//!
//! An operator names a state, not a procedure: [`next_step`] looks at where the range is and says what
//! brings it closer. So a step that is lost, repeated or done by somebody else does no harm, and a new
//! placement leader can take up what it finds half done.

use cribwork_types::{
    RangeDescriptor, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole, StoreId,
};

use crate::merge::{are_neighbours, is_top};
use crate::{ClusterView, PlacementPolicy, RangeView};

/// Something to be done to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// Have another replica lead.
    TransferLeader {
        /// The range.
        range: RangeId,
        /// The store that leads.
        from: StoreId,
        /// The store that shall lead.
        to: StoreId,
    },
    /// Have a voter on one store, none on another, or both.
    ChangeReplicas {
        /// The range.
        range: RangeId,
        /// The store that shall hold a voter.
        add: Option<StoreId>,
        /// The store that shall hold no replica.
        remove: Option<StoreId>,
    },
    /// Have a range absorbed by its left neighbour, once their replicas lie on the same stores.
    Merge {
        /// The source: the range that will be no more.
        range: RangeId,
        /// The target: its left neighbour, which gets its keys.
        into: RangeId,
    },
}

impl Operator {
    /// The range it is about, whose replicas and leader it changes: the source of a merge.
    pub const fn range(&self) -> RangeId {
        match self {
            Operator::TransferLeader { range, .. }
            | Operator::ChangeReplicas { range, .. }
            | Operator::Merge { range, .. } => *range,
        }
    }

    /// All ranges that take part, [`Operator::range`] first: nothing else is done to them meanwhile.
    pub fn ranges(&self) -> impl Iterator<Item = RangeId> + use<> {
        let other = match self {
            Operator::Merge { into, .. } => Some(*into),
            Operator::TransferLeader { .. } | Operator::ChangeReplicas { .. } => None,
        };
        [self.range()].into_iter().chain(other)
    }

    /// The stores that take part: the giving one, then the taking one. None for a merge, which is bounded
    /// in number instead: which replicas move for it is only known as it goes on.
    pub fn stores(&self) -> impl Iterator<Item = StoreId> {
        let (giving, taking) = match *self {
            Operator::TransferLeader { from, to, .. } => (Some(from), Some(to)),
            Operator::ChangeReplicas { add, remove, .. } => (remove, add),
            Operator::Merge { .. } => (None, None),
        };
        giving.into_iter().chain(taking)
    }
}

/// What brings an operator closer to its end, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the leader to hand over to the replica on this store.
    TransferLeader {
        /// The store that shall lead.
        to: StoreId,
    },
    /// Ask the leader to take in a new replica without a vote.
    AddLearner {
        /// Where it lives.
        store: StoreId,
    },
    /// Ask the leader to give learners a vote once they have caught up, and to let members go, both
    /// in one change.
    ChangeMembers {
        /// Learners that shall vote.
        promote: Vec<ReplicaId>,
        /// Members that shall go.
        remove: Vec<ReplicaId>,
    },
    /// Have the left neighbour absorb the range. Both lie on the same stores, all of which answer, and
    /// all replicas vote.
    Merge {
        /// The left neighbour.
        into: RangeId,
    },
    /// Nothing now.
    Wait {
        /// For what.
        why: String,
    },
    /// Nothing more: the range is as wanted.
    Done,
    /// Give up: the operator makes no sense any more.
    Abort {
        /// Why.
        why: String,
    },
}

fn wait(why: impl Into<String>) -> Step {
    Step::Wait { why: why.into() }
}

fn abort(why: impl Into<String>) -> Step {
    Step::Abort { why: why.into() }
}

/// The next step of an operator, from where its range is now. The host takes it, looks again at the
/// next report, and asks again.
pub fn next_step(
    operator: &Operator,
    range: &RangeView,
    view: &ClusterView,
    policy: &PlacementPolicy,
) -> Step {
    let leader = free_leader(range);
    let descriptor = &range.descriptor;
    match (*operator, leader) {
        (Operator::Merge { into, .. }, _) => merge(range, into, view, policy),
        (_, Err(why)) => wait(why),
        (Operator::TransferLeader { from, to, .. }, Ok(leader)) => {
            let voter = descriptor.replica_on(to).filter(|replica| replica.role.votes());
            match leader {
                store if store == to => Step::Done,
                store if store != from => abort(format!("store {store} leads it by now")),
                _ if voter.is_none() => abort(format!("store {to} holds no voter of it any more")),
                _ => Step::TransferLeader { to },
            }
        }
        (Operator::ChangeReplicas { add, remove, .. }, Ok(leader)) => {
            Change { range, view, policy, leader }.next(add, remove)
        }
    }
}

/// The store that leads the range and may be asked for something now, or why there is none.
fn free_leader(range: &RangeView) -> Result<StoreId, &'static str> {
    if range.descriptor.is_joint() {
        // Nothing may begin in between; its leader ends this by itself, whoever began it.
        return Err("its leader is finishing a change of members");
    }
    range.leader.map(|leader| leader.store).ok_or("it has no leader")
}

/// The next step of a merge of `range` into its left neighbour: its replicas come to lie on the stores
/// of that one, then it is absorbed.
fn merge(range: &RangeView, into: RangeId, view: &ClusterView, policy: &PlacementPolicy) -> Step {
    let source = &range.descriptor;
    let Some(target_view) = view.range(into) else {
        return abort(format!("range {into} is no more"));
    };
    let target = &target_view.descriptor;
    if target.span.contains(&source.span.start) {
        return Step::Done;
    }
    if is_top(source) {
        return abort("the empty range above all user keys stays");
    }
    if !are_neighbours(target, source) {
        return abort(format!("range {into} is not its left neighbour any more"));
    }
    // Every replica has to take part. It is not waited for: meanwhile, neither range could be repaired.
    let is_live = |store| view.store(store).is_some_and(|store| store.is_live(policy));
    let mut stores = source.replicas.iter().chain(&target.replicas).map(|member| member.store);
    if let Some(silent) = stores.find(|store| !is_live(*store)) {
        return abort(format!("store {silent} does not answer"));
    }
    let leader = match free_leader(range) {
        Ok(leader) => leader,
        Err(why) => return wait(why),
    };
    if let Err(why) = free_leader(target_view) {
        return wait(format!("range {into}: {why}"));
    }
    if target.replicas.iter().any(|member| !member.role.votes()) {
        return wait(format!("range {into}: a learner waits to become a voter"));
    }
    let change = Change { range, view, policy, leader };
    change.align(target).unwrap_or(Step::Merge { into })
}

/// A change of replicas of a range that has a leader and is not joint.
struct Change<'a> {
    range: &'a RangeView,
    view: &'a ClusterView,
    policy: &'a PlacementPolicy,
    leader: StoreId,
}

impl Change<'_> {
    fn next(&self, add: Option<StoreId>, remove: Option<StoreId>) -> Step {
        let descriptor = &self.range.descriptor;
        let added = add.map(|store| (store, descriptor.replica_on(store)));
        let leaving = remove.and_then(|store| descriptor.replica_on(store));
        if let Some((store, found)) = added {
            let votes = found.is_some_and(|replica| replica.role.votes());
            if !votes && !self.is_live(store) {
                return abort(format!("store {store} does not answer any more"));
            }
            if found.is_none() {
                return Step::AddLearner { store };
            }
        }
        let learner = added
            .and_then(|(_, found)| found)
            .filter(|replica| replica.role == ReplicaRole::Learner);
        if learner.is_none() && leaving.is_none() {
            return Step::Done;
        }
        let promote: Vec<ReplicaId> = learner.iter().map(|replica| replica.id).collect();
        let mut gone: Vec<ReplicaId> = leaving.iter().map(|replica| replica.id).collect();
        // A leader does not remove itself.
        if leaving.is_some_and(|leaving| leaving.store == self.leader) {
            match self.successor() {
                Some(to) => return Step::TransferLeader { to },
                None if promote.is_empty() => {
                    return abort("its leader would have to go and nobody could follow it");
                }
                None => gone.clear(),
            }
        }
        let stays = |replica: &&ReplicaDescriptor| !gone.contains(&replica.id);
        let votes =
            |replica: &&ReplicaDescriptor| replica.role.votes() || promote.contains(&replica.id);
        let after = descriptor.replicas.iter().filter(stays).filter(votes);
        let before = descriptor.voters().map(|voter| voter.store);
        let is_live = |store| self.is_live(store);
        if !majority_is_live(before, is_live)
            || !majority_is_live(after.map(|voter| voter.store), is_live)
        {
            return abort("too few of its voters would be left that answer");
        }
        Step::ChangeMembers { promote, remove: gone }
    }

    /// What brings the replicas closer to the stores of `target`, which has voters only, one replica at
    /// a time; `None` once all are there and vote.
    fn align(&self, target: &RangeDescriptor) -> Option<Step> {
        let source = &self.range.descriptor;
        let extra = source.replicas.iter().filter(|it| target.replica_on(it.store).is_none());
        // Learners go at once, and the leader last, so that it hands over to one that stays.
        let leaving = extra.min_by_key(|it| (it.role.votes(), it.store == self.leader, it.store));
        let votes = |store| source.replica_on(store).is_some_and(|it| it.role.votes());
        let missing = target.replicas.iter().map(|it| it.store).filter(|store| !votes(*store));
        // One that has begun to take it goes on.
        let coming = missing.min_by_key(|store| (source.replica_on(*store).is_none(), *store));
        let (have, wanted) = (source.voters().count(), target.voters().count());
        match (coming, leaving) {
            (None, None) => None,
            (Some(_), Some(leaving)) if !leaving.role.votes() || have > wanted => {
                Some(self.next(None, Some(leaving.store)))
            }
            (Some(coming), _) if have < wanted => Some(self.next(Some(coming), None)),
            (coming, leaving) => Some(self.next(coming, leaving.map(|it| it.store))),
        }
    }

    fn is_live(&self, store: StoreId) -> bool {
        self.view.store(store).is_some_and(|store| store.is_live(self.policy))
    }

    /// Another voter that may lead: on the store that leads least.
    fn successor(&self) -> Option<StoreId> {
        let voters = self.range.descriptor.voters().filter(|voter| voter.store != self.leader);
        let stores = voters.filter_map(|voter| self.view.store(voter.store));
        stores
            .filter(|store| store.may_lead(self.policy))
            .min_by_key(|store| (store.leaders, store.id))
            .map(|store| store.id)
    }
}

/// True if more than half of these voters are on stores that answer.
pub(crate) fn majority_is_live(
    voters: impl Iterator<Item = StoreId>,
    is_live: impl Fn(StoreId) -> bool,
) -> bool {
    let (mut all, mut live) = (0, 0);
    for store in voters {
        all += 1;
        live += usize::from(is_live(store));
    }
    live > all / 2
}
