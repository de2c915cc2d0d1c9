//! The placement host: the group that knows where everything is and what time it is.
//!
//! Group 0 is an ordinary Raft group whose commands write the `meta` family. Its leader keeps the
//! tables in memory ([`lead`](self)), evaluates a change, proposes the rows, and changes the memory
//! only once they are applied. After anything that leaves doubt, the memory is thrown away and read
//! again. Every node answers for placement: it leads, or it passes the request on, once.
//!
//! Timestamps: a window of physical time is persisted ahead, timestamps are taken from memory, and
//! leadership is proven AFTER they are taken, so a leader that was paused hands out nothing.

mod carry;
pub(crate) mod forward;
mod lead;
mod merge;
mod metrics;
mod orders;
mod register;
mod rows;
mod schedule;
mod serve;
mod settings;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cribwork_multiraft::{MultiRaft, Replica, ReplicaState};
use cribwork_placement::BootstrapPlan;
use cribwork_types::{ClusterId, RangeId, Runtime, StoreId};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use metrics::PlaceMetrics;
pub(crate) use view::RangeRow;

use crate::{AddressBook, HybridClock, PeerClients};
use lead::Lead;

/// Period of the host's own work while something is under way: transfers, a take-over.
const TICK: Duration = Duration::from_millis(100);
/// Period while nothing is: the leader renews its window and looks at its stores. Well below half of
/// the window, so that a request seldom finds it used up.
const QUIET_TICK: Duration = Duration::from_millis(500);

/// What the placement host is built on.
pub struct PlaceParts {
    /// This store.
    pub store: StoreId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// How the cluster began: members of group 0, and its first rows.
    pub plan: BootstrapPlan,
    /// The node's groups, group 0 among them on a placement member.
    pub multi: MultiRaft,
    /// Clock, randomness and tasks.
    pub runtime: Arc<dyn Runtime>,
    /// Told of every timestamp.
    pub clock: Arc<HybridClock>,
    /// Where the other nodes are.
    pub addresses: Arc<AddressBook>,
    /// Connections to them.
    pub peers: Arc<PeerClients>,
    /// Registered by the caller.
    pub metrics: PlaceMetrics,
}

struct Inner {
    parts: PlaceParts,
    /// Present while this node leads placement.
    lead: Mutex<Option<Lead>>,
    /// Held while rows are changed: one change at a time.
    writing: tokio::sync::Mutex<()>,
    news: Notify,
    /// Members of group 0 as its leader last told.
    members: Mutex<Vec<StoreId>>,
    /// Store that said last that it leads placement; 0 for none.
    heard_leader: AtomicU64,
}

/// A node's share in placement. Cheap to clone.
#[derive(Clone)]
pub struct Place {
    inner: Arc<Inner>,
}

impl Place {
    /// Starts the host's task; it runs with the node.
    pub fn new(parts: PlaceParts) -> Self {
        let runtime = parts.runtime.clone();
        let members = Mutex::new(parts.plan.placement_members.clone());
        let place = Self {
            inner: Arc::new(Inner {
                parts,
                lead: Mutex::new(None),
                writing: tokio::sync::Mutex::new(()),
                news: Notify::new(),
                members,
                heard_leader: AtomicU64::new(0),
            }),
        };
        let weak = Arc::downgrade(&place.inner);
        runtime.spawn(Box::pin(async move {
            while let Some(inner) = weak.upgrade() {
                let place = Place { inner };
                place.tick().await;
                place.pause().await;
            }
        }));
        place
    }

    /// The leader of group 0 may have changed: look at once.
    pub fn leader_changed(&self) {
        self.inner.news.notify_one();
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.parts().cluster
    }

    pub(crate) fn parts(&self) -> &PlaceParts {
        &self.inner.parts
    }

    fn replica(&self) -> Option<Arc<Replica>> {
        self.parts().multi.replica(RangeId::PLACEMENT)
    }

    /// The local replica of group 0, if it has data.
    fn holder(&self) -> Option<Arc<Replica>> {
        self.replica().filter(|replica| replica.state() != ReplicaState::Uninitialised)
    }

    /// The stores that hold group 0, as far as is known here.
    pub(crate) fn members(&self) -> Vec<StoreId> {
        match self.holder() {
            Some(holder) => holder.descriptor().voters().map(|voter| voter.store).collect(),
            None => self.inner.members.lock().clone(),
        }
    }

    /// The leader of placement, `leader`, says who holds group 0.
    pub(crate) fn heard(&self, leader: StoreId, members: Vec<StoreId>) {
        self.inner.heard_leader.store(leader.get(), Ordering::Relaxed);
        if !members.is_empty() {
            *self.inner.members.lock() = members;
        }
    }

    /// The local replica of group 0 leads it.
    fn serves(&self) -> bool {
        self.replica().is_some_and(|replica| replica.leader().is_self)
    }

    async fn pause(&self) {
        use cribwork_types::RuntimeExt;
        let busy = |lead: &Lead| {
            !lead.running.is_empty() || !lead.moved.is_empty() || !lead.merges.is_empty()
        };
        let pause = match (self.serves(), self.inner.lead.lock().as_ref()) {
            (true, None) => TICK,
            (true, Some(lead)) if busy(lead) => TICK,
            _ => QUIET_TICK,
        };
        let _ = self.parts().runtime.timeout(pause, self.inner.news.notified()).await;
    }

    /// One look at everything that is due.
    async fn tick(&self) {
        if !self.serves() {
            if self.inner.lead.lock().take().is_some() {
                self.parts().metrics.leading.set(0);
                tracing::info!("this node does not lead placement any more");
            }
            return;
        }
        if self.inner.lead.lock().is_none() {
            if let Err(error) = self.take_over().await {
                tracing::warn!(%error, "cannot take over placement yet");
                return;
            }
            tracing::info!("this node leads placement");
        }
        if let Err(error) = self.renew_window().await {
            tracing::warn!(%error, "cannot extend the timestamp window");
        }
        self.drive_merges();
        self.schedule().await;
    }
}
