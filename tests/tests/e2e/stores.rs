//! `cribwork store`: what it says of stopped nodes, what it refuses, and that it changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cribwork_engine::{Engine, EngineOptions, RocksEngine};
use cribwork_tests::{Cluster, Finished, run};
use cribwork_types::{Cf, KeyRange, WriteBatch};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn directories(cluster: &mut Cluster) -> Vec<PathBuf> {
    cluster.nodes().iter().map(|node| node.flags().data.clone()).collect()
}

/// `store compare` of some directories, as JSON.
pub(crate) fn compare(directories: &[PathBuf]) -> Finished {
    let directories = directories.iter().map(|path| path.to_str().unwrap());
    let args: Vec<&str> =
        ["store", "compare", "--output", "json"].into_iter().chain(directories).collect();
    run(&args, LIMIT)
}

/// Every file below a directory, with its bytes and when it was changed.
fn contents(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            found.insert(path.clone(), (fs::read(&path).unwrap(), changed));
        }
    }
    found
}

/// Writes another value over the first row of a family, as no node would.
pub(crate) fn change_a_value(directory: &Path, cf: Cf) -> Bytes {
    let engine = RocksEngine::open(directory, EngineOptions::small()).unwrap();
    let snapshot = engine.snapshot();
    let mut cursor = snapshot.cursor(cf, &KeyRange::all());
    assert!(cursor.seek_to_first().unwrap(), "there is a row");
    let key = Bytes::copy_from_slice(cursor.key());
    let mut batch = WriteBatch::new();
    batch.put(cf, key.clone(), "something else");
    engine.write(&batch).unwrap();
    engine.flush().unwrap();
    key
}

#[test]
fn stopped_stores_are_equal_until_a_value_is_changed() {
    let mut cluster = Cluster::with_ranges(3, 8);
    let bank = ["workload", "bank", "--duration", "2s", "--accounts", "100", "--ranges", "4"];
    cluster.run(&bank).ok();
    let directories = directories(&mut cluster);
    let refused = compare(&directories);
    refused.fails(1, &["in use by another process", "hint", "CW-ENGINE-LOCKED"]);

    // Two crash, each at another moment; the third is told to stop, and goes on until then.
    cluster.node(0).kill9();
    cluster.run(&["kv", "put", "after", "the first crash"]).ok();
    cluster.node(1).kill9();
    assert_eq!(cluster.node(2).stop("TERM").code, Some(0));
    let before: Vec<_> = directories.iter().map(|directory| contents(directory)).collect();

    let compared = compare(&directories).json();
    assert_eq!(compared["verdict"], "equal", "{compared}");
    assert_eq!((&compared["different"], &compared["not_compared"]), (&0.into(), &0.into()));
    let ranges = compared["ranges"].as_array().expect("a list");
    // Eight, the empty one above all keys, the placement group, and what the workload has split.
    assert!(ranges.len() >= 12, "{compared}");
    let rows = |range: &Value| range["replicas"][0]["rows"].as_u64().unwrap_or_default();
    assert!(ranges.iter().map(rows).sum::<u64>() > 400, "accounts and receipts: {compared}");
    assert!(ranges.iter().all(|range| range["replicas"].as_array().map(Vec::len) == Some(3)));
    let replayed = |replica: &Value| replica["replayed"].as_u64() > Some(0);
    let late = ranges.iter().flat_map(|range| range["replicas"].as_array().unwrap());
    assert!(late.clone().any(replayed), "the first to crash has missed a write: {compared}");

    let table = run(&["store", "show", directories[1].to_str().unwrap()], LIMIT);
    assert!(table.ok().contains("placement") && table.stderr.contains("store 2"), "{table:?}");
    let after: Vec<_> = directories.iter().map(|directory| contents(directory)).collect();
    assert!(after == before, "looking has changed a directory");

    let key = change_a_value(&directories[2], Cf::Write);
    let different = compare(&directories);
    assert_eq!(different.code, Some(2), "{different:?}");
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    for words in ["CW-CLI-VIOLATED", "family write", &hex, "store 3", "against 14 bytes"] {
        assert!(different.stderr.contains(words), "{words}: {different:?}");
    }
    let compared: Value = serde_json::from_str(&different.stdout).unwrap();
    assert_eq!((&compared["verdict"], &compared["different"]), (&"different".into(), &1.into()));
    assert_eq!(compare(&directories[..2]).json()["verdict"], "equal", "the other two still are");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let mut cluster = Cluster::with_ranges(2, 1);
    let other = cluster.beside(1);
    other.init(1).ok();
    other.wait_ready();
    let mut other = other;
    let mut mixed = directories(&mut cluster);
    mixed.extend(directories(&mut other));
    for node in cluster.nodes().iter_mut().chain(other.nodes()) {
        node.kill9();
    }
    compare(&mixed).fails(1, &["belongs to cluster", "CW-CLI-STORES"]);
    let twice = [mixed[0].clone(), mixed[0].clone()];
    compare(&twice).fails(1, &["are both store 1", "CW-CLI-STORES"]);
    let absent = mixed[0].with_extension("absent");
    compare(&[mixed[0].clone(), absent.clone()])
        .fails(1, &["holds no store", "CW-ENGINE-NO-STORE"]);
    assert!(!absent.exists(), "nothing is made");
    run(&["store", "compare", "one"], LIMIT).fails(64, &[]);
}
