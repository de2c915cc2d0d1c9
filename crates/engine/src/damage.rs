//! What a data directory remembers of damage, and how a damaged store is set aside for a new one.
//!
//! ```text
//!  <dir>/DAMAGED             what was found, in text: a process that held the store met damage
//!  <dir>/damaged/            a store that was set aside: a data directory of its own, to be looked at
//!  <dir>/damaged/UNDER-WAY   it is being set aside
//! ```
//!
//! A damaged store is never repaired in place: its neighbours may be damaged too, and a replica that lost
//! part of its log or its vote must not go on under its id. It is set aside as a whole, and the node joins
//! anew, under a new store id, with nothing. Nothing is deleted: if the others turn out to be worse off,
//! what was set aside is still there.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::EngineError;
use crate::format::{self, DATABASE, FORMAT, FORMAT_NEW, exists, sync_dir};

const DAMAGED: &str = "DAMAGED";
const SET_ASIDE: &str = "damaged";
const UNDER_WAY: &str = "UNDER-WAY";
/// Most bytes of a note that are read.
const NOTE_BYTES_MAX: usize = 4096;

/// Notes in `dir` that its store is damaged, so that later starts know, however the process ends. The note
/// stays until the store is set aside, or somebody who has mended the disk removes it.
///
/// # Errors
/// [`EngineError::Io`], [`EngineError::DiskFull`] from the operating system.
pub fn note_damage(dir: &Path, found: &EngineError) -> Result<(), EngineError> {
    let path = dir.join(DAMAGED);
    let write = || {
        let mut file = File::create(&path)?;
        writeln!(file, "{found}")?;
        file.sync_all()?;
        sync_dir(dir)
    };
    write().map_err(|error| EngineError::from_io("note damage", &path, &error))
}

