//! A cluster on which operators are carried out, step by step, and what must hold after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use cribwork_placement::{
    ClusterView, Decision, Operator, PlacementPolicy, RangeView, Step, StoreState, StoreView,
    next_step, schedule,
};
use cribwork_types::{
    KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole,
    StoreId, key,
};

/// Time that a round takes, milliseconds.
pub(crate) const ROUND_MS: u64 = 500;
/// Rounds after which an operator is given up.
const PATIENCE: u32 = 60;

/// What becomes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    /// Nothing yet.
    Slow,
    /// A change of members stays joint until the next round.
    Joint,
}

struct Running {
    operator: Operator,
    rounds: u32,
}

/// The cluster.
pub(crate) struct Model {
    pub(crate) view: ClusterView,
    pub(crate) policy: PlacementPolicy,
    running: Vec<Running>,
    next_replica: u64,
}

/// What happened in a round.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) steps: Vec<(RangeId, String)>,
    pub(crate) decisions: Vec<Decision>,
}

/// Stores 1 to `n`, all in service.
pub(crate) fn stores(n: u64) -> Vec<StoreView> {
    (1..=n).map(|id| StoreView { id: StoreId(id), ..StoreView::default() }).collect()
}

/// A range with a voter on each of `stores`; replica ids are 1000 times the range plus the store.
pub(crate) fn range(id: u64, stores: &[u64], leader: u64) -> RangeView {
    let replica = |store: &u64| ReplicaDescriptor {
        id: ReplicaId(1000 * id + store),
        store: StoreId(*store),
        role: ReplicaRole::Voter,
    };
    let descriptor = RangeDescriptor {
        id: RangeId(id),
        span: KeyRange {
            start: Bytes::from(key::encode(&id.to_be_bytes()[6..])),
            end: Bytes::new(),
        },
        epoch: RangeEpoch::INITIAL,
        replicas: stores.iter().map(replica).collect(),
    };
    let leader = descriptor.replica_on(StoreId(leader));
    RangeView { descriptor: Arc::new(descriptor), leader, term: 1, ..RangeView::default() }
}

impl Model {
    pub(crate) fn new(stores: Vec<StoreView>, ranges: Vec<RangeView>) -> Self {
        let view = ClusterView { stores, ranges, ..ClusterView::default() };
        let policy = PlacementPolicy::default();
        let mut model = Self { view, policy, running: Vec::new(), next_replica: 1_000_000 };
        model.tile();
        model
    }

    /// Each range ends where the next one begins, and the last one with the last key.
    pub(crate) fn tile(&mut self) {
        let spans = |range: &RangeView| range.descriptor.span.start.clone();
        let starts: BTreeSet<Bytes> = self.view.ranges.iter().map(spans).collect();
        for range in &mut self.view.ranges {
            let start = range.descriptor.span.start.clone();
            let end = starts.range((Bound::Excluded(start), Bound::Unbounded)).next();
            Arc::make_mut(&mut range.descriptor).span.end = end.cloned().unwrap_or_default();
        }
    }

    pub(crate) fn is_live(&self, store: StoreId) -> bool {
        self.view.store(store).is_some_and(|store| store.is_live(&self.policy))
    }

    pub(crate) fn store_mut(&mut self, id: u64) -> &mut StoreView {
        let stores = self.view.stores.iter_mut();
        stores.into_iter().find(|store| store.id == StoreId(id)).expect("a store of this id")
    }

    pub(crate) fn range_mut(&mut self, id: RangeId) -> &mut RangeView {
        let ranges = self.view.ranges.iter_mut();
        ranges.into_iter().find(|range| range.descriptor.id == id).expect("a range of this id")
    }

    /// Time passes: silent stores have been silent for longer.
    pub(crate) fn pass(&mut self, ms: u64) {
        for store in &mut self.view.stores {
            if matches!(store.state, StoreState::Down) || store.heartbeat_age_ms > 0 {
                store.heartbeat_age_ms += ms;
            }
        }
        self.view.ranges.iter_mut().for_each(|range| range.unchanged_ms += ms);
    }

    /// Silence begins; it may be that the store was told to go before.
    pub(crate) fn kill(&mut self, id: u64) {
        let store = self.store_mut(id);
        store.heartbeat_age_ms = store.heartbeat_age_ms.max(1);
        if store.state == StoreState::Up {
            store.state = StoreState::Down;
        }
    }

    pub(crate) fn revive(&mut self, id: u64) {
        let store = self.store_mut(id);
        store.heartbeat_age_ms = 0;
        if store.state == StoreState::Down {
            store.state = StoreState::Up;
        }
    }

    /// Ranges elect leaders on stores that answer, if a majority does.
    pub(crate) fn elect(&mut self) {
        let live: Vec<StoreId> =
            self.view.stores.iter().map(|store| store.id).filter(|id| self.is_live(*id)).collect();
        let is_live = |store: &StoreId| live.contains(store);
        for range in &mut self.view.ranges {
            let voters: Vec<_> = range.descriptor.voters().collect();
            let up: Vec<_> = voters.iter().filter(|voter| is_live(&voter.store)).collect();
            if up.len() <= voters.len() / 2 {
                range.leader = None;
            } else if !range.leader.is_some_and(|leader| is_live(&leader.store)) {
                range.leader = up.first().map(|voter| **voter);
                range.term += 1;
            }
        }
    }

