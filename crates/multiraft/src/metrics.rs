//! Counters of a node's groups. Dividing one by another gives what an operation costs: commands per
//! round, entries per apply round.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// One set a node; the registry is passed in, because one process may host several nodes.
#[derive(Clone, Debug, Default)]
pub struct MultiRaftMetrics {
    pub(crate) rounds: Counter,
    pub(crate) commands: Counter,
    pub(crate) applied_entries: Counter,
    pub(crate) apply_rounds: Counter,
    pub(crate) read_index: Counter,
    pub(crate) campaigns: Counter,
    pub(crate) lease_renewals: Counter,
    pub(crate) log_cuts: Counter,
    pub(crate) rebuilt: Counter,
    pub(crate) transfers_failed: Counter,
    pub(crate) malformed_messages: Counter,
    pub(crate) messages_unknown_range: Counter,
    pub(crate) snapshots_sent: Counter,
    pub(crate) snapshots_installed: Counter,
    pub(crate) snapshots_refused: Counter,
    pub(crate) live_replicas: Gauge,
}

impl MultiRaftMetrics {
    /// Declares every metric in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("cribwork_raft_{name}"), help, counter.clone());
        };
        counter(
            "rounds",
            "Entries proposed by this node's leaders",
            &metrics.rounds,
        );
        counter("commands", "Commands in those entries", &metrics.commands);
        counter(
            "applied_entries",
            "Entries applied, all groups",
            &metrics.applied_entries,
        );
        counter(
            "apply_rounds",
            "Engine writes that applied them",
            &metrics.apply_rounds,
        );
        counter(
            "read_index",
            "Reads that had to ask a majority",
            &metrics.read_index,
        );
        counter(
            "campaigns",
            "Campaigns started by the liveness driver",
            &metrics.campaigns,
        );
        counter(
            "lease_renewals",
            "Heartbeats sent to keep a lease",
            &metrics.lease_renewals,
        );
        counter(
            "log_cuts",
            "Times a log was cut behind a snapshot",
            &metrics.log_cuts,
        );
        counter(
            "rebuilt",
            "Instances rebuilt after a fatal error",
            &metrics.rebuilt,
        );
        counter(
            "transfers_failed",
            "Transfers without a new leader",
            &metrics.transfers_failed,
        );
        counter(
            "malformed_messages",
            "Messages dropped as damaged",
            &metrics.malformed_messages,
        );
        counter(
            "messages_unknown_range",
            "Messages for ranges that are not here",
            &metrics.messages_unknown_range,
        );
        counter("snapshots_sent", "Snapshots sent", &metrics.snapshots_sent);
        counter(
            "snapshots_installed",
            "Snapshots installed",
            &metrics.snapshots_installed,
        );
        counter(
            "snapshots_refused",
            "Snapshots refused on arrival",
            &metrics.snapshots_refused,
        );
        registry.register(
            "cribwork_raft_live_replicas",
            "Replicas that hold a Raft instance",
            metrics.live_replicas.clone(),
        );
        metrics
    }
}