/// What [`note_damage`] said of the store in `dir`, if it did.
///
/// # Errors
/// [`EngineError::Io`] from the operating system.
pub fn noted_damage(dir: &Path) -> Result<Option<String>, EngineError> {
    let path = dir.join(DAMAGED);
    match fs::read(&path) {
        Ok(bytes) => {
            let note = &bytes[..bytes.len().min(NOTE_BYTES_MAX)];
            Ok(Some(String::from_utf8_lossy(note).trim_end().to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EngineError::from_io("read note of damage", &path, &error)),
    }
}

/// True if there is a database in `dir`, whole or damaged. A file system that is not mounted has none: that is
/// a mistake, no damage.
///
/// # Errors
/// [`EngineError::Io`] from the operating system.
pub fn has_database(dir: &Path) -> Result<bool, EngineError> {
    exists(&dir.join(DATABASE).join("CURRENT"))
}

/// Moves the store of `dir` into a directory within; where it is then. The next to open `dir` makes a new
/// store.
///
/// # Errors
/// [`EngineError::Locked`] if a process holds the store, [`EngineError::SetAsideBefore`] if another one
/// was set aside and is there still, [`EngineError::Io`] from the operating system.
pub fn set_aside(dir: &Path) -> Result<PathBuf, EngineError> {
    let _lock = format::lock(dir)?;
    let aside = dir.join(SET_ASIDE);
    if exists(&aside)? && !exists(&aside.join(UNDER_WAY))? {
        return Err(EngineError::SetAsideBefore { dir: aside });
    }
    let begin = || {
        fs::create_dir_all(&aside)?;
        fs::copy(dir.join(FORMAT), aside.join(FORMAT))?;
        File::open(aside.join(FORMAT))?.sync_all()?;
        File::create(aside.join(UNDER_WAY))?.sync_all()?;
        sync_dir(&aside)?;
        sync_dir(dir)
    };
    begin().map_err(|error| EngineError::from_io("set store aside", &aside, &error))?;
    move_all(dir, &aside)?;
    Ok(aside)
}

/// Goes on with a [`set_aside`] that a crash interrupted, if there is one.
///
/// # Errors
/// As [`set_aside`].
pub fn finish_set_aside(dir: &Path) -> Result<(), EngineError> {
    let aside = dir.join(SET_ASIDE);
    if !exists(&aside.join(UNDER_WAY))? {
        return Ok(());
    }
    let _lock = format::lock(dir)?;
    move_all(dir, &aside)
}

fn move_all(dir: &Path, aside: &Path) -> Result<(), EngineError> {
    let (database, format) = (dir.join(DATABASE), dir.join(FORMAT));
    let rename = |from: &Path, to: &Path| match fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let moved = exists(&aside.join(DATABASE))?;
    let work = || {
        // The database goes first: while FORMAT is there, a directory without one is refused, and nobody
        // takes it for a store that is being created, which would be removed. What is there after it has
        // gone is the next one.
        if !moved {
            rename(&database, &aside.join(DATABASE))?;
            sync_dir(aside)?;
            sync_dir(dir)?;
        }
        rename(&dir.join(DAMAGED), &aside.join(DAMAGED))?;
        if !database.try_exists()? {
            rename(&format, &dir.join(FORMAT_NEW))?;
        }
        sync_dir(dir)?;
        fs::remove_file(aside.join(UNDER_WAY))?;
        sync_dir(aside)
    };
    work().map_err(|error| EngineError::from_io("set store aside", aside, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, EngineOptions, RocksEngine, StoppedStore};
    use bytes::Bytes;
    use cribwork_types::{Cf, WriteBatch};

    fn store_with(dir: &Path, value: &'static str) {
        let engine = RocksEngine::open(dir, EngineOptions::default()).unwrap();
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raw, &b"k"[..], value);
        engine.write(&batch).unwrap();
        engine.flush().unwrap();
    }

    fn value(dir: &Path) -> Option<Bytes> {
        let engine = RocksEngine::open(dir, EngineOptions::default()).unwrap();
        engine.get(Cf::Raw, b"k").unwrap()
    }

    #[test]
    fn damage_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(noted_damage(dir.path()).unwrap(), None);
        let found = EngineError::Corruption { what: "block", detail: "checksum mismatch".into() };
        note_damage(dir.path(), &found).unwrap();
        let noted = noted_damage(dir.path()).unwrap();
        assert_eq!(noted.as_deref(), Some("block is corrupt: checksum mismatch"));
    }

    #[test]
    fn what_is_set_aside_is_whole_and_a_new_store_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        store_with(dir.path(), "old");
        let found = EngineError::Corruption { what: "block", detail: "x".into() };
        note_damage(dir.path(), &found).unwrap();
        let aside = set_aside(dir.path()).unwrap();
        assert_eq!(noted_damage(dir.path()).unwrap(), None);
        assert!(noted_damage(&aside).unwrap().is_some());
        assert_eq!(value(dir.path()), None);
        assert_eq!(value(&aside), Some(Bytes::from_static(b"old")));
        StoppedStore::open(&aside).unwrap();
        // One is kept, whatever comes; there is no room for two.
        store_with(dir.path(), "new");
        let error = set_aside(dir.path()).unwrap_err();
        assert!(matches!(error, EngineError::SetAsideBefore { .. }), "{error}");
        assert_eq!(value(dir.path()), Some(Bytes::from_static(b"new")));
        assert_eq!(value(&aside), Some(Bytes::from_static(b"old")));
    }

    /// The state of the directory after each step of [`set_aside`].
    #[test]
    fn it_goes_on_after_a_crash_and_nobody_takes_the_half_for_a_store() {
        for steps in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let (dir, aside) = (dir.path(), dir.path().join(SET_ASIDE));
            store_with(dir, "old");
            fs::create_dir(&aside).unwrap();
            fs::copy(dir.join(FORMAT), aside.join(FORMAT)).unwrap();
            fs::write(aside.join(UNDER_WAY), "").unwrap();
            if steps >= 1 {
                fs::rename(dir.join(DATABASE), aside.join(DATABASE)).unwrap();
                assert!(!has_database(dir).unwrap());
            }
            if steps == 1 {
                let error = RocksEngine::open(dir, EngineOptions::default()).err().unwrap();
                assert!(matches!(error, EngineError::Corruption { .. }), "{error}");
            }
            if steps >= 2 {
                fs::rename(dir.join(FORMAT), dir.join(FORMAT_NEW)).unwrap();
            }
            if steps >= 3 {
                // Started without a look at what is under way.
                store_with(dir, "new");
            }
            finish_set_aside(dir).unwrap();
            finish_set_aside(dir).unwrap();
            let new = (steps >= 3).then(|| Bytes::from_static(b"new"));
            assert_eq!(value(dir), new, "after {steps} steps");
            assert_eq!(value(&aside), Some(Bytes::from_static(b"old")), "after {steps} steps");
        }
    }

    #[test]
    fn a_store_that_is_not_there_is_not_set_aside_for() {
        let dir = tempfile::tempdir().unwrap();
        store_with(dir.path(), "old");
        set_aside(dir.path()).unwrap();
        store_with(dir.path(), "new");
        let elsewhere = tempfile::tempdir().unwrap();
        fs::rename(dir.path().join(DATABASE), elsewhere.path().join(DATABASE)).unwrap();
        finish_set_aside(dir.path()).unwrap();
        assert!(!has_database(dir.path()).unwrap());
        let error = RocksEngine::open(dir.path(), EngineOptions::default()).err().unwrap();
        assert!(matches!(error, EngineError::Corruption { .. }), "{error}");
    }

    #[test]
    fn a_store_that_is_open_is_not_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let engine = RocksEngine::open(dir.path(), EngineOptions::default()).unwrap();
        let error = set_aside(dir.path()).unwrap_err();
        assert!(matches!(error, EngineError::Locked { .. }), "{error}");
        drop(engine);
    }
}
