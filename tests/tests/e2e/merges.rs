//! Ranges are merged while money moves over them, by command and by themselves.

use std::time::Duration;

use cribwork_tests::{Cluster, assert_sound, wait_until};

/// Merging takes its time on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

fn count(cluster: &Cluster) -> usize {
    cluster.json(&["ranges"]).as_array().expect("a list of ranges").len()
}

#[test]
fn ranges_merge_while_money_moves() {
    let cluster = Cluster::with_ranges(3, 12);
    let args = ["workload", "bank", "--duration", "40s", "--workers", "8", "--output", "json"];
    let mut bank = cluster.spawn(&args);
    wait_until("money moves", LIMIT, || {
        let said = bank.stderr();
        if said.contains(" ops, ") || !bank.is_running() { Ok(()) } else { Err(said) }
    });
    let before = count(&cluster);
    let first = cluster.json(&["ranges"])[0]["id"].to_string();
    wait_until("a merge by command", LIMIT, || {
        let merged = cluster.run(&["merge", &first, "--output", "json"]);
        if merged.code == Some(0) { Ok(()) } else { Err(format!("{merged:?}")) }
    });
    assert!(count(&cluster) < before, "one less");
    cluster.run(&["config", "set", "merge_below", "8MiB"]).ok();
    wait_until("small ranges are few", LIMIT, || match count(&cluster) {
        0..=3 => Ok(()),
        left => Err(format!("{left} ranges are left")),
    });
    let ended = bank.wait(Duration::from_secs(120));
    let report = ended.json();
    eprintln!("{report}");
    assert_sound(&report);
    let verified = cluster.json(&["verify"]);
    assert_eq!(verified["ok"], true, "{verified}");
}
