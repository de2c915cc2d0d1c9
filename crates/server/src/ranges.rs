//! What the key-value service and other nodes ask of local ranges: splits, transfers of leadership
//! and changes of members, with ids and timestamps from placement.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cribwork_multiraft::{MergePart, MultiRaft, NewRange, RaftError, Replica, ReplicaChange};
use cribwork_placement::IdKind;
use cribwork_proto::cribwork::admin::{MergeStepKind, MergeStepRequest};
use cribwork_types::{
    RangeDescriptor, RangeEpoch, RangeId, ReplicaId, Runtime, StoreId, Timestamp,
};

use crate::ServerError;
use crate::kv::RangeOps;
use crate::place::Place;

/// Times that a split is tried while the range changes under it.
const SPLIT_ATTEMPTS: u32 = 5;
/// Pause between two of them.
const SPLIT_PAUSE: Duration = Duration::from_millis(20);

/// The ranges of this store.
pub(crate) struct LocalRanges {
    store: StoreId,
    multi: MultiRaft,
    place: Place,
    runtime: Arc<dyn Runtime>,
}

impl LocalRanges {
    pub(crate) fn new(
        store: StoreId,
        multi: MultiRaft,
        place: Place,
        runtime: Arc<dyn Runtime>,
    ) -> Arc<Self> {
        Arc::new(Self { store, multi, place, runtime })
    }

    /// A replica of a range that people may name.
    pub(crate) fn replica(&self, range: RangeId) -> Result<Arc<Replica>, ServerError> {
        let missing = RaftError::RangeNotFound { range, store: self.store };
        // The placement group is no range: nobody splits or moves it by name.
        let found = self.multi.replica(range).filter(|_| range != RangeId::PLACEMENT);
        found.ok_or(ServerError::Raft(missing))
    }

    /// Splits as [`RangeOps::split_here`], if the range still has `epoch`.
    pub(crate) async fn split_at_epoch(
        &self,
        range: RangeId,
        epoch: RangeEpoch,
        bound: Bytes,
    ) -> Result<(RangeDescriptor, RangeDescriptor), ServerError> {
        let current = self.replica(range)?.descriptor();
        if current.epoch != epoch {
            let error = RaftError::EpochChanged {
                range,
                epoch: current.epoch,
                current: vec![(*current).clone()],
            };
            return Err(error.into());
        }
        self.split_here(range, bound).await
    }

    /// A replica of a range, or of the placement group, which only placement itself changes.
    fn group(&self, range: RangeId) -> Result<Arc<Replica>, ServerError> {
        let missing = RaftError::RangeNotFound { range, store: self.store };
        self.multi.replica(range).ok_or(ServerError::Raft(missing))
    }

    /// Hands the leadership of a range to the replica on `to`.
    pub(crate) async fn transfer_leader(
        &self,
        range: RangeId,
        to: StoreId,
    ) -> Result<(), ServerError> {
        Ok(self.group(range)?.transfer_leader(to).await?)
    }

    /// Changes the members of a range that this store leads; the range afterwards.
    pub(crate) async fn change_replicas(
        &self,
        range: RangeId,
        change: ReplicaChange,
    ) -> Result<Arc<RangeDescriptor>, ServerError> {
        Ok(self.group(range)?.change_replicas(change).await?)
    }

    /// Does what a range, or this store, is asked for a merge; the range afterwards.
    pub(crate) async fn merge_step(
        &self,
        step: MergeStepRequest,
    ) -> Result<Arc<RangeDescriptor>, ServerError> {
        let replica = self.replica(RangeId(step.range_id))?;
        let planned = RangeEpoch { conf_ver: step.conf_ver, version: step.version };
        let (merge, with) = (step.merge, RangeId(step.with_range));
        let part = MergePart { merge, planned, with, with_version: step.with_version };
        match step.kind() {
            MergeStepKind::Freeze => return Ok(replica.freeze(part).await?),
            MergeStepKind::Pin => return Ok(replica.pin(part).await?),
            MergeStepKind::Ready => replica.has_promised(merge).await?,
            MergeStepKind::Absorb => {
                let right = RangeDescriptor::decode(step.right)?;
                return Ok(replica.absorb(merge, planned, right).await?);
            }
            MergeStepKind::Abandon => replica.abandon_merge(merge, planned).await?,
            MergeStepKind::Unspecified => {
                return Err(ServerError::Invalid("no step of a merge".to_owned()));
            }
        }
        Ok(replica.descriptor())
    }

    async fn try_split(
        &self,
        replica: &Arc<Replica>,
        bound: Bytes,
    ) -> Result<(RangeDescriptor, RangeDescriptor), ServerError> {
        // First, so that a store that does not lead takes no ids.
        let token = replica.token().await?;
        let stores: Vec<StoreId> =
            replica.descriptor().replicas.iter().map(|replica| replica.store).collect();
        let id = RangeId(self.place.alloc_ids(IdKind::Range, 1).await?);
        let first = self.place.alloc_ids(IdKind::Replica, stores.len() as u32).await?;
        let replicas = stores.into_iter().zip((first..).map(ReplicaId)).collect();
        Ok(replica.split(&token, bound, NewRange { id, replicas }).await?)
    }
}

#[async_trait]
impl RangeOps for LocalRanges {
    async fn split_here(
        &self,
        range: RangeId,
        bound: Bytes,
    ) -> Result<(RangeDescriptor, RangeDescriptor), ServerError> {
        let replica = self.replica(range)?;
        let mut attempt = 1;
        loop {
            match self.try_split(&replica, bound.clone()).await {
                // Another split or a new term came in between. Ids once taken are not used again.
                Err(ServerError::Raft(RaftError::EpochChanged { .. } | RaftError::Busy { .. }))
                    if attempt < SPLIT_ATTEMPTS && replica.descriptor().span.contains(&bound) =>
                {
                    attempt += 1;
                    self.runtime.sleep(SPLIT_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn tso(&self, count: u32) -> Result<Timestamp, ServerError> {
        self.place.tso(count).await
    }
}
