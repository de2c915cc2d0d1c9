//! The key-value service: TiKV's `tikvpb.Tikv` over the local replicas.
//!
//! ```text
//!  unary call ---+                                  point read, lease held: answered on the spot
//!                +--> start --> context check ----> read:  snapshot, lease --> mvcc --> answer
//!  stream of  ---+              (store, range,      write: latches --> snapshot --> mvcc --> propose
//!  batches                       replica)                  --> applied --> answer
//! ```
//!
//! * `context` checks for whom a request is; `failure` says what went wrong, and `answer` puts that
//!   where the answer to each call has room for it.
//! * `core` runs commands: admission, reads, latches, proposals.
//! * `raw_*`, `txn_*`, `resolve`, `split` are the commands; `service` and `batch` their two ways in.
//!
//! Invariants:
//! - A region error says that the request certainly had no effect. What may have had one is answered
//!   by the gRPC status `UNKNOWN` or, where a call has no status of its own, by an error text that
//!   begins with [`UNDETERMINED`].
//! - Keys stay latched from the evaluation of a command until its fate is known here, even when the
//!   caller has gone away.
//! - Whatever is answered from what was read (a value, a conflict, "already done") is answered only
//!   after this replica proved that it led the range when it read.

mod answer;
mod batch;
mod call;
mod checks;
mod context;
mod core;
mod failure;
#[cfg(test)]
mod fuzz;
mod key_error;
mod latches;
mod metrics;
mod parts;
mod raw_read;
mod raw_write;
mod resolve;
mod service;
mod split;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod txn_read;
mod txn_write;
mod view;
mod walk;

pub use failure::UNDETERMINED;
pub use metrics::KvMetrics;
pub use parts::{KvLimits, KvParts, RangeOps};
pub use service::KvService;
