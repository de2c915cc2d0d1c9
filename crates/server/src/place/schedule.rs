//! The schedulers' eyes: the cluster is shown to the pure policy once a period, and what that decides
//! becomes operators, which [`carry`](super::carry) carries out.

use std::time::Duration;

use cribwork_multiraft::Replica;
use cribwork_placement::{
    ClusterView, Decision, PlacementPolicy, RangeView, StoreState, StoreView,
    decommissioned_stores, placement_handover, placement_members, schedule,
};
use cribwork_types::{RangeId, StoreId};

use super::Place;
use super::carry::Order;
use super::lead::{Lead, Running};
use super::rows;
use crate::{ServerError, StoreInfo};

/// Period of the schedulers.
pub(super) const PERIOD: Duration = Duration::from_millis(500);
/// As long after a look that found nothing to do.
const QUIET_PERIOD: Duration = Duration::from_secs(2);
/// A store not heard from for longer is down.
pub(super) const DOWN_AFTER: Duration = Duration::from_secs(3);

impl Lead {
    /// True if a store was heard of a moment ago, whatever it is about to do.
    pub(super) fn hears(&self, store: StoreId, now: Duration) -> bool {
        let heard = self.heard.get(&store);
        heard.is_some_and(|heard| now.saturating_sub(heard.at) < DOWN_AFTER)
    }

    /// The state that a store is in now. One that leaves for good does so also while it is silent; one
    /// that was drained is down once it has stopped.
    pub(super) fn state(&self, store: StoreId, now: Duration) -> StoreState {
        let told = self.stores.get(&store).map(|info| info.state).unwrap_or_default();
        match told {
            StoreState::Decommissioning | StoreState::Decommissioned => told,
            _ if !self.hears(store, now) => StoreState::Down,
            told => told,
        }
    }

    fn store_view(&self, info: &StoreInfo, now: Duration) -> StoreView {
        let heard = self.heard.get(&info.id).copied().unwrap_or_default();
        // This leader cannot know of silence before it began to listen.
        let age = now.saturating_sub(heard.at.max(self.since));
        // A store that has not been heard of yet is not live, however short the time.
        let not_yet = DOWN_AFTER.as_millis() as u64 + 1;
        let age_ms = age.as_millis() as u64;
        StoreView {
            id: info.id,
            address: info.address.clone(),
            http: info.http.clone(),
            zone: info.zone.clone(),
            state: self.state(info.id, now),
            heartbeat_age_ms: match self.heard.contains_key(&info.id) {
                true => age_ms,
                false => age_ms.max(not_yet),
            },
            leaders: heard.leaders,
            replicas: heard.replicas,
            used_bytes: heard.used_bytes,
            capacity_bytes: heard.capacity_bytes,
        }
    }

    pub(super) fn view(&mut self, now: Duration) -> ClusterView {
        let stores = self.stores.values().map(|info| self.store_view(info, now)).collect();
        let ranges = self.directory.map().iter().map(|entry| {
            let id = entry.descriptor.id;
            let changed = self.changed.get(&id).copied().unwrap_or(self.since);
            RangeView {
                descriptor: entry.descriptor.clone(),
                leader: entry.leader,
                term: entry.term,
                size_bytes: self.sizes.get(&id).copied().unwrap_or_default(),
                unchanged_ms: now.saturating_sub(changed).as_millis() as u64,
            }
        });
        let ranges = ranges.collect();
        let operators = self.running.iter().map(|running| running.operator).collect();
        let recently_moved = Place::recently_moved(self, now);
        ClusterView { stores, ranges, operators, recently_moved }
    }

