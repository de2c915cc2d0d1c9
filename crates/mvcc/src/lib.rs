//! Transactions and raw values as pure functions: Percolator (Peng and Dabek, OSDI 2010) in the form
//! that TiKV gave it, over a [`ReadView`] of the store.
//!
//! ```text
//!            ReadView (one snapshot)            WriteBatch (physical, replicated as is)
//!  lock     enc(k)              -> Lock    --+
//!  write    enc(k) ++ !commit   -> Write     +--> Reader::{get, batch_get, scan}  -> values or locks
//!  default  enc(k) ++ !start    -> value   --+--> prewrite, commit, rollback, ... -> batch + answer
//! ```
//!
//! Nothing here reads a clock, a random number or configuration: what a function returns depends on
//! its view and its parameters only. Time comes in as timestamps of the transaction protocol.
//!
//! Invariants:
//! - A function writes only keys that it was given (or that lie in the span it was given), so holding
//!   latches on them from evaluation to application makes each command atomic.
//! - Every command can be repeated: evaluated again over its own result it changes nothing.
//! - A transaction that has a rollback record on a key never gets a lock or commit record there.
//! - At most one lock a key; a commit record replaces the lock in the same batch.

#![forbid(unsafe_code)]

mod check_status;
mod commit;
mod error;
#[cfg(test)]
mod fuzz;
mod key_span;
mod lock;
pub mod memory_view;
mod prewrite;
pub mod raw;
mod read;
mod resolve;
mod rollback;
mod scan;
mod versions;
mod view;
mod write;

pub use check_status::{
    CheckTxnStatusParams, HeartbeatOutcome, StatusAction, StatusOutcome, TxnStatus,
    check_txn_status, heartbeat,
};
pub use commit::{CommitOutcome, commit};
pub use error::{Conflict, ConflictReason, KeyError, MvccError};
pub use key_span::{KeySpan, destroy_range};
pub use lock::{Lock, LockInfo, LockKind, LockVerdict};
pub use prewrite::{
    Assertion, AssertionLevel, PrewriteMutation, PrewriteOp, PrewriteOutcome, PrewriteParams,
    prewrite,
};
pub use read::{ReadItem, ReadOptions, Reader};
pub use resolve::{ResolveOutcome, ResolveParams, resolve_locks, scan_locks};
pub use rollback::{CleanupOutcome, cleanup, rollback};
pub use scan::ScanOptions;
pub use view::{ReadView, ViewCursor, ViewError};
pub use write::{WriteKind, WriteRecord, WriteRef};
