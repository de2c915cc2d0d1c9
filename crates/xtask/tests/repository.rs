//! The checks on this repository, as tests: `cargo test` alone finds what `make verify` finds.

use std::path::PathBuf;

use cribwork_xtask::{layering, seeded, tidy};

/// Asked for when the test runs: it may have been built for another clone.
fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where")).join("../..")
}

#[test]
fn crates_use_only_what_their_layer_may_use() {
    let findings = layering::check_repository(&root()).expect("cargo metadata runs");
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn bugs_put_in_on_purpose_stay_in_the_simulator() {
    let findings = seeded::check_repository(&root()).expect("cargo metadata runs");
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn the_repository_is_tidy() {
    let findings = tidy::check_repository(&root()).expect("files can be listed and read");
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}
