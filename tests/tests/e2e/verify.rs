//! `cribwork verify`: replicas are compared while the cluster runs, and one that differs is named.

use std::time::Duration;

use cribwork_tests::{Cluster, Finished};
use cribwork_types::Cf;
use serde_json::Value;

use crate::stores::{change_a_value, directories};

const LIMIT: Duration = Duration::from_secs(120);

fn verify(cluster: &Cluster) -> Finished {
    cluster.spawn(&["verify", "--output", "json"]).wait(LIMIT)
}

/// What a verification that failed, with this exit status, printed all the same.
fn said(ended: &Finished, exit: i32) -> Value {
    assert_eq!(ended.code, Some(exit), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("one JSON document")
}

#[test]
fn replicas_are_equal_under_load_until_one_is_tampered_with() {
    let mut cluster = Cluster::with_ranges(3, 4);
    let args = ["workload", "bank", "--duration", "6s", "--workers", "8", "--output", "json"];
    let mut bank = cluster.spawn(&args);
    let mut clean = 0;
    while bank.is_running() {
        let report = verify(&cluster).json();
        assert_eq!(report["ok"], true, "{report}");
        assert_eq!(report["ranges"], report["compared"], "{report}");
        clean += 1;
    }
    assert!(clean > 0, "the bank was over too soon");
    assert_eq!(bank.wait(LIMIT).json()["ok"], true);

    // As a disk that lies, or a program with a fault, would.
    let stopped = cluster.node(1).stop("TERM");
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    change_a_value(&directories(&mut cluster)[1], Cf::Write);
    cluster.node(1).restart();
    cluster.wait_ready();
    let report = said(&verify(&cluster), 2);
    assert_eq!(report["ok"], false, "{report}");
    let differing = report["differing"].as_array().expect("a list");
    assert_eq!(differing.len(), 1, "{report}");
    assert_eq!(differing[0]["stores"], serde_json::json!([2]), "{report}");

    // A node that is away is no difference, and no proof of equality either.
    cluster.node(2).kill9();
    let others = cluster.json(&["ranges"]);
    let mut others = others.as_array().expect("a list").iter();
    let other = others.find(|it| it["id"] != differing[0]["range"]);
    let other = other.expect("another range")["id"].to_string();
    let args = ["verify", "--range", &other, "--output", "json", "--timeout", "60s"];
    let report = said(&cluster.spawn(&args).wait(LIMIT), 1);
    assert_eq!(report["missing"][0]["store"], 3, "{report}");
}
