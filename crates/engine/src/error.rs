//! What can go wrong in a store, with what to do about it.

use std::path::{Path, PathBuf};

use cribwork_types::{ClusterId, CodecError, CodedError, StoreId};

/// An error of the store. Cheap to clone, because one failed batch answers many callers.
///
/// None is retryable: an engine either works or must not be trusted (a failed `fsync` may have
/// dropped the very pages that a second one would report as written).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Bytes on disk fail their checksum, are missing, or cannot be what was written.
    #[error("{what} is corrupt: {detail}")]
    Corruption {
        /// What was being read.
        what: &'static str,
        /// What RocksDB or the codec says.
        detail: String,
    },
    /// The operating system refused a read or a write.
    #[error("{what}: {detail}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system says.
        detail: String,
    },
    /// No space left on the disk.
    #[error("{what}: disk full: {detail}")]
    DiskFull {
        /// What was being done.
        what: &'static str,
        /// What the system says.
        detail: String,
    },
    /// Another process, or another engine of this one, holds the directory.
    #[error("data directory {} is in use by another process", dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// The directory has files in it but no `FORMAT`: it is not a store of ours.
    #[error("{} is not empty and not a Cribwork data directory", dir.display())]
    ForeignDirectory {
        /// The data directory.
        dir: PathBuf,
    },
    /// There is no store to look at.
    #[error("{} holds no store", dir.display())]
    NoStore {
        /// The directory.
        dir: PathBuf,
    },
    /// The store was written by a build with another format.
    #[error("{} has format {found:?}, this build knows {known}", dir.display())]
    UnknownFormat {
        /// The data directory.
        dir: PathBuf,
        /// What `FORMAT` names, cut to a sane length.
        found: String,
        /// What this build reads and writes.
        known: u32,
    },
    /// The store belongs to another cluster or is another store of it.
    #[error(
        "the data directory belongs to store {found_store} of cluster {found_cluster}, \
         not to store {store} of cluster {cluster}"
    )]
    WrongIdentity {
        /// The cluster asked for.
        cluster: ClusterId,
        /// The store asked for.
        store: StoreId,
        /// The cluster on disk.
        found_cluster: ClusterId,
        /// The store on disk.
        found_store: StoreId,
    },
    /// A key longer than [`crate::KEY_STORED_BYTES_MAX`]. Nothing of its batch was written.
    #[error("key of {length} bytes: at most {limit} can be stored")]
    KeyTooLong {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A damaged store was set aside and is there still: there is room for one.
    #[error("{} holds a damaged store that was set aside earlier", dir.display())]
    SetAsideBefore {
        /// Where it is.
        dir: PathBuf,
    },
    /// An earlier write or sync failed, so the store takes no more of them.
    #[error("the store stopped after a failure: {first}")]
    Stopped {
        /// The first failure, in words.
        first: String,
    },
    /// The log writer was closed, so nothing was written.
    #[error("the log writer is closed")]
    Closed,
}

impl EngineError {
    /// Sorts an error of RocksDB, which has only text, by its kind.
    pub(crate) fn from_rocks(what: &'static str, error: rocksdb::Error) -> Self {
        let (kind, detail) = (error.kind(), error.into_string());
        match kind {
            rocksdb::ErrorKind::Corruption => EngineError::Corruption { what, detail },
            _ if detail.contains("No space left on device") => {
                EngineError::DiskFull { what, detail }
            }
            _ => EngineError::Io { what, detail },
        }
    }

    /// Sorts an error of the operating system about `path`.
    pub(crate) fn from_io(what: &'static str, path: &Path, error: &std::io::Error) -> Self {
        let detail = format!("{}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::StorageFull => EngineError::DiskFull { what, detail },
            _ => EngineError::Io { what, detail },
        }
    }

    /// Bytes of the store that do not decode.
    pub(crate) fn from_codec(what: &'static str, error: &CodecError) -> Self {
        EngineError::Corruption { what, detail: error.to_string() }
    }

    /// What writers get to see once `self` has happened.
    pub(crate) fn stopped(&self) -> Self {
        match self {
            EngineError::Stopped { .. } => self.clone(),
            first => EngineError::Stopped { first: first.to_string() },
        }
    }
}

impl CodedError for EngineError {
    fn code(&self) -> &'static str {
        match self {
            EngineError::Corruption { .. } => "CW-ENGINE-CORRUPTION",
            EngineError::Io { .. } => "CW-ENGINE-IO",
            EngineError::DiskFull { .. } => "CW-ENGINE-DISK-FULL",
            EngineError::Locked { .. } => "CW-ENGINE-LOCKED",
            EngineError::ForeignDirectory { .. } => "CW-ENGINE-FOREIGN-DIRECTORY",
            EngineError::NoStore { .. } => "CW-ENGINE-NO-STORE",
            EngineError::UnknownFormat { .. } => "CW-ENGINE-UNKNOWN-FORMAT",
            EngineError::WrongIdentity { .. } => "CW-ENGINE-WRONG-IDENTITY",
            EngineError::SetAsideBefore { .. } => "CW-ENGINE-SET-ASIDE-BEFORE",
            EngineError::KeyTooLong { .. } => "CW-ENGINE-KEY-TOO-LONG",
            EngineError::Stopped { .. } => "CW-ENGINE-STOPPED",
            EngineError::Closed => "CW-ENGINE-CLOSED",
        }
    }

    fn is_retryable(&self) -> bool {
        false
    }

    fn hint(&self) -> &'static str {
        match self {
            EngineError::Corruption { .. } => {
                "the disk lost or changed bytes: do not repair in place; look at the disk, then start \
                 the node with --rebuild-damaged: it sets this store aside and joins as a new one"
            }
            EngineError::Io { .. } => {
                "look at the kernel log and the disk's health, then restart the node"
            }
            EngineError::DiskFull { .. } => {
                "free space on the disk or enlarge it, then restart the node"
            }
            EngineError::Locked { .. } => {
                "stop the other process, or give this node its own directory"
            }
            EngineError::ForeignDirectory { .. } => {
                "give an empty directory, or one that a node of this cluster has used"
            }
            EngineError::NoStore { .. } => {
                "give the data directory of a node that has been started at least once"
            }
            EngineError::UnknownFormat { .. } => {
                "run the build that wrote the store, or one that knows its format"
            }
            EngineError::WrongIdentity { .. } => {
                "point the node at its own data directory; a store never changes its cluster or id"
            }
            EngineError::SetAsideBefore { .. } => {
                "this node's disk damaged two stores: replace it; or look at the store that was set \
                 aside, remove it, and start again"
            }
            EngineError::KeyTooLong { .. } => "use shorter keys",
            EngineError::Stopped { .. } => {
                "the first failure is in the log: remove its cause, then restart the node"
            }
            EngineError::Closed => "the node is shutting down: ask another one",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopped_keeps_the_first_failure() {
        let first = EngineError::Io { what: "sync", detail: "EIO".into() };
        let stopped = first.stopped();
        assert_eq!(stopped, EngineError::Stopped { first: "sync: EIO".into() });
        assert_eq!(stopped.stopped(), stopped);
        assert!(stopped.code().starts_with("CW-ENGINE-") && !stopped.hint().is_empty());
    }
}
