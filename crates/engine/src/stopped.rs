//! A store that no process runs, opened to be looked at.
//!
//! Invariant: looking changes nothing, not one byte and not one file. What is only in the write-ahead
//! log is replayed into memory; the checks are those of a node that starts, so that what a node would
//! refuse is refused here too.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cribwork_types::Cf;
use rocksdb::DB;

use crate::format::DataDir;
use crate::log_check::check_logs;
use crate::rocks::Database;
use crate::rocks_cursor::RocksSnapshot;
use crate::{
    EngineError, EngineOptions, EngineSnapshot, IDENTITY_KEY, StoreIdentity, rocks_options,
};

/// A stopped store. While it is open, no node can start on its directory; others may look too.
pub struct StoppedStore {
    database: Arc<Database>,
}

/// One file of a store with rows of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFile {
    /// The family.
    pub cf: Cf,
    /// Its name in the database's directory.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

impl StoppedStore {
    /// Opens the store in `dir`.
    ///
    /// # Errors
    /// - [`EngineError::Locked`] while a process runs it;
    /// - [`EngineError::NoStore`], [`EngineError::ForeignDirectory`], [`EngineError::UnknownFormat`] for a
    ///   directory that holds no store of this format;
    /// - [`EngineError::Corruption`] if files are missing or damaged, the log's torn tail excepted.
    pub fn open(dir: &Path) -> Result<StoppedStore, EngineError> {
        let dir = DataDir::open_existing(dir)?;
        check_logs(&dir.database())?;
        let options = EngineOptions::default();
        let db_options = rocks_options::database(&options, false)?;
        let families = rocks_options::families(&options);
        let db = DB::open_cf_descriptors_read_only(&db_options, dir.database(), families, false)
            .map_err(|error| EngineError::from_rocks("open database", error))?;
        Ok(StoppedStore { database: Arc::new(Database { db, dir }) })
    }

    /// Everything that is in it.
    pub fn view(&self) -> Arc<dyn EngineSnapshot> {
        Arc::new(RocksSnapshot::new(Arc::clone(&self.database)))
    }

    /// Which store it is, or `None` if it has not joined a cluster.
    ///
    /// # Errors
    /// [`EngineError`] if it cannot be read.
    pub fn identity(&self) -> Result<Option<StoreIdentity>, EngineError> {
        self.view().get(Cf::State, IDENTITY_KEY)?.map(StoreIdentity::decode).transpose()
    }

    /// Its table files. What is only in the log is in none of them.
    ///
    /// # Errors
    /// [`EngineError`] if RocksDB does not say.
    pub fn table_files(&self) -> Result<Vec<TableFile>, EngineError> {
        let files = self.database.db.live_files();
        let files = files.map_err(|error| EngineError::from_rocks("list files", error))?;
        let known = files.into_iter().filter_map(|file| {
            let cf = Cf::ALL.into_iter().find(|cf| cf.name() == file.column_family_name)?;
            let name = file.name.trim_start_matches('/').to_owned();
            Some(TableFile { cf, name, bytes: file.size as u64 })
        });
        Ok(known.collect())
    }

    /// Bytes of its write-ahead log.
    pub fn log_bytes(&self) -> u64 {
        let files = fs::read_dir(self.database.directory()).into_iter().flatten().flatten();
        let logs = files.filter(|file| file.path().extension().is_some_and(|it| it == "log"));
        logs.flat_map(|file| file.metadata()).map(|metadata| metadata.len()).sum()
    }
}
