//! For whom a request is: the checks of `kvrpcpb.Context`, in the order of TiKV.
//!
//! Store, range and replica are compared at once; leadership, term, epoch and keys only once a
//! snapshot is taken, against the descriptor that belongs to it. A request without a range (or for
//! range 0, which is the placement group and no part of the key space) finds no range; one without an
//! epoch has none that matches, and one without a peer is for no store.

use std::sync::Arc;

use cribwork_multiraft::{MultiRaft, Replica, ReplicaState};
use cribwork_mvcc::KeySpan;
use cribwork_proto::kvrpcpb::Context;
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{KeyRange, RangeDescriptor, RangeEpoch, RangeId, StoreId, key};

use crate::kv::failure::{self, Failure};

/// Most right neighbours named to a client whose epoch is old.
const NEIGHBOURS_MAX: u64 = 16;

/// A replica, and under which circumstances the request is for it.
pub(crate) struct Target {
    pub(crate) replica: Arc<Replica>,
    epoch: RangeEpoch,
    /// Zero: any.
    term: u64,
}

impl Target {
    /// Finds the replica that `context` names on this store.
    pub(crate) fn find(
        context: Option<&Context>,
        store: StoreId,
        find: impl FnOnce(RangeId) -> Option<Arc<Replica>>,
    ) -> Result<Self, Failure> {
        let Some(context) = context else {
            let message = "the request has no context".to_owned();
            return Err(failure::region_not_found(RangeId::default(), message));
        };
        let peer = context.peer.unwrap_or_default();
        if peer.store_id != store.get() {
            return Err(failure::store_not_match(peer.store_id, store.get()));
        }
        let range = RangeId(context.region_id);
        if range == RangeId::PLACEMENT {
            let message = "the request's context names no range".to_owned();
            return Err(failure::region_not_found(range, message));
        }
        let here = find(range).filter(|replica| replica.state() != ReplicaState::Uninitialised);
        let Some(replica) = here else {
            let message = format!("range {range} has no replica on store {store}");
            return Err(failure::region_not_found(range, message));
        };
        if peer.id != replica.replica_id().get() {
            return Err(failure::mismatch_peer_id(peer.id, replica.replica_id().get()));
        }
        let epoch = context.region_epoch.map(RangeEpoch::from).unwrap_or_default();
        Ok(Self { replica, epoch, term: context.term })
    }

    /// Checks term and epoch against those of a snapshot. Data hangs on bounds only, so only the
    /// version counts.
    pub(crate) fn check(
        &self,
        multi: &MultiRaft,
        term: u64,
        descriptor: &RangeDescriptor,
    ) -> Result<(), Failure> {
        if self.term != 0 && self.term != term {
            return Err(failure::stale_command(self.term, term));
        }
        self.check_version(multi, descriptor.epoch)
    }

    /// Checks that `epoch` stands for the bounds that the request was made for.
    pub(crate) fn check_version(
        &self,
        multi: &MultiRaft,
        epoch: RangeEpoch,
    ) -> Result<(), Failure> {
        match self.epoch.version == epoch.version || has(Bug::SkipRequestCheck) {
            true => Ok(()),
            false => Err(self.epoch_not_match(multi)),
        }
    }

    /// The range as it is now, and its right neighbours here: one for each split that the request
    /// missed, as far as they are known.
    pub(crate) fn epoch_not_match(&self, multi: &MultiRaft) -> Failure {
        let mut current = vec![self.replica.descriptor()];
        let missed = current[0].epoch.version.saturating_sub(self.epoch.version);
        for _ in 0..missed.min(NEIGHBOURS_MAX) {
            let end = current.last().map(|range| range.span.end.clone()).unwrap_or_default();
            if end.is_empty() {
                break;
            }
            let Some(next) = multi.replica_for_key(&end) else { break };
            current.push(next.descriptor());
        }
        let range = self.replica.range_id();
        failure::epoch_not_match(range, current.iter().map(|range| &**range))
    }
}

/// Checks that a plain key of the raw API lies in the range: its bytes are compared as they are.
pub(crate) fn raw_key(range: &RangeDescriptor, raw: &[u8]) -> Result<(), Failure> {
    match range.span.contains(raw) || has(Bug::SkipRequestCheck) {
        true => Ok(()),
        false => Err(failure::key_not_in_region(raw, range)),
    }
}

/// Checks that a plain key of a transaction lies in the range: its encoding is compared.
pub(crate) fn txn_key(range: &RangeDescriptor, plain: &[u8]) -> Result<(), Failure> {
    match range.span.contains(&key::encode(plain)) || has(Bug::SkipRequestCheck) {
        true => Ok(()),
        false => Err(failure::key_not_in_region(plain, range)),
    }
}

/// The part of an interval of raw keys that lies in the range.
pub(crate) fn raw_span(range: &RangeDescriptor, keys: &KeyRange) -> KeyRange {
    keys.intersection(&range.span)
}

/// The part of an interval of transactional keys (plain) that lies in the range.
pub(crate) fn txn_span(range: &RangeDescriptor, keys: &KeyRange) -> KeySpan {
    KeySpan::of(keys).clip(&range.span)
}

/// The interval that a scan asks for: a reverse one names its upper bound first.
pub(crate) fn scanned(start: bytes::Bytes, end: bytes::Bytes, reverse: bool) -> KeyRange {
    match reverse {
        false => KeyRange { start, end },
        true => KeyRange { start: end, end: start },
    }
}
