//! What a data directory remembers of damage, and how a damaged store is set aside for a new one.
//!
//! ```text
//!  <dir>/DAMAGED     what was found, in text: the last process to hold the store met damage
//!  <dir>/damaged/    a store that was set aside: a data directory of its own, to be looked at
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
use crate::format::{self, DATABASE, FORMAT, FORMAT_NEW, sync_dir};

const DAMAGED: &str = "DAMAGED";
const SET_ASIDE: &str = "damaged";
/// Most bytes of a note that are read.
const NOTE_BYTES_MAX: usize = 4096;

/// Notes in `dir` that its store is damaged, so that the next start knows, however the process ends.
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

/// Removes the note: the store is trusted again.
///
/// # Errors
/// [`EngineError::Io`] from the operating system.
pub fn forget_damage(dir: &Path) -> Result<(), EngineError> {
    let path = dir.join(DAMAGED);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(EngineError::from_io("remove note of damage", &path, &error))
        }
        _ => Ok(()),
    }
}

/// Moves the store of `dir` into a directory within; where it is then. The next to open `dir` makes a new
/// store. Interrupted at any point and called again, it goes on.
///
/// # Errors
/// [`EngineError::Locked`] if a process holds the store, [`EngineError::SetAsideBefore`] if another one
/// was set aside and is there still, [`EngineError::Io`] from the operating system.
pub fn set_aside(dir: &Path) -> Result<PathBuf, EngineError> {
    let _lock = format::lock(dir)?;
    let aside = dir.join(SET_ASIDE);
    let database = dir.join(DATABASE);
    if database.exists() && aside.join(DATABASE).exists() {
        return Err(EngineError::SetAsideBefore { dir: aside });
    }
    let fail = |error: std::io::Error| EngineError::from_io("set store aside", &aside, &error);
    let rename = |from: &Path, to: &Path| match fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let work = || {
        fs::create_dir_all(&aside)?;
        if dir.join(FORMAT).exists() {
            fs::copy(dir.join(FORMAT), aside.join(FORMAT))?;
        }
        // The database goes first: while FORMAT is there, a directory without one is refused, and
        // nobody takes it for a store that is being created, which would be removed.
        rename(&database, &aside.join(DATABASE))?;
        sync_dir(&aside)?;
        sync_dir(dir)?;
        rename(&dir.join(DAMAGED), &aside.join(DAMAGED))?;
        rename(&dir.join(FORMAT), &dir.join(FORMAT_NEW))?;
        sync_dir(&aside)?;
        sync_dir(dir)
    };
    work().map_err(fail)?;
    Ok(aside)
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
    fn a_note_is_kept_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(noted_damage(dir.path()).unwrap(), None);
        let found = EngineError::Corruption { what: "block", detail: "checksum mismatch".into() };
        note_damage(dir.path(), &found).unwrap();
        let noted = noted_damage(dir.path()).unwrap();
        assert_eq!(noted.as_deref(), Some("block is corrupt: checksum mismatch"));
        forget_damage(dir.path()).unwrap();
        forget_damage(dir.path()).unwrap();
        assert_eq!(noted_damage(dir.path()).unwrap(), None);
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

    #[test]
    fn it_goes_on_after_a_crash_and_nobody_takes_the_half_for_a_store() {
        let dir = tempfile::tempdir().unwrap();
        store_with(dir.path(), "old");
        // The crash comes after the first rename.
        fs::create_dir(dir.path().join(SET_ASIDE)).unwrap();
        let aside = dir.path().join(SET_ASIDE);
        fs::copy(dir.path().join(FORMAT), aside.join(FORMAT)).unwrap();
        fs::rename(dir.path().join(DATABASE), aside.join(DATABASE)).unwrap();
        let error = RocksEngine::open(dir.path(), EngineOptions::default()).err().unwrap();
        assert!(matches!(error, EngineError::Corruption { .. }), "{error}");
        assert_eq!(set_aside(dir.path()).unwrap(), aside);
        assert_eq!(value(dir.path()), None);
        assert_eq!(value(&aside), Some(Bytes::from_static(b"old")));
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
