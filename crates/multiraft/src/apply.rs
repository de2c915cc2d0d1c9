//! The node's apply task: takes committed entries of all groups and writes them with one engine
//! write a round.
//!
//! Invariants:
//! * an entry's data, its applied index and the range's new state are in one batch, so that after a
//!   crash a replica is exactly at some applied index;
//! * applying reads no clock, no randomness and no configuration: same log, same bytes;
//! * a command takes effect only under the epoch and the leader it was evaluated under.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cribwork_engine::Engine;
use cribwork_types::quirk::{Quirk, strikes};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{Cf, Mutation, RangeDescriptor, RangeId, ReplicaId, StoreId, WriteBatch};
use tokio::sync::{mpsc, oneshot};

use crate::command::{Command, decode_payload};
use crate::effect::{Effect, RangeState, SplitEffect};
use crate::error::RaftError;
use crate::fate::{Applied, Fate};
use crate::keys;
use crate::merge;
use crate::node::NodeShared;
use crate::options::APPLY_ROUND_BYTES_MAX;
use crate::position::Position;
use crate::records::{AppliedRecord, Payload, ReplicaRecord};
use crate::removal;
use crate::replica::Replica;
use crate::seed::{Beginning, Seed, put_record};
use crate::snapshot::{self, RangeSnapshot};

/// One committed entry.
pub(crate) struct Committed {
    pub(crate) position: Position,
    pub(crate) payload: Payload,
}

type Done = oneshot::Sender<Result<(), RaftError>>;

pub(crate) enum Job {
    Entries {
        replica: Arc<Replica>,
        entries: Vec<Committed>,
        done: Done,
    },
    Install {
        replica: Arc<Replica>,
        applied: AppliedRecord,
        snapshot: Box<RangeSnapshot>,
        done: Done,
    },
    /// A range was introduced that this store should hold a replica of, named by its id.
    Introduced {
        descriptor: RangeDescriptor,
        id: ReplicaId,
        /// Who introduced it.
        by: (StoreId, ReplicaId),
    },
    /// The replica is no member any more, and its instance is closed.
    Destroy {
        replica: Arc<Replica>,
        done: Done,
    },
    /// The node stops: nothing comes after this.
    Stop,
    /// Everything queued earlier is applied.
    Barrier {
        done: Done,
    },
}

/// What a round will publish once its batch is written.
struct Prepared {
    replica: Arc<Replica>,
    applied: AppliedRecord,
    descriptor: Option<RangeDescriptor>,
    children: Vec<Child>,
    fates: Vec<(u64, Vec<Fate>)>,
    /// Newest term among the entries.
    term: u64,
    entries: u64,
    /// Index of an entry that asks for a fingerprint, the last one of these.
    fingerprint: Option<u64>,
    /// The replica whose range the last one of these has absorbed.
    absorbed: Option<Arc<Replica>>,
    /// None if more entries of the same job follow.
    done: Option<Done>,
}

/// A range that a split made on this store.
struct Child {
    seed: Seed,
    applied: AppliedRecord,
    /// The term in which its parent's leader, if that is here, may start it as leader.
    leads_in: Option<u64>,
}

/// Runs until the queue closes.
pub(crate) async fn run(shared: Arc<NodeShared>, mut jobs: mpsc::Receiver<Job>) {
    let mut round = Vec::new();
    while let Some(first) = jobs.recv().await {
        // One turn for the other groups to hand over theirs: fewer, larger writes.
        tokio::task::yield_now().await;
        round.push(first);
        let mut bytes = 0;
        while bytes < APPLY_ROUND_BYTES_MAX
            && !strikes(Quirk::SmallApplyRound)
            && let Ok(job) = jobs.try_recv()
        {
            bytes += size_bytes(&job);
            round.push(job);
        }
        let stop = round.iter().any(|job| matches!(job, Job::Stop));
        apply_round(&shared, round.drain(..));
        if stop {
            return;
        }
    }
}

fn size_bytes(job: &Job) -> usize {
    match job {
        Job::Entries { entries, .. } => commands_bytes(entries),
        _ => 0,
    }
}

fn commands_bytes(entries: &[Committed]) -> usize {
    let bytes = |entry: &Committed| match &entry.payload {
        Payload::Commands(bytes) => bytes.len(),
        _ => 0,
    };
    entries.iter().map(bytes).sum()
}

