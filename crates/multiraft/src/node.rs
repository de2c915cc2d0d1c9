//! A node's replicas: the registry, start-up, creation, shutdown.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cribwork_engine::{Engine, LogWriter};
use cribwork_router::RangeMap;
use cribwork_transport::{Class, Message, MessageHandler, SendError, Transport};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{
    Cf, RangeDescriptor, RangeId, ReplicaDescriptor, ReplicaId, Runtime, StoreId, WriteBatch,
};
use dashmap::DashMap;
use openraft_rt_tokio::TokioRuntime;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::apply::{self, Job};
use crate::calls::Calls;
use crate::cold::ColdPolicy;
use crate::driver;
use crate::error::RaftError;
use crate::inbound::Inbound;
use crate::keys;
use crate::liveness::Liveness;
use crate::metrics::MultiRaftMetrics;
use crate::observer::Observer;
use crate::options::{APPLY_QUEUE_MAX, MultiRaftOptions, SNAPSHOTS_SENT_MAX};
use crate::raft::{InstanceFactory, OpenraftFactory};
use crate::records::{AppliedRecord, ReplicaRecord, decode_vote};
use crate::removal;
use crate::replica::Replica;
use crate::seed::{Beginning, Seed};
use crate::snapshot::Incoming;
use crate::verify::Verifier;

/// Leaderships that a stopping node hands over at once.
const HAND_OVERS_AT_ONCE: usize = 16;
/// From when on a stopping node hands over nothing more that is cold.
const COLD_HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// Takes messages to other nodes: the transport, or a test's wire.
pub trait Sender: Send + Sync + 'static {
    /// Queues `message` for `to`; never blocks.
    ///
    /// # Errors
    /// [`SendError`] if the queue is full or the store is unknown.
    fn send(&self, to: StoreId, class: Class, message: Message) -> Result<(), SendError>;
}

impl Sender for Transport {
    fn send(&self, to: StoreId, class: Class, message: Message) -> Result<(), SendError> {
        Transport::send(self, to, class, message)
    }
}

/// What a node's groups are built on.
pub struct NodeParts {
    /// The store's engine.
    pub engine: Arc<dyn Engine>,
    /// The node's one log writer, over the same engine.
    pub writer: LogWriter,
    /// Clock, randomness and tasks.
    pub runtime: Arc<dyn Runtime>,
    /// Hears of changes.
    pub observer: Arc<dyn Observer>,
    /// Registered by the caller.
    pub metrics: MultiRaftMetrics,
}

pub(crate) struct NodeShared {
    pub(crate) options: MultiRaftOptions,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) writer: LogWriter,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) metrics: MultiRaftMetrics,
    pub(crate) factory: Arc<dyn InstanceFactory>,
    pub(crate) liveness: Liveness,
    /// Who leads some range, as far as is known here, has changed since the driver looked.
    pub(crate) leaders_changed: AtomicBool,
    /// Runtime clock, milliseconds: the last read of any range.
    pub(crate) last_read_ms: AtomicU64,
    pub(crate) cold: ColdPolicy,
    pub(crate) calls: Calls,
    pub(crate) incoming: Incoming,
    pub(crate) verifier: Verifier,
    pub(crate) snapshots_sent: Semaphore,
    /// Names this life of the process in proposals and liveness messages.
    pub(crate) nonce: u64,
    /// Local ranges by key.
    pub(crate) map: RwLock<RangeMap>,
    registry: DashMap<RangeId, Arc<Replica>>,
    /// All of the registry, by range id; empty after a change until somebody asks.
    sorted: Mutex<Option<Arc<[Arc<Replica>]>>>,
    /// Stores that hold members of local ranges, and stores heard from.
    peers: Mutex<std::collections::BTreeSet<StoreId>>,
    sender: OnceLock<Arc<dyn Sender>>,
    apply_jobs: mpsc::Sender<Job>,
    next_number: AtomicU64,
    started_at: Duration,
    /// Campaigns of this node that are not decided, and leaders that were elected and do not serve yet.
    pub(crate) elections: AtomicUsize,
    /// Ranges are being created: one that is not known yet is about to be.
    creating: AtomicBool,
    stopping: AtomicBool,
}

