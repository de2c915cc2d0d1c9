//! Benchmarks of Cribwork: criterion benchmarks of the crates in `benches/`, and in `peers/` a load
//! generator for etcd with a script that runs it side by side with Cribwork.
//!
//! This library holds what the criterion benchmarks share:
//!
//! * [`pure`] and [`system`]: how long and how often to measure.
//! * [`Host`]: a thread with a tokio runtime, as a node has one; [`spread`] puts load on hosts.
//! * [`Store`]: RocksDB and the log writer in a temporary directory.
//! * [`Loopback`]: transports that reach each other over TCP; [`Cluster`]: three nodes on top of it.
//!
//! Benchmarks panic on whatever goes wrong: there is nobody to hand an error to, and a number that
//! was measured around an error means nothing.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "benchmarks measure real time, and stop at the first error"
)]

mod cluster;
mod host;
mod load;
mod loopback;
mod settings;
mod store;

pub use cluster::{Cluster, Leader};
pub use host::Host;
pub use load::spread;
pub use loopback::Loopback;
pub use settings::{pure, system};
pub use store::Store;
