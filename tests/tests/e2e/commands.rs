//! The commands of people and scripts against a new cluster: what they print and how they exit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cribwork_tests::{Cluster, wait_until};
use cribwork_types::key;
use serde_json::{Value, json};

const RANGES: u32 = 16;

/// Checks that `object` has exactly the documented fields.
#[track_caller]
fn has_fields(object: &Value, fields: &[&str]) {
    let found: BTreeSet<_> =
        object.as_object().expect("an object").keys().map(|key| &**key).collect();
    assert_eq!(found, fields.iter().copied().collect(), "{object}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_new_cluster_is_what_the_documentation_says() {
    let mut cluster = Cluster::start(3);
    for command in ["status", "nodes", "ranges"] {
        let refused = cluster.run(&[command, "--timeout", "500ms"]);
        refused.fails(1, &["not initialised", "cribwork init"]);
    }
    let endpoint = cluster.endpoints()[1].clone();
    let ranges = RANGES.to_string();
    let init = ["init", "--endpoints", &endpoint, "--ranges", &ranges, "--output", "json"];
    let made = cribwork_tests::run(&init, Duration::from_secs(90)).json();
    has_fields(&made, &["cluster_id", "stores", "ranges"]);
    assert_eq!((&made["stores"], &made["ranges"]), (&json!(3), &json!(RANGES + 1)), "{made}");
    cluster.wait_ready();

    check_status(&cluster, &made["cluster_id"]);
    check_nodes(&mut cluster);
    check_ranges(&cluster);
    let again = cribwork_tests::run(&init, Duration::from_secs(90));
    again.fails(1, &["already initialised", "CW-SERVER-ALREADY-INITIALISED"]);
    assert_eq!(cluster.json(&["status"])["cluster_id"], made["cluster_id"], "nothing has changed");
    check_leaders_spread(&cluster);
    check_metrics(&mut cluster);
}

fn check_status(cluster: &Cluster, id: &Value) {
    let status = wait_until("status counts all nodes", Duration::from_secs(10), || {
        let status = cluster.json(&["status"]);
        let all = status["nodes_up"] == 3 && status["leaderless"] == 0;
        if all { Ok(status) } else { Err(status.to_string()) }
    });
    let fields = ["cluster_id", "nodes_up", "nodes_down", "ranges", "under_replicated"];
    let others =
        ["leaderless", "operators", "tso_physical_ms", "placement_stores", "placement_leader"];
    has_fields(&status, &[&fields[..], &others].concat());
    assert_eq!(status["cluster_id"], *id);
    assert_eq!(status["nodes_down"], 0);
    assert_eq!(status["ranges"], RANGES + 1);
    assert_eq!(status["under_replicated"], 0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let lag_ms = now.as_millis() as i64 - status["tso_physical_ms"].as_i64().unwrap();
    assert!(lag_ms.abs() < 10_000, "timestamps follow the clock: {lag_ms} ms off");
}

fn check_nodes(cluster: &mut Cluster) {
    let nodes = cluster.json(&["nodes"]);
    let nodes = nodes.as_array().expect("a list");
    assert_eq!(nodes.len(), 3);
    for (number, node) in nodes.iter().enumerate() {
        let fields = ["store", "address", "http", "zone", "state", "leaders", "replicas"];
        has_fields(node, &[&fields[..], &["used_bytes", "capacity_bytes"]].concat());
        let flags = cluster.node(number).flags();
        assert_eq!(node["store"], number + 1, "stores in the order of the join list");
        assert_eq!(node["address"], *flags.listen);
        assert_eq!(node["http"], *flags.http);
        assert_eq!(node["state"], "up");
        assert!(node["capacity_bytes"].as_u64() > Some(0), "{node}");
    }
}

fn check_ranges(cluster: &Cluster) {
    let ranges = cluster.json(&["ranges"]);
    let ranges = ranges.as_array().expect("a list");
    let mut bounds = vec![String::new()];
    for i in 1..RANGES {
        let prefix = u16::try_from(i * 65_536 / RANGES).unwrap();
        bounds.push(hex(&key::encode(&prefix.to_be_bytes())));
    }
    bounds.push(hex(&key::encode(&[0xFF; 9])));
    bounds.push(String::new());
    assert_eq!(ranges.len(), bounds.len() - 1);
    let mut ids = BTreeSet::new();
    for (range, bounds) in ranges.iter().zip(bounds.windows(2)) {
        let fields = ["id", "start_hex", "end_hex", "conf_ver", "version", "leader_store"];
        has_fields(range, &[&fields[..], &["replicas", "size_bytes", "state"]].concat());
        assert_eq!(
            (&range["start_hex"], &range["end_hex"]),
            (&json!(bounds[0]), &json!(bounds[1]))
        );
        assert_eq!(range["state"], "ok", "{range}");
        assert!(ids.insert(range["id"].as_u64()), "{range}");
        let mut stores = BTreeSet::new();
        for replica in range["replicas"].as_array().expect("a list") {
            has_fields(replica, &["id", "store", "role"]);
            assert_eq!(replica["role"], "voter");
            assert!(stores.insert(replica["store"].as_u64().unwrap()), "{range}");
        }
        assert_eq!(stores, BTreeSet::from([1, 2, 3]));
        assert!(stores.contains(&range["leader_store"].as_u64().unwrap()), "{range}");
    }
    let one = cluster.json(&["range", &ranges[3]["id"].to_string()]);
    assert_eq!((&one["id"], &one["start_hex"]), (&ranges[3]["id"], &ranges[3]["start_hex"]));
    cluster.run(&["range", "123456789"]).fails(1, &["range 123456789", "CW-CLI-NOT-FOUND"]);
}

fn check_leaders_spread(cluster: &Cluster) {
    wait_until("every node leads five or six ranges", Duration::from_secs(10), || {
        let ranges = cluster.json(&["ranges"]);
        let mut led = BTreeMap::from([(1, 0), (2, 0), (3, 0)]);
        // The one on top of all keys is empty and counts for nobody.
        for range in &ranges.as_array().expect("a list")[..RANGES as usize] {
            *led.entry(range["leader_store"].as_u64().unwrap()).or_default() += 1;
        }
        let even = led.len() == 3 && led.values().all(|count| matches!(count, 5 | 6));
        if even { Ok(()) } else { Err(format!("{led:?}")) }
    });
}

fn check_metrics(cluster: &mut Cluster) {
    for node in cluster.nodes() {
        let (status, text) = cribwork_tests::http_get(&node.flags().http, "/metrics").unwrap();
        assert_eq!(status, 200);
        assert!(text.ends_with("# EOF\n") && text.contains("cribwork"), "{text:.300}");
    }
}

#[test]
fn keys_are_written_read_and_removed() {
    let cluster = Cluster::with_ranges(3, 4);
    for api in ["kv", "txn"] {
        let kv = |args: &[&str]| cluster.run(&[&[api], args].concat());
        let absent = kv(&["get", "fruit/apple"]);
        absent.fails(1, &["fruit/apple", "CW-CLI-ABSENT"]);
        assert_eq!(kv(&["put", "fruit/apple", api]).ok(), "");
        assert_eq!(kv(&["get", "fruit/apple"]).ok(), format!("{api}\n"), "own worlds");
        assert_eq!(kv(&["put", "fruit/apple", "red"]).ok(), "");
        assert_eq!(kv(&["get", "fruit/apple"]).ok(), "red\n");
        assert_eq!(kv(&["put", "0x00ff", ""]).ok(), "");
        assert_eq!(kv(&["get", "0x00ff"]).ok(), "\n", "an empty value is a value");
        for key in ["fruit/banana", "fruit/cherry", "veg/leek", "0xffff"] {
            kv(&["put", key, "x"]).ok();
        }
        let keys = |args: &[&str]| -> Vec<String> {
            let rows = cluster.json(&[&[api, "scan"], args].concat());
            let rows = rows.as_array().expect("a list").clone();
            rows.iter().map(|row| row["key_hex"].as_str().unwrap().to_owned()).collect()
        };
        let fruit = ["fruit/apple", "fruit/banana", "fruit/cherry"].map(|key| hex(key.as_bytes()));
        assert_eq!(keys(&["fruit/", "fruit0"]), fruit);
        assert_eq!(keys(&["fruit/", "fruit0", "--limit", "2"]), fruit[..2]);
        assert_eq!(keys(&["fruit0", "fruit/"]), [""; 0], "nothing between crossed bounds");
        let all = keys(&["", ""]);
        assert_eq!(
            (all.len(), &*all[0], &*all[5]),
            (6, "00ff", "ffff"),
            "over all ranges, in order"
        );
        assert_eq!(kv(&["delete", "fruit/apple"]).ok(), "");
        kv(&["get", "fruit/apple"]).fails(1, &["CW-CLI-ABSENT"]);
        assert_eq!(kv(&["delete", "fruit/apple"]).ok(), "", "present or not");
        let row = cluster.json(&[api, "get", "veg/leek"]);
        assert_eq!((&row["key"], &row["value"]), (&json!("veg/leek"), &json!("x")));
    }
}

#[test]
fn ranges_split_and_leaders_move_on_command() {
    let cluster = Cluster::with_ranges(3, 1);
    for key in ["a", "m", "z"] {
        cluster.run(&["kv", "put", key, key]).ok();
    }
    let split = cluster.json(&["split", "m"]);
    let bound = hex(&key::encode(b"m"));
    assert_eq!(
        (&split["left"]["end_hex"], &split["right"]["start_hex"]),
        (&json!(bound), &json!(bound))
    );
    cluster.run(&["split", "m"]).fails(1, &["hint"]);
    let right = split["right"]["id"].to_string();
    for store in ["1", "2", "3", "1"] {
        // The balancer may move it again before anybody has looked.
        wait_until("it leads as it was told", Duration::from_secs(30), || {
            let told = cluster.run(&["transfer-leader", &right, store]);
            match cluster.json(&["range", &right])["leader_store"].to_string() {
                leader if leader == store => Ok(()),
                leader => Err(format!("store {leader} leads after {told:?}")),
            }
        });
        for key in ["a", "m", "z"] {
            assert_eq!(cluster.run(&["kv", "get", key]).ok(), format!("{key}\n"));
        }
    }
    let all = cluster.json(&["kv", "scan", "", ""]);
    assert_eq!(all.as_array().expect("a list").len(), 3);
    cluster.run(&["merge", &right]).fails(1, &["last one", "hint"]);
    let left = split["left"]["id"].to_string();
    // Something else may be done to one of them first.
    wait_until("the two are one again", Duration::from_secs(30), || {
        let merged = cluster.run(&["merge", &left, "--output", "json"]);
        if merged.code == Some(0) { Ok(()) } else { Err(format!("{merged:?}")) }
    });
    cluster.run(&["range", &right]).fails(1, &["hint"]);
    for key in ["a", "m", "z"] {
        assert_eq!(cluster.run(&["kv", "get", key]).ok(), format!("{key}\n"));
    }
    cluster.run(&["transfer-leader", &right, "1"]).fails(1, &["hint"]);
    let right = left;
    cluster.run(&["transfer-leader", &right, "77"]).fails(1, &["77", "hint"]);
    cluster.run(&["transfer-leader", "123456789", "1"]).fails(1, &["123456789", "hint"]);
    assert_eq!(cluster.json(&["status"])["leaderless"], 0, "refusals do no harm");
}

#[test]
fn demo_proves_itself() {
    let _turn = cribwork_tests::Turn::take();
    let args = ["demo", "--duration", "3s", "--nodes", "3", "--ranges", "4", "--output", "json"];
    let report = cribwork_tests::run(&args, Duration::from_secs(90)).json();
    assert_eq!(report["workload"], "bank");
    assert!(report["committed"].as_u64() > Some(0), "{report}");
    cribwork_tests::assert_sound(&report);
}
