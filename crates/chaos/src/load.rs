//! The workloads that run while faults happen: children of their own, which judge what they saw.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::process::{Process, words};
use crate::stop::Stop;

/// How long a workload may prepare.
const BEGIN_LIMIT: Duration = Duration::from_secs(120);
/// What a workload prints while it is under load.
const PROGRESS: &str = " ops, ";

/// A workload that runs.
#[derive(Debug)]
pub(crate) struct Load {
    name: &'static str,
    process: Process,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) name: &'static str,
    /// Its exit status: 0 what it checks holds, 2 it is violated.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) report: Option<Value>,
    /// The last it said, if it did not end with 0.
    pub(crate) said: String,
}

impl Load {
    /// Starts `workload NAME` with `more` options.
    pub(crate) fn start(
        cluster: &Cluster,
        binary: &Path,
        directory: &Path,
        name: &'static str,
        more: &[String],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.args(["workload", name, "--output", "json", "--endpoints", &cluster.endpoints()]);
        command.args(more);
        Ok(Self { name, process: Process::start(command, directory, name)? })
    }

    /// Waits until it is under load.
    pub(crate) fn wait_begun(&mut self, stop: &Stop) -> anyhow::Result<()> {
        let limit = BEGIN_LIMIT;
        let begun = stop.wait(self.name, limit, || {
            if self.process.stderr().contains(PROGRESS) {
                return Ok(Ok(()));
            }
            match self.process.ended()? {
                Some(status) => Ok(Err(format!("{}: {}", words(status), self.process.stderr()))),
                None => bail!("it is not under load yet"),
            }
        });
        begun?.map_err(|how| anyhow::anyhow!("workload {} ended before its load: {how}", self.name))
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.process.ended(), Ok(None))
    }

    /// Waits until it has judged.
    pub(crate) fn finish(mut self, stop: &Stop, limit: Duration) -> anyhow::Result<Ended> {
        let process = &mut self.process;
        let ended = stop.wait(self.name, limit, || process.ended()?.context("it still runs"));
        stop.check()?;
        let stderr = self.process.stderr();
        let tail: Vec<_> = stderr.lines().filter(|line| !line.contains(PROGRESS)).collect();
        let tail = tail[tail.len().saturating_sub(8)..].join("\n");
        Ok(match ended {
            Ok(status) => Ended {
                name: self.name,
                code: status.code(),
                report: serde_json::from_str(self.process.stdout().trim()).ok(),
                said: if status.success() { String::new() } else { tail },
            },
            Err(error) => Ended {
                name: self.name,
                code: None,
                report: None,
                said: format!("{error:#}\n{tail}"),
            },
        })
    }
}

/// `--duration`, `--workers` and `--seed`.
pub(crate) fn options(duration: Duration, workers: u32, seed: u64) -> Vec<String> {
    let duration = format!("{}ms", duration.as_millis());
    let pairs = [
        ["--duration".to_owned(), duration],
        ["--workers".to_owned(), workers.to_string()],
        ["--seed".to_owned(), seed.to_string()],
    ];
    pairs.into_iter().flatten().collect()
}

/// Where a workload writes what it did.
pub(crate) fn history_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.jsonl"))
}
