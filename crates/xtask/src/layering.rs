//! Which workspace crate may use which, and who may name RocksDB and openraft.
//!
//! An *arrow* is a normal or build dependency from one workspace crate to another. Dev-dependencies
//! may point anywhere: a test is not part of what is shipped. "May use" is transitive: a crate may
//! also use what the crates it may use may use.
//!
//! Invariants: every workspace crate has a row in [`LAYERS`]; rows alone decide; external crates are
//! free except those in [`OWNED`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use cargo_metadata::{DependencyKind, MetadataCommand};

/// What a crate may use.
#[derive(Clone, Copy, Debug)]
pub enum Uses {
    /// These crates, and what they may use.
    Crates(&'static [&'static str]),
    /// Every crate.
    Any,
}

/// Each workspace crate and what it may use, lowest layer first.
pub const LAYERS: &[(&str, Uses)] = &[
    ("cribwork-types", Uses::Crates(&[])),
    ("cribwork-proto", Uses::Crates(&["cribwork-types"])),
    ("cribwork-router", Uses::Crates(&["cribwork-types"])),
    ("cribwork-mvcc", Uses::Crates(&["cribwork-types"])),
    ("cribwork-checker", Uses::Crates(&["cribwork-types"])),
    ("cribwork-placement", Uses::Crates(&["cribwork-types", "cribwork-router"])),
    ("cribwork-engine", Uses::Crates(&["cribwork-types"])),
    ("cribwork-transport", Uses::Crates(&["cribwork-types", "cribwork-proto"])),
    (
        "cribwork-multiraft",
        Uses::Crates(&["cribwork-engine", "cribwork-transport", "cribwork-router"]),
    ),
    (
        "cribwork-server",
        Uses::Crates(&["cribwork-multiraft", "cribwork-placement", "cribwork-mvcc"]),
    ),
    ("cribwork-client", Uses::Crates(&["cribwork-types", "cribwork-proto", "cribwork-router"])),
    ("cribwork-workload", Uses::Crates(&["cribwork-client", "cribwork-checker"])),
    ("cribwork-cli", Uses::Crates(&["cribwork-server", "cribwork-client", "cribwork-workload"])),
    ("cribwork-chaos", Uses::Crates(&["cribwork-checker"])),
    ("cribwork-xtask", Uses::Crates(&[])),
    ("cribwork-fuzz", Uses::Crates(&[])),
    ("cribwork-sim", Uses::Any),
    ("cribwork-tests", Uses::Any),
    ("cribwork-benches", Uses::Any),
];

/// External crates that one workspace crate owns: `(external, owner)`. The name stands for itself and
/// for every `name-*`. Dev-dependencies count here: a test that names RocksDB ties itself to it too.
pub const OWNED: &[(&str, &str)] = &[
    ("rocksdb", "cribwork-engine"),
    ("librocksdb-sys", "cribwork-engine"),
    ("openraft", "cribwork-multiraft"),
];

/// What a dependency is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Linked into the crate.
    Normal,
    /// Used by its build script.
    Build,
    /// Used by its tests, examples and benchmarks only.
    Dev,
}

/// A workspace crate as its manifest states it.
#[derive(Clone, Debug)]
pub struct Crate {
    /// Package name.
    pub name: String,
    /// Package name (not the local rename) and kind of each dependency.
    pub dependencies: Vec<(String, Kind)>,
}

/// Checks the workspace at `root`; one message a violation.
///
/// # Errors
/// When `cargo metadata` cannot be run there.
pub fn check_repository(root: &Path) -> anyhow::Result<Vec<String>> {
    Ok(check(&read(root)?))
}

/// Reads the workspace members. Works offline: nothing is resolved.
fn read(root: &Path) -> anyhow::Result<Vec<Crate>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata failed")?;
    let crates = metadata.packages.iter().map(|package| Crate {
        name: package.name.to_string(),
        dependencies: package
            .dependencies
            .iter()
            .map(|dependency| {
                let kind = match dependency.kind {
                    DependencyKind::Build => Kind::Build,
                    DependencyKind::Development => Kind::Dev,
                    _ => Kind::Normal,
                };
                (dependency.name.clone(), kind)
            })
            .collect(),
    });
    Ok(crates.collect())
}

/// Checks the given crates; one message a violation, in the order of the crates.
pub fn check(crates: &[Crate]) -> Vec<String> {
    let members: BTreeSet<&str> = crates.iter().map(|member| member.name.as_str()).collect();
    let mut findings = Vec::new();
    for member in crates {
        match LAYERS.iter().find(|(name, _)| *name == member.name) {
            Some((_, Uses::Any)) => {}
            Some((_, Uses::Crates(_))) => arrows(member, &members, &mut findings),
            None => findings.push(format!(
                "{}: has no layer; add it to LAYERS in crates/xtask/src/layering.rs",
                member.name
            )),
        }
        owners(member, &mut findings);
    }
    findings.extend(cycle(crates, &members));
    findings
}

fn arrows(member: &Crate, members: &BTreeSet<&str>, findings: &mut Vec<String>) {
    let allowed = closure(&member.name);
    for (to, kind) in &member.dependencies {
        let is_arrow = *kind != Kind::Dev && members.contains(to.as_str());
        if is_arrow && *to != member.name && !allowed.contains(to.as_str()) {
            let listed = allowed.iter().copied().collect::<Vec<_>>().join(", ");
            findings.push(format!(
                "{} -> {to}: not an allowed arrow ({} may use: {})",
                member.name,
                member.name,
                if listed.is_empty() { "no workspace crate" } else { &listed }
            ));
        }
    }
}

