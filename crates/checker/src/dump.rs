//! All versions of all transactional keys that a cluster holds, as read at the end of a run.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::history::{present, read_lines, write_line};
use crate::{Blob, CheckerError};

/// One committed version of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// From where on it is visible.
    pub commit_ts: u64,
    /// The transaction that wrote it.
    pub start_ts: u64,
    /// What it holds; `None` for a deletion.
    #[serde(deserialize_with = "present")]
    pub value: Option<Blob>,
}

/// Every key with its versions. As text JSON lines, one a key:
/// `{"key":"a","versions":[{"commit_ts":3,"start_ts":1,"value":"x"}]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    keys: BTreeMap<Blob, Vec<Version>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Blob,
    versions: Vec<Version>,
}

impl Dump {
    /// Reads JSON lines.
    ///
    /// # Errors
    /// The first line that is not of the format, or names a key for the second time.
    pub fn read(input: impl BufRead) -> Result<Self, CheckerError> {
        let mut dump = Self::default();
        read_lines(input, |line, Line { key, versions }| match dump.insert(key, versions) {
            None => Ok(()),
            Some(_) => Err(CheckerError::Invalid { line, why: "the key has a line already" }),
        })?;
        Ok(dump)
    }

    /// Writes JSON lines, in the order of the keys.
    ///
    /// # Errors
    /// Those of `output`.
    pub fn write(&self, mut output: impl Write) -> Result<(), CheckerError> {
        self.keys.iter().try_for_each(|(key, versions)| {
            let line = Line { key: key.clone(), versions: versions.clone() };
            write_line(&mut output, &line)
        })
    }

    /// Sets the versions of a key, in any order; the ones it had before come back.
    pub fn insert(&mut self, key: Blob, mut versions: Vec<Version>) -> Option<Vec<Version>> {
        versions.sort();
        self.keys.insert(key, versions)
    }

    /// The versions of a key, lowest commit timestamp first.
    pub fn versions(&self, key: &Blob) -> &[Version] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }

    /// The version of `key` that a read at `ts` sees: the newest with `commit_ts <= ts`.
    pub fn version_at(&self, key: &Blob, ts: u64) -> Option<&Version> {
        let versions = self.versions(key);
        let after = versions.partition_point(|version| version.commit_ts <= ts);
        after.checked_sub(1).map(|newest| &versions[newest])
    }

    /// Every key with its versions, lowest commit timestamp first.
    pub fn iter(&self) -> impl Iterator<Item = (&Blob, &[Version])> {
        self.keys.iter().map(|(key, versions)| (key, versions.as_slice()))
    }
}
