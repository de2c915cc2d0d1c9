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
    pub(crate) made_uninitialised: Counter,
    pub(crate) snapshots_sent: Counter,
    pub(crate) snapshots_installed: Counter,
    pub(crate) snapshots_refused: Counter,
    pub(crate) membership_changes: Counter,
    pub(crate) destroyed: Counter,
    pub(crate) absorbed: Counter,
    pub(crate) gone_cold: Counter,
    pub(crate) live_replicas: Gauge,
}

impl MultiRaftMetrics {
    /// Declares every metric in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        let counters = [
            ("rounds", "Entries proposed by this node's leaders", &m.rounds),
            ("commands", "Commands in those entries", &m.commands),
            ("applied_entries", "Entries applied, all groups", &m.applied_entries),
            ("apply_rounds", "Engine writes that applied them", &m.apply_rounds),
            ("read_index", "Reads that had to ask a majority", &m.read_index),
            ("campaigns", "Campaigns started by the liveness driver", &m.campaigns),
            ("lease_renewals", "Heartbeats sent to keep a lease", &m.lease_renewals),
            ("log_cuts", "Times a log was cut behind a snapshot", &m.log_cuts),
            ("rebuilt", "Instances rebuilt after a fatal error", &m.rebuilt),
            ("transfers_failed", "Transfers without a new leader", &m.transfers_failed),
            ("malformed_messages", "Messages dropped as damaged", &m.malformed_messages),
            (
                "messages_unknown_range",
                "Messages for ranges that are not here",
                &m.messages_unknown_range,
            ),
            (
                "made_uninitialised",
                "Replicas made without data, to be filled by a snapshot",
                &m.made_uninitialised,
            ),
            ("snapshots_sent", "Snapshots sent", &m.snapshots_sent),
            ("snapshots_installed", "Snapshots installed", &m.snapshots_installed),
            ("snapshots_refused", "Snapshots refused on arrival", &m.snapshots_refused),
            (
                "membership_changes",
                "Changes of members that were asked for and made",
                &m.membership_changes,
            ),
            ("gone_cold", "Idle replicas that closed their Raft instance", &m.gone_cold),
            ("destroyed", "Replicas removed from this store", &m.destroyed),
            ("absorbed", "Replicas whose range was merged into its neighbour", &m.absorbed),
        ];
        for (name, help, counter) in counters {
            registry.register(format!("cribwork_raft_{name}"), help, counter.clone());
        }
        registry.register(
            "cribwork_raft_live_replicas",
            "Replicas that hold a Raft instance",
            m.live_replicas.clone(),
        );
        m
    }
}