fn apply_round(shared: &Arc<NodeShared>, round: impl Iterator<Item = Job>) {
    let mut batch = WriteBatch::new();
    let (mut prepared, mut barriers) = (Vec::new(), Vec::new());
    for job in round {
        match job {
            Job::Entries { replica, entries, done } => {
                apply_entries(shared, &replica, entries, done, &mut batch, &mut prepared);
            }
            Job::Barrier { done } => barriers.push(done),
            Job::Stop => {}
            Job::Introduced { descriptor, id, by } => {
                // What came before it may make this very range.
                let _ = write(shared, std::mem::take(&mut batch), std::mem::take(&mut prepared));
                shared.make_uninitialised(&descriptor, id, by);
            }
            Job::Destroy { replica, done } => {
                let _ = write(shared, std::mem::take(&mut batch), std::mem::take(&mut prepared));
                let _ = done.send(removal::destroy(shared, &replica));
            }
            Job::Install { replica, applied, snapshot, done } => {
                // A snapshot replaces state: what came before it is written first.
                let _ = write(shared, std::mem::take(&mut batch), std::mem::take(&mut prepared));
                let _ = done.send(snapshot::install(shared, &replica, applied, *snapshot));
            }
        }
    }
    let _ = write(shared, batch, prepared);
    for done in barriers {
        let _ = done.send(Ok(()));
    }
}

/// Adds entries to the round. An entry that asks for a fingerprint ends it, so that the store holds what
/// that entry has before it, and nothing more; so does one that ends another range, of which nothing may
/// be written behind it.
fn apply_entries(
    shared: &Arc<NodeShared>,
    replica: &Arc<Replica>,
    mut entries: Vec<Committed>,
    done: Done,
    batch: &mut WriteBatch,
    prepared: &mut Vec<Prepared>,
) {
    if replica.absorbed_by.lock().is_some() {
        // Its range was absorbed by its neighbour, and its instance is about to be closed.
        let _ = done.send(Ok(()));
        return;
    }
    if has(Bug::ApplyOutOfOrder) {
        entries.reverse();
    }
    replica.written.fetch_add(commands_bytes(&entries) as u64, Ordering::Relaxed);
    let (mut entries, mut done) = (entries.into_iter(), Some(done));
    while done.is_some() {
        let mut ready = match prepare(shared, replica.clone(), &mut entries, batch) {
            Ok(ready) => ready,
            Err(error) => {
                done.map(|done| done.send(Err(error)));
                return;
            }
        };
        if entries.len() == 0 {
            ready.done = done.take();
        }
        let (asked, absorbs) = (ready.fingerprint, ready.absorbed.is_some());
        prepared.push(ready);
        if let Some(index) = asked {
            shared.verifier.expect(replica.range_id(), index);
        }
        if (asked.is_some() || absorbs)
            && let Err(error) = write(shared, std::mem::take(batch), std::mem::take(prepared))
        {
            done.map(|done| done.send(Err(error)));
            return;
        }
        if let Some(index) = asked {
            shared.take_fingerprint(replica, index);
        }
    }
}

/// Writes a round and tells everybody of it; the error went to those who wait for the round already.
fn write(
    shared: &Arc<NodeShared>,
    batch: WriteBatch,
    prepared: Vec<Prepared>,
) -> Result<(), RaftError> {
    if prepared.is_empty() {
        return Ok(());
    }
    shared.metrics.apply_rounds.inc();
    if let Err(error) = shared.engine.write(&batch) {
        tracing::error!(%error, "cannot apply: this node stops serving");
        let failed = RaftError::Engine(error.to_string());
        for ready in prepared {
            ready.done.map(|done| done.send(Err(failed.clone())));
        }
        return Err(failed);
    }
    for ready in prepared {
        publish(shared, ready);
    }
    Ok(())
}

