//! What a node refuses to start with, or to serve, and what it says then.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cribwork_tests::{Cluster, Finished, Node, NodeFlags, free_address, http_get, run, wait_until};
use tempfile::TempDir;

/// A refusal comes at once; this is only for slow machines.
const REFUSAL: Duration = Duration::from_secs(30);

#[test]
fn wrong_usage_exits_64() {
    let wrong: [&[&str]; 14] = [
        &[],
        &["frobnicate"],
        &["start", "--frobnicate"],
        &["start", "--listen", "20160"],
        &["start", "--listen", "0.0.0.0:20160"],
        &["start", "--workers", "many"],
        &["start", "--workers", "0"],
        &["init", "--ranges", "0"],
        &["init", "--ranges", "65537"],
        &["kv", "get", "0xzz"],
        &["kv", "scan", "a"],
        &["demo", "--nodes", "0"],
        &["workload", "bank", "--duration", "soon"],
        &["status", "--output", "xml"],
    ];
    for args in wrong {
        let refused = run(args, REFUSAL);
        refused.fails(64, &[]);
        assert!(!refused.stderr.is_empty(), "it says why: {refused:?}");
    }
}

#[test]
fn what_is_not_built_is_not_there() {
    let help = run(&["--help"], REFUSAL);
    let listed = |name: &str| help.ok().lines().any(|line| line.trim_start().starts_with(name));
    assert!(listed("start ") && listed("workload "), "{help:?}");
    for command in ["backup", "restore"] {
        if !listed(command) {
            run(&[command, "1"], REFUSAL).fails(64, &[command]);
        }
    }
}

fn start_with(directory: &Path, config: &str) -> Finished {
    let path = directory.join("node.toml");
    fs::write(&path, config).unwrap();
    let data = directory.join("data");
    let args = ["start", "--data-dir", data.to_str().unwrap(), "--config", path.to_str().unwrap()];
    let refused = run(&args, REFUSAL);
    assert!(!data.exists(), "a bad file leaves no traces: {refused:?}");
    refused
}

#[test]
fn a_bad_configuration_file_is_refused_with_the_line() {
    let directory = TempDir::new().unwrap();
    let refused = |config: &str, words: &[&str]| {
        let words = [&["node.toml", "hint", "CW-SERVER-CONFIG"], words].concat();
        start_with(directory.path(), config).fails(64, &words);
    };
    refused("zone = \"a\"\nzoen = \"b\"\n", &["line 2", "zoen"]);
    refused("\n\nworkers = \"two\"\n", &["line 3"]);
    refused("[raft]\nlease = \"700\"\n", &["line 2", "500ms"]);
    refused("[engine]\nblock-cache = \"lots\"\n", &["line 2", "64MiB"]);
    refused("join = [\n", &["line"]);
    start_with(directory.path(), "[raft]\nlease = \"10ms\"\n").fails(64, &["raft.lease"]);
    let missing = directory.path().join("absent.toml");
    let missing = run(&["start", "--config", missing.to_str().unwrap()], REFUSAL);
    missing.fails(1, &["absent.toml", "hint"]);
}

#[test]
fn a_foreign_directory_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("thesis.tex"), "three years of work").unwrap();
    let ended = NodeFlags::alone(&data).start().wait(REFUSAL);
    ended.fails(1, &["not a Cribwork data directory", "hint", "CW-ENGINE-FOREIGN-DIRECTORY"]);
    let names: Vec<_> =
        fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["thesis.tex"], "nothing was added");
    assert_eq!(fs::read_to_string(data.join("thesis.tex")).unwrap(), "three years of work");
}

