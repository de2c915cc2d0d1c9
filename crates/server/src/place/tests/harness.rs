//! One node's placement host over an in-memory store, for as long as a process lives.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cribwork_engine::{Engine, LogWriter, LogWriterMetrics, LogWriterOptions, MemoryEngine};
use cribwork_multiraft::{
    MultiRaft, MultiRaftMetrics, MultiRaftOptions, NoObserver, NodeParts, Sender,
};
use cribwork_placement::{BootstrapPlan, PlannedStore};
use cribwork_proto::cribwork::admin::{HeartbeatRequest, RangeReport};
use cribwork_transport::{Class, Message, SendError, TcpConnector};
use cribwork_types::{ClusterId, RangeDescriptor, Runtime, StoreId};
use prometheus_client::registry::Registry;

use crate::pd::PdService;
use crate::place::{Place, PlaceMetrics, PlaceParts};
use crate::{AddressBook, HybridClock, PeerClients, TokioRuntime, tokio_runtime};

pub(crate) const CLUSTER: ClusterId = ClusterId(77);
struct NoWire;

impl Sender for NoWire {
    fn send(&self, to: StoreId, _: Class, _: Message) -> Result<(), SendError> {
        Err(SendError::UnknownStore { store: to })
    }
}

/// Three stores, of which only the first holds the placement group. All are at `address`.
fn plan(ranges: u32, address: SocketAddr) -> BootstrapPlan {
    let store = |id: u64| PlannedStore {
        id: StoreId(id),
        address: format!("s{id}@{address}"),
        http: format!("h{id}:1"),
    };
    let mut plan = BootstrapPlan::make(CLUSTER, (1..=3).map(store).collect(), ranges).unwrap();
    // A plan names no address twice.
    for store in &mut plan.stores {
        store.address = address.to_string();
    }
    plan.placement.replicas.truncate(1);
    plan.placement_members.truncate(1);
    plan
}

/// Takes connections and never answers, like a node that is stopped: what placement sends there
/// stays under way.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// One life of the process.
pub(crate) struct Life {
    runtime: tokio::runtime::Runtime,
    engine: Arc<MemoryEngine>,
    pub(crate) place: Place,
    pub(crate) plan: BootstrapPlan,
    silent: TcpListener,
}

impl Life {
    /// The node that holds the placement group, on an empty store.
    pub(crate) fn first(ranges: u32) -> Self {
        Self::of(StoreId(1), ranges)
    }

    /// The node of `store`, on an empty store.
    pub(crate) fn of(store: StoreId, ranges: u32) -> Self {
        let silent = silent();
        let plan = plan(ranges, silent.local_addr().unwrap());
        Self::on(MemoryEngine::new(), store, plan, silent)
    }

    fn on(
        engine: Arc<MemoryEngine>,
        store: StoreId,
        plan: BootstrapPlan,
        silent: TcpListener,
    ) -> Self {
        let runtime = tokio_runtime(2).unwrap();
        let _entered = runtime.enter();
        let clock: Arc<dyn Runtime> = Arc::new(TokioRuntime::new(runtime.handle().clone()));
        let writer = LogWriter::start(
            engine.clone() as Arc<dyn Engine>,
            clock.clone(),
            LogWriterOptions::default(),
            LogWriterMetrics::register(&mut Registry::default()),
            Arc::new(|error| panic!("{error}")),
        );
        let parts = NodeParts {
            engine: engine.clone(),
            writer,
            runtime: clock.clone(),
            observer: Arc::new(NoObserver),
            metrics: MultiRaftMetrics::default(),
        };
        let multi = MultiRaft::open(MultiRaftOptions::new(store), parts).unwrap();
        multi.start(Arc::new(NoWire));
        if plan.placement.replica_on(store).is_some() {
            let (group, leader) = (plan.placement.clone(), plan.placement.replicas[0]);
            runtime.block_on(multi.create_range(group, leader)).unwrap();
        }
        let place = Place::new(PlaceParts {
            store,
            cluster: CLUSTER,
            plan: plan.clone(),
            multi,
            runtime: clock.clone(),
            clock: Arc::new(HybridClock::new(clock.clone())),
            addresses: Arc::new(AddressBook::from_plan(&plan)),
            peers: Arc::new(PeerClients::new(Arc::new(TcpConnector), clock)),
            metrics: PlaceMetrics::register(&mut Registry::default()),
        });
        drop(_entered);
        Self { runtime, engine, place, plan, silent }
    }

    /// The next life, after a power cut.
    pub(crate) fn crash(self) -> Self {
        let engine = self.engine.crash();
        self.runtime.shutdown_background();
        Self::on(engine, StoreId(1), self.plan, self.silent)
    }

    pub(crate) fn pd(&self) -> PdService {
        PdService::new(self.place.clone())
    }

    /// Waits for `future`, 20 seconds at most.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let limited = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await });
        limited.expect("an answer in time")
    }

    /// What `store` reports of ranges, each with the index of its leader's replica and a term.
    pub(crate) fn beat(&self, store: u64, full: bool, led: &[(RangeDescriptor, u64)]) -> Beat {
        let report = |(range, term): &(RangeDescriptor, u64)| RangeReport {
            descriptor: range.encode(),
            leader_replica: range.replica_on(StoreId(store)).unwrap().id.get(),
            term: *term,
            is_leader: true,
            size_bytes: 100,
            kept_whole: String::new(),
        };
        let planned = &self.plan.stores[store as usize - 1];
        let request = HeartbeatRequest {
            cluster_id: CLUSTER.get(),
            store,
            address: planned.address.clone(),
            http: planned.http.clone(),
            full,
            ranges: led.iter().map(report).collect(),
            leaders: led.len() as u64,
            ..HeartbeatRequest::default()
        };
        self.wait(self.place.heartbeat(request)).unwrap()
    }
}

impl Life {
    /// A sign of life of a store that has joined later. Its disk is nearly full, so that nothing moves
    /// there unless somebody asks for it.
    pub(crate) fn beat_of(&self, store: u64, address: &str) -> Beat {
        let request = HeartbeatRequest {
            cluster_id: CLUSTER.get(),
            store,
            address: address.to_owned(),
            full: true,
            used_bytes: 90,
            capacity_bytes: 100,
            ..HeartbeatRequest::default()
        };
        self.wait(self.place.heartbeat(request)).unwrap()
    }
}

pub(crate) type Beat = cribwork_proto::cribwork::admin::HeartbeatResponse;

/// Asks until `condition` holds, 10 seconds at most.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}
