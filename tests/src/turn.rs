//! One cluster at a time: a machine of two cores does not run two of three nodes each without
//! making both so slow that deadlines mean nothing.

use std::fs::File;

use crate::process::build_directory;

/// The right to run a cluster, until it is dropped. Held as a lock on a file, so that it counts
/// between threads and between the processes of a test runner alike.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits until nobody else has it.
    pub fn take() -> Self {
        let path = build_directory().join("cribwork-tests.lock");
        let file = File::create(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        file.lock().unwrap();
        Self { _lock: file }
    }
}
