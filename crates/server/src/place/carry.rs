//! The schedulers' hands: each operator takes its next step, as its range is now, until it is done, makes
//! no sense any more, or has taken too long. Steps are asked of the range's leader; a step that is lost
//! or repeated does no harm.

use std::time::Duration;

use cribwork_placement::{
    ClusterView, Decision, IdKind, Operator, PlacementPolicy, Step, next_step,
};
use cribwork_proto::cribwork::admin::{
    ChangeReplicasRequest, NewLearner, TransferRangeLeaderRequest,
};
use cribwork_types::{RangeId, ReplicaId, RuntimeExt, StoreId};

use super::Place;
use super::forward::forwarded;
use super::lead::{Lead, Running};
use crate::ServerError;

/// A transfer that takes longer is given up.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);
/// A change of replicas that takes longer is given up. Less than a learner without an operator is
/// kept, so that nobody removes one that is about to vote.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(90);
/// Time limit of one step: a learner has to catch up.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// Steps of one operator that may fail.
const FAILURES_MAX: u32 = 5;
/// How long a range is left alone after something was done to it.
const COOL_DOWN: Duration = Duration::from_secs(2);
/// The same after a merge that did not take place.
const MERGE_COOL_DOWN: Duration = Duration::from_secs(30);
/// After a step, the next look: time for the leader's report to arrive.
const SOON: Duration = Duration::from_millis(50);

/// A step to be asked of a node.
pub(super) struct Order {
    operator: Operator,
    step: Step,
    /// Who leads the range.
    leader: StoreId,
    replica: Option<(StoreId, ReplicaId)>,
}

impl Running {
    pub(super) fn new(operator: Operator, scheduler: &'static str, now: Duration) -> Self {
        let limit = match operator {
            Operator::TransferLeader { .. } => TRANSFER_TIMEOUT,
            Operator::ChangeReplicas { .. } | Operator::Merge { .. } => CHANGE_TIMEOUT,
        };
        Self {
            operator,
            scheduler,
            until: now + limit,
            replica: None,
            asking: false,
            failures: 0,
            last: String::new(),
        }
    }
}

impl Lead {
    /// Takes operators a step further: those that nobody has looked at yet, or all.
    pub(super) fn advance(
        &mut self,
        view: &ClusterView,
        policy: &PlacementPolicy,
        now: Duration,
        wall_ms: u64,
        only_new: bool,
    ) -> Vec<Order> {
        let mut orders = Vec::new();
        for mut running in std::mem::take(&mut self.running) {
            if now >= running.until {
                let last = running.last.clone();
                self.end(&running, format!("given up: it took too long; {last}"), now, wall_ms);
                continue;
            }
            if running.asking || (only_new && !running.last.is_empty()) {
                self.running.push(running);
                continue;
            }
            let range = match running.operator.range() {
                RangeId::PLACEMENT => self.group.as_ref(),
                range => view.range(range),
            };
            let Some(range) = range else {
                let how = match running.operator {
                    Operator::Merge { .. } => "done",
                    _ => "given up: the range is gone",
                };
                self.end(&running, how.to_owned(), now, wall_ms);
                continue;
            };
            match (next_step(&running.operator, range, view, policy), range.leader) {
                (Step::Done, _) => self.end(&running, "done".to_owned(), now, wall_ms),
                (Step::Abort { why }, _) => {
                    self.end(&running, format!("given up: {why}"), now, wall_ms);
                }
                (Step::Wait { why }, _) => {
                    running.last = why;
                    self.running.push(running);
                }
                (step, leader) => {
                    running.last = describe(&step);
                    // A step is only ever asked of a leader.
                    if let Some(leader) = leader {
                        running.asking = true;
                        let (operator, replica) = (running.operator, running.replica);
                        orders.push(Order { operator, step, leader: leader.store, replica });
                    }
                    self.running.push(running);
                }
            }
        }
        orders
    }

    /// An operator is over; its range is left alone for a moment.
    fn end(&mut self, running: &Running, how: String, now: Duration, wall_ms: u64) {
        let range = running.operator.range();
        for range in running.operator.ranges() {
            self.moved.insert(range, now + COOL_DOWN);
        }
        let decision = Decision {
            subject: range,
            scheduler: running.scheduler,
            operator: None,
            chosen: None,
            candidates: Vec::new(),
            summary: format!("range {range}: {how}"),
        };
        self.remember(wall_ms, decision);
    }

    fn answered(&mut self, order: &Order, result: &Result<(), ServerError>, at: (Duration, u64)) {
        let (now, wall_ms) = at;
        let running = self.running.iter_mut();
        let Some(place) = running.into_iter().position(|it| it.operator == order.operator) else {
            return;
        };
        let running = &mut self.running[place];
        running.asking = false;
        let failed = result.as_ref().err().map(|error| format!("{}: {error}", running.last));
        if let Some(why) = &failed {
            running.failures += 1;
            running.last.clone_from(why);
        }
        let is_transfer = matches!(running.operator, Operator::TransferLeader { .. });
        let is_merge = matches!(order.step, Step::Merge { .. });
        let tried = if is_transfer || is_merge { 0 } else { FAILURES_MAX };
        let how = match failed {
            None if is_transfer || is_merge => Some("done".to_owned()),
            Some(why) if running.failures > tried => Some(format!("given up: {why}")),
            _ => None,
        };
        if let Some(how) = how {
            let running = self.running.remove(place);
            self.end(&running, how, now, wall_ms);
            if is_merge && result.is_err() {
                // Each attempt stops a range for a moment.
                let until = now + MERGE_COOL_DOWN;
                self.moved.extend(running.operator.ranges().map(|range| (range, until)));
            }
        } else if result.is_ok() {
            self.look_soon(now);
        }
    }

