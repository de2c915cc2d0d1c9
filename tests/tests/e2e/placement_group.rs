//! The placement group follows the cluster: it grows with it, loses members and has them replaced.

use std::time::Duration;

use cribwork_tests::{Cluster, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);

fn status(cluster: &Cluster) -> Value {
    cluster.json(&["status"])
}

fn members(status: &Value) -> Vec<u64> {
    let stores = status["placement_stores"].as_array().expect("a list of stores");
    let mut stores: Vec<u64> = stores.iter().filter_map(Value::as_u64).collect();
    stores.sort_unstable();
    stores
}

/// Waits until the placement group has `count` members and every range all its replicas.
fn wait_for_members(cluster: &Cluster, count: usize, not: &[u64]) -> Value {
    wait_until("placement to be where it should", LIMIT, || {
        let status = status(cluster);
        let members = members(&status);
        let there = members.len() == count && !members.iter().any(|store| not.contains(store));
        match there && status["under_replicated"] == 0 && status["leaderless"] == 0 {
            true => Ok(status),
            false => Err(status.to_string()),
        }
    })
}

#[test]
fn placement_grows_with_the_cluster_and_outlives_its_first_node() {
    let mut cluster = Cluster::with_ranges(1, 2);
    assert_eq!(members(&status(&cluster)), [1]);
    cluster.run(&["kv", "put", "before", "1"]).ok();
    cluster.run(&["config", "set", "repair_after", "5s"]).ok();
    cluster.grow(2);
    wait_for_members(&cluster, 3, &[]);

    // The node that everything began on is lost for good.
    cluster.node(0).kill9();
    cluster.run(&["kv", "put", "after", "2"]).ok();
    assert_eq!(cluster.run(&["kv", "get", "before"]).ok().trim(), "1");
    assert_eq!(
        cluster.run(&["config", "get", "repair_after", "--output", "json"]).json()[0]["value"],
        "5s"
    );

    // One that comes takes its place in the group.
    cluster.grow(1);
    wait_for_members(&cluster, 3, &[1]);
    // And whoever leads it can leave.
    let leader = status(&cluster)["placement_leader"].as_u64().expect("a leader");
    cluster.grow(1);
    wait_until("the last node to be a member", LIMIT, || {
        match cluster.json(&["nodes"]).as_array().map(Vec::len) {
            Some(5) => Ok(()),
            nodes => Err(format!("{nodes:?} nodes")),
        }
    });
    let ended = cluster
        .spawn(&["decommission", &leader.to_string(), "--timeout", "80s", "--output", "json"])
        .wait(LIMIT);
    assert_eq!(ended.json()["state"], json!("decommissioned"), "{ended:?}");
    let status = wait_for_members(&cluster, 3, &[1, leader]);
    assert_ne!(status["placement_leader"], leader);
    assert_eq!(cluster.run(&["kv", "get", "after"]).ok().trim(), "2");
}
