//! What a store tells placement: which ranges it holds and leads, at once when that changes, and that
//! it lives, once a second. Placement answers with what it wants done.
//!
//! ```text
//!  replicas --Observer--> ReportQueue --10 ms--> Reporter --Heartbeat--> placement leader
//!  replicas <--transfer of leadership--------------------- operators ---'
//! ```
//!
//! The queue knows nothing above it, so that replicas, which hold it, do not hold the whole node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cribwork_multiraft::{MultiRaft, Observer, Replica, ReplicaState};
use cribwork_proto::cribwork::admin::{
    DoubtfulReplica, HeartbeatRequest, HeartbeatResponse, Operator, RangeReport, operator,
};
use cribwork_types::{
    ClusterId, RangeDescriptor, RangeId, ReplicaDescriptor, Runtime, RuntimeExt, StoreId, Timestamp,
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::autosplit::Splitter;
use crate::doubts::Doubts;
use crate::identity::NodeRecords;
use crate::place::Place;
use crate::sizes::RangeSizes;
use crate::{AddressBook, HybridClock, ServerError, StoreInfo};

/// Time between two heartbeats when nothing changes.
const PERIOD: Duration = Duration::from_secs(1);
/// Changes within this time travel together: a dead node's ranges change leaders in bursts.
const COALESCE: Duration = Duration::from_millis(10);
/// Pause after a heartbeat that did not reach placement.
const RETRY: Duration = Duration::from_millis(100);
/// A heartbeat older than this says nothing about who leads placement.
const FRESH: Duration = Duration::from_secs(5);
/// Operators of placement that run at once; placement repeats what was left out.
const OPERATORS_MAX: usize = 32;

/// Gathers changes until the next heartbeat.
#[derive(Default)]
pub(crate) struct ReportQueue {
    /// At most one entry a local range.
    changed: Mutex<BTreeSet<RangeId>>,
    news: Notify,
    placement_news: Notify,
}

impl ReportQueue {
    fn push(&self, range: RangeId) {
        if range == RangeId::PLACEMENT {
            return self.placement_news.notify_one();
        }
        self.changed.lock().insert(range);
        self.news.notify_one();
    }

    fn take(&self) -> BTreeSet<RangeId> {
        std::mem::take(&mut *self.changed.lock())
    }

    /// What was taken did not arrive.
    fn give_back(&self, mut ranges: BTreeSet<RangeId>) {
        self.changed.lock().append(&mut ranges);
    }
}

impl Observer for ReportQueue {
    fn leader_changed(&self, range: RangeId, _: Option<ReplicaDescriptor>, _: u64, _: bool) {
        self.push(range);
    }

    fn range_changed(&self, descriptor: Arc<RangeDescriptor>) {
        self.push(descriptor.id);
    }
}

/// Who reports, and from what.
pub(crate) struct ReporterParts {
    pub(crate) cluster: ClusterId,
    pub(crate) store: StoreInfo,
    pub(crate) incarnation: u64,
    pub(crate) queue: Arc<ReportQueue>,
    pub(crate) multi: MultiRaft,
    pub(crate) place: Place,
    pub(crate) addresses: Arc<AddressBook>,
    pub(crate) sizes: Arc<RangeSizes>,
    pub(crate) splitter: Arc<Splitter>,
    pub(crate) records: Arc<NodeRecords>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Arc<HybridClock>,
}

/// Sends heartbeats and does what the answers ask for.
pub(crate) struct Reporter {
    parts: ReporterParts,
    /// 0 if unknown.
    placement_leader: AtomicU64,
    /// Runtime clock, milliseconds, of the last answer; 0 for none yet.
    answered_ms: AtomicU64,
    operators_running: AtomicUsize,
    /// Ranges last reported as led by this store.
    led: Mutex<BTreeSet<RangeId>>,
    /// Ranges without a leader or data at the last heartbeat.
    doubts: Mutex<Doubts>,
}

impl Reporter {
    pub(crate) fn new(parts: ReporterParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            placement_leader: AtomicU64::new(0),
            answered_ms: AtomicU64::new(0),
            operators_running: AtomicUsize::new(0),
            led: Mutex::default(),
            doubts: Mutex::default(),
        })
    }

    /// The store that leads placement, as it said itself a moment ago.
    pub(crate) fn placement_leader(&self) -> Option<StoreId> {
        let age = self.now_ms().saturating_sub(self.answered_ms.load(Ordering::Acquire));
        match self.placement_leader.load(Ordering::Acquire) {
            0 => None,
            _ if age > FRESH.as_millis() as u64 => None,
            store => Some(StoreId(store)),
        }
    }

    /// Tells placement's host of elections in its group, at once. Runs until `stop`.
    pub(crate) async fn watch_placement(self: Arc<Self>, stop: CancellationToken) {
        loop {
            // Leadership may have come before this task did, so first without being told.
            self.parts.place.leader_changed();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.parts.queue.placement_news.notified() => {}
            }
        }
    }

    /// Sends heartbeats. Runs until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let heartbeats = async {
            let mut full = true;
            let mut failures = 0u64;
            loop {
                match self.beat(full).await {
                    Ok(want_full) => {
                        full = want_full;
                        failures = 0;
                        self.wait(full).await;
                    }
                    Err(error) => {
                        failures += 1;
                        // Elections pass in silence.
                        if failures % 50 == 10 {
                            tracing::warn!(%error, failures, "placement does not answer");
                        }
                        self.parts.runtime.sleep(RETRY).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = heartbeats => {}
        }
    }

    /// Until something changes or it is time again; only a moment if placement waits.
    async fn wait(&self, urgent: bool) {
        let runtime = &self.parts.runtime;
        if !urgent {
            let _ = runtime.timeout(PERIOD, self.parts.queue.news.notified()).await;
        }
        runtime.sleep(COALESCE).await;
    }

    /// One heartbeat; true if the next one must be full.
    async fn beat(self: &Arc<Self>, full: bool) -> Result<bool, ServerError> {
        self.look_at_sizes();
        let changed = self.parts.queue.take();
        let (request, told) = self.request(full, &changed);
        match self.parts.place.heartbeat(request).await {
            Ok(response) => {
                let mut led = self.led.lock();
                for (range, is_leader) in told {
                    match is_leader {
                        true => led.insert(range),
                        false => led.remove(&range),
                    };
                }
                drop(led);
                Ok(self.take_in(response, full))
            }
            Err(error) => {
                self.parts.queue.give_back(changed);
                Err(error)
            }
        }
    }

    /// A heartbeat, and of which ranges it says whether this store leads them.
    fn request(
        &self,
        full: bool,
        changed: &BTreeSet<RangeId>,
    ) -> (HeartbeatRequest, Vec<(RangeId, bool)>) {
        let parts = &self.parts;
        let all = parts.multi.replicas();
        let replicas: Vec<_> = all.iter().filter(|replica| is_reported(replica)).collect();
        let leaders = replicas.iter().filter(|replica| replica.leader().is_self).count();
        let disk = parts.sizes.disk();
        let led = self.led.lock();
        let (mut ranges, mut told) = (Vec::new(), Vec::new());
        for replica in &replicas {
            let range = replica.range_id();
            if !full && !changed.contains(&range) {
                continue;
            }
            let report = self.report(replica);
            // What followers see of a change, its leader reports.
            if full || report.is_leader || led.contains(&range) {
                told.push((range, report.is_leader));
                ranges.push(report);
            }
        }
        let request = HeartbeatRequest {
            cluster_id: parts.cluster.get(),
            store: parts.store.id.get(),
            address: parts.store.address.clone(),
            http: parts.store.http.clone(),
            zone: parts.store.zone.clone(),
            used_bytes: disk.used_bytes,
            capacity_bytes: disk.capacity_bytes,
            full,
            ranges,
            incarnation: parts.incarnation,
            leaders: leaders as u64,
            replicas: replicas.len() as u64,
            doubtful: self.doubtful(&all),
        };
        (request, told)
    }

    fn doubtful(&self, all: &[Arc<Replica>]) -> Vec<DoubtfulReplica> {
        let (mut lost, mut quiet) = (BTreeSet::new(), BTreeSet::new());
        for replica in all {
            let without_data = replica.state() == ReplicaState::Uninitialised;
            match without_data || !replica.has_live_leader() {
                true => lost.insert(replica.range_id()),
                // Leaders too: one that slept while it was deposed and removed is told by nobody else.
                false => quiet.insert(replica.range_id()),
            };
        }
        let asked = self.doubts.lock().next(lost, &quiet);
        let report = |replica: &Arc<Replica>| DoubtfulReplica {
            range: replica.range_id().get(),
            replica: replica.replica_id().get(),
            conf_ver: replica.descriptor().epoch.conf_ver,
            version: replica.descriptor().epoch.version,
            start: is_reported(replica).then(|| replica.descriptor().span.start.clone()),
        };
        all.iter().filter(|replica| asked.contains(&replica.range_id())).map(report).collect()
    }

    /// Takes placement's answer; true if the next heartbeat must be full.
    fn take_in(self: &Arc<Self>, response: HeartbeatResponse, was_full: bool) -> bool {
        let leader = response.placement_leader_store;
        let before = self.placement_leader.swap(leader, Ordering::AcqRel);
        self.answered_ms.store(self.now_ms().max(1), Ordering::Release);
        let members = response.placement_members.iter().copied().map(StoreId).collect();
        self.parts.place.heard(StoreId(leader), members);
        self.parts.clock.observe(Timestamp::new(response.tso_physical_ms, 0));
        // Of itself, a store knows best.
        let others = response.stores.into_iter().filter(|it| it.id != self.parts.store.id.get());
        let news = others.filter(|it| self.parts.addresses.set(it.clone().into())).count();
        if news > 0
            && let Err(error) = self.parts.records.save_stores(&self.parts.addresses.all())
        {
            tracing::warn!(%error, "cannot remember the addresses of other stores");
        }
        for descriptor in response.gone {
            match RangeDescriptor::decode(descriptor) {
                Ok(now) => drop(self.parts.multi.check_gone(&now)),
                Err(error) => tracing::warn!(%error, "placement sends a damaged descriptor"),
            }
        }
        for merged in response.merged {
            match RangeDescriptor::decode(merged.descriptor) {
                Ok(now) => drop(self.parts.multi.check_merged(RangeId(merged.range), &now)),
                Err(error) => tracing::warn!(%error, "placement sends a damaged descriptor"),
            }
        }
        self.parts.splitter.set_limit(response.split_size_bytes);
        if let Some(after) = response.cold_after_ms {
            self.parts.multi.set_cold_after(Duration::from_millis(after));
        }
        self.execute(response.operators);
        response.want_full || (leader != before && !was_full)
    }

    /// Does what placement asks, each step in a task of its own.
    pub(crate) fn execute(self: &Arc<Self>, operators: Vec<Operator>) {
        for operator in operators {
            let Some(operator::Step::TransferLeader(transfer)) = operator.step else {
                tracing::warn!("placement asks for a step that this build does not know");
                continue;
            };
            let (range, to) = (RangeId(transfer.range), StoreId(transfer.to_store));
            let Some(replica) = self.parts.multi.replica(range) else { continue };
            if self.operators_running.fetch_add(1, Ordering::AcqRel) >= OPERATORS_MAX {
                self.operators_running.fetch_sub(1, Ordering::AcqRel);
                return;
            }
            let reporter = self.clone();
            self.parts.runtime.spawn(Box::pin(async move {
                match replica.transfer_leader(to).await {
                    Ok(()) => tracing::debug!(%range, %to, "moved leadership for placement"),
                    Err(error) => tracing::info!(%range, %to, %error, "leadership stays"),
                }
                reporter.operators_running.fetch_sub(1, Ordering::AcqRel);
            }));
        }
    }

    fn look_at_sizes(&self) {
        let parts = &self.parts;
        let notable_bytes = parts.splitter.limit_bytes() / 8;
        let moved = parts.sizes.look(&parts.multi.replicas(), parts.runtime.now(), notable_bytes);
        let mut changed = parts.queue.changed.lock();
        changed.extend(moved);
        changed.extend(parts.splitter.take_news());
    }

    fn report(&self, replica: &Replica) -> RangeReport {
        let view = replica.leader();
        let range = replica.range_id();
        RangeReport {
            descriptor: replica.descriptor().encode(),
            leader_replica: view.leader.map_or(0, |leader| leader.id.get()),
            term: view.term,
            is_leader: view.is_self,
            size_bytes: self.parts.sizes.of(range),
            kept_whole: self.parts.splitter.kept_whole(range).unwrap_or_default(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.parts.runtime.now().as_millis() as u64
    }
}

/// The placement group is no part of the key space; a replica without data knows nothing.
fn is_reported(replica: &Arc<Replica>) -> bool {
    replica.range_id() != RangeId::PLACEMENT && replica.state() != ReplicaState::Uninitialised
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_arrive_goes_with_the_next_heartbeat() {
        let queue = ReportQueue::default();
        queue.push(RangeId(4));
        queue.leader_changed(RangeId(2), None, 3, false);
        queue.push(RangeId::PLACEMENT);
        let taken = queue.take();
        assert_eq!(taken, BTreeSet::from([RangeId(2), RangeId(4)]));
        queue.push(RangeId(7));
        queue.give_back(taken);
        assert_eq!(queue.take().len(), 3);
        assert!(queue.take().is_empty());
    }
}
