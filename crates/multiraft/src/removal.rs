//! Replicas that are members no longer.
//!
//! A removed replica learns of it by the entry that removes it, from the leader that removed it, from
//! any member that it asks for a vote, or from placement. What it is shown is the range's descriptor: it
//! is gone if that is of a later membership than its own and does not name it. Descriptors come from
//! applied state, so the removal is committed.
//!
//! Then its store forgets it, in ONE batch: data, log, vote, records. What stays, for ever, is the
//! *tombstone*: the highest replica id of the range that this store was rid of. No replica with such an
//! id is made again, so no id ever votes with its memory lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_engine::{Engine, EngineSnapshot};
use cribwork_transport::{Class, Message};
use cribwork_types::codec::Reader;
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{
    Cf, CodecError, RangeDescriptor, RangeId, ReplicaDescriptor, ReplicaId, StoreId, WriteBatch,
};
use tokio::sync::oneshot;

use crate::apply::Job;
use crate::error::RaftError;
use crate::keys;
use crate::node::{MultiRaft, NodeShared};
use crate::raft::kind;
use crate::records;
use crate::replica::Replica;
use crate::snapshot::parts;

#[cfg(test)]
mod fuzz;

/// The highest replica id of `range` that this store was rid of.
pub(crate) fn tombstone(
    engine: &dyn Engine,
    range: RangeId,
) -> Result<Option<ReplicaId>, RaftError> {
    let stored = engine.get(Cf::State, &keys::tombstone(range))?;
    Ok(stored.map(decode).transpose()?)
}

/// The highest replica id of each range that a store was rid of, in one view of it.
///
/// # Errors
/// [`RaftError::Engine`] or [`RaftError::Codec`] if the store cannot be read or a record is damaged.
pub fn tombstones(
    snapshot: &dyn EngineSnapshot,
) -> Result<BTreeMap<RangeId, ReplicaId>, RaftError> {
    let mut all = BTreeMap::new();
    let mut cursor = snapshot.cursor(Cf::State, &keys::all_tombstones());
    let mut found = cursor.seek_to_first()?;
    while found {
        let gone = decode(Bytes::copy_from_slice(cursor.value()))?;
        if let Some(range) = keys::state_range(cursor.key()) {
            all.insert(range, gone);
        }
        found = cursor.next()?;
    }
    Ok(all)
}

fn encode(id: ReplicaId) -> Bytes {
    let mut body = BytesMut::with_capacity(8);
    body.put_u64(id.get());
    records::seal(&body)
}

fn decode(bytes: Bytes) -> Result<ReplicaId, CodecError> {
    let mut reader: Reader = records::open("tombstone", bytes)?;
    let id = ReplicaId(reader.u64()?);
    reader.finish()?;
    Ok(id)
}

/// True if `now`, an applied state of the replica's range, says that the replica is no member any more.
fn is_gone(replica: &Replica, now: &RangeDescriptor) -> bool {
    let mine = replica.descriptor();
    now.id == mine.id
        && (now.epoch.conf_ver > mine.epoch.conf_ver || has(Bug::GoneByAny))
        && now.replica(replica.replica_id()).is_none()
}

/// Forgets a replica, in one batch. Called by the apply task only.
pub(crate) fn destroy(shared: &Arc<NodeShared>, replica: &Arc<Replica>) -> Result<(), RaftError> {
    let range = replica.range_id();
    if shared.replica(range).is_none_or(|current| !Arc::ptr_eq(&current, replica)) {
        return Ok(());
    }
    let descriptor = replica.descriptor();
    let mut batch = WriteBatch::new();
    if replica.is_initialised() && !has(Bug::RemovalLeavesData) {
        for (cf, span) in parts(&descriptor) {
            batch.delete_range(cf, span);
        }
    }
    bury(&mut batch, range, replica.replica_id());
    shared.engine.write(&batch)?;
    shared.forget(replica);
    replica.fates.lose(u64::MAX, "the replica was removed");
    shared.metrics.destroyed.inc();
    tracing::info!(%range, replica = %replica.replica_id(), "removed: forgotten here");
    Ok(())
}