    /// Something has happened that an operator may have waited for.
    pub(super) fn look_soon(&mut self, now: Duration) {
        self.schedule_at = self.schedule_at.min(now + SOON);
    }
}

fn describe(step: &Step) -> String {
    let ids =
        |ids: &[ReplicaId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match step {
        Step::TransferLeader { to } => format!("its leadership goes to store {to}"),
        Step::AddLearner { store } => format!("store {store} takes in a replica without a vote"),
        Step::ChangeMembers { promote, remove } if remove.is_empty() => {
            format!("replica {} gets a vote", ids(promote))
        }
        Step::ChangeMembers { promote, remove } if promote.is_empty() => {
            format!("replica {} goes", ids(remove))
        }
        Step::ChangeMembers { promote, remove } => {
            format!("replica {} gets a vote, {} goes", ids(promote), ids(remove))
        }
        Step::Merge { into } => format!("range {into} absorbs it"),
        Step::Wait { why } | Step::Abort { why } => why.clone(),
        Step::Done => "done".to_owned(),
    }
}

impl Place {
    /// Asks the leader's node at once. Transfers are repeated with the answer to its next heartbeat.
    pub(super) fn carry_out(&self, order: Order) {
        let place = self.clone();
        let is_transfer = matches!(order.step, Step::TransferLeader { .. });
        let metrics = &self.parts().metrics;
        match is_transfer {
            true => metrics.transfers_started.inc(),
            false => metrics.changes_started.inc(),
        };
        self.parts().runtime.spawn(Box::pin(async move {
            let runtime = &place.parts().runtime;
            let asked = runtime.timeout(STEP_TIMEOUT, place.ask(&order)).await;
            let late = Err(ServerError::Timeout { what: "a step of an operator" });
            let result = asked.unwrap_or(late);
            if let Err(error) = &result {
                let metrics = &place.parts().metrics;
                match is_transfer {
                    true => metrics.transfers_failed.inc(),
                    false => metrics.changes_failed.inc(),
                };
                let (range, step) = (order.operator.range(), describe(&order.step));
                tracing::info!(%range, step, %error, "a step of an operator failed");
            }
            let at = (runtime.now(), runtime.wall_ms());
            // An error means that this node does not lead placement any more.
            let _ = place.with_lead(|lead| lead.answered(&order, &result, at));
        }));
    }

    async fn ask(&self, order: &Order) -> Result<(), ServerError> {
        let range = order.operator.range();
        let (cluster_id, range_id) = (self.cluster().get(), range.get());
        let mut request = ChangeReplicasRequest { cluster_id, range_id, ..Default::default() };
        match &order.step {
            Step::TransferLeader { to } => {
                return self.order_transfer(range, order.leader, *to).await;
            }
            Step::AddLearner { store } => {
                let replica = self.replica_id(order, *store).await?.get();
                request.add_learner = Some(NewLearner { replica, store: store.get() });
            }
            Step::ChangeMembers { promote, remove } => {
                request.promote = promote.iter().map(|id| id.get()).collect();
                request.remove = remove.iter().map(|id| id.get()).collect();
            }
            Step::Merge { into } => return self.merge_now(range, *into).await,
            Step::Wait { .. } | Step::Done | Step::Abort { .. } => return Ok(()),
        }
        let mut client = self.parts().peers.node_client(&self.address(order.leader)?).await?;
        client.change_replicas(forwarded(request)).await?;
        Ok(())
    }

    /// The id of an operator's new replica on `store`: one for all attempts, so that a repeated one finds the
    /// replica there and makes no second one.
    async fn replica_id(&self, order: &Order, store: StoreId) -> Result<ReplicaId, ServerError> {
        if let Some((_, id)) = order.replica.filter(|(at, _)| *at == store) {
            return Ok(id);
        }
        let id = ReplicaId(self.reserve_ids(IdKind::Replica, 1).await?);
        self.with_lead(|lead| {
            let mut running = lead.running.iter_mut();
            if let Some(running) = running.find(|it| it.operator == order.operator) {
                running.replica = Some((store, id));
            }
        })?;
        Ok(id)
    }

    pub(super) fn address(&self, store: StoreId) -> Result<String, ServerError> {
        let unknown = || ServerError::NotFound(format!("store {store}"));
        Ok(self.parts().addresses.get(store).ok_or_else(unknown)?.address)
    }

    /// Has `from` hand the leadership of `range` to `to`.
    pub(crate) async fn order_transfer(
        &self,
        range: RangeId,
        from: StoreId,
        to: StoreId,
    ) -> Result<(), ServerError> {
        let mut client = self.parts().peers.node_client(&self.address(from)?).await?;
        let cluster_id = self.cluster().get();
        let (range_id, to_store) = (range.get(), to.get());
        let request = TransferRangeLeaderRequest { cluster_id, range_id, to_store };
        client.transfer_range_leader(forwarded(request)).await?;
        Ok(())
    }
}
