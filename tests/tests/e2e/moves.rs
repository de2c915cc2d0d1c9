//! Replicas move while money does: by order, off a node that leaves, and away from one that is lost.

use std::time::Duration;

use cribwork_tests::{Cluster, assert_sound, wait_until};
use serde_json::Value;

/// Data moves on a busy machine.
const MOVE_LIMIT: Duration = Duration::from_secs(60);

fn ranges(cluster: &Cluster) -> Vec<Value> {
    cluster.json(&["ranges"]).as_array().expect("a list of ranges").clone()
}

fn stores(range: &Value) -> Vec<u64> {
    let replicas = range["replicas"].as_array().expect("a list of replicas");
    replicas.iter().filter_map(|replica| replica["store"].as_u64()).collect()
}

/// How many ranges have a replica on `store`.
fn held_by(cluster: &Cluster, store: u64) -> usize {
    ranges(cluster).iter().filter(|range| stores(range).contains(&store)).count()
}

/// Gives an order that takes as long as data takes to move.
fn order(cluster: &Cluster, args: &[&str]) {
    let args = [args, &["--timeout", "60s"]].concat();
    cluster.spawn(&args).wait(MOVE_LIMIT + Duration::from_secs(10)).ok();
}

#[test]
fn replicas_move_and_nodes_leave_while_money_moves() {
    let mut cluster = Cluster::with_ranges(5, 2);
    cluster.run(&["config", "set", "repair_after", "5s"]).ok();
    let args = ["workload", "bank", "--duration", "40s", "--workers", "8", "--output", "json"];
    let mut bank = cluster.spawn(&args);
    wait_until("money moves", MOVE_LIMIT, || {
        let said = bank.stderr();
        if said.contains(" ops, ") || !bank.is_running() { Ok(()) } else { Err(said) }
    });

    let range = ranges(&cluster).remove(1);
    let (id, held) = (range["id"].to_string(), stores(&range));
    let to = (1..=5).find(|store| !held.contains(store)).expect("two stores have none");
    let (from, to_text) = (held[0].to_string(), to.to_string());
    order(&cluster, &["move-replica", &id, &from, &to_text]);
    let moved = cluster.json(&["range", &id]);
    assert!(stores(&moved).contains(&to) && !stores(&moved).contains(&held[0]), "{moved}");
    let explained = cluster.json(&["explain", "range", &id]);
    let decisions = explained["decisions"].as_array().expect("a list of decisions");
    assert!(decisions.iter().any(|it| it["scheduler"] == "ordered"), "{explained}");

    order(&cluster, &["drain", "2"]);
    assert_eq!(cluster.led_by(2), 0, "a drained node leads nothing");
    order(&cluster, &["drain", "2", "--undo"]);

    order(&cluster, &["decommission", "5"]);
    assert_eq!(held_by(&cluster, 5), 0, "a node that left holds nothing");
    let last = cluster.node(4).stop("TERM");
    assert_eq!(last.code, Some(0), "{last:?}");

    // For good. Three nodes are left for three replicas.
    cluster.node(3).kill9();
    wait_until("all replicas are made anew elsewhere", MOVE_LIMIT, || match held_by(&cluster, 4) {
        0 => Ok(()),
        left => Err(format!("{left} ranges have a replica on the lost node")),
    });
    let ended = bank.wait(Duration::from_secs(120));
    let report = ended.json();
    eprintln!("{report}");
    assert_sound(&report);
    let status = cluster.json(&["status"]);
    assert_eq!(status["under_replicated"], 0, "{status}");
}