    /// Looks once: takes operators a step further and begins new ones. What is to be asked of nodes,
    /// and stores that have nothing left to do before they are gone.
    fn look(&mut self, now: Duration, wall_ms: u64) -> (Vec<Order>, Vec<StoreId>) {
        let policy = self.settings.policy();
        let mut view = self.view(now);
        let mut orders = self.advance(&view, &policy, now, wall_ms, false);
        view.operators = self.running.iter().map(|running| running.operator).collect();
        view.recently_moved = Place::recently_moved(self, now);
        let group = self.group.iter().flat_map(|group| {
            let handover = placement_handover(&view, group);
            [handover.unwrap_or_else(|| placement_members(&view, group, &policy))]
        });
        let group: Vec<Decision> = group.filter(|it| it.operator.is_some()).collect();
        for decision in group.into_iter().chain(schedule(&view, &policy)) {
            self.begin(decision, now, wall_ms);
        }
        orders.extend(self.advance(&view, &policy, now, wall_ms, true));
        let quiet = self.running.is_empty() && self.moved.is_empty();
        self.schedule_at = now + if quiet { QUIET_PERIOD } else { PERIOD };
        let mut gone = decommissioned_stores(&view);
        let holds =
            |store| self.group.as_ref().is_some_and(|it| it.descriptor.replica_on(store).is_some());
        gone.retain(|store| !holds(*store));
        (orders, gone)
    }

    /// Shows the schedulers the placement group, which is no part of the directory.
    fn see_group(&mut self, holder: &Replica, now: Duration) {
        let (id, descriptor) = (RangeId::PLACEMENT, holder.descriptor());
        let view = holder.leader();
        if self.group.as_ref().is_none_or(|group| group.descriptor != descriptor) {
            self.changed.insert(id, now);
        }
        let changed = self.changed.get(&id).copied().unwrap_or(now);
        self.group = Some(RangeView {
            descriptor,
            leader: view.leader,
            term: view.term,
            size_bytes: 0,
            unchanged_ms: now.saturating_sub(changed).as_millis() as u64,
        });
    }

    /// Remembers a decision and begins its operator.
    pub(super) fn begin(&mut self, decision: Decision, now: Duration, wall_ms: u64) {
        if let Some(operator) = decision.operator {
            self.running.push(Running::new(operator, decision.scheduler, now));
        }
        self.remember(wall_ms, decision);
    }

    /// What everybody decides by.
    pub(super) fn decide_by(&mut self, now: Duration) -> (ClusterView, PlacementPolicy) {
        (self.view(now), self.settings.policy())
    }
}

impl Place {
    /// Looks once a period at what is to be done, and has it done.
    pub(super) async fn schedule(&self) {
        let (now, wall_ms) = (self.parts().runtime.now(), self.parts().runtime.wall_ms());
        let holder = self.holder();
        let looked = self.with_lead(|lead| match now < lead.schedule_at {
            true => (Vec::new(), Vec::new()),
            false => {
                if let Some(holder) = &holder {
                    lead.see_group(holder, now);
                }
                lead.look(now, wall_ms)
            }
        });
        let (orders, gone) = looked.unwrap_or_default();
        orders.into_iter().for_each(|order| self.carry_out(order));
        for store in gone {
            if let Err(error) = self.set_state(store, StoreState::Decommissioned).await {
                tracing::warn!(%store, %error, "cannot note that a store is gone");
            }
        }
    }

    /// Notes what a store was told to do; it is in the tables when this returns.
    pub(super) async fn set_state(
        &self,
        store: StoreId,
        state: StoreState,
    ) -> Result<(), ServerError> {
        let plan = |lead: &Lead| {
            let missing = || ServerError::NotFound(format!("store {store}"));
            let known = lead.stores.get(&store).ok_or_else(missing)?;
            let info = StoreInfo { state, ..known.clone() };
            let row = (*known != info).then(|| rows::store(&info));
            Ok((row.into_iter().collect(), info))
        };
        let now = self.parts().runtime.now();
        let keep = |lead: &mut Lead, info: &StoreInfo| {
            lead.stores.insert(store, info.clone());
            lead.schedule_at = now;
        };
        self.change(plan, keep).await?;
        self.leader_changed();
        Ok(())
    }
}
