//! How long and how often to measure. With these numbers all benchmarks together take some two
//! minutes, and each gives a median that can be told from its neighbours.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};

/// Measures functions that only compute. Options of the command line prevail.
pub fn pure(name: &str, define: impl FnOnce(&mut BenchmarkGroup<'_, WallTime>)) {
    let criterion = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500));
    run(criterion, name, SamplingMode::Auto, define);
}

/// Measures what involves threads, disk or network. Every sample has the same number of operations, so
/// that each is long enough to keep all workers busy. Options of the command line prevail.
pub fn system(name: &str, define: impl FnOnce(&mut BenchmarkGroup<'_, WallTime>)) {
    let criterion = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    run(criterion, name, SamplingMode::Flat, define);
}

fn run(
    criterion: Criterion,
    name: &str,
    mode: SamplingMode,
    define: impl FnOnce(&mut BenchmarkGroup<'_, WallTime>),
) {
    let mut criterion = criterion.without_plots().configure_from_args();
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(mode);
    define(&mut group);
    group.finish();
    criterion.final_summary();
}
