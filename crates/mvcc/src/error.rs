//! Why a command was refused or could not be evaluated.

use std::fmt;

use bytes::Bytes;
use cribwork_types::{CodecError, CodedError, Timestamp};

use crate::{Assertion, LockInfo, ViewError};

/// A command could not be evaluated, or a key of it refuses it. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MvccError {
    /// The store failed.
    #[error("reading the store: {0}")]
    View(#[from] ViewError),
    /// A stored record cannot be read.
    #[error("a stored record is damaged: {0}")]
    Record(#[from] CodecError),
    /// A commit record or lock names a value that is not stored.
    #[error("the value of key {} written at {start_ts} is missing", key.escape_ascii())]
    ValueMissing {
        /// Encoded user key.
        key: Bytes,
        /// Start timestamp of the transaction that wrote the value.
        start_ts: Timestamp,
    },
    /// The protocol forbids it; the caller learns why.
    #[error(transparent)]
    Key(Box<KeyError>),
}

impl From<KeyError> for MvccError {
    fn from(error: KeyError) -> Self {
        MvccError::Key(Box::new(error))
    }
}

/// Why a key refuses a command; `kvrpcpb.KeyError` on the wire. Keys are plain user keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Another transaction's lock is in the way.
    #[error("key {} is locked by transaction {}", .0.key.escape_ascii(), .0.lock_version)]
    Locked(Box<LockInfo>),
    /// Somebody else wrote first, or the transaction was rolled back.
    #[error("write conflict: {0}")]
    Conflict(Conflict),
    /// Insert or check-not-exists found a value.
    #[error("key {} exists", key.escape_ascii())]
    AlreadyExist {
        /// The key.
        key: Bytes,
    },
    /// The lock may only be committed at `min_commit_ts` or later, because a reader went ahead of it.
    #[error("key {}: commit at {attempted_commit_ts} is too early, earliest is {min_commit_ts}", key.escape_ascii())]
    CommitTsExpired {
        /// The transaction.
        start_ts: Timestamp,
        /// What was asked for.
        attempted_commit_ts: Timestamp,
        /// The key.
        key: Bytes,
        /// Earliest timestamp that is allowed.
        min_commit_ts: Timestamp,
    },
    /// Neither lock nor record of the transaction on its primary key.
    #[error("transaction {start_ts} has left no trace on its primary {}", primary_key.escape_ascii())]
    TxnNotFound {
        /// The transaction.
        start_ts: Timestamp,
        /// Where it was looked for.
        primary_key: Bytes,
    },
    /// A commit found neither its lock nor its own commit record.
    #[error("transaction {start_ts} holds no lock on key {}", key.escape_ascii())]
    TxnLockNotFound {
        /// The transaction.
        start_ts: Timestamp,
        /// The key.
        key: Bytes,
    },
    /// The client's claim about the key's existence is wrong.
    #[error("assertion {assertion:?} failed on key {}", key.escape_ascii())]
    AssertionFailed {
        /// The transaction.
        start_ts: Timestamp,
        /// The key.
        key: Bytes,
        /// What the client claimed.
        assertion: Assertion,
        /// Start timestamp of the newest version, zero if there is none.
        existing_start_ts: Timestamp,
        /// Commit timestamp of the newest version, zero if there is none.
        existing_commit_ts: Timestamp,
    },
    /// The key asked about as primary is locked, but not as primary.
    #[error("key {} is not the primary of transaction {}", .0.key.escape_ascii(), .0.lock_version)]
    PrimaryMismatch(Box<LockInfo>),
    /// The transaction cannot go on; the text says why.
    #[error("{0}")]
    Abort(String),
    /// The same request may succeed later; the text says why.
    #[error("{0}")]
    Retryable(String),
}

