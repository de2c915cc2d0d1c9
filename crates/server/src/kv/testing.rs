//! Nodes for tests: real Raft groups over engines in memory, joined by a wire that can be cut.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cribwork_engine::{LogWriter, LogWriterMetrics, LogWriterOptions, MemoryEngine};
use cribwork_multiraft::{
    MultiRaft, MultiRaftMetrics, MultiRaftOptions, NewRange, NoObserver, NodeParts, Sender,
};
use cribwork_proto::kvrpcpb::Context;
use cribwork_transport::{Class, Message, MessageHandler, SendError};
use cribwork_types::{
    ClusterId, KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId,
    ReplicaRole, Runtime, StoreId, Timestamp, key,
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use crate::kv::answer::Answer;
use crate::kv::call::Command;
use crate::kv::{KvLimits, KvMetrics, KvParts, KvService, RangeOps};
use crate::{HybridClock, ServerError, TokioRuntime};

pub(crate) const CLUSTER: ClusterId = ClusterId(77);
/// Holds every key below "m".
pub(crate) const LOW: RangeId = RangeId(1);
/// Holds the others.
pub(crate) const HIGH: RangeId = RangeId(2);

/// All stores of a test.
#[derive(Default)]
pub(crate) struct Wire {
    handlers: Mutex<HashMap<StoreId, Arc<dyn MessageHandler>>>,
    cut: AtomicBool,
}

impl Wire {
    /// Cuts every connection, or joins them again.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
        let handlers = self.handlers.lock();
        for (store, handler) in handlers.iter() {
            for peer in handlers.keys().filter(|peer| *peer != store) {
                match cut {
                    true => handler.on_disconnected(*peer),
                    false => handler.on_connected(*peer),
                }
            }
        }
    }
}

struct Port {
    store: StoreId,
    wire: Arc<Wire>,
}

impl Sender for Port {
    fn send(&self, to: StoreId, _: Class, message: Message) -> Result<(), SendError> {
        let handler = self.wire.handlers.lock().get(&to).cloned();
        if let Some(handler) = handler.filter(|_| !self.wire.cut.load(Ordering::SeqCst)) {
            handler.on_message(self.store, message);
        }
        Ok(())
    }
}

struct Splits {
    multi: MultiRaft,
    next: AtomicU64,
}

#[async_trait]
impl RangeOps for Splits {
    async fn split_here(
        &self,
        range: RangeId,
        bound: Bytes,
    ) -> Result<(RangeDescriptor, RangeDescriptor), ServerError> {
        let replica = self.multi.replica(range).ok_or(ServerError::NotFound("range".into()))?;
        let token = replica.token().await?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let stores = replica.descriptor().replicas.clone();
        let ids = stores.iter().map(|it| (it.store, ReplicaId(id * 10 + it.store.get())));
        let right = NewRange { id: RangeId(id), replicas: ids.collect() };
        Ok(replica.split(&token, bound, right).await?)
    }

    async fn tso(&self, _: u32) -> Result<Timestamp, ServerError> {
        Err(ServerError::Shutdown)
    }
}

/// One store and its service.
pub(crate) struct Node {
    pub(crate) store: StoreId,
    pub(crate) multi: MultiRaft,
    pub(crate) clock: Arc<HybridClock>,
    pub(crate) service: KvService,
}

fn descriptor(id: RangeId, span: KeyRange, stores: u64) -> RangeDescriptor {
    let replica = |store| ReplicaDescriptor {
        id: ReplicaId(id.get() * 10 + store),
        store: StoreId(store),
        role: ReplicaRole::Voter,
    };
    let replicas = (1..=stores).map(replica).collect();
    RangeDescriptor { id, span, epoch: RangeEpoch::INITIAL, replicas }
}

impl Node {
    /// One store with the ranges [`LOW`] and [`HIGH`].
    pub(crate) async fn single() -> Self {
        Self::single_with(KvLimits::default()).await
    }

    /// As [`Node::single`], with other bounds.
    pub(crate) async fn single_with(limits: KvLimits) -> Self {
        let options = MultiRaftOptions::new(StoreId(1));
        Self::start(options, 1, limits, &Arc::default()).await
    }

    /// Stores 1 to 3; store 1 leads both ranges.
    pub(crate) async fn three(fate_timeout: Duration) -> (Vec<Self>, Arc<Wire>) {
        let (mut nodes, wire) = (Vec::new(), Arc::new(Wire::default()));
        for store in (1..=3).rev() {
            let options =
                MultiRaftOptions { fate_timeout, ..MultiRaftOptions::new(StoreId(store)) };
            nodes.insert(0, Self::start(options, 3, KvLimits::default(), &wire).await);
        }
        (nodes, wire)
    }

    async fn start(
        options: MultiRaftOptions,
        stores: u64,
        limits: KvLimits,
        wire: &Arc<Wire>,
    ) -> Self {
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime::new(Handle::current()));
        let engine = MemoryEngine::new();
        let mut registry = Registry::default();
        let writer = LogWriter::start(
            engine.clone(),
            runtime.clone(),
            LogWriterOptions::default(),
            LogWriterMetrics::register(&mut registry),
            Arc::new(|error| panic!("the log writer failed: {error}")),
        );
        let parts = NodeParts {
            engine,
            writer,
            runtime: runtime.clone(),
            observer: Arc::new(NoObserver),
            metrics: MultiRaftMetrics::register(&mut registry),
        };
        let store = options.store;
        let multi = MultiRaft::open(options, parts).unwrap();
        wire.handlers.lock().insert(store, multi.handler());
        multi.start(Arc::new(Port { store, wire: wire.clone() }));
        let middle = key::encode(b"m");
        for (id, span) in
            [(LOW, KeyRange::new("", middle.clone())), (HIGH, KeyRange::new(middle, ""))]
        {
            let range = descriptor(id, span, stores);
            let leader = range.replicas[0];
            multi.create_range(range, leader).await.unwrap();
        }
        let clock = Arc::new(HybridClock::new(runtime.clone()));
        let service = KvService::new(KvParts {
            store,
            cluster: CLUSTER,
            multi: multi.clone(),
            runtime,
            clock: clock.clone(),
            ranges: Arc::new(Splits { multi: multi.clone(), next: AtomicU64::new(100) }),
            limits,
            metrics: KvMetrics::register(&mut registry),
        });
        Self { store, multi, clock, service }
    }

    /// A context that fits a local range as it is now.
    pub(crate) fn context(&self, range: RangeId) -> Option<Context> {
        let range = self.multi.replica(range).unwrap().descriptor();
        Some(Context {
            region_id: range.id.get(),
            region_epoch: Some(range.epoch.into()),
            peer: range.replica_on(self.store).map(Into::into),
            ..Default::default()
        })
    }

    /// The answer to `command`, as the batch stream would carry it.
    pub(crate) async fn call<C: Command>(&self, command: C) -> C::Answer {
        self.service.core.serve_detached(command).await.unwrap_or_else(C::Answer::of)
    }
}