/// Shows the world what was written: first state, then callers.
fn publish(shared: &Arc<NodeShared>, ready: Prepared) {
    let Prepared { replica, applied, descriptor, children, fates, term, entries, .. } = ready;
    let (absorbed, done) = (ready.absorbed, ready.done);
    shared.metrics.applied_entries.inc_by(entries);
    if let Some(descriptor) = descriptor {
        let before = replica.descriptor();
        let target = replica.range_id();
        absorbed.iter().for_each(|source| merge::let_go(shared, source, target));
        // The placement group covers no keys, and the map takes in nothing without.
        shared.map.write().insert(Arc::new(descriptor.clone()));
        replica.publish(applied, Some(descriptor));
        shared.observer.range_changed(replica.descriptor());
        replica.members_changed(&before);
        if let Some(source) = absorbed {
            // What was proposed behind the freeze and has no fate yet had no effect: nothing has, there.
            let now = replica.descriptor().as_ref().clone();
            source.end_absorbed(Fate::StaleEpoch(Box::new(now)));
        }
    } else {
        replica.publish(applied, None);
    }
    for child in children {
        let Child { seed, applied, leads_in } = child;
        let leads = leads_in.is_some_and(|term| replica.leader().term == term);
        let follows = (seed.leader != seed.record.id)
            .then(|| replica.leader_incarnation(seed.term))
            .flatten();
        let begin = match (leads, follows) {
            (true, _) => Beginning::Lead,
            (false, Some(life)) => Beginning::Follow(Some(life)),
            (false, None) => Beginning::Wait,
        };
        shared.add_replica(&seed, applied, begin);
    }
    for (number, fates) in fates {
        replica.fates.decide(number, fates);
    }
    replica.fates.supersede(term);
    done.map(|done| done.send(Ok(())));
}

/// State of one replica while a run of its entries is worked through.
struct Working<'a> {
    shared: &'a NodeShared,
    replica: &'a Arc<Replica>,
    state: RangeState,
    changed: bool,
    children: Vec<Child>,
    fates: Vec<(u64, Vec<Fate>)>,
    fingerprint: Option<u64>,
    absorbed: Option<Arc<Replica>>,
}

/// Works entries into `batch`, up to one that asks for a fingerprint or absorbs another range.
fn prepare(
    shared: &NodeShared,
    replica: Arc<Replica>,
    entries: &mut impl Iterator<Item = Committed>,
    batch: &mut WriteBatch,
) -> Result<Prepared, RaftError> {
    let mut working = Working {
        shared,
        replica: &replica,
        state: RangeState { descriptor: replica.descriptor(), applied: replica.applied_record() },
        changed: false,
        children: Vec::new(),
        fates: Vec::new(),
        fingerprint: None,
        absorbed: None,
    };
    let (mut term, mut count) = (0, 0);
    let mark = batch.mutations.len();
    while (working.fingerprint.is_none() || has(Bug::FingerprintLate))
        && working.absorbed.is_none()
        && let Some(entry) = entries.next()
    {
        term = term.max(entry.position.term);
        count += 1;
        if let Err(error) = working.entry(entry, batch) {
            // Nothing of a run that cannot be understood may take effect.
            batch.mutations.truncate(mark);
            return Err(error);
        }
    }
    let range = replica.range_id();
    if has(Bug::AppliedApart) {
        let mut apart = WriteBatch::new();
        apart.put(Cf::State, keys::applied(range), working.state.applied.encode());
        let _ = shared.engine.write(&apart);
    } else {
        batch.put(Cf::State, keys::applied(range), working.state.applied.encode());
    }
    let Working { state, changed, children, fates, fingerprint, absorbed, .. } = working;
    let RangeState { descriptor, applied } = state;
    let descriptor = changed.then(|| descriptor.as_ref().clone());
    if let Some(descriptor) = &descriptor
        && !has(Bug::SplitNotWritten)
        && (!has(Bug::MembersNotWritten) || !children.is_empty())
    {
        let id = replica.replica_id();
        let record = ReplicaRecord { id, initialised: true, descriptor: descriptor.clone() };
        put_record(batch, &record);
    }
    Ok(Prepared {
        replica,
        applied,
        descriptor,
        children,
        fates,
        term,
        entries: count,
        fingerprint,
        absorbed,
        done: None,
    })
}

