//! Shared by the engine's integration tests.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cribwork_engine::{Engine, EngineError, EngineOptions, EngineSnapshot, RocksEngine};
use cribwork_types::{Cf, KeyRange, WriteBatch};

/// A temporary directory for a RocksDB engine.
pub(crate) struct RocksDir(tempfile::TempDir);

impl RocksDir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn try_open(&self) -> Result<Arc<RocksEngine>, EngineError> {
        RocksEngine::open(self.path(), EngineOptions::small())
    }

    pub(crate) fn open(&self) -> Arc<RocksEngine> {
        self.try_open().unwrap()
    }

    /// Files of the database whose name ends so, oldest first.
    pub(crate) fn files(&self, suffix: &str) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.path().join("db")).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.to_str().unwrap().ends_with(suffix));
        files.sort();
        files
    }
}

pub(crate) fn batch_of(fill: impl FnOnce(&mut WriteBatch)) -> WriteBatch {
    let mut batch = WriteBatch::new();
    fill(&mut batch);
    batch
}

/// Every key and value of a family.
pub(crate) fn rows(engine: &dyn Engine, cf: Cf) -> Vec<(Bytes, Bytes)> {
    view_rows(&*engine.snapshot(), cf).unwrap()
}

/// Every key and value of a family in a view, or what is wrong with one.
pub(crate) fn view_rows(
    view: &dyn EngineSnapshot,
    cf: Cf,
) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
    let mut cursor = view.cursor(cf, &KeyRange::all());
    let mut rows = Vec::new();
    let mut landed = cursor.seek_to_first()?;
    while landed {
        let row = (cursor.key(), cursor.value());
        rows.push((Bytes::copy_from_slice(row.0), Bytes::copy_from_slice(row.1)));
        landed = cursor.next()?;
    }
    Ok(rows)
}