/// Removes what the log of a range that a store was rid of still holds.
pub(crate) fn sweep(engine: &dyn Engine, range: RangeId) -> Result<(), RaftError> {
    let mut batch = WriteBatch::new();
    batch.delete_range(Cf::Raft, keys::whole_group(range));
    Ok(engine.write(&batch)?)
}

/// All that a store keeps of a replica but its data goes; its tombstone comes.
pub(crate) fn bury(batch: &mut WriteBatch, range: RangeId, id: ReplicaId) {
    if !has(Bug::RemovalLeavesLog) {
        batch.delete_range(Cf::Raft, keys::whole_group(range));
    }
    batch.delete(Cf::State, keys::applied(range));
    batch.delete(Cf::State, keys::replica(range));
    batch.put(Cf::State, keys::tombstone(range), encode(id));
}

impl Replica {
    /// Stops this replica and has its store forget it, in the background.
    pub(crate) fn remove(self: &Arc<Self>) {
        if has(Bug::RemovedStays) || self.removing.swap(true, Ordering::AcqRel) {
            return;
        }
        let replica = self.clone();
        self.shared().runtime.spawn(Box::pin(async move {
            if let Err(error) = replica.stop_and_forget().await {
                tracing::warn!(range = %replica.range_id(), %error, "cannot forget a replica");
                let absorbed = replica.absorbed_by.lock().is_some();
                replica.removing.store(absorbed, Ordering::Release);
            }
        }));
    }

    async fn stop_and_forget(self: &Arc<Self>) -> Result<(), RaftError> {
        self.close().await?;
        let (done, forgotten) = oneshot::channel();
        self.shared().submit_apply(Job::Destroy { replica: self.clone(), done }).await?;
        forgotten.await.map_err(|_| RaftError::Shutdown)?
    }

    /// Entries were applied that changed the range from what it was `before`. A member that they
    /// removed goes; a leader tells those that are sent nothing any more.
    pub(crate) fn members_changed(self: &Arc<Self>, before: &RangeDescriptor) {
        let now = self.descriptor();
        if now.replica(self.replica_id()).is_none() {
            return self.remove();
        }
        if !self.leader().is_self {
            return;
        }
        let removed = before.replicas.iter().filter(|member| now.replica(member.id).is_none());
        for ReplicaDescriptor { id, store, .. } in removed {
            self.shared().tell_gone(*store, *id, self.replica_id(), &now);
        }
    }

    /// A message came from somebody who is no member as far as this one knows. If that is because it
    /// was removed, it should hear of it.
    pub(crate) fn answer_stranger(&self, store: StoreId, stranger: ReplicaId) {
        let descriptor = self.descriptor();
        if self.is_initialised() && descriptor.replica(stranger).is_none() {
            self.shared().tell_gone(store, stranger, self.replica_id(), &descriptor);
        }
    }
}

impl NodeShared {
    fn tell_gone(&self, store: StoreId, id: ReplicaId, from: ReplicaId, now: &RangeDescriptor) {
        let message = Message {
            range: now.id,
            from,
            to: id,
            kind: kind::GONE,
            call: 0,
            payload: now.encode(),
        };
        self.send(store, Class::Control, message);
    }

    /// A replica of this store may be no member any more: `now` is an applied state of its range.
    /// True if so; it is on its way out then.
    pub(crate) fn check_gone(&self, now: &RangeDescriptor) -> bool {
        let Some(replica) = self.replica(now.id) else {
            return false;
        };
        let gone = is_gone(&replica, now) && !self.is_awaited(&replica);
        if gone {
            replica.remove();
        }
        gone
    }
}

impl MultiRaft {
    /// Tells the node what a range's leader has applied, as placement knows it. A replica of this
    /// store that is no member of it any more is removed. True if so.
    pub fn check_gone(&self, now: &RangeDescriptor) -> bool {
        self.shared.check_gone(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstones_round_trip_and_notice_damage() {
        let bytes = encode(ReplicaId(77));
        assert_eq!(decode(bytes.clone()).unwrap(), ReplicaId(77));
        let mut damaged = bytes.to_vec();
        damaged[9] ^= 1;
        assert!(decode(Bytes::from(damaged)).is_err());
    }
}
