//! What the log writer counts. Together with operations served these are the cost model of a node:
//! appends per fsync and fsyncs per transaction.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Shared handles to the log writer's metrics; clones count into the same numbers.
#[derive(Clone, Debug)]
pub struct LogWriterMetrics {
    /// Appends taken, barriers included (`cribwork_log_appends_total`).
    pub appends: Counter,
    /// Engine writes, each of one or more appends (`cribwork_log_batches_total`).
    pub batches: Counter,
    /// Completed syncs (`cribwork_log_fsyncs_total`).
    pub fsyncs: Counter,
    /// Bytes of keys and values written (`cribwork_log_bytes_total`).
    pub bytes: Counter,
    /// Seconds that each sync took (`cribwork_log_fsync_seconds`).
    pub fsync_seconds: Histogram,
    /// Appends that waited when the writer last looked (`cribwork_log_queue_depth`).
    pub queue_depth: Gauge,
}

impl LogWriterMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = LogWriterMetrics {
            appends: Counter::default(),
            batches: Counter::default(),
            fsyncs: Counter::default(),
            bytes: Counter::default(),
            // 50 us (a disk with a write cache that survives power cuts) to 1.6 s (a dying one).
            fsync_seconds: Histogram::new(exponential_buckets(50e-6, 2.0, 16)),
            queue_depth: Gauge::default(),
        };
        let all = metrics.clone();
        registry.register("cribwork_log_appends", "Appends of all Raft groups", all.appends);
        registry.register("cribwork_log_batches", "Engine writes of the log writer", all.batches);
        registry.register("cribwork_log_fsyncs", "Syncs of the write-ahead log", all.fsyncs);
        registry.register("cribwork_log_bytes", "Bytes of keys and values appended", all.bytes);
        registry.register("cribwork_log_fsync_seconds", "Time of one sync", all.fsync_seconds);
        registry.register("cribwork_log_queue_depth", "Appends waiting", all.queue_depth);
        metrics
    }
}
