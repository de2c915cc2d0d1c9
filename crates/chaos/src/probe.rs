//! What this machine can do: each need is tried for real, on something small that is removed again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail, ensure};

use crate::disk::Disk;
use crate::kind::{Kind, Need};
use crate::network::Network;
use crate::nft::Rule;
use crate::stop::Stop;
use crate::throttle::Throttle;
use crate::{clock, eio, shell};

const PROBE_MIB: u32 = 16;

/// The answers of all needs that somebody asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capabilities(BTreeMap<Need, Result<(), String>>);

impl Capabilities {
    /// Tries what `kinds` need; `directory` must exist.
    pub(crate) fn probe(kinds: &[Kind], directory: &Path) -> Self {
        let needs: BTreeSet<Need> = kinds.iter().flat_map(|kind| kind.needs()).copied().collect();
        Self(needs.into_iter().map(|need| (need, tried(need, directory))).collect())
    }

    /// Whether there is something that only a kind that is possible needs.
    pub(crate) fn wanted(&self, need: Need) -> bool {
        matches!(self.0.get(&need), Some(Ok(())))
    }

    /// Whether a kind is possible; else why not.
    pub(crate) fn of(&self, kind: Kind) -> Result<(), String> {
        let answers = kind.needs().iter().map(|need| self.0.get(need).cloned().unwrap_or(Ok(())));
        answers.collect()
    }
}

fn tried(need: Need, directory: &Path) -> Result<(), String> {
    let answer = match need {
        Need::Network => network(),
        Need::Disk => disk(directory),
        Need::PowerCut => power_cut(directory),
        Need::Throttle => throttle(directory),
        Need::Clock => clock::probe(directory),
        Need::Eio => eio::probe(directory),
    };
    answer.map_err(|error| format!("{error:#}").lines().collect::<Vec<_>>().join(" "))
}

fn root() -> anyhow::Result<()> {
    ensure!(shell::run("id -u")?.trim() == "0", "only root may do this");
    Ok(())
}

fn network() -> anyhow::Result<()> {
    root()?;
    shell::require(&[("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")])?;
    let network = Network::new(1).context("network namespaces")?;
    let others = vec!["192.0.2.1".to_owned()];
    for rule in [Rule::Apart(others.clone()), Rule::Lossy(30, others), Rule::Alone] {
        network.set(0, &rule).context("nft rules")?;
    }
    network.heal(0)
}

fn disk(directory: &Path) -> anyhow::Result<()> {
    root()?;
    shell::require(&[
        ("mkfs.ext4", "e2fsprogs"),
        ("losetup", "mount"),
        ("fallocate", "util-linux"),
    ])?;
    let disk = Disk::new(directory, "probe", PROBE_MIB)?;
    disk.fill()?;
    let full = std::fs::write(disk.path().join("more"), [1; 1 << 20]).is_err();
    disk.free()?;
    ensure!(full, "a file system that is full takes more");
    Ok(())
}

fn power_cut(directory: &Path) -> anyhow::Result<()> {
    root()?;
    shell::require(&[("xfs_io", "xfsprogs")])?;
    let disk = Disk::new(directory, "probe", PROBE_MIB)?;
    let (synced, lost) = (disk.path().join("synced"), disk.path().join("lost"));
    std::fs::write(&synced, "x")?;
    std::fs::File::open(disk.path())?.sync_all()?;
    std::fs::File::open(&synced)?.sync_all()?;
    std::fs::write(&lost, "x")?;
    disk.cut()?;
    disk.remount(&Stop::default())?;
    let holds = |path| std::fs::read(path).is_ok_and(|bytes| bytes == b"x");
    match (holds(&synced), holds(&lost)) {
        (true, false) => Ok(()),
        (false, _) => bail!("a cut file system has lost what was synced"),
        (_, true) => bail!("a cut file system has kept what was not synced"),
    }
}

fn throttle(directory: &Path) -> anyhow::Result<()> {
    root()?;
    let disk = Disk::new(directory, "probe", PROBE_MIB)?;
    Throttle::new(&disk.number()?).map(|_| ())
}