impl NodeShared {
    /// False if the message could not be queued.
    pub(crate) fn send(&self, to: StoreId, class: Class, message: Message) -> bool {
        self.sender.get().is_some_and(|sender| sender.send(to, class, message).is_ok())
    }

    /// Answers a request with nothing: its sender learns at once that it has to try again later,
    /// instead of waiting for its time-out.
    pub(crate) fn refuse(&self, from: StoreId, message: &Message) {
        let answer = Message {
            range: message.range,
            from: message.to,
            to: message.from,
            kind: message.kind + 1,
            call: message.call,
            payload: bytes::Bytes::new(),
        };
        self.send(from, Class::Control, answer);
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Promises made before the process started are forgotten, so for one lease it makes none.
    pub(crate) fn within_first_lease(&self) -> bool {
        let age = self.runtime.now().saturating_sub(self.started_at);
        age < self.options.lease && !has(Bug::PromiseForgotten)
    }

    /// Whether there may be leases to renew.
    pub(crate) fn served_reads_lately(&self) -> bool {
        let at = self.last_read_ms.load(Ordering::Relaxed);
        let now = self.runtime.now().as_millis() as u64;
        at != 0 && now.saturating_sub(at) <= self.options.read_activity.as_millis() as u64
    }

    pub(crate) fn replica(&self, range: RangeId) -> Option<Arc<Replica>> {
        self.registry.get(&range).map(|replica| replica.clone())
    }

    /// All replicas, by range id: the registry's own order must never decide anything.
    pub(crate) fn replicas(&self) -> Arc<[Arc<Replica>]> {
        let mut sorted = self.sorted.lock();
        let list = sorted.get_or_insert_with(|| {
            let mut all: Vec<Arc<Replica>> =
                self.registry.iter().map(|entry| entry.value().clone()).collect();
            all.sort_unstable_by_key(|replica| replica.range_id());
            all.into()
        });
        list.clone()
    }

    /// The registry has changed.
    fn forget_sorted(&self) {
        *self.sorted.lock() = None;
    }

    pub(crate) fn peers(&self) -> Vec<StoreId> {
        self.peers.lock().iter().copied().collect()
    }

    pub(crate) fn note_peer(&self, store: StoreId) {
        if store != self.options.store {
            self.peers.lock().insert(store);
        }
    }

    pub(crate) async fn submit_apply(&self, job: Job) -> Result<(), RaftError> {
        self.apply_jobs.send(job).await.map_err(|_| RaftError::Shutdown)
    }

    /// Queues a job that comes again if there is no room for it now.
    pub(crate) fn offer_apply(&self, job: Job) {
        let _ = self.apply_jobs.try_send(job);
    }

    pub(crate) async fn apply_barrier(&self) -> Result<(), RaftError> {
        let (done, reached) = oneshot::channel();
        self.submit_apply(Job::Barrier { done }).await?;
        reached.await.map_err(|_| RaftError::Shutdown)?
    }

    /// Makes a replica known, once `prepare` has told it what it is to know first.
    fn register(
        self: &Arc<Self>,
        record: ReplicaRecord,
        applied: AppliedRecord,
        prepare: impl FnOnce(&Arc<Replica>),
    ) -> Arc<Replica> {
        for member in &record.descriptor.replicas {
            self.note_peer(member.store);
        }
        let (range, initialised) = (record.descriptor.id, record.initialised);
        let descriptor = Arc::new(record.descriptor.clone());
        let replica = Replica::new(self.clone(), record, applied);
        prepare(&replica);
        self.leaders_changed.store(true, Ordering::Release);
        let before = self.registry.insert(range, replica.clone());
        debug_assert!(before.is_none(), "range {range}: nothing replaces a replica");
        self.forget_sorted();
        if initialised && range != RangeId::PLACEMENT {
            self.map.write().insert(descriptor);
        }
        replica
    }

    /// Takes a replica out of the registry, and its keys out of the map.
    pub(crate) fn forget(&self, replica: &Arc<Replica>) {
        let range = replica.range_id();
        self.registry.remove(&range);
        self.forget_sorted();
        if replica.is_initialised() && range != RangeId::PLACEMENT {
            self.map.write().remove(range);
        }
    }

    /// Registers a replica whose seeds are written, and lets it begin.
    pub(crate) fn add_replica(
        self: &Arc<Self>,
        seed: &Seed,
        applied: AppliedRecord,
        begin: Beginning,
    ) {
        // Before anybody can wake it.
        let prepare = |replica: &Arc<Replica>| {
            if !seed.keep_vote {
                replica.recall_leader(seed.vote());
            }
            match begin {
                Beginning::LeadCold => replica.lead_from_cold(seed.term),
                Beginning::Follow(life) if !seed.keep_vote => replica.expect_leader(life),
                Beginning::Follow(_) | Beginning::Wait | Beginning::Lead => {}
            }
        };
        let replica = self.register(seed.record.clone(), applied, prepare);
        self.observer.range_changed(replica.descriptor());
        match begin {
            Beginning::LeadCold => {
                let (range, leader) = (replica.range_id(), replica.leader().leader);
                self.observer.leader_changed(range, leader, seed.term, true);
            }
            Beginning::Lead => self.runtime.spawn(Box::pin(async move {
                if let Err(error) = replica.build(true).await {
                    tracing::warn!(range = %replica.range_id(), %error, "cannot start as leader");
                }
            })),
            Beginning::Follow(_) | Beginning::Wait => {}
        }
    }

    /// A snapshot must not overlap another local range: that range would lose data. One that it covers was
    /// absorbed by it ([`NodeShared::merged_into`]).
    pub(crate) fn check_overlap(&self, descriptor: &RangeDescriptor) -> Result<(), &'static str> {
        let covered: Vec<RangeId> =
            self.merged_into(descriptor).iter().map(|it| it.range_id()).collect();
        let map = self.map.read();
        let other = map.scan(&descriptor.span, usize::MAX).any(|entry| {
            entry.descriptor.id != descriptor.id && !covered.contains(&entry.descriptor.id)
        });
        match other && descriptor.id != RangeId::PLACEMENT && !has(Bug::OverlapIgnored) {
            true => Err("it overlaps another range of this store"),
            false => Ok(()),
        }
    }

