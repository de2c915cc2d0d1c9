//! A node's store, in a directory of its own.

use std::sync::Arc;

use cribwork_engine::{
    Engine, EngineOptions, LogWriter, LogWriterMetrics, LogWriterOptions, RocksEngine,
};
use cribwork_types::Runtime;
use prometheus_client::registry::Registry;
use tempfile::TempDir;

/// RocksDB and the log writer over it, both with default settings. fsync costs what it costs where
/// `TMPDIR` is.
pub struct Store {
    /// Group commit over the engine.
    pub writer: LogWriter,
    /// RocksDB.
    pub engine: Arc<dyn Engine>,
    _directory: TempDir,
}

impl Store {
    /// Opens an empty store.
    pub fn open(runtime: Arc<dyn Runtime>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let engine = RocksEngine::open(directory.path(), EngineOptions::default()).unwrap();
        let writer = LogWriter::start(
            engine.clone(),
            runtime,
            LogWriterOptions::default(),
            LogWriterMetrics::register(&mut Registry::default()),
            Arc::new(|error| {
                eprintln!("the store failed: {error}");
                std::process::exit(1);
            }),
        );
        Self { writer, engine, _directory: directory }
    }
}
