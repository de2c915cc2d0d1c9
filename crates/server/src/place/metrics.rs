//! Counters of the placement host.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// One set a node.
#[derive(Clone, Debug, Default)]
pub struct PlaceMetrics {
    pub(super) timestamps: Counter,
    pub(super) timestamp_requests: Counter,
    pub(super) heartbeats: Counter,
    pub(super) forwarded: Counter,
    pub(super) transfers_started: Counter,
    pub(super) transfers_failed: Counter,
    pub(super) changes_started: Counter,
    pub(super) changes_failed: Counter,
    pub(super) merges_done: Counter,
    pub(super) merges_abandoned: Counter,
    pub(super) leading: Gauge,
}

impl PlaceMetrics {
    /// Declares every metric in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        let counters = [
            ("timestamps", "Timestamps handed out", &m.timestamps),
            ("timestamp_requests", "Requests that asked for them", &m.timestamp_requests),
            ("heartbeats", "Store heartbeats taken in", &m.heartbeats),
            ("forwarded", "Requests passed on to the placement leader", &m.forwarded),
            ("transfers_started", "Leader transfers ordered", &m.transfers_started),
            ("transfers_failed", "Leader transfers that failed", &m.transfers_failed),
            ("changes_started", "Steps of replica changes ordered", &m.changes_started),
            ("changes_failed", "Steps of replica changes that failed", &m.changes_failed),
            ("merges_done", "Ranges merged into their neighbours", &m.merges_done),
            ("merges_abandoned", "Merges that were begun and given up", &m.merges_abandoned),
        ];
        for (name, help, counter) in counters {
            registry.register(format!("cribwork_placement_{name}"), help, counter.clone());
        }
        let help = "1 while this node leads the placement group";
        registry.register("cribwork_placement_leading", help, m.leading.clone());
        m
    }
}