impl Working<'_> {
    fn entry(&mut self, entry: Committed, batch: &mut WriteBatch) -> Result<(), RaftError> {
        match entry.payload {
            Payload::Blank => {}
            Payload::Members(members) => {
                self.state.members(entry.position, members);
                self.changed = true;
            }
            Payload::Commands(bytes) => {
                let (id, commands) = decode_payload(bytes)?;
                let ours = id.nonce == self.shared.nonce;
                let mut fates = Vec::new();
                for command in commands {
                    let fate = self.command(entry.position, command, batch)?;
                    if ours {
                        fates.push(fate);
                    }
                }
                if ours {
                    self.fates.push((id.number, fates));
                }
            }
        }
        self.state.advance(entry.position);
        Ok(())
    }

    fn command(
        &mut self,
        position: Position,
        command: Command,
        batch: &mut WriteBatch,
    ) -> Result<Fate, RaftError> {
        if has(Bug::UnknownSkipped)
            && self.shared.options.store.get() == 1
            && command.is_of_merges()
        {
            return Ok(Fate::Refused("this build does not know it"));
        }
        match self.state.command(position, command) {
            Err(fate) => return Ok(fate),
            Ok(Effect::Write(_)) if has(Bug::SkipApply) && self.is_left_out(position) => {}
            Ok(Effect::Write(write)) => {
                debug_assert!(
                    self.holds(&write),
                    "{} applies a write outside of its bounds",
                    self.state.descriptor.id
                );
                batch.append(write);
            }
            Ok(Effect::Split(split)) => return self.split(*split, batch),
            Ok(Effect::Fingerprint) => self.fingerprint = Some(position.index),
            Ok(Effect::Changed) => self.changed = true,
            Ok(Effect::Absorbed(right)) => {
                let target = self.state.descriptor.id;
                self.absorbed = merge::bury_absorbed(self.shared, target, &right, batch)?;
                self.changed = true;
            }
            Ok(Effect::Nothing) => {}
        }
        Ok(Fate::Applied(Applied { index: position.index }))
    }

    /// Whether a write touches nothing but keys of this range.
    fn holds(&self, write: &WriteBatch) -> bool {
        let span = &self.state.descriptor.span;
        let inside = |mutation: &Mutation| match mutation {
            Mutation::Put { key, .. } | Mutation::Delete { key, .. } => span.contains(key),
            Mutation::DeleteRange { range, .. } => span.covers(range),
        };
        self.state.descriptor.id == RangeId::PLACEMENT || write.mutations.iter().all(inside)
    }

    /// Another one in each replica.
    fn is_left_out(&self, position: Position) -> bool {
        (position.index + self.replica.replica_id().get()).is_multiple_of(32)
    }

    fn split(&mut self, split: SplitEffect, batch: &mut WriteBatch) -> Result<Fate, RaftError> {
        if let Some(child) = self.seed(&split, batch)? {
            self.children.push(child);
        }
        self.changed = true;
        Ok(Fate::Split(Box::new((split.left, split.right))))
    }

    /// Adds the right side's replica on this store, unless it exists already: by a snapshot that
    /// overtook the split, or without data. That one may be voting at this very moment, so no state is
    /// put under it: it gets a snapshot.
    fn seed(
        &self,
        split: &SplitEffect,
        batch: &mut WriteBatch,
    ) -> Result<Option<Child>, RaftError> {
        let right = split.right.id;
        // Nobody else holds the right side's keys here: what covers them is the parent.
        let let_go = |batch: &mut WriteBatch| {
            for (cf, span) in snapshot::parts(&split.right) {
                batch.delete_range(cf, span);
            }
        };
        if let Some(existing) = self.shared.replica(right) {
            if !existing.is_initialised() {
                let_go(batch);
            }
            return Ok(None);
        }
        let keep_vote = has_vote(self.shared.engine.as_ref(), right)?;
        let Some(seed) = split.seed(self.shared.options.store, keep_vote) else {
            return Ok(None);
        };
        let buried = removal::tombstone(self.shared.engine.as_ref(), right)?;
        if buried.is_some_and(|gone| gone >= seed.record.id) {
            // This member was removed before this store got to its beginning.
            let_go(batch);
            return Ok(None);
        }
        let applied = seed.write(batch);
        let leads = seed.record.id == seed.leader && self.replica.is_elected();
        Ok(Some(Child { seed, applied, leads_in: leads.then_some(split.term) }))
    }
}

fn has_vote(engine: &dyn Engine, range: RangeId) -> Result<bool, RaftError> {
    Ok(engine.get(Cf::Raft, &keys::vote(range))?.is_some())
}