    /// A message of a range that this store does not know: the right side of a split that it has not
    /// applied yet, or slept through. Where the range lies decides what is done, so the sender is
    /// asked, a leader or one that wants to be (if the leader has died, this member's vote may be the one
    /// that is missing). The message is lost and comes again.
    pub(crate) fn message_for_unknown_range(&self, from: StoreId, message: &Message) {
        use crate::raft::kind;
        let wants_a_member = matches!(
            message.kind,
            kind::SNAPSHOT | kind::APPEND | kind::HEARTBEAT | kind::VOTE | kind::PRE_VOTE
        );
        if !wants_a_member || self.creating.load(Ordering::Acquire) {
            return;
        }
        let who = Message {
            range: message.range,
            from: message.to,
            to: message.from,
            kind: kind::WHO_IS_THIS,
            call: 0,
            payload: bytes::Bytes::new(),
        };
        self.send(from, Class::Control, who);
    }

    /// Makes a replica without data, which asks for a snapshot, of a range that a leader has introduced.
    /// While a local range still covers some of it, nothing is done: that one has the split before it,
    /// in its log or in a snapshot. Called by the apply task only, which makes the other ranges.
    pub(crate) fn make_uninitialised(
        self: &Arc<Self>,
        introduced: &RangeDescriptor,
        id: ReplicaId,
        (by, whom): (StoreId, ReplicaId),
    ) {
        let range = introduced.id;
        if self.check_gone(introduced)
            || self.replica(range).is_some()
            || self.creating.load(Ordering::Acquire)
            || self.check_overlap(introduced).is_err()
        {
            return;
        }
        match removal::tombstone(self.engine.as_ref(), range) {
            Ok(Some(gone)) if gone >= id && !has(Bug::BuriedReturns) => {
                let buried = Message {
                    range,
                    from: id,
                    to: whom,
                    kind: crate::raft::kind::BURIED,
                    call: 0,
                    payload: bytes::Bytes::new(),
                };
                self.send(by, Class::Control, buried);
                return;
            }
            Ok(_) => {}
            Err(error) => return tracing::error!(%error, "cannot read a tombstone"),
        }
        // Of what it is introduced by, it knows the members, and that nothing older concerns it.
        let RangeDescriptor { epoch, replicas, .. } = introduced.clone();
        let descriptor =
            RangeDescriptor { id: range, epoch, replicas, ..RangeDescriptor::default() };
        let record = ReplicaRecord { id, initialised: false, descriptor };
        let mut batch = WriteBatch::new();
        crate::seed::put_record(&mut batch, &record);
        if let Err(error) = self.engine.write(&batch) {
            tracing::error!(%error, "cannot note a new replica");
            return;
        }
        tracing::info!(%range, replica = %id, "waiting for a snapshot");
        self.metrics.made_uninitialised.inc();
        self.register(record, AppliedRecord::default(), |_| {});
    }
}

