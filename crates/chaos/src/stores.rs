//! What stopped nodes have left on disk: whether it is the same on all of them, and whether it is whole.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::report::Verdict;

/// Code of damage that a node or a command has found.
pub(crate) const CORRUPTION: &str = "CW-ENGINE-CORRUPTION";

/// What `cribwork store compare` said about all stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Compared {
    /// Its exit status: 0 all equal, 2 different, 1 not all compared.
    pub(crate) exit: Option<i32>,
    pub(crate) ranges: u64,
    pub(crate) equal: u64,
    pub(crate) different: u64,
    pub(crate) not_compared: u64,
    /// Log entries that were applied in memory, to bring stores up to each other.
    pub(crate) replayed: u64,
    /// Keys and their versions in all ranges.
    pub(crate) rows: u64,
    /// What was wrong, in words.
    pub(crate) said: String,
}

impl Compared {
    fn new(exit: Option<i32>, report: &Value, said: &str) -> Self {
        let ranges = report["ranges"].as_array().map_or(&[][..], Vec::as_slice);
        let number = |field: &str| report[field].as_u64().unwrap_or_default();
        let replicas = ranges.iter().flat_map(|range| range["replicas"].as_array()).flatten();
        let replayed = replicas.filter_map(|replica| replica["replayed"].as_u64()).sum();
        let rows = ranges.iter().filter_map(|range| range["replicas"][0]["rows"].as_u64()).sum();
        Self {
            exit,
            ranges: ranges.len() as u64,
            equal: number("equal"),
            different: number("different"),
            not_compared: number("not_compared"),
            replayed,
            rows,
            said: if exit == Some(0) { String::new() } else { said.trim().to_owned() },
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.exit {
            Some(0) => Verdict::Holds,
            Some(2) => Verdict::Violated,
            _ => Verdict::Unchecked,
        }
    }

    /// In a few words.
    pub(crate) fn told(&self) -> String {
        format!(
            "{} of {} ranges equal on all stopped stores, {} different, {} not compared; {} rows, {} log \
             entries replayed",
            self.equal, self.ranges, self.different, self.not_compared, self.rows, self.replayed
        )
    }
}

/// Compares the stores of all nodes, none of which may run.
pub(crate) fn compare(cluster: &Cluster) -> anyhow::Result<Compared> {
    let directories = cluster.nodes.iter().map(|node| node.setup.data.as_path());
    let (exit, report, said) = look(cluster.binary(), "compare", directories)?;
    Ok(Compared::new(exit, &report, &said))
}

/// A table file of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableFile {
    pub(crate) family: String,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Reads all of one store; its table files, or what is wrong with it.
pub(crate) fn show(binary: &Path, data: &Path) -> anyhow::Result<Result<Vec<TableFile>, String>> {
    let (exit, report, said) = look(binary, "show", [data].into_iter())?;
    if exit != Some(0) {
        return Ok(Err(said));
    }
    Ok(Ok(table_files(&report, data).context("`store show` prints something else")?))
}

fn table_files(report: &Value, data: &Path) -> Option<Vec<TableFile>> {
    let mut found = Vec::new();
    for family in report["families"].as_array()? {
        for file in family["files"].as_array()? {
            found.push(TableFile {
                family: family["name"].as_str()?.to_owned(),
                path: data.join("db").join(file["name"].as_str()?),
                bytes: file["bytes"].as_u64()?,
            });
        }
    }
    Some(found)
}

fn look<'a>(
    binary: &Path,
    what: &str,
    directories: impl Iterator<Item = &'a Path>,
) -> anyhow::Result<(Option<i32>, Value, String)> {
    let mut command = Command::new(binary);
    command.args(["store", what]).args(directories).args(["--output", "json"]);
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok((output.status.code(), report, said))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_the_commands_print() {
        let replica = |rows: u64, replayed: u64| json!({"rows": rows, "replayed": replayed});
        let report = json!({
            "equal": 2, "different": 0, "not_compared": 0,
            "ranges": [
                {"replicas": [replica(5, 0), replica(5, 3)]},
                {"replicas": [replica(7, 1), replica(7, 0)]},
            ],
        });
        let compared = Compared::new(Some(0), &report, "2 ranges are equal");
        let expected = Compared {
            exit: Some(0),
            ranges: 2,
            equal: 2,
            replayed: 4,
            rows: 12,
            ..Compared::default()
        };
        assert_eq!(compared, expected);
        assert_eq!(compared.verdict(), Verdict::Holds);
        assert_eq!(Compared::new(Some(2), &report, "x").verdict(), Verdict::Violated);
        assert_eq!(Compared::new(Some(1), &Value::Null, "x").verdict(), Verdict::Unchecked);
        assert_eq!(Compared::new(None, &Value::Null, " x\n").said, "x");

        let report = json!({"families": [
            {"name": "raw", "files": [{"name": "000012.sst", "bytes": 9}]},
            {"name": "lock", "files": []},
        ]});
        let file = TableFile {
            family: "raw".to_owned(),
            path: PathBuf::from("d/db/000012.sst"),
            bytes: 9,
        };
        assert_eq!(table_files(&report, Path::new("d")), Some(vec![file]));
        assert_eq!(table_files(&json!({}), Path::new("d")), None);
    }
}
