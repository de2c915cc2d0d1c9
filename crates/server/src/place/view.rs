//! Looking things up in the leader's tables.

use std::sync::Arc;

use cribwork_placement::StoreState;
use cribwork_router::RangeEntry;
use cribwork_types::{KeyRange, RangeDescriptor, RangeId, ReplicaDescriptor, StoreId, key};

use super::Place;
use super::lead::Lead;
use crate::{ServerError, StoreInfo};

/// For how long the same voter is named for a range without a leader, seconds.
const HEIR_TURN_S: u64 = 2;

/// A range as the directory knows it.
#[derive(Clone, Debug)]
pub(crate) struct RangeRow {
    pub(crate) descriptor: Arc<RangeDescriptor>,
    /// On a live store, or none.
    pub(crate) leader: Option<ReplicaDescriptor>,
    /// Without a leader: a voter on a live store, which campaigns first for whom somebody asks.
    pub(crate) heir: Option<ReplicaDescriptor>,
    pub(crate) size_bytes: u64,
    /// Members on stores that are down, and members that there should be.
    pub(crate) missing: usize,
}

impl RangeRow {
    /// The word shown to people and scripts.
    pub(crate) fn state(&self) -> &'static str {
        match (self.leader, self.missing) {
            (None, _) => "leaderless",
            (Some(_), 0) => "ok",
            (Some(_), _) => "under_replicated",
        }
    }
}

/// A store as the registry knows it.
#[derive(Clone, Debug)]
pub(crate) struct StoreRow {
    pub(crate) info: StoreInfo,
    /// It was heard of a moment ago.
    pub(crate) is_live: bool,
    pub(crate) leaders: u64,
    pub(crate) replicas: u64,
    pub(crate) used_bytes: u64,
    pub(crate) capacity_bytes: u64,
}

fn row(lead: &Lead, entry: &RangeEntry, now: std::time::Duration) -> RangeRow {
    let up = |store| lead.hears(store, now);
    let descriptor = entry.descriptor.clone();
    let silent = descriptor.replicas.iter().filter(|replica| !up(replica.store)).count();
    let missing = silent + lead.lacking(descriptor.voters().count());
    let size_bytes = lead.sizes.get(&descriptor.id).copied().unwrap_or_default();
    let leader = entry.leader.filter(|leader| up(leader.store));
    let heir = match leader {
        Some(_) => None,
        // In turns: one may be unable to win.
        None => {
            let live: Vec<_> = descriptor.voters().filter(|it| up(it.store)).collect();
            let turn = (now.as_secs() / HEIR_TURN_S) as usize % live.len().max(1);
            live.get(turn).copied()
        }
    };
    RangeRow { descriptor, leader, heir, size_bytes, missing }
}

impl Lead {
    /// How many voters a range lacks that has `voters`; no more are wanted than there are stores.
    fn lacking(&self, voters: usize) -> usize {
        let gone = |info: &&StoreInfo| info.state != StoreState::Decommissioned;
        let stores = self.stores.values().filter(gone).count();
        self.settings.policy().replication_factor.get().min(stores).saturating_sub(voters)
    }
}

impl Place {
    fn look<T>(
        &self,
        find: impl FnOnce(&Lead, std::time::Duration) -> T,
    ) -> Result<T, ServerError> {
        let now = self.parts().runtime.now();
        self.with_lead(|lead| find(lead, now))
    }

    /// The range that holds an encoded key (the first one for the empty key).
    ///
    /// # Errors
    /// [`ServerError::DirectoryGap`] for a moment while the range is split.
    pub(crate) fn range_of(&self, encoded_key: &[u8]) -> Result<RangeRow, ServerError> {
        let find = |lead: &Lead, now| {
            lead.directory.map().get(encoded_key).map(|entry| row(lead, entry, now))
        };
        self.look(find)?.ok_or(ServerError::DirectoryGap)
    }

    /// The range before the one that holds a key.
    pub(crate) fn range_before(&self, encoded_key: &[u8]) -> Result<Option<RangeRow>, ServerError> {
        self.look(|lead, now| {
            lead.directory.map().previous(encoded_key).map(|entry| row(lead, entry, now))
        })
    }

    /// The range with this id.
    pub(crate) fn range_by_id(&self, id: RangeId) -> Result<Option<RangeRow>, ServerError> {
        self.look(|lead, now| lead.directory.map().get_by_id(id).map(|entry| row(lead, entry, now)))
    }

    /// Ranges that overlap `span`, in key order, at most `limit`.
    pub(crate) fn ranges(
        &self,
        span: &KeyRange,
        limit: usize,
    ) -> Result<Vec<RangeRow>, ServerError> {
        self.look(|lead, now| {
            let entries = lead.directory.map().scan(span, limit);
            entries.map(|entry| row(lead, entry, now)).collect()
        })
    }

    /// Ranges of the whole key space.
    pub(crate) fn all_ranges(&self) -> Result<Vec<RangeRow>, ServerError> {
        self.ranges(&KeyRange::all(), usize::MAX)
    }

    /// All stores, by id.
    pub(crate) fn stores(&self) -> Result<Vec<StoreRow>, ServerError> {
        self.look(|lead, now| {
            let mut led = std::collections::BTreeMap::<StoreId, u64>::new();
            for entry in lead.directory.map().iter() {
                if let Some(leader) = row(lead, entry, now).leader {
                    *led.entry(leader.store).or_default() += 1;
                }
            }
            let store = |info: &StoreInfo| {
                let heard = lead.heard.get(&info.id).copied().unwrap_or_default();
                let info = StoreInfo { state: lead.state(info.id, now), ..info.clone() };
                StoreRow {
                    is_live: lead.hears(info.id, now),
                    leaders: led.get(&info.id).copied().unwrap_or_default(),
                    replicas: heard.replicas,
                    used_bytes: heard.used_bytes,
                    capacity_bytes: heard.capacity_bytes,
                    info,
                }
            };
            lead.stores.values().map(store).collect()
        })
    }

    /// Operators under way, and the physical part of the newest timestamp.
    pub(crate) fn running(&self) -> Result<(u64, u64), ServerError> {
        self.look(|lead, _| (lead.running.len() as u64, lead.tso.physical_ms()))
    }

    /// The garbage collection safe point.
    pub(crate) fn safe_point(&self) -> Result<u64, ServerError> {
        self.look(|lead, _| lead.safe_point)
    }
}

/// The encoded form of a user's key.
pub(crate) fn encoded(user_key: &[u8]) -> bytes::Bytes {
    bytes::Bytes::from(key::encode(user_key))
}
