//! Nodes that are told to stop.

use std::time::Duration;

use cribwork_tests::{Cluster, Node, NodeFlags, wait_until};
use tempfile::TempDir;

/// Longest time without a single successful write while a node hands its ranges over, milliseconds.
/// Without handing over, the others would have to notice its death first.
const GAP_MS_MAX: f64 = 1500.0;

#[test]
fn a_stopped_node_hands_its_ranges_over() {
    let mut cluster = Cluster::with_ranges(3, 1);
    let args = ["workload", "kv", "--duration", "6s", "--workers", "8", "--output", "json"];
    let mut load = cluster.spawn(&args);
    wait_until("keys are written", Duration::from_secs(60), || {
        let said = load.stderr();
        if said.contains(" ops, ") || !load.is_running() { Ok(()) } else { Err(said) }
    });
    wait_until("the node leads something", Duration::from_secs(10), || match cluster.led_by(2) {
        0 => Err("nothing".to_owned()),
        _ => Ok(()),
    });
    cluster.node(1).stop("INT").ok();
    assert!(load.is_running(), "the load ended before the node did: {}", load.stderr());
    assert_eq!(cluster.led_by(2) + cluster.led_by(0), 0, "others lead all of its ranges already");

    let report = load.wait(Duration::from_secs(60)).json();
    eprintln!("{report}");
    let gap = report["max_gap_ms"].as_f64().unwrap();
    assert!(gap < GAP_MS_MAX, "nothing was written for {gap} ms: {report}");
    wait_until("the node is seen as down", Duration::from_secs(30), || {
        let status = cluster.json(&["status"]);
        if status["nodes_down"] == 1 { Ok(()) } else { Err(status.to_string()) }
    });
    cluster.node(1).restart();
    cluster.wait_ready();
}

#[test]
fn a_cluster_stops_and_starts_with_its_data() {
    let mut cluster = Cluster::with_ranges(3, 4);
    cluster.run(&["kv", "put", "k", "raw"]).ok();
    cluster.run(&["txn", "put", "k", "txn"]).ok();
    let before = cluster.json(&["ranges"]);
    // One by one: the last has nobody left to hand over to.
    for number in 0..3 {
        cluster.node(number).stop("TERM").ok();
    }
    for node in cluster.nodes() {
        node.restart();
    }
    cluster.wait_ready();
    assert_eq!(cluster.run(&["kv", "get", "k"]).ok(), "raw\n");
    assert_eq!(cluster.run(&["txn", "get", "k"]).ok(), "txn\n");
    let after = cluster.json(&["ranges"]);
    let ids = |ranges: &serde_json::Value| -> Vec<_> {
        let ranges = ranges.as_array().expect("a list").iter();
        ranges.map(|range| (range["id"].clone(), range["start_hex"].clone())).collect()
    };
    assert_eq!(ids(&before), ids(&after));
}

#[test]
fn a_node_without_a_cluster_stops_at_once() {
    for signal in ["INT", "TERM"] {
        let directory = TempDir::new().unwrap();
        let mut node = Node::start(NodeFlags::alone(&directory.path().join("data"))).unwrap();
        let ended = node.stop(signal);
        assert_eq!(ended.ok(), "");
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    }
}
