//! What is measured: by each worker alone ([`Meter`]), and put together at the end ([`Summary`]).

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart, microseconds; longer ones count as this.
const LATENCY_MAX_US: u64 = 600_000_000;

/// One worker's measurements.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    latency_us: Histogram<u64>,
    pub(crate) ops: u64,
    pub(crate) errors: u64,
}

impl Default for Meter {
    fn default() -> Self {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
            .expect("1 < 600000000, and 3 digits are allowed");
        Self { latency_us, ops: 0, errors: 0 }
    }
}

impl Meter {
    /// Counts an operation that succeeded.
    pub(crate) fn succeeded(&mut self, latency: Duration) {
        self.ops += 1;
        self.latency_us.saturating_record(latency.as_micros() as u64);
    }
}

/// What every workload reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Name of the workload.
    pub workload: &'static str,
    /// Number of workers.
    pub workers: u32,
    /// Load time in seconds, without set-up and check.
    pub duration_s: f64,
    /// Operations that succeeded.
    pub ops: u64,
    /// Of them in a second.
    pub ops_per_s: f64,
    /// Operations that failed for another reason than an unknown outcome.
    pub errors: u64,
    /// Median latency of a successful operation, retries included, milliseconds.
    pub p50_ms: f64,
    /// 95 % took at most so long.
    pub p95_ms: f64,
    /// 99 % took at most so long.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// Longest time in which no operation succeeded.
    pub max_gap_ms: f64,
    /// Over the workload's own ranges, the longest time in which an operation waited there and none
    /// succeeded.
    pub max_range_gap_ms: f64,
    /// Successful operations of the worker that had fewest.
    pub worker_ops_min: u64,
    /// Successful operations of a worker on average.
    pub worker_ops_mean: f64,
}

impl Summary {
    /// Puts the measurements of all workers together.
    pub(crate) fn new(
        workload: &'static str,
        duration: Duration,
        meters: &[Meter],
        (gap, range_gap): (Duration, Duration),
    ) -> Self {
        let mut all = Meter::default();
        for meter in meters {
            all.ops += meter.ops;
            all.errors += meter.errors;
            all.latency_us.add(&meter.latency_us).expect("all have the same bounds");
        }
        let quantile = |q| round(all.latency_us.value_at_quantile(q) as f64 / 1e3, 3);
        let seconds = duration.as_secs_f64();
        Self {
            workload,
            workers: meters.len() as u32,
            duration_s: round(seconds, 3),
            ops: all.ops,
            ops_per_s: round(all.ops as f64 / seconds.max(f64::MIN_POSITIVE), 1),
            errors: all.errors,
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            max_ms: round(all.latency_us.max() as f64 / 1e3, 3),
            max_gap_ms: milliseconds(gap),
            max_range_gap_ms: milliseconds(range_gap),
            worker_ops_min: meters.iter().map(|meter| meter.ops).min().unwrap_or(0),
            worker_ops_mean: round(all.ops as f64 / meters.len().max(1) as f64, 1),
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1e3, 3)
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_put_together() {
        let mut meters = vec![Meter::default(), Meter::default()];
        for latency in 1..=90 {
            meters[0].succeeded(Duration::from_millis(latency));
        }
        for latency in 91..=100 {
            meters[1].succeeded(Duration::from_millis(latency));
        }
        meters[1].errors = 3;
        let gaps = (Duration::from_millis(40), Duration::from_micros(1500));
        let summary = Summary::new("kv", Duration::from_secs(2), &meters, gaps);
        assert_eq!((summary.workers, summary.ops, summary.errors), (2, 100, 3));
        assert_eq!((summary.duration_s, summary.ops_per_s), (2.0, 50.0));
        assert_eq!((summary.worker_ops_min, summary.worker_ops_mean), (10, 50.0));
        assert_eq!((summary.max_gap_ms, summary.max_range_gap_ms), (40.0, 1.5));
        let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted * 0.001;
        assert!(near(summary.p50_ms, 50.0) && near(summary.p99_ms, 99.0), "{summary:?}");
        assert!(near(summary.max_ms, 100.0), "{summary:?}");
    }

    #[test]
    fn nothing_measured_is_zero_and_finite() {
        let summary = Summary::new("kv", Duration::ZERO, &[Meter::default()], Default::default());
        assert_eq!((summary.ops_per_s, summary.p99_ms, summary.max_ms), (0.0, 0.0, 0.0));
    }
}
