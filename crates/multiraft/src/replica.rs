//! One replica: its descriptor, its applied state, its leadership, and the Raft instance behind it
//! while it is live.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use cribwork_transport::Message;
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{
    RangeDescriptor, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole, RuntimeExt, StoreId,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::acks::Acks;
use crate::apply::{Committed, Job};
use crate::driver::Campaigning;
use crate::error::RaftError;
use crate::fate::FateTable;
use crate::log::RangeLog;
use crate::node::NodeShared;
use crate::options::WAKING_MESSAGES_MAX;
use crate::position::VoteRecord;
use crate::propose::Batcher;
use crate::raft::Instance;
use crate::records::{AppliedRecord, ReplicaRecord};
use crate::snapshot::RangeSnapshot;

/// Whether a replica holds a Raft instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// A descriptor only; the first need builds an instance.
    Cold,
    /// Runs.
    Live,
    /// Made by a message of a range that this store holds no data of yet: waits for a snapshot.
    Uninitialised,
}

impl ReplicaState {
    /// The word shown to people and scripts.
    pub const fn name(self) -> &'static str {
        match self {
            ReplicaState::Cold => "cold",
            ReplicaState::Live => "live",
            ReplicaState::Uninitialised => "uninitialised",
        }
    }
}

/// Who leads, as far as this replica knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderView {
    /// The leader, if one is known.
    pub leader: Option<ReplicaDescriptor>,
    /// True if this replica leads and has applied its own barrier: it may evaluate and read.
    pub is_self: bool,
    /// The term of that leadership.
    pub term: u64,
}

/// A vote that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedVote {
    /// In which term.
    pub term: u64,
    /// For whom.
    pub candidate: ReplicaId,
    /// The candidate was elected, be it without this vote: a replica that voted for another one
    /// follows it.
    pub leads: bool,
}

/// The last committed vote seen, and which life of the leader's process it was seen in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LeaderSeen {
    pub(crate) leader: Option<ReplicaId>,
    pub(crate) term: u64,
    /// A message of this leader came in this process's life.
    pub(crate) heard: bool,
    /// The leader's store, once it was heard from: a member that this replica has not heard of yet may
    /// lead.
    pub(crate) store: Option<StoreId>,
    /// The life of the leader's store that it was heard in, once that store's liveness message told.
    pub(crate) incarnation: Option<u64>,
    /// Runtime clock, milliseconds: when a message of it last came. For one lease from then on, no
    /// voter that heard it too grants a vote.
    pub(crate) heard_ms: u64,
}

pub(crate) struct LiveInstance {
    pub(crate) raft: Arc<dyn Instance>,
    pub(crate) log: Arc<RangeLog>,
}

/// One member of a range on this store.
pub struct Replica {
    shared: Arc<NodeShared>,
    range: RangeId,
    id: ReplicaId,
    descriptor: ArcSwap<RangeDescriptor>,
    initialised: AtomicBool,
    /// Written by the apply task only.
    pub(crate) applied: Mutex<AppliedRecord>,
    applied_index: AtomicU64,
    pub(crate) fates: FateTable,
    pub(crate) batcher: Batcher,
    pub(crate) instance: ArcSwapOption<LiveInstance>,
    pub(crate) building: tokio::sync::Mutex<()>,
    /// Messages that came while the instance was being built or closed; `None` if it is neither.
    pub(crate) waking: Mutex<Option<VecDeque<(StoreId, Message)>>>,
    pub(crate) seen: Mutex<LeaderSeen>,
    /// Who acknowledged this leader lately.
    pub(crate) acks: Acks,
    /// Entries up to this index are needed by nobody but members that are hopelessly behind; 0 if
    /// the log is not too long.
    pub(crate) shrink_to: AtomicU64,
    /// Snapshots that are being sent.
    pub(crate) sending: AtomicU32,
    /// The term in which this replica leads with its barrier applied; 0 if it does not.
    pub(crate) serving_term: AtomicU64,
    /// Splits proposed by this leader whose fate is open: no read is served meanwhile.
    pub(crate) fences: AtomicU32,
    /// The store that leadership is being handed to; 0 for none.
    pub(crate) handing_over_to: AtomicU64,
    /// Held while this leader changes its members.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// This replica is no member any more: nothing starts it again.
    pub(crate) removing: AtomicBool,
    /// Nothing of the range is read or written: it is about to be absorbed by its neighbour.
    pub(crate) frozen: AtomicBool,
    /// The range that has absorbed this one.
    pub(crate) absorbed_by: Mutex<Option<RangeId>>,
    pub(crate) changed: Notify,
    /// Runtime clock, milliseconds: last read, last proposal, and last wait for a leader.
    pub(crate) last_read_ms: AtomicU64,
    pub(crate) last_write_ms: AtomicU64,
    pub(crate) last_wait_ms: AtomicU64,
    /// Runtime clock, milliseconds: last message of another member, and when the instance was built.
    pub(crate) last_message_ms: AtomicU64,
    pub(crate) live_since_ms: AtomicU64,
    /// This replica went cold as a leader, and leads on in its term when it is built next.
    pub(crate) resumes: AtomicBool,
    /// Bytes of the commands applied since the process started.
    pub(crate) written: AtomicU64,
    /// Applied index when the driver last looked at the log.
    looked_at: AtomicU64,
    pub(crate) campaigning: Mutex<Campaigning>,
}