    /// One round: time passes, leaders are elected, every operator takes a step, and the schedulers
    /// look once.
    pub(crate) fn round(&mut self, fate: &mut dyn FnMut() -> Fate) -> Round {
        let steps = self.steps(fate);
        let decisions = schedule(&self.view, &self.policy);
        self.start(&decisions);
        Round { steps, decisions }
    }

    /// A round without the schedulers.
    pub(crate) fn steps(&mut self, fate: &mut dyn FnMut() -> Fate) -> Vec<(RangeId, String)> {
        self.pass(ROUND_MS);
        self.end_joint();
        self.elect();
        self.count_leaders();
        let mut steps = Vec::new();
        self.view.recently_moved.clear();
        for mut running in std::mem::take(&mut self.running) {
            let id = running.operator.range();
            let Some(range) = self.view.range(id) else {
                assert!(
                    matches!(running.operator, Operator::Merge { .. }),
                    "only its merge ends it"
                );
                continue;
            };
            let step = next_step(&running.operator, range, &self.view, &self.policy);
            let text = describe(&step);
            running.rounds += 1;
            match (&step, fate()) {
                (Step::Done, _) => {}
                (Step::Abort { .. }, _) => {
                    self.view.recently_moved.extend(running.operator.ranges());
                    steps.push((id, text));
                }
                _ if running.rounds > PATIENCE => {
                    self.view.recently_moved.extend(running.operator.ranges());
                    steps.push((id, "took too long".to_owned()));
                }
                (Step::Wait { .. }, _) | (_, Fate::Slow) => self.running.push(running),
                (_, fate) => {
                    self.carry_out(id, &step, fate == Fate::Joint);
                    steps.push((id, text));
                    self.running.push(running);
                }
            }
        }
        self.view.operators = self.running.iter().map(|running| running.operator).collect();
        steps
    }

