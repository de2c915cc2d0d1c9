//! The store of one node: an ordered key-value engine with column families, one write-ahead log and
//! snapshots, and the group-commit log writer on top of it.
//!
//! This is the only crate that names RocksDB; everything else sees [`Engine`]. [`MemoryEngine`] is
//! its twin for tests and simulators: the same answers, plus a crash that loses what was not synced.
//!
//! ```text
//!  appends of all groups --> LogWriter --one write, one sync--+
//!  apply task ------------------one unsynced write------------+--> Engine (one log) --> disk
//!  reads <------------------------snapshots, cursors----------+
//! ```
//!
//! Invariant: every byte goes through the one log of the engine in write order, so that after any
//! crash the store holds a prefix of what was written, and all that was synced is in it.

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests unwrap and run on real time"))]

mod api;
mod damage;
mod error;
mod format;
#[cfg(test)]
mod fuzz;
mod identity;
mod log_check;
mod log_writer;
mod memory;
mod memory_state;
mod metrics;
mod options;
mod rocks;
mod rocks_cursor;
mod rocks_options;
mod stopped;
mod watched;

#[cfg(test)]
mod test_runtime;

pub use api::{Cursor, DiskUsage, Engine, EngineSnapshot, KEY_STORED_BYTES_MAX, check_keys};
pub use damage::{finish_set_aside, has_database, note_damage, noted_damage, set_aside};
pub use error::EngineError;
pub use format::FORMAT_VERSION;
pub use identity::{IDENTITY_KEY, StoreIdentity, identity, save_identity};
pub use log_writer::{LogCallback, LogWrite, LogWriter, LogWriterOptions};
pub use memory::MemoryEngine;
pub use metrics::LogWriterMetrics;
pub use options::EngineOptions;
pub use rocks::RocksEngine;
pub use stopped::{StoppedStore, TableFile};
pub use watched::Watched;