impl Replica {
    pub(crate) fn new(
        shared: Arc<NodeShared>,
        record: ReplicaRecord,
        applied: AppliedRecord,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared,
            range: record.descriptor.id,
            id: record.id,
            descriptor: ArcSwap::from_pointee(record.descriptor),
            initialised: AtomicBool::new(record.initialised),
            applied_index: AtomicU64::new(applied.position.map_or(0, |at| at.index)),
            fates: FateTable::default(),
            batcher: Batcher::default(),
            instance: ArcSwapOption::empty(),
            building: tokio::sync::Mutex::new(()),
            waking: Mutex::new(None),
            seen: Mutex::new(LeaderSeen::default()),
            acks: Acks::default(),
            shrink_to: AtomicU64::new(0),
            sending: AtomicU32::new(0),
            serving_term: AtomicU64::new(0),
            fences: AtomicU32::new(0),
            handing_over_to: AtomicU64::new(0),
            changing: tokio::sync::Mutex::new(()),
            removing: AtomicBool::new(false),
            frozen: AtomicBool::new(applied.is_frozen()),
            absorbed_by: Mutex::new(None),
            applied: Mutex::new(applied),
            changed: Notify::new(),
            last_read_ms: AtomicU64::new(0),
            last_write_ms: AtomicU64::new(0),
            last_wait_ms: AtomicU64::new(0),
            last_message_ms: AtomicU64::new(0),
            live_since_ms: AtomicU64::new(0),
            resumes: AtomicBool::new(false),
            written: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
            campaigning: Mutex::new(Campaigning::default()),
        })
    }

    pub(crate) fn shared(&self) -> &Arc<NodeShared> {
        &self.shared
    }

    /// The range.
    pub fn range_id(&self) -> RangeId {
        self.range
    }

    /// This member's id.
    pub fn replica_id(&self) -> ReplicaId {
        self.id
    }

    /// Bounds, epoch and members as applied here.
    pub fn descriptor(&self) -> Arc<RangeDescriptor> {
        self.descriptor.load_full()
    }

    /// Index of the last applied entry.
    pub fn applied_index(&self) -> u64 {
        self.applied_index.load(Ordering::Acquire)
    }

    /// Whether the replica runs.
    pub fn state(&self) -> ReplicaState {
        match (self.initialised.load(Ordering::Acquire), self.live()) {
            (false, _) => ReplicaState::Uninitialised,
            (true, Some(_)) => ReplicaState::Live,
            (true, None) => ReplicaState::Cold,
        }
    }

    /// Who leads, from shared state: no hop, no lock but a short one.
    pub fn leader(&self) -> LeaderView {
        let seen = *self.seen.lock();
        let serving = self.serving_term.load(Ordering::Acquire);
        let leader = seen.leader.and_then(|id| self.member(id, seen.store));
        let is_self = seen.leader == Some(self.id) && serving == seen.term && serving != 0;
        LeaderView { leader, is_self, term: seen.term }
    }

    /// True if this replica was elected, whether it serves yet or not.
    pub(crate) fn is_elected(&self) -> bool {
        self.seen.lock().leader == Some(self.id)
    }

    /// A member, by the descriptor, or by where it was heard from.
    fn member(&self, id: ReplicaId, heard_on: Option<StoreId>) -> Option<ReplicaDescriptor> {
        let unheard_of =
            heard_on.map(|store| ReplicaDescriptor { id, store, role: ReplicaRole::Voter });
        self.descriptor.load().replica(id).or(unheard_of)
    }

    /// Bytes of commands that were applied here since the process started: how much there is to look at
    /// again for whoever estimates sizes.
    pub fn written_bytes(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// The last vote that this replica has made durable since its instance was built. For observers.
    pub fn saved_vote(&self) -> Option<SavedVote> {
        let VoteRecord { term, candidate, committed } = self.live()?.log.saved_vote()?;
        Some(SavedVote { term, candidate, leads: committed })
    }

    /// Term and index up to which this replica's leader was told, since the instance was built, that
    /// everything is durable here. For observers.
    pub fn acknowledged_log(&self) -> Option<(u64, u64)> {
        self.live()?.log.acked().map(|at| (at.term, at.index))
    }

    pub(crate) fn is_initialised(&self) -> bool {
        self.initialised.load(Ordering::Acquire)
    }

    pub(crate) fn applied_record(&self) -> AppliedRecord {
        self.applied.lock().clone()
    }

    pub(crate) fn not_leader(&self) -> RaftError {
        let leader = self.leader().leader.filter(|leader| leader.id != self.id);
        RaftError::NotLeader { range: self.range, leader }
    }

    /// Takes over what the apply task wrote.
    pub(crate) fn publish(&self, applied: AppliedRecord, descriptor: Option<RangeDescriptor>) {
        if self.frozen.swap(applied.is_frozen(), Ordering::SeqCst) != applied.is_frozen() {
            self.changed.notify_waiters();
        }
        if let Some(descriptor) = descriptor {
            descriptor.replicas.iter().for_each(|member| self.shared.note_peer(member.store));
            self.descriptor.store(Arc::new(descriptor));
            self.initialised.store(true, Ordering::Release);
        }
        if let Some(position) = applied.position {
            self.applied_index.store(position.index, Ordering::Release);
        }
        *self.applied.lock() = applied;
    }

    pub(crate) fn live(&self) -> Option<Arc<LiveInstance>> {
        self.instance.load_full()
    }

    /// The instance, built from disk if the replica is cold.
    pub(crate) async fn instance(self: &Arc<Self>) -> Result<Arc<LiveInstance>, RaftError> {
        if let Some(live) = self.live() {
            return Ok(live);
        }
        self.build(has(Bug::SameTermRestore)).await
    }

    /// Builds the instance unless there is one. `restore` lets a leader resume its term: only for
    /// the first start of a replica whose seeds this process has just written. A leader that went cold
    /// in this process resumes in any case.
    pub(crate) async fn build(
        self: &Arc<Self>,
        restore: bool,
    ) -> Result<Arc<LiveInstance>, RaftError> {
        let _one_builder = self.building.lock().await;
        if let Some(live) = self.live() {
            return Ok(live);
        }
        if self.shared.is_stopping() {
            return Err(RaftError::Shutdown);
        }
        if self.removing.load(Ordering::Acquire) {
            let (range, store) = (self.range, self.shared.options.store);
            let gone = RaftError::RangeNotFound { range, store };
            return Err(self.absorbed_error().unwrap_or(gone));
        }
        let log = RangeLog::open(
            self.range,
            self.shared.engine.clone(),
            self.shared.writer.clone(),
            self.shared.options.tail_cache_bytes_max,
        )
        .map_err(|error| RaftError::Engine(error.to_string()))?;
        let restore = restore || self.resumes.load(Ordering::Acquire);
        let raft = self.shared.factory.build(self.clone(), log.clone(), restore).await?;
        self.resumes.store(false, Ordering::Release);
        self.live_since_ms.store(self.now_ms(), Ordering::Relaxed);
        let live = Arc::new(LiveInstance { raft, log });
        self.instance.store(Some(live.clone()));
        self.shared.metrics.live_replicas.inc();
        self.changed.notify_waiters();
        Ok(live)
    }

    /// Hands a message to the instance, in the order of arrival; builds the instance if the replica
    /// is cold.
    pub(crate) fn deliver(self: &Arc<Self>, from: StoreId, message: Message) {
        {
            let mut waking = self.waking.lock();
            self.last_message_ms.store(self.now_ms(), Ordering::Relaxed);
            if let Some(waiting) = waking.as_mut() {
                if waiting.len() < WAKING_MESSAGES_MAX {
                    waiting.push_back((from, message));
                } else {
                    self.shared.refuse(from, &message);
                }
                return;
            }
            match self.live() {
                None => *waking = Some(VecDeque::from([(from, message)])),
                Some(live) => {
                    drop(waking);
                    return live.raft.deliver(from, message);
                }
            }
        }
        self.build_and_deliver();
    }

    /// Builds the instance in the background.
    pub(crate) fn wake(self: &Arc<Self>) {
        let mut waking = self.waking.lock();
        if waking.is_none() {
            *waking = Some(VecDeque::new());
            drop(waking);
            self.build_and_deliver();
        }
    }

    /// Builds the instance in the background, and hands it the messages that wait.
    pub(crate) fn build_and_deliver(self: &Arc<Self>) {
        let replica = self.clone();
        self.shared.runtime.spawn(Box::pin(async move {
            let built = replica.instance().await;
            if let Err(error) = &built {
                tracing::warn!(range = %replica.range, %error, "cannot start the replica");
            }
            loop {
                let mut waking = replica.waking.lock();
                let Some((from, message)) = waking.as_mut().and_then(VecDeque::pop_front) else {
                    *waking = None;
                    return;
                };
                drop(waking);
                match &built {
                    Ok(live) => live.raft.deliver(from, message),
                    Err(_) => replica.shared.refuse(from, &message),
                }
            }
        }));
    }

    /// Closes the instance: refuse work, let the log writer and the apply task finish what they
    /// have, forget. The replica is cold then.
    pub(crate) async fn close(self: &Arc<Self>) -> Result<(), RaftError> {
        self.close_if(|_| true).await
    }

    /// As [`Replica::close`], if the instance is still the one that `which` means.
    pub(crate) async fn close_if(
        self: &Arc<Self>,
        which: impl FnOnce(&Arc<LiveInstance>) -> bool,
    ) -> Result<(), RaftError> {
        let _no_builder = self.building.lock().await;
        let Some(live) = self.live().filter(which) else {
            return Ok(());
        };
        self.serving_term.store(0, Ordering::Release);
        if has(Bug::GenerationsOverlap) {
            std::mem::forget(live);
            self.shared.metrics.live_replicas.dec();
        } else {
            self.finish_instance(&live).await?;
        }
        self.instance.store(None);
        self.forget_own_leadership();
        self.changed.notify_waiters();
        Ok(())
    }

    /// Stops an instance, and lets the log writer and the apply task finish what they have of it.
    pub(crate) async fn finish_instance(&self, live: &LiveInstance) -> Result<(), RaftError> {
        live.raft.shutdown().await;
        live.log.close();
        self.shared.writer.barrier().await?;
        self.shared.apply_barrier().await?;
        self.shared.metrics.live_replicas.dec();
        Ok(())
    }

    /// Called for every vote that this member saved.
    pub(crate) fn vote_changed(self: &Arc<Self>, vote: VoteRecord) {
        let leader = vote.committed.then_some(vote.candidate);
        {
            let mut seen = self.seen.lock();
            // One older than what its leader's store has told: a candidate, or a leader, that is late.
            let late = vote.term < seen.term;
            if late || (seen.leader == leader && seen.term == vote.term) {
                return;
            }
            // A vote for a candidate promises nothing to a leader.
            let heard_ms = if leader.is_some() { self.now_ms() } else { 0 };
            let term = vote.term;
            *seen = LeaderSeen { leader, term, heard: true, heard_ms, ..LeaderSeen::default() };
            // Under the lock and first: whoever sees that the term is over, or that the transfer
            // is, must not find this replica serving.
            self.serving_term.store(0, Ordering::SeqCst);
        }
        self.handing_over_to.store(0, Ordering::SeqCst);
        self.shared.leaders_changed.store(true, Ordering::Release);
        self.changed.notify_waiters();
        let view = self.leader();
        self.shared.observer.leader_changed(self.range, view.leader, vote.term, false);
        if leader == Some(self.id) {
            let replica = self.clone();
            let work = async move { replica.establish(vote.term).await };
            self.shared.runtime.spawn(Box::pin(work));
        }
    }

    /// This member is about to serve in `term`: its own barrier is applied.
    pub(crate) fn serve(self: &Arc<Self>, term: u64) {
        {
            let seen = self.seen.lock();
            if seen.leader != Some(self.id) || seen.term != term {
                return;
            }
            self.serving_term.store(term, Ordering::Release);
        }
        self.changed.notify_waiters();
        let leader = self.leader().leader;
        self.shared.observer.leader_changed(self.range, leader, term, true);
        // What an earlier leader began.
        self.finish_joint();
    }

    /// May this member grant a vote to `candidate` now? Beside what openraft checks: not within one
    /// lease of the process's start (a promise made before is forgotten), and not while the leader's
    /// process is seen alive in the life in which it last led. One without data votes as well: it is a
    /// member from the start, has acknowledged nothing, and a tombstone keeps its id from a second life.
    pub(crate) fn may_grant(&self, candidate: ReplicaId, transfer: bool) -> bool {
        if transfer {
            return true;
        }
        if self.shared.within_first_lease() {
            return false;
        }
        let leader = self.seen.lock().leader;
        // openraft keeps this promise too, but forgets it when the instance is built anew.
        if leader.is_some_and(|leader| leader != candidate && leader != self.id)
            && self.now_ms() < self.promised_until_ms()
        {
            return false;
        }
        if leader == Some(self.id) && candidate != self.id {
            self.remind_followers();
            return false;
        }
        let free = leader == Some(candidate) || !self.has_live_leader();
        if !free {
            // It may have been deposed without this member: then nobody else could be elected.
            self.ask_leader();
        }
        free
    }

    /// True if the leader is this replica, or its store is alive in the life in which this replica
    /// last heard from it.
    pub fn has_live_leader(&self) -> bool {
        let mut seen = self.seen.lock();
        let Some(leader) = seen.leader else {
            return false;
        };
        if leader == self.id {
            return true;
        }
        let Some(store) = self.member(leader, seen.store).map(|it| it.store) else {
            return false;
        };
        let now = self.shared.liveness.incarnation(store);
        if seen.heard && seen.incarnation.is_none() {
            seen.incarnation = now;
        }
        now.is_some() && (seen.incarnation == now || has(Bug::OldLifeLeads))
    }

    /// When the promise ends that this replica gave the leader it last heard: it grants nobody a vote
    /// before, and neither do the others that heard the same message. Runtime clock, milliseconds.
    pub(crate) fn promised_until_ms(&self) -> u64 {
        match self.seen.lock().heard_ms {
            0 => 0,
            heard => heard + self.shared.options.lease.as_millis() as u64,
        }
    }

    /// How long ago a majority was sent what it has acknowledged since, to this leader of `term`.
    /// `None` if none has.
    pub(crate) fn quorum_age(&self, term: u64) -> Option<Duration> {
        let now = self.shared.runtime.now();
        Some(now.saturating_sub(self.quorum_sent(term, now)?))
    }

    fn quorum_sent(&self, term: u64, now: Duration) -> Option<Duration> {
        self.acks.quorum_sent(term, self.id, now, &self.applied.lock().members.voter_sets)
    }

    /// Waits until a majority has acknowledged to this leader of `term` something that was sent at
    /// `since` or later. False if that takes until `deadline`.
    pub(crate) async fn acknowledged(
        &self,
        term: u64,
        since: Duration,
        deadline: Duration,
    ) -> bool {
        loop {
            let next = self.acks.next();
            let now = self.shared.runtime.now();
            if self.quorum_sent(term, now).is_some_and(|sent| sent >= since) {
                return true;
            }
            let left = deadline.saturating_sub(now);
            if left.is_zero() || self.shared.runtime.timeout(left, next).await.is_err() {
                return false;
            }
        }
    }

    /// True if a member that still needs the entry at `from` stands in the way of cutting a log that
    /// is far too long: it is to get a snapshot instead.
    pub(crate) fn log_must_shrink(&self, from: u64) -> bool {
        from < self.shrink_to.load(Ordering::Relaxed)
    }

    /// Somebody campaigns against this live leader: it has not heard of it since it started.
    fn remind_followers(&self) {
        let Some(live) = self.live() else { return };
        self.shared.runtime.spawn(Box::pin(async move { live.raft.heartbeat().await }));
    }

    /// Hands committed entries to the node's apply task and waits until they are applied.
    pub(crate) async fn apply(self: &Arc<Self>, entries: Vec<Committed>) -> Result<(), RaftError> {
        let (done, applied) = oneshot::channel();
        let job = Job::Entries { replica: self.clone(), entries, done };
        self.shared.submit_apply(job).await?;
        applied.await.map_err(|_| RaftError::Shutdown)?
    }

    /// Replaces this replica's data by a snapshot.
    pub(crate) async fn install(
        self: &Arc<Self>,
        applied: AppliedRecord,
        snapshot: RangeSnapshot,
    ) -> Result<(), RaftError> {
        let (done, installed) = oneshot::channel();
        let (snapshot, position) = (Box::new(snapshot), applied.position);
        let job = Job::Install { replica: self.clone(), applied, snapshot, done };
        self.shared.submit_apply(job).await?;
        installed.await.map_err(|_| RaftError::Shutdown)??;
        // The leader is about to be told that this member has everything up to here.
        if !has(Bug::SnapshotUnsynced) {
            self.shared.writer.barrier().await?;
        }
        if let Some(live) = self.live() {
            live.log.note_snapshot(position);
        }
        Ok(())
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.shared.runtime.now().as_millis() as u64
    }

    /// True if `what` happened within `period`.
    pub(crate) fn within(&self, what: &AtomicU64, period: Duration) -> bool {
        let at = what.load(Ordering::Relaxed);
        at != 0 && self.now_ms().saturating_sub(at) <= period.as_millis() as u64
    }
}

