//! A node that belongs to a cluster: the parts that run only then, and how they are put together.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use cribwork_engine::{LogWriter, LogWriterMetrics, LogWriterOptions, StoreIdentity};
use cribwork_multiraft::{MultiRaft, MultiRaftMetrics, NodeParts, Sender};
use cribwork_placement::BootstrapPlan;
use cribwork_transport::{
    Class, Message, PeerIdentity, SendError, Transport, TransportMetrics, TransportOptions,
};
use cribwork_types::{ClusterId, RangeDescriptor, ReplicaDescriptor, StoreId};

use crate::admin::AdminService;
use crate::autosplit::{AutosplitMetrics, Splitter};
use crate::bootstrap::InitOnly;
use crate::kv::{KvMetrics, KvParts, KvService};
use crate::node_state::NodeState;
use crate::pd::PdService;
use crate::place::{Place, PlaceMetrics, PlaceParts};
use crate::ranges::LocalRanges;
use crate::report::{ReportQueue, Reporter, ReporterParts};
use crate::sizes::RangeSizes;
use crate::verify::{Verifier, VerifierParts, VerifyMetrics};
use crate::{ServerError, StoreInfo};

/// The running parts of a member.
pub(crate) struct Member {
    pub(crate) identity: StoreIdentity,
    pub(crate) multi: MultiRaft,
    pub(crate) kv: KvService,
    pub(crate) place: Place,
    pub(crate) ranges: Arc<LocalRanges>,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) writer: LogWriter,
    transport: Transport,
    sender: Arc<DetachableSender>,
}

impl Member {
    pub(crate) fn cluster(&self) -> ClusterId {
        self.identity.cluster
    }

    pub(crate) fn store(&self) -> StoreId {
        self.identity.store
    }

    /// Ends the streams to and from other stores. Groups can send no more.
    pub(crate) fn disconnect(&self) {
        self.transport.shutdown();
        self.sender.0.store(None);
    }
}

/// The groups' way to other stores. The transport holds the groups (it delivers to them), so the
/// groups must not hold it for ever, or neither would ever be freed.
struct DetachableSender(ArcSwapOption<Transport>);

impl Sender for DetachableSender {
    fn send(&self, to: StoreId, class: Class, message: Message) -> Result<(), SendError> {
        match &*self.0.load() {
            Some(transport) => transport.send(to, class, message),
            None => Err(SendError::Shutdown),
        }
    }
}

/// Starts everything that a member runs, makes the ranges that the plan gives it if that has not
/// happened yet, and opens the gates. Called once, with the identity stored.
pub(crate) async fn start(
    node: &Arc<NodeState>,
    identity: StoreIdentity,
    plan: BootstrapPlan,
) -> Result<(), ServerError> {
    let store = identity.store;
    fill_addresses(node, store, &plan)?;
    let queue = Arc::new(ReportQueue::default());
    let (multi, writer) = open_groups(node, store, queue.clone())?;
    if !node.records.ranges_made()? {
        // Before any peer is let in: a message for a range that is not there yet would make an
        // empty replica of it, which waits for a snapshot.
        multi.create_ranges(planned_for(store, &plan)).await?;
        node.records.set_ranges_made()?;
    }
    let transport = open_transport(node, &identity, &multi);
    let sender = Arc::new(DetachableSender(ArcSwapOption::from_pointee(transport.clone())));
    node.gates.peer.open(transport.service());
    multi.start(sender.clone());

    let place = Place::new(PlaceParts {
        store,
        cluster: identity.cluster,
        plan,
        multi: multi.clone(),
        runtime: node.runtime.clone(),
        clock: node.clock.clone(),
        addresses: node.addresses.clone(),
        peers: node.peers.clone(),
        metrics: PlaceMetrics::register(&mut node.registry.lock()),
    });
    let ranges = LocalRanges::new(store, multi.clone(), place.clone(), node.runtime.clone());
    let kv = KvService::new(KvParts {
        store,
        cluster: identity.cluster,
        multi: multi.clone(),
        runtime: node.runtime.clone(),
        clock: node.clock.clone(),
        ranges: ranges.clone(),
        limits: node.config.limits.options(),
        metrics: KvMetrics::register(&mut node.registry.lock()),
    });
    let init = Arc::new(InitOnly::new(Arc::downgrade(node)));
    node.gates.open(
        kv.clone(),
        PdService::new(place.clone()),
        AdminService::new(place.clone(), init),
    );
    let parts = Started { multi, place, ranges, queue };
    let reporter = start_reporter(node, &identity, &parts);
    let verifier = start_verifier(node, &identity, &parts);
    let Started { multi, place, ranges, .. } = parts;
    let member = Member {
        identity,
        multi,
        kv,
        place,
        ranges,
        reporter,
        verifier,
        writer,
        transport,
        sender,
    };
    node.set_member(member).await;
    tracing::info!(cluster = %identity.cluster, %store, "member of the cluster");
    Ok(())
}

