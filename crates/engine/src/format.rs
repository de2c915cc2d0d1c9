//! The data directory around the database: who holds it, and which format it has.
//!
//! ```text
//!  <dir>/LOCK        held (flock) while a process has the store open
//!  <dir>/FORMAT      the format version, in text; its existence says that creation completed
//!  <dir>/FORMAT.new  the same while the store is being created
//!  <dir>/db/         RocksDB
//! ```
//!
//! Invariant: a directory with `FORMAT` has a complete database. A crash while a store is being
//! created leaves `FORMAT.new`; nobody has been promised anything yet, so the next start begins anew.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::EngineError;

/// The format that this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;

const LOCK: &str = "LOCK";
pub(crate) const FORMAT: &str = "FORMAT";
pub(crate) const FORMAT_NEW: &str = "FORMAT.new";
pub(crate) const DATABASE: &str = "db";
/// What `mkfs.ext4` puts into the root of every file system.
const LOST_AND_FOUND: &str = "lost+found";
const PREFIX: &str = "cribwork store, format ";
/// Most characters of a foreign `FORMAT` that an error repeats.
const FOUND_CHARS_MAX: usize = 64;

/// A locked data directory of the right format. Dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct DataDir {
    dir: PathBuf,
    is_new: bool,
    /// None only of a copy without the file, opened to be looked at: nobody can hold what is not there.
    _lock: Option<File>,
}

impl DataDir {
    /// Takes `dir`, making it if there is none.
    pub(crate) fn open(dir: &Path) -> Result<Self, EngineError> {
        fs::create_dir_all(dir).map_err(|e| EngineError::from_io("create directory", dir, &e))?;
        check_not_foreign(dir)?;
        let lock = lock(dir)?;
        // Only now is nobody else changing the directory.
        check_not_foreign(dir)?;
        let is_new = !exists(&dir.join(FORMAT))?;
        let data = DataDir { is_new, dir: dir.to_owned(), _lock: Some(lock) };
        if data.is_new {
            data.begin_creation()?;
        } else {
            data.check_existing()?;
        }
        Ok(data)
    }

    /// Takes `dir` to look at it, beside others that do the same. Writes nothing.
    pub(crate) fn open_existing(dir: &Path) -> Result<Self, EngineError> {
        if fs::read_dir(dir).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Err(EngineError::NoStore { dir: dir.to_owned() });
        }
        check_not_foreign(dir)?;
        let lock = lock_shared(dir)?;
        if !exists(&dir.join(FORMAT))? {
            return Err(EngineError::NoStore { dir: dir.to_owned() });
        }
        let data = DataDir { is_new: false, dir: dir.to_owned(), _lock: lock };
        data.check_existing()?;
        Ok(data)
    }

    /// The directory that was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Where the database lives.
    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    /// True until [`Self::finish_creation`]: there is no database yet.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    fn begin_creation(&self) -> Result<(), EngineError> {
        let database = self.database();
        match fs::remove_dir_all(&database) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(EngineError::from_io("remove half-made store", &database, &error));
            }
            _ => {}
        }
        let path = self.dir.join(FORMAT_NEW);
        let write = || {
            let mut file = File::create(&path)?;
            writeln!(file, "{PREFIX}{FORMAT_VERSION}")?;
            file.sync_all()?;
            sync_dir(&self.dir)
        };
        write().map_err(|error| EngineError::from_io("write FORMAT", &path, &error))
    }

    /// Declares the database complete, durably.
    pub(crate) fn finish_creation(&mut self) -> Result<(), EngineError> {
        let rename = || {
            fs::rename(self.dir.join(FORMAT_NEW), self.dir.join(FORMAT))?;
            sync_dir(&self.dir)?;
            match self.dir.canonicalize()?.parent() {
                Some(parent) => sync_dir(parent),
                None => Ok(()),
            }
        };
        rename().map_err(|error| EngineError::from_io("write FORMAT", &self.dir, &error))?;
        self.is_new = false;
        Ok(())
    }

    fn check_existing(&self) -> Result<(), EngineError> {
        let path = self.dir.join(FORMAT);
        let bytes =
            fs::read(&path).map_err(|error| EngineError::from_io("read FORMAT", &path, &error))?;
        let text = String::from_utf8_lossy(&bytes);
        let found = text.trim_end();
        let number = found.strip_prefix(PREFIX).unwrap_or(found);
        if found.strip_prefix(PREFIX) != Some(&FORMAT_VERSION.to_string()) {
            return Err(EngineError::UnknownFormat {
                dir: self.dir.clone(),
                found: number.chars().take(FOUND_CHARS_MAX).collect(),
                known: FORMAT_VERSION,
            });
        }
        // RocksDB would make an empty database in place of a lost one, and the store would forget
        // its votes.
        let current = self.database().join("CURRENT");
        if !exists(&current)? {
            let detail = format!("{} is missing", current.display());
            return Err(EngineError::Corruption { what: "database", detail });
        }
        Ok(())
    }
}

