//! Workloads: programs that load a cluster and, where they can, prove that it kept its promises.
//!
//! * [`run_bank`] moves money between accounts in transactions, and afterwards holds every answer
//!   that it got against what the cluster stores.
//! * [`run_register`] reads, writes, deletes and swaps single keys, and has the history of it checked.
//! * [`run_append`] appends to lists in transactions, and has their isolation checked.
//! * [`run_kv`] reads and writes single keys in a closed loop and measures.
//!
//! Data flow of all: `setup` splits the workload's own keys into ranges; `drive` runs the workers
//! against the clock and fills a [`Summary`] from their `meter`s and the shared `gaps`; bank's
//! `checker` then compares the outcomes that the workers recorded with one scan of the data.
//!
//! Clock and tasks come from the [`cribwork_types::Runtime`] of the caller, choices from a seed.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may unwrap"))]

mod append;
mod bank;
mod drive;
mod error;
mod gaps;
mod judgement;
mod keyspace;
mod kv;
mod meter;
mod options;
mod progress;
mod register;
mod setup;

pub use append::{AppendOptions, run_append};
pub use bank::{BankOptions, BankReport, Verdict, run_bank};
pub use error::WorkloadError;
pub use judgement::{CheckerVerdict, HistoryReport};
pub use kv::{Api, Distribution, KvOptions, KvReport, run_kv};
pub use meter::Summary;
pub use options::CommonOptions;
pub use register::{RegisterOptions, run_register};
