//! What a simulated disk holds: a store in memory that knows what was synced, or a real RocksDB.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use cribwork_engine::{Engine, EngineOptions, MemoryEngine, RocksEngine};
use serde::Serialize;
use tempfile::TempDir;

use crate::random::Random;

/// Copies of a directory that is being written to, before one must be whole.
const COPIES_MAX: u32 = 20;

/// Which store the nodes run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// The in-memory twin: exact about what a loss of power leaves.
    Memory,
    /// RocksDB, in a temporary directory. A crash leaves what its files hold; power is never lost.
    Rocks,
}

/// The store of one disk.
pub(crate) enum Store {
    Memory(Arc<MemoryEngine>),
    Rocks(Rocks),
}

/// A RocksDB, and where its lives lie: `0`, `1` and so on.
pub(crate) struct Rocks {
    base: TempDir,
    life: u32,
    engine: Arc<RocksEngine>,
}

impl Store {
    /// An empty one.
    ///
    /// # Errors
    /// If there is no room for a RocksDB.
    pub(crate) fn new(kind: StoreKind) -> anyhow::Result<Self> {
        Ok(match kind {
            StoreKind::Memory => Store::Memory(MemoryEngine::new()),
            StoreKind::Rocks => {
                let base = TempDir::new().context("no directory for a store")?;
                let engine = RocksEngine::open(&base.path().join("0"), EngineOptions::small())?;
                Store::Rocks(Rocks { base, life: 0, engine })
            }
        })
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        match self {
            Store::Memory(engine) => engine.clone(),
            Store::Rocks(rocks) => rocks.engine.clone(),
        }
    }

    /// Of what was not synced, nothing is there.
    ///
    /// # Errors
    /// If RocksDB cannot be opened again.
    pub(crate) fn lose_unsynced(&mut self) -> anyhow::Result<()> {
        match self {
            Store::Memory(engine) => *engine = engine.crash_keeping(0),
            Store::Rocks(rocks) => rocks.crash()?,
        }
        Ok(())
    }

    /// The process ended; with `power` its machine did, too. What the next life finds.
    ///
    /// # Errors
    /// If RocksDB cannot be opened again.
    pub(crate) fn crash(&mut self, power: Option<&mut Random>) -> anyhow::Result<()> {
        match self {
            Store::Memory(engine) => {
                let Some(random) = power else { return Ok(()) };
                // Mostly little survives; sometimes all had been written back.
                let kept = match random.below(4) {
                    0 => usize::MAX,
                    1 => 0,
                    2 => random.below(4) as usize,
                    _ => random.below(32) as usize,
                };
                *engine = engine.crash_keeping(kept);
                Ok(())
            }
            Store::Rocks(rocks) => rocks.crash(),
        }
    }
}

impl Rocks {
    /// The old life may still hold its directory, so the next one gets a copy: what a killed process
    /// would have left.
    fn crash(&mut self) -> anyhow::Result<()> {
        let from = self.base.path().join(self.life.to_string());
        for attempt in 1.. {
            self.life += 1;
            let to = self.base.path().join(self.life.to_string());
            let opened =
                copy(&from, &to).and_then(|()| Ok(RocksEngine::open(&to, EngineOptions::small())?));
            match opened {
                Ok(engine) => {
                    self.engine = engine;
                    break;
                }
                // A file that RocksDB removed or renamed in between.
                Err(error) if attempt >= COPIES_MAX => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false if name == "LOCK" => {}
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cribwork_types::{Cf, WriteBatch};

    use super::*;

    #[test]
    fn a_crash_leaves_what_was_synced() -> anyhow::Result<()> {
        for kind in [StoreKind::Memory, StoreKind::Rocks] {
            let mut store = Store::new(kind)?;
            let engine = store.engine();
            let mut batch = WriteBatch::new();
            batch.put(Cf::Raw, "k", "v");
            engine.write(&batch)?;
            engine.sync()?;
            store.crash(Some(&mut Random::new(1, 1)))?;
            assert_eq!(store.engine().get(Cf::Raw, b"k")?.as_deref(), Some(&b"v"[..]), "{kind:?}");
        }
        Ok(())
    }
}