impl Replica {
    /// Takes whom a stored vote names as who led last, in a life that is not known. This store is
    /// not leading, even if it did.
    pub(crate) fn recall_leader(&self, vote: VoteRecord) {
        let leader = (vote.committed && vote.candidate != self.id).then_some(vote.candidate);
        *self.seen.lock() = LeaderSeen { leader, term: vote.term, ..LeaderSeen::default() };
    }

    /// The leader that a split gave this range is the parent's, in the life in which it leads that: no
    /// need to campaign before its first message.
    pub(crate) fn expect_leader(&self, incarnation: Option<u64>) {
        let heard_ms = self.now_ms();
        let mut seen = self.seen.lock();
        *seen = LeaderSeen { heard: true, incarnation, heard_ms, ..*seen };
    }

    /// In which life of its store the leader of `term` leads, if that is who this replica follows.
    pub(crate) fn leader_incarnation(&self, term: u64) -> Option<u64> {
        let seen = *self.seen.lock();
        if seen.term != term { None } else { seen.incarnation }
    }

    /// A leader's message came: it leads in the present life of its store.
    pub(crate) fn heard_leader(&self, store: StoreId, leader: ReplicaId) {
        let incarnation = self.shared.liveness.incarnation(store);
        let mut seen = self.seen.lock();
        if seen.leader == Some(leader) {
            seen.heard = true;
            seen.store = Some(store);
            seen.heard_ms = self.now_ms();
            seen.incarnation = incarnation.or(seen.incarnation);
        }
    }

    /// A leader whose instance is closed does not lead any more: it has to be elected again.
    pub(crate) fn forget_own_leadership(&self) {
        let mut seen = self.seen.lock();
        self.serving_term.store(0, Ordering::SeqCst);
        if seen.leader == Some(self.id) {
            seen.leader = None;
            self.shared.leaders_changed.store(true, Ordering::Release);
        }
    }

    /// True if entries were applied since this was last asked.
    pub(crate) fn has_news(&self) -> bool {
        let now = self.applied_index();
        self.looked_at.swap(now, Ordering::Relaxed) != now
    }

    /// A read is about to be served.
    pub(crate) fn note_read(&self) {
        let now = self.now_ms().max(1);
        self.last_read_ms.store(now, Ordering::Relaxed);
        self.shared.last_read_ms.store(now, Ordering::Relaxed);
    }
}