/// A directory is ours if it has a `FORMAT` (old or being written), or nothing in it.
fn check_not_foreign(dir: &Path) -> Result<(), EngineError> {
    let fail = |error| EngineError::from_io("list directory", dir, &error);
    let mut foreign = false;
    for entry in fs::read_dir(dir).map_err(fail)? {
        match entry.map_err(fail)?.file_name().to_str() {
            Some(FORMAT | FORMAT_NEW) => return Ok(()),
            Some(LOCK | LOST_AND_FOUND) => {}
            _ => foreign = true,
        }
    }
    match foreign {
        true => Err(EngineError::ForeignDirectory { dir: dir.to_owned() }),
        false => Ok(()),
    }
}

/// Whether there is such a file. A disk that cannot say is no disk without it: what is taken for a store that
/// is being created is removed.
pub(crate) fn exists(path: &Path) -> Result<bool, EngineError> {
    path.try_exists().map_err(|error| EngineError::from_io("look for a file", path, &error))
}

/// Takes the directory; dropping the file releases it.
pub(crate) fn lock(dir: &Path) -> Result<File, EngineError> {
    let path = dir.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| EngineError::from_io("lock", &path, &error))?;
    let taken = file.try_lock();
    locked(dir, taken).map(|()| file)
}

/// The lock of somebody who only looks: it keeps nodes away, and nodes keep it away.
fn lock_shared(dir: &Path) -> Result<Option<File>, EngineError> {
    let path = dir.join(LOCK);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(EngineError::from_io("lock", &path, &error)),
    };
    let taken = file.try_lock_shared();
    locked(dir, taken).map(|()| Some(file))
}

fn locked(dir: &Path, taken: Result<(), TryLockError>) -> Result<(), EngineError> {
    taken.map_err(|error| match error {
        TryLockError::WouldBlock => EngineError::Locked { dir: dir.to_owned() },
        TryLockError::Error(error) => EngineError::from_io("lock", &dir.join(LOCK), &error),
    })
}

/// Makes what was renamed or made in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(dir: &Path) -> DataDir {
        let mut data = DataDir::open(dir).unwrap();
        fs::create_dir_all(data.database()).unwrap();
        fs::write(data.database().join("CURRENT"), "x").unwrap();
        data.finish_creation().unwrap();
        data
    }

    #[test]
    fn a_half_made_store_is_made_anew_and_a_complete_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        fs::create_dir_all(data.database()).unwrap();
        fs::write(data.database().join("half"), "x").unwrap();
        drop(data);

        let data = created(dir.path());
        assert!(!data.database().join("half").exists());
        drop(data);
        let data = DataDir::open(dir.path()).unwrap();
        assert!(!data.is_new());
        // Golden: older stores must stay readable.
        let text = fs::read_to_string(dir.path().join(FORMAT)).unwrap();
        assert_eq!(text, "cribwork store, format 1\n");
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, EngineError::ForeignDirectory { .. }), "{error}");
        assert!(!dir.path().join(LOCK).exists(), "leaves nothing behind in a foreign directory");

        let dir = tempfile::tempdir().unwrap();
        drop(created(dir.path()));
        for (text, found) in [("cribwork store, format 7\n", "7"), ("what?", "what?"), ("", "")] {
            fs::write(dir.path().join(FORMAT), text).unwrap();
            let error = DataDir::open(dir.path()).unwrap_err();
            let expected = EngineError::UnknownFormat {
                dir: dir.path().to_owned(),
                found: found.to_owned(),
                known: 1,
            };
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_lost_database_is_not_replaced_by_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        drop(created(dir.path()));
        fs::remove_dir_all(dir.path().join(DATABASE)).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, EngineError::Corruption { .. }), "{error}");
    }

    #[test]
    fn only_one_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = created(dir.path());
        let error = DataDir::open(dir.path()).unwrap_err();
        assert_eq!(error, EngineError::Locked { dir: dir.path().to_owned() });
        drop(held);
        DataDir::open(dir.path()).unwrap();
    }
}
