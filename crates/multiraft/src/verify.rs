//! Fingerprints of running replicas, all at one entry of the log.
//!
//! The leader proposes an entry that asks for a fingerprint. Each replica, when it applies that entry, ends
//! its round there, takes an engine snapshot, and sums up what it holds in the background. So the sums are of
//! the same moment in the life of the range, whenever each store gets to it, and are equal unless replicas
//! differ. (TiKV's consistency check and CockroachDB's work the same way.)

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cribwork_engine::EngineSnapshot;
use cribwork_types::{Cf, RangeDescriptor, RangeId, ReplicaId, RuntimeExt};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::command::{Body, Command};
use crate::error::RaftError;
use crate::fate::Fate;
use crate::fingerprint::RowSum;
use crate::node::{MultiRaft, NodeShared};
use crate::replica::Replica;
use crate::snapshot::parts;

/// Fingerprints that a node keeps; older ones are forgotten.
const KEPT_MAX: usize = 1024;
/// Fingerprints that a node works on at once: each holds an engine snapshot.
const RUNNING_MAX: usize = 8;
/// Rows, and bytes, after which a sum lets other work go on.
const ROWS_AT_ONCE: usize = 512;
const BYTES_AT_ONCE: usize = 256 << 10;
/// Pause between two looks at how far a replica has applied.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What one replica held behind one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilySums {
    /// The replica.
    pub replica: ReplicaId,
    /// For each column family of the range: CRC-32C over every key and value, and their number in the
    /// upper half.
    pub sums: Vec<(Cf, u64)>,
}

#[derive(Clone, Debug)]
enum Slot {
    Running,
    Done(FamilySums),
    Failed(String),
}

/// The fingerprints that this node took lately.
#[derive(Default)]
pub(crate) struct Verifier {
    /// By range and index, oldest first.
    kept: Mutex<VecDeque<((RangeId, u64), Slot)>>,
    running: AtomicUsize,
    changed: Notify,
}

impl Verifier {
    /// The entry at `index` is about to be applied, and asks for a fingerprint.
    pub(crate) fn expect(&self, range: RangeId, index: u64) {
        let mut kept = self.kept.lock();
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(((range, index), Slot::Running));
    }

    fn settle(&self, range: RangeId, index: u64, slot: Slot) {
        let mut kept = self.kept.lock();
        if let Some((_, old)) = kept.iter_mut().rev().find(|(at, _)| *at == (range, index)) {
            *old = slot;
        }
        drop(kept);
        self.changed.notify_waiters();
    }

    fn get(&self, range: RangeId, index: u64) -> Option<Slot> {
        let kept = self.kept.lock();
        kept.iter().rev().find(|(at, _)| *at == (range, index)).map(|(_, slot)| slot.clone())
    }
}

impl NodeShared {
    /// Sums up, in the background, what the store holds of a range now. Called by the apply task, with
    /// everything up to `index` written and nothing behind it.
    pub(crate) fn take_fingerprint(self: &Arc<Self>, replica: &Arc<Replica>, index: u64) {
        let range = replica.range_id();
        if self.verifier.running.fetch_add(1, Ordering::AcqRel) >= RUNNING_MAX {
            self.verifier.running.fetch_sub(1, Ordering::AcqRel);
            let why = "too many fingerprints are being taken".to_owned();
            return self.verifier.settle(range, index, Slot::Failed(why));
        }
        let (shared, snapshot) = (self.clone(), self.engine.snapshot());
        let (descriptor, id) = (replica.descriptor(), replica.replica_id());
        self.runtime.spawn(Box::pin(async move {
            let slot = match sums(&*snapshot, &descriptor).await {
                Ok(sums) => Slot::Done(FamilySums { replica: id, sums }),
                Err(error) => Slot::Failed(error.to_string()),
            };
            drop(snapshot);
            shared.verifier.running.fetch_sub(1, Ordering::AcqRel);
            shared.verifier.settle(range, index, slot);
        }));
    }
}

async fn sums(
    snapshot: &dyn EngineSnapshot,
    descriptor: &RangeDescriptor,
) -> Result<Vec<(Cf, u64)>, RaftError> {
    let mut all = Vec::new();
    for (cf, span) in parts(descriptor) {
        let mut sum = RowSum::default();
        let mut cursor = snapshot.cursor(cf, &span);
        let (mut found, mut rows, mut bytes) = (cursor.seek_to_first()?, 0, 0);
        while found {
            sum.row(cursor.key(), cursor.value());
            (rows, bytes) = (rows + 1, bytes + cursor.key().len() + cursor.value().len());
            if rows >= ROWS_AT_ONCE || bytes >= BYTES_AT_ONCE {
                (rows, bytes) = (0, 0);
                tokio::task::yield_now().await;
            }
            found = cursor.next()?;
        }
        all.push((cf, sum.value()));
    }
    Ok(all)
}

impl Replica {
    /// Has every replica of this range take its fingerprint behind one entry, which this leader proposes;
    /// the entry's index. [`MultiRaft::fingerprint_at`] gives what came of it on each store.
    ///
    /// # Errors
    /// As [`Replica::propose`].
    pub async fn ask_for_fingerprints(self: &Arc<Self>) -> Result<u64, RaftError> {
        let evaluated = self.token().await?.evaluated();
        let command = Command { evaluated, body: Body::Fingerprint };
        match self.propose_command(command).await? {
            Fate::Applied(applied) => Ok(applied.index),
            fate => Err(self.failure(fate)),
        }
    }
}

impl MultiRaft {
    /// What this store's replica of `range` held behind the entry at `index`, which asked for it. Waits
    /// until that is known, at most for `limit`.
    ///
    /// # Errors
    /// [`RaftError::RangeNotFound`]; [`RaftError::Refused`] with the reason if there is none: the replica
    /// got past the entry by a snapshot or in an earlier life, is too far behind, or could not read.
    pub async fn fingerprint_at(
        &self,
        range: RangeId,
        index: u64,
        limit: Duration,
    ) -> Result<FamilySums, RaftError> {
        let shared = &self.shared;
        let refused = |why: &str| Err(RaftError::Refused { range, why: why.to_owned() });
        let deadline = shared.runtime.now() + limit;
        loop {
            let changed = shared.verifier.changed.notified();
            let missing = RaftError::RangeNotFound { range, store: shared.options.store };
            let applied = self.replica(range).ok_or(missing)?.applied_index();
            match shared.verifier.get(range, index) {
                Some(Slot::Done(sums)) => return Ok(sums),
                Some(Slot::Failed(why)) => return refused(&why),
                None if applied >= index => return refused("it took no fingerprint at that entry"),
                _ if shared.runtime.now() >= deadline => {
                    return refused("its fingerprint is not ready in time");
                }
                _ => {}
            }
            // Whoever gets past the entry by a snapshot tells nobody.
            let _ = shared.runtime.timeout(LOOK_PAUSE, changed).await;
        }
    }
}
