//! The leader balance scheduler's hands: it shows the cluster to the pure policy and carries out what
//! that decides, a bounded number at a time.

use std::time::Duration;

use cribwork_placement::{
    BalancePolicy, ClusterView, Operator, RangeView, StoreState, StoreView, balance_leaders,
};
use cribwork_proto::cribwork::admin::TransferRangeLeaderRequest;
use cribwork_types::{RangeId, StoreId};

use super::Place;
use super::forward::forwarded;
use super::lead::{Lead, Running};
use crate::ServerError;

/// Period of the scheduler.
const PERIOD: Duration = Duration::from_millis(500);
/// As long after a look that found nothing to do.
const QUIET_PERIOD: Duration = Duration::from_secs(2);
/// A transfer that takes longer is given up.
const OPERATOR_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a range that moved is left alone.
const COOL_DOWN: Duration = Duration::from_secs(2);
/// A store not heard from for longer is down.
pub(super) const DOWN_AFTER: Duration = Duration::from_secs(3);

impl Lead {
    /// The state that a store is in now.
    pub(super) fn state(&self, store: StoreId, now: Duration) -> StoreState {
        let heard = self.heard.get(&store).map(|heard| now.saturating_sub(heard.at));
        match heard {
            Some(age) if age < DOWN_AFTER => StoreState::Up,
            _ => StoreState::Down,
        }
    }

    pub(super) fn view(&mut self, now: Duration) -> ClusterView {
        let stores = self.stores.values().map(|info| {
            let heard = self.heard.get(&info.id).copied().unwrap_or_default();
            let age = match self.heard.contains_key(&info.id) {
                true => now.saturating_sub(heard.at).as_millis() as u64,
                false => u64::MAX,
            };
            StoreView {
                id: info.id,
                address: info.address.clone(),
                http: info.http.clone(),
                zone: info.zone.clone(),
                state: self.state(info.id, now),
                heartbeat_age_ms: age,
                leaders: heard.leaders,
                replicas: heard.replicas,
                used_bytes: heard.used_bytes,
                capacity_bytes: heard.capacity_bytes,
            }
        });
        let stores = stores.collect();
        let ranges = self.directory.map().iter().map(|entry| RangeView {
            descriptor: entry.descriptor.clone(),
            leader: entry.leader,
            term: entry.term,
            ..RangeView::default()
        });
        let ranges = ranges.collect();
        let operators = self.running.iter().map(|running| running.operator).collect();
        let recently_moved = Place::recently_moved(self, now);
        ClusterView { stores, ranges, operators, recently_moved }
    }
}

impl Place {
    /// Looks once a period whether leaders are spread, and moves some if not.
    pub(super) fn schedule(&self) {
        let now = self.parts().runtime.now();
        let chosen = self.with_lead(|lead| {
            if now < lead.schedule_at {
                return Vec::new();
            }
            let (running, late): (Vec<Running>, Vec<Running>) =
                lead.running.iter().partition(|running| running.until > now);
            lead.running = running;
            for late in late {
                lead.moved.insert(late.operator.range(), now + COOL_DOWN);
            }
            let view = lead.view(now);
            let decisions = balance_leaders(&view, &BalancePolicy::default());
            let operators: Vec<Operator> =
                decisions.iter().filter_map(|decision| decision.operator).collect();
            for operator in &operators {
                let until = now + OPERATOR_TIMEOUT;
                lead.running.push(Running { operator: *operator, until });
            }
            let quiet = lead.running.is_empty() && lead.moved.is_empty();
            lead.schedule_at = now + if quiet { QUIET_PERIOD } else { PERIOD };
            operators
        });
        for operator in chosen.unwrap_or_default() {
            self.carry_out(operator);
        }
    }

    /// Asks the leader's node at once; its next heartbeat would be told, too.
    fn carry_out(&self, operator: Operator) {
        let Operator::TransferLeader { range, from, to } = operator else {
            return;
        };
        let place = self.clone();
        self.parts().metrics.transfers_started.inc();
        self.parts().runtime.spawn(Box::pin(async move {
            let result = place.order_transfer(range, from, to).await;
            if let Err(error) = &result {
                place.parts().metrics.transfers_failed.inc();
                tracing::info!(%range, %from, %to, %error, "leadership did not move");
            }
            let now = place.parts().runtime.now();
            // An error means that this node does not lead placement any more.
            let _ = place.with_lead(|lead| {
                lead.running.retain(|running| running.operator != operator);
                lead.moved.insert(range, now + COOL_DOWN);
            });
        }));
    }

    /// Has `from` hand the leadership of `range` to `to`.
    pub(crate) async fn order_transfer(
        &self,
        range: RangeId,
        from: StoreId,
        to: StoreId,
    ) -> Result<(), ServerError> {
        let unknown = || ServerError::NotFound(format!("store {from}"));
        let address = self.parts().addresses.get(from).ok_or_else(unknown)?.address;
        let mut client = self.parts().peers.node_client(&address).await?;
        let cluster_id = self.cluster().get();
        let (range_id, to_store) = (range.get(), to.get());
        let request = TransferRangeLeaderRequest { cluster_id, range_id, to_store };
        client.transfer_range_leader(forwarded(request)).await?;
        Ok(())
    }
}
