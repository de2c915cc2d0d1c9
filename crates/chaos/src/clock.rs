//! A wall clock of its own for a node, by libfaketime. The monotonic clock stays as it is: it is what
//! leases and deadlines go by, and no machine's jumps.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Where distributions put the library.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// How far it jumps, seconds.
const JUMPS_S: [i64; 8] = [-1, 1, -10, 10, -120, 120, -7200, 7200];

/// The library.
pub(crate) fn library() -> anyhow::Result<&'static str> {
    let found = LIBRARIES.into_iter().find(|path| Path::new(path).exists());
    found.context("libfaketimeMT.so.1 is not installed (package faketime)")
}

/// A jump out of `pick`.
pub(crate) fn jump_s(pick: u64) -> i64 {
    JUMPS_S[(pick >> 32) as usize % JUMPS_S.len()]
}

/// The clock of one node.
#[derive(Debug)]
pub(crate) struct Clock {
    file: PathBuf,
}

impl Clock {
    /// A clock that is right; `file` says by how much it is wrong.
    pub(crate) fn new(file: PathBuf) -> anyhow::Result<Self> {
        let clock = Self { file };
        clock.set(0)?;
        Ok(clock)
    }

    /// What a process needs in its environment, beside the library.
    pub(crate) fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // The file is read again after a second. Without a cache each look at the clock reads it.
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
        ]
    }

    /// Makes it wrong by `offset_s`, within a second.
    pub(crate) fn set(&self, offset_s: i64) -> anyhow::Result<()> {
        // In place by renaming: a process never reads half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset_s:+}\n"))?;
        Ok(std::fs::rename(&new, &self.file)?)
    }
}

/// Checks that the library does what it should, on another program.
pub(crate) fn probe(directory: &Path) -> anyhow::Result<()> {
    let library = library()?;
    let clock = Clock::new(directory.join("clock"))?;
    clock.set(-86_400)?;
    let mut date = std::process::Command::new("date");
    date.arg("+%s").env("LD_PRELOAD", library).envs(clock.environment());
    let said = String::from_utf8_lossy(&date.output()?.stdout).trim().to_owned();
    let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    match said.parse::<u64>() {
        Ok(faked) if (80_000..100_000).contains(&real.saturating_sub(faked)) => Ok(()),
        _ => bail!("{library} has no effect: `date` says {said:?}"),
    }
}