    /// Begins what was decided.
    pub(crate) fn start(&mut self, decisions: &[Decision]) {
        for operator in decisions.iter().filter_map(|decision| decision.operator) {
            let mut busy = self.view.operators.iter().flat_map(Operator::ranges);
            assert!(!busy.any(|it| operator.ranges().any(|range| range == it)), "{operator:?}");
            self.running.push(Running { operator, rounds: 0 });
            self.view.operators.push(operator);
        }
        self.check_bounds();
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    fn count_leaders(&mut self) {
        let mut led: BTreeMap<StoreId, u64> = BTreeMap::new();
        for leader in self.view.ranges.iter().filter_map(|range| range.leader) {
            *led.entry(leader.store).or_default() += 1;
        }
        for store in &mut self.view.stores {
            store.leaders = led.get(&store.id).copied().unwrap_or_default();
        }
    }

    /// A step, done at once, or half of it if the membership is to stay joint.
    pub(crate) fn carry_out(&mut self, id: RangeId, step: &Step, joint: bool) {
        if let Step::Merge { into } = step {
            return self.merge(id, *into);
        }
        self.next_replica += 1;
        let new = ReplicaId(self.next_replica);
        let range = self.range_mut(id);
        let descriptor = Arc::make_mut(&mut range.descriptor);
        range.unchanged_ms = 0;
        match step {
            Step::TransferLeader { to } => {
                range.leader = descriptor.replica_on(*to);
                range.term += 1;
            }
            Step::AddLearner { store } => {
                let (store, role) = (*store, ReplicaRole::Learner);
                descriptor.replicas.push(ReplicaDescriptor { id: new, store, role });
                descriptor.epoch.conf_ver += 1;
            }
            Step::ChangeMembers { promote, remove } => {
                let leader = range.leader.expect("only a leader changes members").id;
                assert!(!remove.contains(&leader), "a leader that removes itself");
                for replica in &mut descriptor.replicas {
                    if promote.contains(&replica.id) {
                        replica.role = ReplicaRole::Incoming;
                    }
                    if remove.contains(&replica.id) && replica.role == ReplicaRole::Voter {
                        replica.role = ReplicaRole::Outgoing;
                    }
                }
                let learner = |it: &ReplicaDescriptor| it.role == ReplicaRole::Learner;
                descriptor.replicas.retain(|it| !(learner(it) && remove.contains(&it.id)));
                descriptor.epoch.conf_ver += 1;
            }
            Step::Merge { .. } => unreachable!("no change of one range"),
            Step::Wait { .. } | Step::Done | Step::Abort { .. } => unreachable!("nothing to do"),
        }
        if !joint {
            self.end_joint();
        }
        self.check_range(id);
    }

    /// The left neighbour absorbs a range, all at once. What a merge needs of both must hold.
    fn merge(&mut self, id: RangeId, into: RangeId) {
        let place = self.view.ranges.iter().position(|range| range.descriptor.id == id);
        let source = self.view.ranges.remove(place.expect("a range of this id"));
        let stores = |range: &RangeView| -> BTreeSet<StoreId> {
            range.descriptor.replicas.iter().map(|replica| replica.store).collect()
        };
        for range in [&source, self.view.range(into).unwrap()] {
            let votes = |replica: &ReplicaDescriptor| replica.role == ReplicaRole::Voter;
            assert!(range.leader.is_some() && range.descriptor.replicas.iter().all(votes));
            assert!(stores(range).into_iter().all(|store| self.is_live(store)), "{range:?}");
        }
        let target = self.range_mut(into);
        assert_eq!(stores(target), stores(&source));
        assert_eq!(target.descriptor.span.end, source.descriptor.span.start);
        let descriptor = Arc::make_mut(&mut target.descriptor);
        descriptor.span.end = source.descriptor.span.end.clone();
        let version = descriptor.epoch.version.max(source.descriptor.epoch.version);
        descriptor.epoch.version = version + 1;
        target.size_bytes += source.size_bytes;
        target.unchanged_ms = 0;
        self.check_range(into);
        self.check_tiles();
    }

    /// Every key behind the first start is in one range.
    fn check_tiles(&self) {
        let mut spans: Vec<_> = self.view.ranges.iter().map(|it| &it.descriptor.span).collect();
        spans.sort_by_key(|span| &span.start);
        let next = spans.iter().skip(1).map(|span| &span.start);
        for (span, next) in spans.iter().zip(next) {
            assert_eq!(span.end, *next, "there is a gap, or ranges overlap");
        }
        assert!(spans.last().is_some_and(|last| last.end.is_empty()));
    }

    /// Leaders finish the joint memberships that they find.
    fn end_joint(&mut self) {
        for range in self.view.ranges.iter_mut().filter(|range| range.descriptor.is_joint()) {
            let descriptor = Arc::make_mut(&mut range.descriptor);
            descriptor.replicas.retain(|replica| replica.role != ReplicaRole::Outgoing);
            for replica in &mut descriptor.replicas {
                if replica.role == ReplicaRole::Incoming {
                    replica.role = ReplicaRole::Voter;
                }
            }
            descriptor.epoch.conf_ver += 1;
            range.unchanged_ms = 0;
        }
    }

    /// What holds of a range after every step that was taken for an operator.
    fn check_range(&self, id: RangeId) {
        let range = self.view.range(id).unwrap();
        let descriptor = &range.descriptor;
        let mut stores: Vec<_> = descriptor.replicas.iter().map(|it| it.store).collect();
        stores.sort_unstable();
        stores.dedup();
        assert_eq!(stores.len(), descriptor.replicas.len(), "two replicas on a store: {range:?}");
        // Steps are taken only where there is a leader, that is, where a majority answered before.
        for gone in [ReplicaRole::Incoming, ReplicaRole::Outgoing] {
            let voters: Vec<_> = descriptor.voters().filter(|voter| voter.role != gone).collect();
            let live = voters.iter().filter(|voter| self.is_live(voter.store)).count();
            assert!(live > voters.len() / 2, "range {id} has lost its majority: {range:?}");
        }
        let leader = range.leader.expect("it had one before the step");
        let leads = descriptor.replica(leader.id).is_some_and(|replica| replica.role.votes());
        assert!(leads, "the leader of range {id} is no voter: {range:?}");
    }

    fn check_bounds(&self) {
        let mut changes: BTreeMap<StoreId, usize> = BTreeMap::new();
        let replicas = self.view.operators.iter();
        let replicas = replicas.filter(|it| matches!(it, Operator::ChangeReplicas { .. }));
        assert!(replicas.clone().count() <= self.policy.replica_changes_max);
        for store in replicas.flat_map(Operator::stores).filter(|store| self.is_live(*store)) {
            *changes.entry(store).or_default() += 1;
        }
        let merges = self.view.operators.iter().filter(|it| matches!(it, Operator::Merge { .. }));
        assert!(merges.count() <= self.policy.merges_max);
        // A store that came back to life may find itself over the bound for what began before.
        let most = changes.values().max().copied().unwrap_or_default();
        assert!(most <= 2 * self.policy.replica_changes_per_store_max, "{changes:?}");
    }
}

/// A step in words.
pub(crate) fn describe(step: &Step) -> String {
    let ids = |ids: &[ReplicaId]| ids.iter().map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    match step {
        Step::TransferLeader { to } => format!("leader to store {to}"),
        Step::AddLearner { store } => format!("learner on store {store}"),
        Step::ChangeMembers { promote, remove } => match (promote.is_empty(), remove.is_empty()) {
            (false, false) => format!("replica {} votes, {} goes", ids(promote), ids(remove)),
            (false, true) => format!("replica {} votes", ids(promote)),
            (true, _) => format!("replica {} goes", ids(remove)),
        },
        Step::Merge { into } => format!("absorbed by range {into}"),
        Step::Wait { why } => format!("waits: {why}"),
        Step::Done => "done".to_owned(),
        Step::Abort { why } => format!("given up: {why}"),
    }
}
