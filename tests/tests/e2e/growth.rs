//! Ranges that grow are split by themselves, and say why when they are not.

use std::time::Duration;

use cribwork_tests::{Cluster, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn ids(cluster: &Cluster) -> Vec<u64> {
    let ranges = cluster.json(&["ranges"]);
    let ranges = ranges.as_array().expect("a list of ranges");
    ranges.iter().filter_map(|range| range["id"].as_u64()).collect()
}

fn says(explained: &Value, scheduler: &str, words: &str) -> bool {
    let decisions = explained["decisions"].as_array().expect("a list of decisions");
    decisions.iter().any(|it| {
        it["scheduler"] == scheduler && it["summary"].as_str().is_some_and(|it| it.contains(words))
    })
}

#[test]
fn a_range_that_grows_is_split_while_it_is_written_to() {
    let cluster = Cluster::with_ranges(3, 1);
    cluster.run(&["config", "set", "split_size", "1MiB"]).ok();
    let before = ids(&cluster).len();
    let args = ["workload", "kv", "--ranges", "1", "--read-percent", "10", "--workers", "16"];
    let load = ["--keys", "4000", "--value-size", "4KiB", "--duration", "8s", "--output", "json"];
    let report = cluster.spawn(&[&args[..], &load].concat()).wait(LIMIT).json();
    eprintln!("{report}");
    assert_eq!(report["errors"], 0, "{report}");
    wait_until("the ranges to be split", LIMIT, || match ids(&cluster).len() {
        count if count >= before + 5 => Ok(()),
        count => Err(format!("{count} ranges, {before} before")),
    });
    let status = cluster.json(&["status"]);
    assert_eq!(status["leaderless"], 0, "{status}");
}

#[test]
fn a_range_that_cannot_be_divided_says_so() {
    let cluster = Cluster::with_ranges(1, 1);
    cluster.run(&["config", "set", "split_size", "1MiB"]).ok();
    let value = "v".repeat(100_000);
    for number in 0..14 {
        cluster.run(&["kv", "put", &format!("sameeight{number:02}"), &value]).ok();
    }
    let before = ids(&cluster);
    wait_until("the reason to be told", LIMIT, || {
        let explained: Vec<Value> = ids(&cluster)
            .iter()
            .map(|id| cluster.json(&["explain", "range", &id.to_string()]))
            .collect();
        match explained.iter().any(|it| says(it, "split", "unsplittable: prefix")) {
            true => Ok(()),
            false => Err(format!("{explained:?}")),
        }
    });
    assert_eq!(ids(&cluster), before, "nothing was split");
    // As soon as there is something to tell apart, there is a place to split at.
    for number in 0..14 {
        cluster.run(&["kv", "put", &format!("another{number:02}"), &value]).ok();
    }
    wait_until("the range to be split", LIMIT, || match ids(&cluster).len() {
        count if count > before.len() => Ok(()),
        count => Err(format!("{count} ranges")),
    });
}
