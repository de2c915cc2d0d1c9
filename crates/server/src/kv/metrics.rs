//! What the service counts.

use std::time::Duration;

use cribwork_proto::errorpb;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::kv::failure::Failure;

macro_rules! kinds {
    ($($kind:ident = $name:literal,)*) => {
        /// A call of the service.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($kind,)*
        }

        impl Kind {
            /// Names in metrics, in the order of the kinds.
            const NAMES: &[&str] = &[$($name,)*];
        }
    };
}

kinds! {
    Get = "kv_get",
    BatchGet = "kv_batch_get",
    Scan = "kv_scan",
    Prewrite = "kv_prewrite",
    Commit = "kv_commit",
    Cleanup = "kv_cleanup",
    BatchRollback = "kv_batch_rollback",
    CheckTxnStatus = "kv_check_txn_status",
    TxnHeartBeat = "kv_txn_heart_beat",
    ScanLock = "kv_scan_lock",
    ResolveLock = "kv_resolve_lock",
    DeleteRange = "kv_delete_range",
    RawGet = "raw_get",
    RawBatchGet = "raw_batch_get",
    RawGetKeyTtl = "raw_get_key_ttl",
    RawScan = "raw_scan",
    RawBatchScan = "raw_batch_scan",
    RawChecksum = "raw_checksum",
    RawPut = "raw_put",
    RawBatchPut = "raw_batch_put",
    RawDelete = "raw_delete",
    RawBatchDelete = "raw_batch_delete",
    RawDeleteRange = "raw_delete_range",
    RawCompareAndSwap = "raw_compare_and_swap",
    SplitRegion = "split_region",
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug)]
struct KindMetrics {
    requests: Counter,
    seconds: Histogram,
}

/// Shared handles to the service's metrics; clones count into the same numbers.
#[derive(Clone, Debug)]
pub struct KvMetrics {
    /// By [`Kind`]: looked up once, not for every request.
    kinds: Vec<KindMetrics>,
    region_errors: Family<KindLabel, Counter>,
    failures: Family<KindLabel, Counter>,
    pub(crate) busy: Counter,
    pub(crate) undetermined: Counter,
    pub(crate) proposals: Counter,
    pub(crate) commits: Counter,
    pub(crate) latch_waits: Counter,
    pub(crate) inline_reads: Counter,
}

impl KvMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let requests = Family::<KindLabel, Counter>::default();
        let seconds = Family::<KindLabel, Histogram>::new_with_constructor(|| {
            // 10 us (a read answered on the spot) to 5 s (an outcome given up).
            Histogram::new(exponential_buckets(10e-6, 2.0, 20))
        });
        let kinds = Kind::NAMES
            .iter()
            .map(|kind| KindMetrics {
                requests: requests.get_or_create(&KindLabel { kind }).clone(),
                seconds: seconds.get_or_create(&KindLabel { kind }).clone(),
            })
            .collect();
        let metrics = Self {
            kinds,
            region_errors: Family::default(),
            failures: Family::default(),
            busy: Counter::default(),
            undetermined: Counter::default(),
            proposals: Counter::default(),
            commits: Counter::default(),
            latch_waits: Counter::default(),
            inline_reads: Counter::default(),
        };
        registry.register("cribwork_kv_requests", "Requests, by call", requests);
        registry.register("cribwork_kv_seconds", "Time to the answer, by call", seconds);
        registry.register(
            "cribwork_kv_region_errors",
            "Requests that reached the wrong place or time, by region error",
            metrics.region_errors.clone(),
        );
        registry.register(
            "cribwork_kv_failures",
            "Requests answered by another error, by kind of error",
            metrics.failures.clone(),
        );
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("cribwork_kv_{name}"), help, counter.clone());
        };
        counter("busy", "Requests refused because a bound was reached", &metrics.busy);
        counter("undetermined", "Writes whose outcome is unknown", &metrics.undetermined);
        counter("proposals", "Writes handed to a Raft group", &metrics.proposals);
        counter("commits", "Commit requests that wrote commit records", &metrics.commits);
        counter("latch_waits", "Commands that waited for a latch", &metrics.latch_waits);
        counter("inline_reads", "Reads answered without a task", &metrics.inline_reads);
        metrics
    }

    /// A request of `kind` was answered after `took`.
    pub(crate) fn observe(&self, kind: Kind, took: Duration, failure: Option<&Failure>) {
        let of_kind = &self.kinds[kind as usize];
        of_kind.requests.inc();
        of_kind.seconds.observe(took.as_secs_f64());
        if let Some(failure) = failure {
            self.failed(failure);
        }
    }

    fn failed(&self, failure: &Failure) {
        let kind = match failure {
            Failure::Region(error) => {
                if error.server_is_busy.is_some() {
                    self.busy.inc();
                }
                let kind = region_error_name(error);
                self.region_errors.get_or_create(&KindLabel { kind }).inc();
                return;
            }
            Failure::Undetermined(_) => {
                self.undetermined.inc();
                "undetermined"
            }
            Failure::Key(_) => "key",
            Failure::Refused(_) => "refused",
            Failure::Internal(_) => "internal",
        };
        self.failures.get_or_create(&KindLabel { kind }).inc();
    }
}

fn region_error_name(error: &errorpb::Error) -> &'static str {
    let names = [
        (error.not_leader.is_some(), "not_leader"),
        (error.region_not_found.is_some(), "region_not_found"),
        (error.key_not_in_region.is_some(), "key_not_in_region"),
        (error.epoch_not_match.is_some(), "epoch_not_match"),
        (error.server_is_busy.is_some(), "server_is_busy"),
        (error.stale_command.is_some(), "stale_command"),
        (error.store_not_match.is_some(), "store_not_match"),
        (error.raft_entry_too_large.is_some(), "raft_entry_too_large"),
        (error.mismatch_peer_id.is_some(), "mismatch_peer_id"),
    ];
    names.iter().find(|(is, _)| *is).map_or("other", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn busy_is_counted_as_such_and_as_a_region_error() {
        let mut registry = Registry::default();
        let metrics = KvMetrics::register(&mut registry);
        let busy = crate::kv::failure::busy("a queue is full", 5);
        metrics.observe(Kind::RawPut, Duration::from_millis(1), Some(&busy));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "cribwork_kv_busy_total 1",
            "cribwork_kv_region_errors_total{kind=\"server_is_busy\"} 1",
            "cribwork_kv_requests_total{kind=\"raw_put\"} 1",
            "cribwork_kv_requests_total{kind=\"raw_get\"} 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
