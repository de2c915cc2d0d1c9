//! Workloads whose histories are checked, while a node crashes.

use std::time::Duration;

use cribwork_tests::{Cluster, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// Runs a workload, crashes a node meanwhile, and gives the report.
fn over_a_crash(workload: &str, checkers: [&str; 2]) -> Value {
    let mut cluster = Cluster::with_ranges(3, 1);
    let directory = TempDir::new().unwrap();
    let history = directory.path().join("history.jsonl");
    let history = history.to_str().unwrap();
    let args = ["workload", workload, "--duration", "5s", "--workers", "8", "--output", "json"];
    let mut load = cluster.spawn(&[&args[..], &["--history", history]].concat());
    wait_until("keys are written", Duration::from_secs(60), || {
        let said = load.stderr();
        if said.contains(" ops, ") || !load.is_running() { Ok(()) } else { Err(said) }
    });
    assert!(load.is_running(), "the load ended before the crash: {}", load.stderr());
    cluster.node(1).kill9();
    cluster.node(1).restart();
    cluster.wait_ready();
    let report = load.wait(Duration::from_secs(90)).json();
    eprintln!("{report}");
    assert_eq!(report["ok"], true, "{report}");
    for (index, checker) in checkers.into_iter().enumerate() {
        let verdict = &report["verdicts"][index];
        assert_eq!(verdict["checker"], checker, "{report}");
        assert!(verdict["checked"].as_u64() > Some(0), "{report}");
    }
    let lines = std::fs::read_to_string(history).unwrap().lines().count() as u64;
    assert_eq!(report["operations"], lines, "{report}");
    report
}

#[test]
fn registers_are_linearizable_over_a_crash() {
    let report = over_a_crash("register", ["linearizable", "acknowledged"]);
    assert!(report["ops"].as_u64() > Some(100), "{report}");
}

#[test]
fn appends_are_isolated_over_a_crash() {
    let report = over_a_crash("append", ["append", "acknowledged"]);
    assert!(report["ops"].as_u64() > Some(50), "{report}");
}
