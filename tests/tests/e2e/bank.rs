//! Money moves while nodes crash.

use std::time::Duration;

use cribwork_tests::{Cluster, wait_until};
use serde_json::Value;

/// Longest time without a single committed transfer, milliseconds. A dead leader is replaced in well
/// under a second; the rest is for a debug build on a busy machine.
const GAP_MS_MAX: f64 = 2000.0;

const SUMMARY: [&str; 14] = [
    "workload",
    "workers",
    "duration_s",
    "ops",
    "ops_per_s",
    "errors",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "max_ms",
    "max_gap_ms",
    "max_range_gap_ms",
    "worker_ops_min",
    "worker_ops_mean",
];
const BANK: [&str; 9] = [
    "committed",
    "conflicts",
    "unknown",
    "total_expected",
    "total_observed",
    "acknowledged_lost",
    "aborted_but_applied",
    "replay_mismatch",
    "ok",
];

#[test]
fn no_money_is_lost_when_each_node_crashes_in_turn() {
    let mut cluster = Cluster::with_ranges(3, 1);
    let args = ["workload", "bank", "--duration", "14s", "--workers", "8", "--output", "json"];
    let mut bank = cluster.spawn(&args);
    wait_until("money moves", Duration::from_secs(60), || {
        let said = bank.stderr();
        if said.contains(" ops, ") || !bank.is_running() { Ok(()) } else { Err(said) }
    });
    for number in 0..3 {
        let store = number as u64 + 1;
        wait_until("the node leads something", Duration::from_secs(10), || {
            match cluster.led_by(store) {
                0 => Err("nothing".to_owned()),
                _ => Ok(()),
            }
        });
        assert!(
            bank.is_running(),
            "the load ended before node {number} crashed: {}",
            bank.stderr()
        );
        cluster.node(number).kill9();
        wait_until("others lead in its place", Duration::from_secs(10), || {
            match cluster.led_by(store) + cluster.led_by(0) {
                0 => Ok(()),
                left => Err(format!("{left} ranges have no new leader")),
            }
        });
        cluster.node(number).restart();
        cluster.wait_ready();
    }
    let ended = bank.wait(Duration::from_secs(90));
    eprintln!("{}", ended.stderr);
    let report = ended.json();
    eprintln!("{report}");
    check_report(&report);
}

fn check_report(report: &Value) {
    for field in SUMMARY.iter().chain(&BANK) {
        assert!(report.get(field).is_some(), "{field} is missing: {report}");
    }
    cribwork_tests::assert_sound(report);
    assert!(report["committed"].as_u64() > Some(100), "{report}");
    let gap = report["max_gap_ms"].as_f64().unwrap();
    assert!(gap < GAP_MS_MAX, "nothing committed for {gap} ms: {report}");
}
