//! Limits on what a process may write to one device in a second: the `blkio` controller of cgroup v1,
//! or `io` of v2.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// What is left of a disk.
const BYTES_PER_SECOND: u64 = 256 * 1024;
const WRITES_PER_SECOND: u64 = 40;

const V1: &str = "/sys/fs/cgroup/blkio";
const V2: &str = "/sys/fs/cgroup";

/// A cgroup for one process; gone when dropped, and its processes free again.
#[derive(Debug)]
pub(crate) struct Throttle {
    root: &'static Path,
    group: PathBuf,
    device: String,
}

impl Throttle {
    /// Makes a group that may write little to `device` (`MAJOR:MINOR`).
    pub(crate) fn new(device: &str) -> anyhow::Result<Self> {
        let root = if Path::new(V1).join("cgroup.procs").exists() {
            Path::new(V1)
        } else if fs::read_to_string(format!("{V2}/cgroup.controllers"))
            .is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == "io"))
        {
            fs::write(format!("{V2}/cgroup.subtree_control"), "+io").context("cgroup v2")?;
            Path::new(V2)
        } else {
            bail!("there is neither cgroup v1 with blkio nor v2 with io");
        };
        let group = root.join(format!("cribwork-chaos-{}-{}", std::process::id(), &device[2..]));
        fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
        let throttle = Self { root, group, device: device.to_owned() };
        throttle.limit()?;
        Ok(throttle)
    }

    fn limit(&self) -> anyhow::Result<()> {
        let device = &self.device;
        let set = |file: &str, line: String| {
            fs::write(self.group.join(file), line).with_context(|| format!("cannot write {file}"))
        };
        if self.root == Path::new(V2) {
            return set(
                "io.max",
                format!("{device} wbps={BYTES_PER_SECOND} wiops={WRITES_PER_SECOND}"),
            );
        }
        set("blkio.throttle.write_bps_device", format!("{device} {BYTES_PER_SECOND}"))?;
        set("blkio.throttle.write_iops_device", format!("{device} {WRITES_PER_SECOND}"))
    }

    /// Puts a process in.
    pub(crate) fn take(&self, pid: u32) -> anyhow::Result<()> {
        Ok(fs::write(self.group.join("cgroup.procs"), pid.to_string())?)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        let processes = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for process in processes.lines() {
            // It may have ended.
            let _ = fs::write(self.root.join("cgroup.procs"), process);
        }
        let _ = fs::remove_dir(&self.group);
    }
}
