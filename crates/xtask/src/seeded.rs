//! Bugs that are put in on purpose stay in the simulator: no other package may turn their feature on, none
//! may use the simulator, and a plain `cargo build` must not build it, because cargo unites the features of
//! what it builds together.

use std::path::Path;

use anyhow::Context;
use cargo_metadata::{Metadata, MetadataCommand};

const SIMULATOR: &str = "cribwork-sim";
const FEATURE: &str = "seeded-bugs";

/// Checks the workspace at `root`; one message a violation.
///
/// # Errors
/// When `cargo metadata` cannot be run there.
pub fn check_repository(root: &Path) -> anyhow::Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata failed")?;
    Ok(check(&metadata))
}

fn check(metadata: &Metadata) -> Vec<String> {
    let mut findings = Vec::new();
    for package in metadata.packages.iter().filter(|package| *package.name != SIMULATOR) {
        let name = &package.name;
        for dependency in &package.dependencies {
            if dependency.name == SIMULATOR {
                findings.push(format!("{name}: uses {SIMULATOR}, which puts bugs in"));
            }
            if dependency.features.iter().any(|feature| feature == FEATURE) {
                findings.push(format!("{name}: turns {FEATURE} on in {}", dependency.name));
            }
        }
        let mut turned_on = package.features.values().flatten();
        if turned_on.any(|feature| feature.split('/').next_back() == Some(FEATURE)) {
            findings.push(format!("{name}: has a feature that turns {FEATURE} on"));
        }
    }
    let defaults = metadata.workspace_default_members.iter();
    let mut built = defaults.filter(|id| metadata[*id].name.as_str() == SIMULATOR);
    if built.next().is_some() {
        findings.push(format!("{SIMULATOR} is a default member: a plain build would put bugs in"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metadata of a workspace of two packages, as cargo prints it.
    fn metadata(feature: &str, on: &str, uses: &str, defaults: &str) -> Metadata {
        let package = |name: &str, rest: &str| {
            format!(
                r#"{{"name":"{name}","version":"0.1.0","id":"{name}","source":null,"targets":[],
                "manifest_path":"/w/{name}/Cargo.toml","edition":"2024",{rest}}}"#
            )
        };
        let dependency = format!(
            r#"{{"name":"{uses}","source":null,"req":"*","kind":null,"rename":null,"optional":false,
            "uses_default_features":true,"features":["{on}"],"target":null,"registry":null}}"#
        );
        let cli = package(
            "cribwork-cli",
            &format!(r#""dependencies":[{dependency}],"features":{{"a":["{feature}"]}}"#),
        );
        let sim = package(SIMULATOR, r#""dependencies":[],"features":{}"#);
        serde_json::from_str(&format!(
            r#"{{"packages":[{cli},{sim}],"workspace_members":["cribwork-cli","{SIMULATOR}"],
            "workspace_default_members":[{defaults}],"resolve":null,"workspace_root":"/w",
            "target_directory":"/w/target","version":1,"metadata":null}}"#
        ))
        .expect("the metadata is what cargo prints")
    }

    #[test]
    fn the_feature_and_the_simulator_stay_where_they_are() {
        let clean = metadata("b", "std", "cribwork-types", r#""cribwork-cli""#);
        assert_eq!(check(&clean), Vec::<String>::new());
        let defaults = r#""cribwork-cli","cribwork-sim""#;
        let all = metadata("cribwork-types/seeded-bugs", FEATURE, SIMULATOR, defaults);
        let findings = check(&all);
        for part in ["uses cribwork-sim", "turns seeded-bugs on in", "has a feature", "default"] {
            assert!(findings.iter().any(|finding| finding.contains(part)), "{part}: {findings:?}");
        }
    }
}