/// All groups of one node. Cheap to clone.
#[derive(Clone)]
pub struct MultiRaft {
    pub(crate) shared: Arc<NodeShared>,
}

impl MultiRaft {
    /// Loads the registry from the store: one scan, no instance is built.
    ///
    /// # Errors
    /// [`RaftError`] if the store cannot be read.
    pub fn open(options: MultiRaftOptions, parts: NodeParts) -> Result<Self, RaftError> {
        Self::open_over(options, parts, Arc::new(OpenraftFactory::<TokioRuntime>::new()))
    }

    /// As [`MultiRaft::open`], over instances of another async runtime.
    fn open_over(
        options: MultiRaftOptions,
        parts: NodeParts,
        factory: Arc<dyn InstanceFactory>,
    ) -> Result<Self, RaftError> {
        let (apply_jobs, jobs) = mpsc::channel(APPLY_QUEUE_MAX);
        let nonce = parts.runtime.random_u64();
        let clock = parts.runtime.clone();
        let shared = Arc::new(NodeShared {
            liveness: Liveness::new(options.store, nonce, options.liveness_timeout, clock),
            leaders_changed: AtomicBool::new(true),
            last_read_ms: AtomicU64::new(0),
            started_at: parts.runtime.now(),
            options,
            engine: parts.engine,
            writer: parts.writer,
            runtime: parts.runtime,
            observer: parts.observer,
            metrics: parts.metrics,
            factory,
            cold: ColdPolicy::default(),
            calls: Calls::new(nonce),
            incoming: Incoming::default(),
            verifier: Verifier::default(),
            snapshots_sent: Semaphore::new(SNAPSHOTS_SENT_MAX),
            nonce,
            map: RwLock::new(RangeMap::new()),
            registry: DashMap::new(),
            sorted: Mutex::default(),
            peers: Mutex::default(),
            sender: OnceLock::new(),
            apply_jobs,
            next_number: AtomicU64::new(1),
            elections: AtomicUsize::new(0),
            creating: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let gone = load(&shared)?;
        // On the node's own runtime, not a thread: a hand-over between threads costs more than
        // applying does (measured).
        shared.runtime.spawn(Box::pin(apply::run(shared.clone(), jobs)));
        gone.iter().for_each(Replica::remove);
        Ok(Self { shared })
    }

    /// Connects the groups to the other nodes and starts the liveness driver.
    pub fn start(&self, sender: Arc<dyn Sender>) {
        if self.shared.sender.set(sender).is_err() {
            return;
        }
        // Its own thread in production: a busy node must not look dead.
        let driver = driver::run(self.shared.clone());
        self.shared.runtime.spawn_worker("liveness", Box::pin(driver));
    }

    /// Takes messages from the transport.
    pub fn handler(&self) -> Arc<dyn MessageHandler> {
        Arc::new(Inbound { shared: self.shared.clone() })
    }

    /// Creates this store's replica of a new range whose first leader is `leader`. It begins cold, the
    /// leader too. Idempotent: a range that is here already is left alone.
    ///
    /// # Errors
    /// [`RaftError::Refused`] if this store is not among the members.
    pub async fn create_range(
        &self,
        descriptor: RangeDescriptor,
        leader: ReplicaDescriptor,
    ) -> Result<(), RaftError> {
        let range = descriptor.id;
        if self.shared.replica(range).is_some() {
            return Ok(());
        }
        self.create_ranges(vec![(descriptor, leader)]).await
    }

    /// As [`MultiRaft::create_range`] for many, made durable at once.
    ///
    /// # Errors
    /// As [`MultiRaft::create_range`].
    pub async fn create_ranges(
        &self,
        ranges: Vec<(RangeDescriptor, ReplicaDescriptor)>,
    ) -> Result<(), RaftError> {
        self.shared.creating.store(true, Ordering::Release);
        let created = self.seed_ranges(ranges).await;
        self.shared.creating.store(false, Ordering::Release);
        created
    }

    async fn seed_ranges(
        &self,
        ranges: Vec<(RangeDescriptor, ReplicaDescriptor)>,
    ) -> Result<(), RaftError> {
        let mut batch = WriteBatch::new();
        let mut made = Vec::new();
        for (descriptor, leader) in ranges {
            let range = descriptor.id;
            if self.shared.replica(range).is_some() {
                continue;
            }
            let mine = descriptor.replica_on(self.shared.options.store).ok_or_else(|| {
                RaftError::Refused { range, why: "this store is not a member".into() }
            })?;
            let seed = Seed {
                record: ReplicaRecord { id: mine.id, initialised: true, descriptor },
                leader: leader.id,
                term: 1,
                keep_vote: false,
            };
            let applied = seed.write(&mut batch);
            let begin = match mine.id == leader.id {
                true if range == RangeId::PLACEMENT => Beginning::Lead,
                true => Beginning::LeadCold,
                false => Beginning::Follow(None),
            };
            made.push((seed, applied, begin));
        }
        if made.is_empty() {
            return Ok(());
        }
        self.shared.writer.write_durable(batch).await?;
        for (seed, applied, begin) in made {
            self.shared.add_replica(&seed, applied, begin);
        }
        Ok(())
    }

    /// The replica of a range on this store.
    pub fn replica(&self, range: RangeId) -> Option<Arc<Replica>> {
        self.shared.replica(range)
    }

    /// The replica whose range holds an encoded key.
    pub fn replica_for_key(&self, encoded_key: &[u8]) -> Option<Arc<Replica>> {
        let range = self.shared.map.read().get(encoded_key)?.descriptor.id;
        self.shared.replica(range)
    }

    /// Descriptors of the local ranges that overlap `span`, in key order.
    pub fn local_ranges(&self, span: &cribwork_types::KeyRange) -> Vec<Arc<RangeDescriptor>> {
        let map = self.shared.map.read();
        map.scan(span, usize::MAX).map(|entry| entry.descriptor.clone()).collect()
    }

    /// All replicas, by range id.
    pub fn replicas(&self) -> Arc<[Arc<Replica>]> {
        self.shared.replicas()
    }

    /// Snapshots that this process has installed.
    pub fn snapshots_installed(&self) -> u64 {
        self.shared.metrics.snapshots_installed.get()
    }

    /// True if the store was heard from lately.
    pub fn store_is_live(&self, store: StoreId) -> bool {
        self.shared.liveness.is_live(store)
    }

    /// Closes a range's instance; the replica is cold then and comes back on demand.
    ///
    /// # Errors
    /// [`RaftError::RangeNotFound`], or what closing meets.
    pub async fn close_instance(&self, range: RangeId) -> Result<(), RaftError> {
        let store = self.shared.options.store;
        let replica =
            self.shared.replica(range).ok_or(RaftError::RangeNotFound { range, store })?;
        replica.close().await
    }

    /// Hands leaderships to live members, closes all instances and forgets the replicas.
    pub async fn shutdown(&self) {
        let mut leading = self.replicas().to_vec();
        leading.retain(|replica| replica.leader().is_self);
        // Those in use first. Of a cold one nobody wants anything now, and whoever does later finds that
        // this store is gone, so that thousands of them are not worth the wait.
        leading.sort_by_key(|replica| replica.live().is_none());
        let runtime = &self.shared.runtime;
        let patience = runtime.now() + COLD_HAND_OVER_MAX;
        for chunk in leading.chunks(HAND_OVERS_AT_ONCE) {
            if chunk.iter().all(|replica| replica.live().is_none()) && runtime.now() > patience {
                break;
            }
            futures::future::join_all(chunk.iter().map(hand_over)).await;
        }
        self.shared.stopping.store(true, Ordering::Release);
        for replica in self.replicas().iter() {
            if let Err(error) = replica.close().await {
                tracing::warn!(range = %replica.range_id(), %error, "cannot close cleanly");
            }
        }
        // Replicas and tasks hold the node, and the node holds them: let go, or the store would
        // stay open for as long as the process lives. An error means that it is stopped already.
        let _ = self.shared.submit_apply(Job::Stop).await;
        self.shared.registry.clear();
        self.shared.forget_sorted();
    }
}

/// Moves one leadership away, to the first member that takes it; members are tried in an order that
/// differs from range to range, so that one node's ranges spread.
async fn hand_over(replica: &Arc<Replica>) {
    let descriptor = replica.descriptor();
    let mut targets: Vec<StoreId> = descriptor
        .voters()
        .map(|voter| voter.store)
        .filter(|store| *store != replica.shared().options.store)
        .filter(|store| replica.shared().liveness.is_live(*store))
        .collect();
    if targets.is_empty() {
        return;
    }
    let first = replica.range_id().get() as usize % targets.len();
    targets.rotate_left(first);
    for store in targets {
        if replica.transfer_leader(store).await.is_ok() {
            return;
        }
    }
}

/// Fills the registry; gives the replicas that are members no longer.
fn load(shared: &Arc<NodeShared>) -> Result<Vec<Arc<Replica>>, RaftError> {
    let mut forgotten = Vec::new();
    let snapshot = shared.engine.snapshot();
    let mut cursor = snapshot.cursor(Cf::State, &keys::all_replicas());
    let mut found = cursor.seek_to_first()?;
    while found {
        let record = ReplicaRecord::decode(bytes::Bytes::copy_from_slice(cursor.value()))?;
        let applied = match snapshot.get(Cf::State, &keys::applied(record.descriptor.id))? {
            Some(bytes) => AppliedRecord::decode(bytes)?,
            None => AppliedRecord::default(),
        };
        let range = record.descriptor.id;
        let replica = shared.register(record, applied, |_| {});
        if replica.descriptor().replica(replica.replica_id()).is_none() {
            // The entry that removed it was applied, and the crash came before it was forgotten.
            forgotten.push(replica.clone());
        }
        // One without data may have voted, too.
        if let Some(vote) = snapshot.get(Cf::Raft, &keys::vote(range))? {
            replica.recall_leader(decode_vote(vote)?);
        }
        found = cursor.next()?;
    }
    for range in removal::tombstones(snapshot.as_ref())?.into_keys() {
        let here = shared.replica(range).is_some();
        let mut left = snapshot.cursor(Cf::Raft, &keys::whole_group(range));
        if !here && left.seek_to_first()? {
            // Its range was absorbed, and the crash came before the end of its instance.
            removal::sweep(shared.engine.as_ref(), range)?;
        }
    }
    Ok(forgotten)
}

#[cfg(test)]
mod tests;
