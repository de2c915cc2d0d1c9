//! A disk that fails: a library in C, compiled here and now and preloaded into nodes, whose `fsync`,
//! `fdatasync` and writes say EIO while a file exists.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::shell;

const SOURCE: &str = include_str!("../shim/failing_disk.c");

/// Compiles the library into `directory`.
pub(crate) fn compile(directory: &Path) -> anyhow::Result<PathBuf> {
    shell::require(&[("cc", "gcc")])?;
    let (source, library) = (directory.join("failing_disk.c"), directory.join("failing_disk.so"));
    std::fs::write(&source, SOURCE)?;
    let path = |path: &Path| path.display().to_string();
    let words = ["cc", "-O1", "-shared", "-fPIC", "-o", &path(&library), &path(&source), "-ldl"];
    shell::words(&words, "")?;
    Ok(library)
}

/// The switch of one node's disk.
#[derive(Debug)]
pub(crate) struct Failing {
    file: PathBuf,
}

impl Failing {
    /// A disk that works.
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// What a process needs in its environment, beside the library.
    pub(crate) fn environment(&self) -> (&'static str, String) {
        ("CRIBWORK_CHAOS_EIO", self.file.display().to_string())
    }

    /// From now on syncs fail, and writes too unless `only_sync`.
    pub(crate) fn fail(&self, only_sync: bool) -> anyhow::Result<()> {
        Ok(std::fs::write(&self.file, if only_sync { "s" } else { "a" })?)
    }

    /// From now on syncs do nothing and say that they did.
    pub(crate) fn lie(&self) -> anyhow::Result<()> {
        Ok(std::fs::write(&self.file, "l")?)
    }

    /// It works again.
    pub(crate) fn heal(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Checks that the library does what it should, on another program.
pub(crate) fn probe(directory: &Path) -> anyhow::Result<()> {
    let library = compile(directory)?;
    let failing = Failing::new(directory.join("eio"));
    let target = directory.join("synced");
    std::fs::write(&target, "x")?;
    let synced = |fails: bool| -> anyhow::Result<bool> {
        if fails {
            failing.fail(true)?;
        }
        let mut sync = std::process::Command::new("sync");
        sync.arg(&target).env("LD_PRELOAD", &library).envs([failing.environment()]);
        Ok(sync.output()?.status.success())
    };
    match (synced(false)?, synced(true)?) {
        (true, false) => Ok(()),
        _ => bail!("the preloaded library has no effect on `sync`"),
    }
}
