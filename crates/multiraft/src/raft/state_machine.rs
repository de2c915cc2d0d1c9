//! The node's apply task as openraft's state machine: collects committed entries and hands them
//! over, so that ONE engine write serves all groups.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use cribwork_types::seeded::{Bug, has};
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{AsyncRuntime, OptionalSend, RaftSnapshotBuilder};

use super::types::{
    self, CommittedLeaderId, LogId, Nothing, OnStore, RaftSnapshotMeta, RaftStoredMembership, Types,
};
use crate::apply::Committed;
use crate::records::AppliedRecord;
use crate::replica::Replica;
use crate::snapshot::RangeSnapshot;

pub(super) type RaftSnapshot = Snapshot<CommittedLeaderId, u64, OnStore, RangeSnapshot>;

pub(super) struct StateMachine<A> {
    replica: Arc<Replica>,
    runtime: PhantomData<fn() -> A>,
}

impl<A> StateMachine<A> {
    pub(super) fn new(replica: Arc<Replica>) -> Self {
        Self { replica, runtime: PhantomData }
    }

    /// The newest snapshot is always "now": it costs a metadata read, so it is made when asked for.
    fn snapshot(&self) -> io::Result<Option<RaftSnapshot>> {
        let Some((applied, data)) = self.replica.take_snapshot().map_err(io::Error::other)? else {
            return Ok(None);
        };
        Ok(Some(Snapshot { meta: meta(&applied), snapshot: data }))
    }
}

pub(super) fn stored_membership(applied: &AppliedRecord) -> RaftStoredMembership {
    match applied.members_at {
        None => RaftStoredMembership::default(),
        Some(at) => {
            RaftStoredMembership::new(Some(types::log_id(at)), types::membership(&applied.members))
        }
    }
}

fn meta(applied: &AppliedRecord) -> RaftSnapshotMeta {
    RaftSnapshotMeta {
        last_log_id: applied.position.map(types::log_id),
        last_membership: stored_membership(applied),
    }
}

/// The applied record that a snapshot with this metadata leaves behind.
pub(super) fn applied_record(meta: &RaftSnapshotMeta) -> AppliedRecord {
    AppliedRecord {
        position: meta.last_log_id.as_ref().map(types::position),
        members_at: meta.last_membership.log_id().as_ref().map(types::position),
        members: types::members(meta.last_membership.membership()),
        // Comes with the snapshot itself.
        merging: None,
    }
}

impl<A: AsyncRuntime> RaftSnapshotBuilder<Types<A>> for StateMachine<A> {
    type SnapshotData = RangeSnapshot;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        self.snapshot()?.ok_or_else(|| io::Error::other("nothing is applied yet"))
    }
}

impl<A: AsyncRuntime> RaftStateMachine<Types<A>> for StateMachine<A> {
    type SnapshotData = RangeSnapshot;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, RaftStoredMembership)> {
        let applied = self.replica.applied_record();
        Ok((applied.position.map(types::log_id), stored_membership(&applied)))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types<A>>>> + Unpin + OptionalSend,
    {
        let (mut committed, mut responders) = (Vec::new(), Vec::new());
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            committed.push(Committed {
                position: types::position(&entry.log_id),
                payload: types::payload(&entry.payload),
            });
            responders.extend(responder);
        }
        self.replica.apply(committed).await.map_err(io::Error::other)?;
        for responder in responders {
            responder.send(Nothing);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        Self::new(self.replica.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &RaftSnapshotMeta,
        snapshot: RangeSnapshot,
    ) -> io::Result<()> {
        self.replica.install(applied_record(meta), snapshot).await.map_err(io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        if has(Bug::SnapshotMissing) {
            return Ok(None);
        }
        self.snapshot()
    }
}
