//! A node whose store is damaged or gone comes back under its old address as a new store, with nothing, and
//! gets its replicas, under new ids, from the others.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use cribwork_tests::{Cluster, Load, wait_until};
use serde_json::Value;

use crate::damage::{Flip, newest_log, read_all, read_until_it_ends, table_file, write_all};
use crate::stores::directories;

/// Data moves on a busy machine.
const REBUILD_LIMIT: Duration = Duration::from_secs(90);

/// The replicas of all ranges: id and store.
fn replicas(cluster: &Cluster) -> BTreeSet<(u64, u64)> {
    let ranges = cluster.json(&["ranges"]);
    let ranges = ranges.as_array().expect("a list of ranges").iter();
    let replicas = ranges.flat_map(|range| range["replicas"].as_array().expect("a list"));
    let number = |value: &Value| value.as_u64().expect("a number");
    replicas.map(|it| (number(&it["id"]), number(&it["store"]))).collect()
}

fn state(cluster: &Cluster, store: u64) -> String {
    let nodes = cluster.json(&["nodes"]);
    let mut nodes = nodes.as_array().expect("a list of nodes").iter();
    let node = nodes.find(|node| node["store"] == store);
    let state = node.and_then(|node| node["state"].as_str());
    state.unwrap_or("unknown").to_owned()
}

/// Waits until the store `new` has taken the place of `old`, and holds what that held.
fn wait_rebuilt(cluster: &Cluster, old: u64, new: u64) {
    let before = replicas(cluster);
    wait_until("the others have made the store anew", REBUILD_LIMIT, || {
        let states = (state(cluster, old), state(cluster, new));
        let held: Vec<u64> = replicas(cluster).iter().map(|(_, store)| *store).collect();
        let is_done = states.0 == "decommissioned" && !held.contains(&old);
        let status = cluster.json(&["status"]);
        let whole = status["under_replicated"] == 0 && status["operators"] == 0;
        let holds = held.iter().filter(|store| **store == new).count();
        match is_done && whole && holds * 3 == held.len() {
            true => Ok(()),
            false => Err(format!("{states:?}, {held:?}, {status}")),
        }
    });
    let olds: BTreeSet<u64> = before.iter().map(|(id, _)| *id).collect();
    let made = replicas(cluster).into_iter().filter(|(_, store)| *store == new);
    for (id, _) in made {
        let known = before.contains(&(id, new));
        assert!(known || !olds.contains(&id), "replica {id} has an id of the old store");
    }
    let verified = cluster.run(&["verify", "--output", "json"]).json();
    assert_eq!(verified["ok"], true, "{verified}");
}

#[test]
fn a_damaged_store_is_set_aside_and_made_anew_from_the_others() {
    let mut cluster = Cluster::with_ranges(3, 4);
    let load = Load::new();
    load.block_on(write_all(&cluster, 1));
    let data = directories(&mut cluster).remove(0);
    cluster.node(0).rebuild_damaged();

    // A bit of a table file, which is met when somebody reads it.
    assert_eq!(cluster.node(0).stop("TERM").code, Some(0));
    Flip::in_the_middle_of(&table_file(&data));
    cluster.node(0).restart();
    read_until_it_ends(&mut cluster, &load, 1);
    assert_eq!(cluster.node(0).reap().code, Some(70));
    cluster.node(0).restart();
    wait_rebuilt(&cluster, 1, 4);
    cluster.wait_ready();
    load.block_on(read_all(&cluster, 1)).unwrap();
    let aside = data.join("damaged");
    let note = fs::read_to_string(aside.join("DAMAGED")).unwrap();
    assert!(note.contains("checksum mismatch"), "{note}");

    // A bit of the log, which is met at the start. What was set aside first is in the way.
    load.block_on(write_all(&cluster, 2));
    let path = newest_log(&data);
    assert!(fs::metadata(&path).unwrap().len() > 256 * 1024, "a log with a middle");
    Flip::in_the_middle_of(&path);
    cluster.node(0).kill9();
    let refused = cluster.node(0).flags().start().wait(Duration::from_secs(30));
    refused.fails(1, &["CW-ENGINE-SET-ASIDE-BEFORE", "hint"]);
    fs::remove_dir_all(&aside).unwrap();
    cluster.node(0).restart();
    wait_rebuilt(&cluster, 4, 5);
    cluster.wait_ready();
    load.block_on(read_all(&cluster, 2)).unwrap();
    assert!(aside.join("db").exists());
}

#[test]
fn a_node_with_a_wiped_disk_joins_as_a_new_store() {
    let mut cluster = Cluster::with_ranges(3, 4);
    let load = Load::new();
    load.block_on(write_all(&cluster, 1));
    let data = directories(&mut cluster).remove(1);
    cluster.node(1).kill9();
    fs::remove_dir_all(&data).unwrap();
    cluster.node(1).restart();
    wait_rebuilt(&cluster, 2, 4);
    cluster.wait_ready();
    load.block_on(read_all(&cluster, 1)).unwrap();
}
