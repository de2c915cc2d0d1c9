//! Three nodes in one process, up to and including replication; above it is only the key-value
//! service.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_multiraft::{
    MultiRaft, MultiRaftMetrics, MultiRaftOptions, NoObserver, NodeParts, Replica,
};
use cribwork_router::evenly_split_bounds;
use cribwork_types::{
    Cf, KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole,
    StoreId, WriteBatch,
};
use tokio::runtime::Handle;

use crate::{Host, Loopback, Store};

const STORES: [StoreId; 3] = [StoreId(1), StoreId(2), StoreId(3)];

/// No node is taken for dead while the machine is busy with other things: an election would be part
/// of the measurement.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(3600);
/// Nor is a slow disk.
const FATE_TIMEOUT: Duration = Duration::from_secs(60);

/// A group's leader and where it runs.
#[derive(Clone)]
pub struct Leader {
    /// The host of the node that leads.
    pub handle: Handle,
    /// The leading replica.
    pub replica: Arc<Replica>,
    /// A key prefix that only this group holds.
    pub prefix: [u8; 2],
}

impl Leader {
    /// Replicates one raw put; returns when it is applied at the leader.
    pub async fn put(&self, number: u64, value: &'static [u8]) {
        let token = self.replica.token().await.unwrap();
        let name = [&self.prefix[..], format!("{number:014}").as_bytes()].concat();
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raw, name, value);
        self.replica.propose(&token, batch).await.unwrap();
    }
}

// Fields are dropped in this order: the node's tasks end before its store closes.
struct Node {
    multi: MultiRaft,
    host: Host,
    _store: Store,
}

/// Three nodes: each has one thread for its tasks, its own RocksDB, and its own port. One a process:
/// it is not shut down but dropped, which leaves threads behind that look after liveness.
pub struct Cluster {
    nodes: Vec<Node>,
    leaders: Vec<Leader>,
}

impl Cluster {
    /// Starts the nodes with `groups` groups of three, whose leaders are spread evenly, and waits until
    /// every group has applied a write.
    pub fn start(groups: u32) -> Self {
        let mut loopback = Loopback::bind(&STORES);
        let nodes = STORES.map(|store| Node::start(store, &mut loopback)).into();
        let mut cluster = Self { nodes, leaders: Vec::new() };
        let ranges = descriptors(groups);
        for node in &cluster.nodes {
            let (multi, ranges) = (node.multi.clone(), ranges.clone());
            node.host.run(async move { multi.create_ranges(ranges).await.unwrap() });
        }
        for (index, (range, leader)) in ranges.iter().enumerate() {
            let node = &cluster.nodes[leader.store.get() as usize - 1];
            let replica = node.multi.replica(range.id).expect("just created");
            let prefix = prefix(index as u32, groups);
            let leader = Leader { handle: node.host.handle().clone(), replica, prefix };
            cluster.leaders.push(leader.clone());
            node.host.run(async move { leader.put(0, b"first").await });
        }
        cluster
    }

    /// The leaders of all groups.
    pub fn leaders(&self) -> &[Leader] {
        &self.leaders
    }
}

impl Node {
    fn start(store: StoreId, loopback: &mut Loopback) -> Self {
        let host = Host::start();
        let runtime = host.runtime();
        let files = Store::open(runtime.clone());
        let options = MultiRaftOptions {
            liveness_timeout: LIVENESS_TIMEOUT,
            fate_timeout: FATE_TIMEOUT,
            ..MultiRaftOptions::new(store)
        };
        let parts = NodeParts {
            engine: files.engine.clone(),
            writer: files.writer.clone(),
            runtime,
            observer: Arc::new(NoObserver),
            metrics: MultiRaftMetrics::default(),
        };
        let multi = host.run(async move { MultiRaft::open(options, parts).unwrap() });
        let transport = loopback.start(store, &host, multi.handler());
        multi.start(Arc::new(transport));
        Self { multi, host, _store: files }
    }
}

/// The first two bytes of the keys of group `index`: those of [`evenly_split_bounds`].
fn prefix(index: u32, groups: u32) -> [u8; 2] {
    (((u64::from(index) << 16) / u64::from(groups)) as u16).to_be_bytes()
}

/// `groups` ranges that tile the key space, and the first leader of each.
fn descriptors(groups: u32) -> Vec<(RangeDescriptor, ReplicaDescriptor)> {
    let mut ends = evenly_split_bounds(groups).unwrap();
    *ends.last_mut().expect("one bound a range") = Bytes::new();
    let mut start = Bytes::new();
    let mut ranges = Vec::new();
    for (index, end) in ends.into_iter().enumerate() {
        let id = RangeId(index as u64 + 1);
        let replicas = STORES.map(|store| ReplicaDescriptor {
            id: ReplicaId(id.get() * STORES.len() as u64 + store.get()),
            store,
            role: ReplicaRole::Voter,
        });
        let span = KeyRange { start, end: end.clone() };
        let epoch = RangeEpoch::INITIAL;
        let descriptor = RangeDescriptor { id, span, epoch, replicas: replicas.to_vec() };
        ranges.push((descriptor, replicas[index % STORES.len()]));
        start = end;
    }
    ranges
}
