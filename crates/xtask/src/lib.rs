//! Checks on the repository itself, and the chores that plain cargo has no command for.
//!
//! - [`layering`]: which crate may use which, over `cargo metadata`.
//! - [`seeded`]: bugs put in on purpose stay in the simulator.
//! - [`tidy`]: sizes, words and forms of the source files.
//! - [`fuzz`]: the fuzz targets of the workspace, for long.
//! - [`bench_table`]: the last benchmark run as one table.
//!
//! The first three also run as ordinary tests (`tests/repository.rs`), so that `cargo test` alone finds
//! what `make verify` finds. Nothing here writes a file.

#![forbid(unsafe_code)]

pub mod bench_table;
pub mod fuzz;
pub mod layering;
pub mod seeded;
pub mod tidy;