/// All that `name` may use, following rows transitively.
fn closure(name: &str) -> BTreeSet<&'static str> {
    let row = |name: &str| LAYERS.iter().find(|(row, _)| *row == name).map(|(_, uses)| *uses);
    let mut reached = BTreeSet::new();
    let mut pending = vec![row(name)];
    while let Some(next) = pending.pop() {
        if let Some(Uses::Crates(uses)) = next {
            for &used in uses {
                if reached.insert(used) {
                    pending.push(row(used));
                }
            }
        }
    }
    reached
}

fn owners(member: &Crate, findings: &mut Vec<String>) {
    for (to, _) in &member.dependencies {
        for (external, owner) in OWNED {
            let family = to.strip_prefix(external).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('-') || rest.starts_with('_')
            });
            if family && member.name != *owner {
                findings.push(format!("{} -> {to}: only {owner} may depend on it", member.name));
            }
        }
    }
}

/// The first cycle of arrows, written `a -> b -> a`. Cargo refuses one too, but later and less
/// plainly, and only for dependencies that are not optional.
fn cycle(crates: &[Crate], members: &BTreeSet<&str>) -> Option<String> {
    let graph: BTreeMap<&str, Vec<&str>> = crates
        .iter()
        .map(|member| {
            let arrows = member.dependencies.iter().filter(|(_, kind)| *kind != Kind::Dev);
            let targets = arrows.map(|(to, _)| to.as_str()).filter(|to| members.contains(to));
            (member.name.as_str(), targets.collect())
        })
        .collect();
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| visit(start, &graph, &mut Vec::new(), &mut done))
}

fn visit<'a>(
    at: &'a str,
    graph: &BTreeMap<&'a str, Vec<&'a str>>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<String> {
    if let Some(first) = path.iter().position(|seen| *seen == at) {
        path.push(at);
        return Some(format!("{}: dependency cycle", path[first..].join(" -> ")));
    }
    if !done.contains(at) {
        path.push(at);
        let found = graph.get(at)?.iter().find_map(|to| visit(to, graph, path, done));
        if found.is_some() {
            return found;
        }
        path.pop();
        done.insert(at);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, dependencies: &[(&str, Kind)]) -> Crate {
        Crate {
            name: format!("cribwork-{name}"),
            dependencies: dependencies.iter().map(|(to, kind)| (to.to_string(), *kind)).collect(),
        }
    }

    #[test]
    fn allowed_arrows_pass_directly_and_transitively() {
        let crates = [
            member("types", &[("bytes", Kind::Normal)]),
            member("engine", &[("cribwork-types", Kind::Normal), ("rocksdb", Kind::Normal)]),
            member("multiraft", &[("cribwork-types", Kind::Normal), ("openraft", Kind::Normal)]),
            member("server", &[("cribwork-engine", Kind::Normal)]),
            member("cli", &[("cribwork-engine", Kind::Build)]),
        ];
        assert_eq!(check(&crates), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_arrow_is_named_for_normal_and_build_but_not_dev() {
        for (kind, expected) in [(Kind::Normal, 1), (Kind::Build, 1), (Kind::Dev, 0)] {
            let crates = [member("mvcc", &[("cribwork-engine", kind)]), member("engine", &[])];
            let findings = check(&crates);
            assert_eq!(findings.len(), expected, "{kind:?}: {findings:?}");
            assert!(
                findings.iter().all(|f| f.starts_with("cribwork-mvcc -> cribwork-engine: ")),
                "{findings:?}"
            );
        }
    }

    #[test]
    fn the_checker_itself_uses_no_workspace_crate() {
        let crates = [member("xtask", &[("cribwork-types", Kind::Normal)]), member("types", &[])];
        assert!(check(&crates)[0].contains("may use: no workspace crate"));
    }

    #[test]
    fn tests_and_benches_may_use_any_crate() {
        let crates = [
            member("tests", &[("cribwork-cli", Kind::Normal)]),
            member("benches", &[("cribwork-cli", Kind::Normal)]),
            member("cli", &[]),
        ];
        assert_eq!(check(&crates), Vec::<String>::new());
    }

    #[test]
    fn rocksdb_and_openraft_have_one_owner_each_even_for_tests() {
        let crates = [
            member("server", &[("rocksdb", Kind::Dev), ("openraft-multi", Kind::Normal)]),
            member("engine", &[("rocksdb", Kind::Normal), ("openraft", Kind::Normal)]),
        ];
        assert_eq!(
            check(&crates),
            [
                "cribwork-server -> rocksdb: only cribwork-engine may depend on it",
                "cribwork-server -> openraft-multi: only cribwork-multiraft may depend on it",
                "cribwork-engine -> openraft: only cribwork-multiraft may depend on it",
            ]
        );
    }

    #[test]
    fn a_crate_without_a_row_is_named() {
        assert!(check(&[member("new", &[])])[0].starts_with("cribwork-new: has no layer"));
    }

    #[test]
    fn a_cycle_is_written_out() {
        let crates = [
            member("tests", &[("cribwork-benches", Kind::Normal)]),
            member("benches", &[("cribwork-tests", Kind::Normal)]),
        ];
        assert_eq!(
            check(&crates),
            ["cribwork-benches -> cribwork-tests -> cribwork-benches: dependency cycle"]
        );
    }

    #[test]
    fn rows_are_unique_and_name_only_rows_before_them() {
        for (position, (name, uses)) in LAYERS.iter().enumerate() {
            let lower: Vec<&str> = LAYERS[..position].iter().map(|(row, _)| *row).collect();
            assert!(!lower.contains(name), "{name} has two rows");
            if let Uses::Crates(uses) = uses {
                assert!(uses.iter().all(|used| lower.contains(used)), "{name} looks upwards");
            }
        }
    }
}