/// Who won, where and when; `kvrpcpb.WriteConflict` on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The transaction that lost.
    pub start_ts: Timestamp,
    /// Start timestamp of the one that won; the loser's own if it was rolled back.
    pub conflict_ts: Timestamp,
    /// Commit timestamp of the one that won; the loser's own start if it was rolled back.
    pub conflict_commit_ts: Timestamp,
    /// The key.
    pub key: Bytes,
    /// The loser's primary.
    pub primary: Bytes,
    /// What rule was broken.
    pub reason: ConflictReason,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conflict { start_ts, conflict_ts, conflict_commit_ts, key, .. } = self;
        write!(f, "transaction {start_ts} on key {}: ", key.escape_ascii())?;
        match self.reason {
            ConflictReason::Optimistic => {
                write!(f, "transaction {conflict_ts} committed at {conflict_commit_ts}")
            }
            ConflictReason::SelfRolledBack => f.write_str("it has been rolled back"),
        }
    }
}

/// `kvrpcpb.WriteConflict.Reason`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ConflictReason {
    /// An optimistic transaction met a newer commit.
    Optimistic = 1,
    /// The transaction has been rolled back on this key.
    SelfRolledBack = 3,
}

impl ConflictReason {
    /// The number on the wire.
    pub const fn number(self) -> i32 {
        self as i32
    }
}

impl CodedError for MvccError {
    fn code(&self) -> &'static str {
        match self {
            MvccError::View(_) => "CW-MVCC-VIEW",
            MvccError::Record(_) => "CW-MVCC-RECORD",
            MvccError::ValueMissing { .. } => "CW-MVCC-VALUE-MISSING",
            MvccError::Key(error) => error.code(),
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, MvccError::Key(error) if error.is_retryable())
    }

    fn hint(&self) -> &'static str {
        match self {
            MvccError::View(_) => "the store's disk or files failed: see the node's log",
            MvccError::Record(_) | MvccError::ValueMissing { .. } => {
                "the data of this replica is damaged: compare replicas with `cribwork verify`"
            }
            MvccError::Key(error) => error.hint(),
        }
    }
}

impl CodedError for KeyError {
    fn code(&self) -> &'static str {
        match self {
            KeyError::Locked(_) => "CW-MVCC-LOCKED",
            KeyError::Conflict(_) => "CW-MVCC-CONFLICT",
            KeyError::AlreadyExist { .. } => "CW-MVCC-ALREADY-EXIST",
            KeyError::CommitTsExpired { .. } => "CW-MVCC-COMMIT-TS-EXPIRED",
            KeyError::TxnNotFound { .. } => "CW-MVCC-TXN-NOT-FOUND",
            KeyError::TxnLockNotFound { .. } => "CW-MVCC-TXN-LOCK-NOT-FOUND",
            KeyError::AssertionFailed { .. } => "CW-MVCC-ASSERTION-FAILED",
            KeyError::PrimaryMismatch(_) => "CW-MVCC-PRIMARY-MISMATCH",
            KeyError::Abort(_) => "CW-MVCC-ABORT",
            KeyError::Retryable(_) => "CW-MVCC-RETRYABLE",
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, KeyError::Locked(_) | KeyError::TxnNotFound { .. } | KeyError::Retryable(_))
    }

    fn hint(&self) -> &'static str {
        match self {
            KeyError::Locked(_) => "resolve the lock through its primary, then repeat",
            KeyError::Conflict(_) => "run the transaction again from the start",
            KeyError::AlreadyExist { .. } => "the key is taken: choose another or overwrite it",
            KeyError::CommitTsExpired { .. } => "commit the primary again at a fresh timestamp",
            KeyError::TxnNotFound { .. } => "the primary may still be under way: ask again",
            KeyError::TxnLockNotFound { .. } => {
                "somebody rolled the transaction back: check its status, then run it again"
            }
            KeyError::AssertionFailed { .. } => "the client's assumption about the key is wrong",
            KeyError::PrimaryMismatch(_) => "read the lock again: it names the right primary",
            KeyError::Abort(_) => "run the transaction again from the start",
            KeyError::Retryable(_) => "repeat the request",
        }
    }
}