#[test]
fn a_damaged_directory_is_refused() {
    let mut cluster = Cluster::with_ranges(1, 1);
    let value = "v".repeat(16 * 1024);
    for number in 0..12 {
        cluster.run(&["kv", "put", &format!("k{number}"), &value]).ok();
    }
    let node = cluster.node(0);
    node.kill9();
    let flags = node.flags().clone();
    let logs = fs::read_dir(flags.data.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let log = logs.filter(|path| path.extension().is_some_and(|it| it == "log")).max().unwrap();
    let mut bytes = fs::read(&log).unwrap();
    // Not at the end, where a crash may have torn it: more than one block before that.
    assert!(bytes.len() > 3 * 32 * 1024, "{} bytes of log", bytes.len());
    bytes[32 * 1024..32 * 1024 + 64].fill(0xA5);
    fs::write(&log, bytes).unwrap();
    let ended = flags.start().wait(REFUSAL);
    ended.fails(1, &["hint", "CW-ENGINE-CORRUPTION"]);
}

#[test]
fn a_directory_or_a_port_in_use_is_refused() {
    let directory = TempDir::new().unwrap();
    let flags = NodeFlags::alone(&directory.path().join("data"));
    let first = Node::start(flags.clone()).unwrap();

    let second = NodeFlags::alone(&flags.data).start().wait(REFUSAL);
    second.fails(1, &["in use by another process", "hint", "CW-ENGINE-LOCKED"]);

    for taken in [
        NodeFlags { listen: flags.listen.clone(), ..NodeFlags::alone(&directory.path().join("b")) },
        NodeFlags { http: flags.http.clone(), ..NodeFlags::alone(&directory.path().join("c")) },
    ] {
        taken.start().wait(REFUSAL).fails(1, &["cannot listen on", "hint", "CW-SERVER-LISTEN"]);
    }
    assert_eq!(http_get(&first.flags().http, "/health").map(|answer| answer.0), Ok(200));
}

#[test]
fn a_node_of_another_cluster_does_not_serve() {
    let mut theirs = Cluster::with_ranges(3, 1);
    let their_id = theirs.json(&["status"])["cluster_id"].to_string();
    for node in theirs.nodes() {
        node.kill9();
    }
    let ours = theirs.beside(1);
    ours.init(1).ok();
    ours.wait_ready();
    ours.run(&["kv", "put", "k", "ours"]).ok();
    let our_id = ours.json(&["status"])["cluster_id"].to_string();
    assert_ne!(our_id, their_id);

    // Two thirds of its own cluster are dead: it could only serve as one of ours.
    let flags = NodeFlags { join: ours.endpoints()[0].clone(), ..theirs.node(0).flags().clone() };
    let stray = Node::start(flags).unwrap();
    wait_until("the stray node says what is wrong", Duration::from_secs(20), || {
        let log = stray.log();
        let said = log.lines().any(|line| {
            line.contains("cluster") && line.contains(&our_id) && line.contains(&their_id)
        });
        if said { Ok(()) } else { Err(log) }
    });
    assert!(stray.is_ready().is_err());
    let get = ["kv", "get", "k", "--timeout", "3s", "--endpoints", &stray.flags().listen];
    run(&get, Duration::from_secs(30)).fails(1, &["code"]);

    let nodes = ours.json(&["nodes"]);
    assert_eq!(nodes.as_array().expect("a list").len(), 1, "ours took nobody in: {nodes}");
    assert_eq!(ours.run(&["kv", "get", "k"]).ok(), "ours\n");
}

#[test]
fn an_initialisation_without_one_of_its_nodes_writes_nothing() {
    let _turn = cribwork_tests::Turn::take();
    let directory = TempDir::new().unwrap();
    let mut flags = NodeFlags::alone(&directory.path().join("data"));
    // Free a moment ago, and nobody listens there.
    let absent = free_address();
    flags.join = format!("{},{absent}", flags.listen);
    let mut node = Node::start(flags.clone()).unwrap();
    let init = ["init", "--endpoints", &flags.listen, "--ranges", "1"];
    // As long as the node waits for the others, and a little.
    run(&init, Duration::from_secs(90)).fails(1, &[&absent, "hint", "CW-SERVER-INIT"]);
    let status = ["status", "--endpoints", &flags.listen, "--timeout", "500ms"];
    run(&status, REFUSAL).fails(1, &["not initialised"]);
    node.kill9();

    // Nothing was kept either: alone, the node can become a cluster of its own.
    let flags = NodeFlags { join: flags.listen.clone(), ..flags.clone() };
    let _node = Node::start(flags).unwrap();
    run(&init, Duration::from_secs(90)).ok();
}
