//! The channels to stores: opened once, shared by all callers, dropped when they fail.

use std::sync::Arc;
use std::time::Duration;

use cribwork_types::StoreId;
use dashmap::DashMap;
use tokio::sync::OnceCell;

use crate::channel::StoreChannel;

/// How long a store that failed is not asked while another replica may know more. Followers go on
/// naming a dead leader until they have elected another one.
const SUSPECT_FOR: Duration = Duration::from_secs(1);

/// One store's channel, opened by whoever needs it first.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) channel: OnceCell<Arc<dyn StoreChannel>>,
}

/// Channels by store. As many entries as the cluster has stores.
#[derive(Default)]
pub(crate) struct Stores {
    slots: DashMap<StoreId, Arc<Slot>>,
    /// When the suspicion ends, on the clock of the runtime.
    suspects: DashMap<StoreId, Duration>,
}

impl Stores {
    pub(crate) fn slot(&self, store: StoreId) -> Arc<Slot> {
        if let Some(slot) = self.slots.get(&store) {
            return slot.clone();
        }
        self.slots.entry(store).or_default().clone()
    }

    /// Drops a channel that failed; false if somebody else did already.
    pub(crate) fn fail(&self, store: StoreId, slot: &Arc<Slot>, now: Duration) -> bool {
        let removed = self.slots.remove_if(&store, |_, current| Arc::ptr_eq(current, slot));
        if removed.is_some() {
            self.suspects.insert(store, now + SUSPECT_FOR);
        }
        removed.is_some()
    }

    pub(crate) fn is_suspect(&self, store: StoreId, now: Duration) -> bool {
        self.suspects.get(&store).is_some_and(|until| *until > now)
    }
}
