//! Whole runs of the simulator, each in a process of its own, as its users start them.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests unwrap, and wait for the processes that they start"
)]

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// The binary of the profile that this test was built in. Looked up when the test runs: a build may be
/// shared by several copies of the repository.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    profile.join("cribwork-sim")
}

fn sim(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().unwrap()
}

fn report(args: &[&str]) -> (Value, Option<i32>) {
    let output = sim(&[&["run", "--output", "json"], args].concat());
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    (report, output.status.code())
}

#[test]
fn the_same_seed_is_the_same_run_in_another_process() {
    let args = ["--seed", "7", "--duration", "10s"];
    let runs = [report(&args).0, report(&args).0];
    assert_eq!(runs[0]["trace_hash"], runs[1]["trace_hash"]);
    assert!(runs[0]["ops"].as_u64().unwrap() > 100, "{}", runs[0]);
    let (other, _) = report(&["--seed", "8", "--duration", "10s"]);
    assert_ne!(runs[0]["trace_hash"], other["trace_hash"]);
}

#[test]
fn clean_seeds_are_clean_and_every_checker_had_something_to_judge() {
    let output = sim(&["run", "--seeds", "1..9", "--duration", "20s", "--output", "json"]);
    // One line for each seed that failed, which runs it again.
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "\n{failed}");
    let text = String::from_utf8(output.stdout).unwrap();
    let reports: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reports.len(), 8);
    for checker in [
        "linearizable",
        "append",
        "bank",
        "long-fork",
        "acknowledged",
        "replay",
        "timestamps",
        "watermark",
        "fingerprints",
    ] {
        let checked = |report: &Value| report["checked"][checker].as_u64().unwrap_or(0);
        assert!(reports.iter().map(checked).sum::<u64>() > 50, "{checker} judged next to nothing");
    }
    let sum = |name: &str| -> u64 {
        reports.iter().map(|report| report["coverage"][name].as_u64().unwrap_or(0)).sum()
    };
    for path in ["snapshots_installed", "read_index", "log_cuts", "campaigns"] {
        assert!(sum(&format!("cribwork_raft_{path}")) > 0, "no run came by {path}");
    }
}

#[test]
fn a_bug_is_found_and_the_exit_code_says_so() {
    let args = ["run", "--seed", "1", "--duration", "20s", "--bug", "skip-apply"];
    let output = sim(&[&args[..], &["--without", "split", "--output", "json"]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(2), &Value::Bool(false)), "{report}");
    assert!(!report["violations"].as_array().unwrap().is_empty());
    // What nodes complain of comes before it.
    let said = String::from_utf8(output.stderr).unwrap();
    let replay: Vec<&str> = said.lines().filter(|line| line.starts_with("replay: ")).collect();
    let wanted = format!("replay: cribwork-sim {} --without split  # ", args.join(" "));
    assert!(replay.len() == 1 && replay[0].starts_with(&wanted), "{said}");
}

#[test]
fn mutants_tells_how_many_seeds_each_took() {
    let bugs = ["--bugs", "skip-apply,no-latches", "--max-seeds", "10", "--duration", "20s"];
    let output = sim(&[&["mutants", "--output", "json"], &bugs[..]].concat());
    let mutants: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{mutants}");
    let mutants = mutants.as_array().unwrap();
    assert_eq!(mutants.len(), 2);
    assert!(mutants.iter().all(|mutant| mutant["caught"] == true), "{mutants:?}");
}

#[test]
fn wrong_arguments_say_what_would_be_right() {
    for (args, hint) in [
        (&["run"][..], "--seed"),
        (&["run", "--seeds", "9..3"][..], "must be larger"),
        (&["run", "--seed", "1", "--bug", "none"][..], "lists them"),
        (&["run", "--seed", "1", "--without", "rain"][..], "power-loss"),
    ] {
        let output = sim(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(hint), "{args:?}: {text}");
    }
}
