//! One format for histories of what clients did, and the checkers that judge them.
//!
//! The simulator, the chaos run on real processes and the benchmarks record the same [`History`]: JSON
//! lines, an [`Operation`] each, with its begin, its end and its outcome, which may be unknown.
//! [`check_all`] runs the checkers that apply; each gives a [`Verdict`] with the operations that show
//! what is wrong. A checker that gives up says so, and that is not a pass.
//!
//! | checker | what must hold |
//! | --- | --- |
//! | [`linearizable`] | raw operations on each key |
//! | [`append`] | isolation of list-append transactions |
//! | [`bank`] | totals of all balances |
//! | [`long_fork`] | reads agree on the order of writes |
//! | [`acknowledged`] | what was acknowledged is there in the end |
//! | [`replay`] | transactions against all versions of a [`Dump`] |
//! | [`timestamps`] | unique and rising |
//! | [`watermark`] | numbers that never fall |
//! | [`fingerprints`] | replicas are equal |
//!
//! Pure: no clock, no threads, no randomness; the same history gives the same report, byte for byte.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may unwrap"))]

mod acknowledged;
mod append;
mod bank;
mod blob;
mod dump;
mod error;
mod fingerprints;
#[cfg(test)]
mod fuzz;
mod graph;
mod history;
mod linearizable;
mod list_value;
mod long_fork;
mod options;
mod realtime;
mod replay;
mod run;
mod timestamps;
mod verdict;
mod watermark;

pub use acknowledged::acknowledged;
pub use append::append;
pub use bank::bank;
pub use blob::Blob;
pub use dump::{Dump, Version};
pub use error::CheckerError;
pub use fingerprints::fingerprints;
pub use history::{History, Isolation, Op, Operation, Outcome, Step, Txn};
pub use linearizable::linearizable;
pub use list_value::{decode_list, encode_list};
pub use long_fork::long_fork;
pub use options::Options;
pub use replay::replay;
pub use run::{Report, check_all};
pub use timestamps::timestamps;
pub use verdict::{VIOLATIONS_MAX, Verdict, Violation};
pub use watermark::watermark;