/// What the tasks that run beside the services are built on.
struct Started {
    multi: MultiRaft,
    place: Place,
    ranges: Arc<LocalRanges>,
    queue: Arc<ReportQueue>,
}

/// Starts to tell placement what this store has, and to split what grows too large.
fn start_reporter(node: &NodeState, identity: &StoreIdentity, parts: &Started) -> Arc<Reporter> {
    let Started { multi, place, ranges, queue } = parts;
    let sizes = RangeSizes::new(node.engine.clone());
    let splitter = Splitter::new(
        multi.clone(),
        ranges.clone(),
        node.engine.clone(),
        sizes.clone(),
        node.runtime.clone(),
        AutosplitMetrics::register(&mut node.registry.lock()),
    );
    node.runtime.spawn(Box::pin(splitter.clone().run(node.stop.clone())));
    let reporter = Reporter::new(ReporterParts {
        cluster: identity.cluster,
        store: node.own_info(identity.store),
        incarnation: identity.boot_count,
        queue: queue.clone(),
        multi: multi.clone(),
        place: place.clone(),
        addresses: node.addresses.clone(),
        sizes,
        splitter,
        records: node.records.clone(),
        runtime: node.runtime.clone(),
        clock: node.clock.clone(),
    });
    node.runtime.spawn(Box::pin(reporter.clone().watch_placement(node.stop.clone())));
    node.runtime.spawn(Box::pin(reporter.clone().run(node.stop.clone())));
    reporter
}

/// Starts to compare replicas.
fn start_verifier(node: &NodeState, identity: &StoreIdentity, parts: &Started) -> Arc<Verifier> {
    let verifier = Verifier::new(VerifierParts {
        store: identity.store,
        cluster: identity.cluster,
        multi: parts.multi.clone(),
        ranges: parts.ranges.clone(),
        addresses: node.addresses.clone(),
        peers: node.peers.clone(),
        runtime: node.runtime.clone(),
        metrics: VerifyMetrics::register(&mut node.registry.lock()),
    });
    node.runtime.spawn(Box::pin(verifier.clone().run(node.stop.clone())));
    verifier
}

/// What is known of the other stores: from the plan, overruled by what was heard since.
fn fill_addresses(
    node: &NodeState,
    store: StoreId,
    plan: &BootstrapPlan,
) -> Result<(), ServerError> {
    let planned = plan.stores.iter().map(|store| StoreInfo {
        id: store.id,
        address: store.address.clone(),
        http: store.http.clone(),
        ..StoreInfo::default()
    });
    for info in planned.chain(node.records.stores()?).chain([node.own_info(store)]) {
        node.addresses.set(info);
    }
    Ok(())
}

fn open_transport(node: &NodeState, identity: &StoreIdentity, multi: &MultiRaft) -> Transport {
    Transport::start(
        PeerIdentity { cluster: identity.cluster, store: identity.store },
        node.addresses.clone(),
        multi.handler(),
        node.connector.clone(),
        node.runtime.clone(),
        TransportOptions::default(),
        TransportMetrics::new(&mut node.registry.lock()),
    )
}

fn open_groups(
    node: &NodeState,
    store: StoreId,
    queue: Arc<ReportQueue>,
) -> Result<(MultiRaft, LogWriter), ServerError> {
    let writer = LogWriter::start(
        node.engine.clone(),
        node.runtime.clone(),
        LogWriterOptions::default(),
        LogWriterMetrics::register(&mut node.registry.lock()),
        node.on_fatal.clone(),
    );
    let parts = NodeParts {
        engine: node.engine.clone(),
        writer: writer.clone(),
        runtime: node.runtime.clone(),
        observer: queue,
        metrics: MultiRaftMetrics::register(&mut node.registry.lock()),
    };
    Ok((MultiRaft::open(node.config.raft.options(store), parts)?, writer))
}

/// The ranges of the plan that have a replica on `store`, the placement group among them, each with
/// its first leader.
fn planned_for(store: StoreId, plan: &BootstrapPlan) -> Vec<(RangeDescriptor, ReplicaDescriptor)> {
    let groups = [&plan.placement].into_iter().chain(&plan.ranges);
    let mine = groups.filter(|range| range.replica_on(store).is_some());
    mine.filter_map(|range| Some((range.clone(), *range.replicas.first()?))).collect()
}
