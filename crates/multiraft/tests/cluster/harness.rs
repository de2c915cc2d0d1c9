//! The cluster under test.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cribwork_engine::{Engine, LogWriter, LogWriterMetrics, LogWriterOptions, MemoryEngine};
use cribwork_multiraft::{
    MultiRaft, MultiRaftMetrics, MultiRaftOptions, NoObserver, NodeParts, Replica, Sender,
};
use cribwork_transport::{Class, Message, MessageHandler, SendError};
use cribwork_types::{
    BoxFuture, Cf, KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId,
    ReplicaRole, Runtime, StoreId, WriteBatch, key,
};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

pub const RANGE: RangeId = RangeId(1);

/// Real time over tokio; a node's tasks end when it is killed.
pub struct TestRuntime {
    start: Instant,
    alive: tokio::sync::watch::Sender<bool>,
}

impl TestRuntime {
    pub fn new() -> Arc<Self> {
        let (alive, _) = tokio::sync::watch::channel(true);
        Arc::new(Self { start: Instant::now(), alive })
    }
}

impl Runtime for TestRuntime {
    fn now(&self) -> Duration {
        self.start.elapsed() + Duration::from_secs(1)
    }
    fn wall_ms(&self) -> u64 {
        0
    }
    fn random_u64(&self) -> u64 {
        rand_u64()
    }
    fn spawn(&self, task: BoxFuture<()>) {
        let mut alive = self.alive.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                _ = alive.wait_for(|alive| !alive) => {}
                () = task => {}
            }
        });
    }
    fn spawn_worker(&self, _: &str, worker: BoxFuture<()>) {
        self.spawn(worker);
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

fn rand_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// Delivers messages in order per pair of stores, unless the pair is cut.
#[derive(Default)]
pub struct Wire {
    lanes: Mutex<HashMap<(StoreId, StoreId), mpsc::UnboundedSender<Message>>>,
    handlers: Mutex<HashMap<StoreId, Arc<dyn MessageHandler>>>,
    cut: Mutex<HashSet<StoreId>>,
    /// Messages handed over so far, by sender and receiver.
    delivered: Mutex<HashMap<(StoreId, StoreId), u64>>,
}

impl Wire {
    fn lane(self: &Arc<Self>, from: StoreId, to: StoreId) -> mpsc::UnboundedSender<Message> {
        let mut lanes = self.lanes.lock().unwrap();
        let lane = lanes.entry((from, to)).or_insert_with(|| {
            let (sender, mut messages) = mpsc::unbounded_channel::<Message>();
            let wire = self.clone();
            tokio::spawn(async move {
                while let Some(message) = messages.recv().await {
                    let cut = {
                        let cut = wire.cut.lock().unwrap();
                        cut.contains(&from) || cut.contains(&to)
                    };
                    let handler = wire.handlers.lock().unwrap().get(&to).cloned();
                    if let (false, Some(handler)) = (cut, handler) {
                        *wire.delivered.lock().unwrap().entry((from, to)).or_default() += 1;
                        handler.on_message(from, message);
                    }
                }
            });
            sender
        });
        lane.clone()
    }

    /// How many messages `from` has brought to `to`.
    pub fn delivered(&self, from: StoreId, to: StoreId) -> u64 {
        self.delivered.lock().unwrap().get(&(from, to)).copied().unwrap_or_default()
    }

    /// Nothing reaches or leaves `store` any more.
    pub fn isolate(&self, store: StoreId) {
        self.cut.lock().unwrap().insert(store);
    }

    pub fn heal(&self, store: StoreId) {
        self.cut.lock().unwrap().remove(&store);
    }
}

struct Port {
    wire: Arc<Wire>,
    from: StoreId,
    /// openraft's own tasks outlive a killed node; they must not speak for its successor.
    runtime: Arc<TestRuntime>,
}

impl Sender for Port {
    fn send(&self, to: StoreId, _: Class, message: Message) -> Result<(), SendError> {
        if *self.runtime.alive.borrow() {
            let _ = self.wire.lane(self.from, to).send(message);
        }
        Ok(())
    }
}

pub struct Node {
    pub multi: MultiRaft,
    pub engine: Arc<MemoryEngine>,
    metrics: Registry,
    runtime: Arc<TestRuntime>,
}

pub struct Cluster {
    pub wire: Arc<Wire>,
    pub nodes: HashMap<StoreId, Node>,
    tune: fn(&mut MultiRaftOptions),
}

pub fn stores() -> [StoreId; 3] {
    [StoreId(1), StoreId(2), StoreId(3)]
}

/// The one range that a test begins with.
pub fn descriptor() -> RangeDescriptor {
    let replicas = stores()
        .map(|store| ReplicaDescriptor {
            id: ReplicaId(store.get() + 100),
            store,
            role: ReplicaRole::Voter,
        })
        .to_vec();
    RangeDescriptor { id: RANGE, span: KeyRange::all(), epoch: RangeEpoch::INITIAL, replicas }
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_tuned(|_| {}).await
    }

    pub async fn start_tuned(tune: fn(&mut MultiRaftOptions)) -> Self {
        Self::start_with(tune, vec![descriptor()]).await
    }

    /// Three nodes, each with a replica of every one of `ranges`.
    pub async fn start_with(tune: fn(&mut MultiRaftOptions), ranges: Vec<RangeDescriptor>) -> Self {
        let mut cluster = Self::empty(tune);
        for store in stores() {
            cluster.boot(store, MemoryEngine::new());
        }
        for node in cluster.nodes.values() {
            let ranges = ranges.iter().map(|range| (range.clone(), range.replicas[0]));
            node.multi.create_ranges(ranges.collect()).await.unwrap();
        }
        cluster
    }

    /// One node, with the only replica of `range`.
    pub async fn start_on(store: StoreId, range: RangeDescriptor) -> Self {
        let mut cluster = Self::empty(|_| {});
        cluster.boot(store, MemoryEngine::new());
        let first = range.replicas[0];
        cluster.nodes[&store].multi.create_ranges(vec![(range, first)]).await.unwrap();
        cluster
    }

    fn empty(tune: fn(&mut MultiRaftOptions)) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        Self { wire: Arc::default(), nodes: HashMap::new(), tune }
    }

    /// The sum of a counter over all nodes.
    pub fn counted(&self, name: &str) -> u64 {
        let count = |node: &Node| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &node.metrics).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse::<u64>().unwrap()
        };
        self.nodes.values().map(count).sum()
    }

    pub fn boot(&mut self, store: StoreId, engine: Arc<MemoryEngine>) {
        let runtime = TestRuntime::new();
        let mut options = MultiRaftOptions::new(store);
        (self.tune)(&mut options);
        let writer = LogWriter::start(
            engine.clone() as Arc<dyn Engine>,
            runtime.clone(),
            LogWriterOptions::default(),
            LogWriterMetrics::register(&mut Default::default()),
            Arc::new(|_| {}),
        );
        let mut metrics = Registry::default();
        let parts = NodeParts {
            engine: engine.clone(),
            writer,
            runtime: runtime.clone(),
            observer: Arc::new(NoObserver),
            metrics: MultiRaftMetrics::register(&mut metrics),
        };
        let multi = MultiRaft::open(options, parts).unwrap();
        self.wire.handlers.lock().unwrap().insert(store, multi.handler());
        let port = Port { wire: self.wire.clone(), from: store, runtime: runtime.clone() };
        multi.start(Arc::new(port));
        self.nodes.insert(store, Node { multi, engine, metrics, runtime });
    }

    /// As kill -9 and a power cut: tasks stop, what was not synced is gone.
    pub fn kill(&mut self, store: StoreId) -> Arc<MemoryEngine> {
        self.wire.handlers.lock().unwrap().remove(&store);
        let node = self.nodes.remove(&store).unwrap();
        node.runtime.alive.send_replace(false);
        node.engine.crash()
    }

    pub fn replica(&self, store: StoreId, range: RangeId) -> Option<Arc<Replica>> {
        self.nodes[&store].multi.replica(range)
    }

    /// Waits until a node serves `range` as leader.
    pub async fn leader(&self, range: RangeId) -> Arc<Replica> {
        let found = || {
            self.nodes.values().find_map(|node| {
                node.multi.replica(range).filter(|replica| replica.leader().is_self)
            })
        };
        wait_for("a leader", || found().is_some()).await;
        found().unwrap()
    }

    pub async fn put(&self, range: RangeId, name: &str, value: &str) {
        let leader = self.leader(range).await;
        put(&leader, name, value).await.unwrap();
    }

    /// Reads linearizably at the leader.
    pub async fn get(&self, range: RangeId, name: &str) -> Option<Bytes> {
        let handle = self.leader(range).await.read().await.unwrap();
        handle.snapshot.get(Cf::Raw, name.as_bytes()).unwrap()
    }

    /// Waits until the driver of `store` has dropped the first entries of `range`.
    pub async fn wait_for_cut_log(&self, store: StoreId, range: RangeId) {
        let first = [range.get().to_be_bytes().as_slice(), &[1], &0u64.to_be_bytes()].concat();
        let engine = self.nodes[&store].engine.clone();
        wait_for("the log to be cut", || engine.get(Cf::Raft, &first).unwrap().is_none()).await;
    }

    /// Waits until every member that is up has applied what the leader has.
    pub async fn settle(&self, range: RangeId) {
        let leader = self.leader(range).await;
        let (target, descriptor) = (leader.applied_index(), leader.descriptor());
        let members =
            self.nodes.iter().filter(|(store, _)| descriptor.replica_on(**store).is_some());
        let members: Vec<&Node> = members.map(|(_, node)| node).collect();
        wait_for("followers to catch up", || {
            members.iter().all(|node| {
                node.multi.replica(range).is_some_and(|it| it.applied_index() >= target)
            })
        })
        .await;
    }
}

pub async fn put(
    leader: &Arc<Replica>,
    name: &str,
    value: &str,
) -> Result<cribwork_multiraft::Applied, cribwork_multiraft::RaftError> {
    let token = leader.token().await?;
    leader.propose(&token, one_put(name, value)).await
}

pub fn one_put(name: &str, value: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raw, name.to_owned(), value.to_owned());
    batch
}

pub fn bound(name: &str) -> Bytes {
    Bytes::from(key::encode(name.as_bytes()))
}

/// Polls until `condition` holds; fails the test after ten seconds.
pub async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
