//! Single keys stay linearizable while a node crashes, and the history says so.

use std::time::Duration;

use cribwork_tests::{Cluster, wait_until};
use tempfile::TempDir;

#[test]
fn registers_are_linearizable_over_a_crash() {
    let mut cluster = Cluster::with_ranges(3, 1);
    let directory = TempDir::new().unwrap();
    let history = directory.path().join("register.jsonl");
    let history = history.to_str().unwrap();
    let args = ["workload", "register", "--duration", "5s", "--workers", "8", "--output", "json"];
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
    let names = [0, 1].map(|index| report["verdicts"][index]["checker"].as_str());
    assert_eq!(names, [Some("linearizable"), Some("acknowledged")], "{report}");
    let lines = std::fs::read_to_string(history).unwrap().lines().count() as u64;
    assert_eq!(report["operations"], lines, "{report}");
    assert!(report["ops"].as_u64() > Some(100), "{report}");
}
