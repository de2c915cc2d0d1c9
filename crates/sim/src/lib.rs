//! A whole cluster in one process and one thread, with a seed: nodes, clients, network, clocks and disks.
//!
//! Nodes are the real ones, with their gRPC over simulated TCP (turmoil), on tokio runtimes whose clock
//! stands still until every task waits. The seed decides everything else: how the cluster looks, what
//! clients do, which faults come when, how long each packet takes, what a power cut leaves of a disk, and
//! every hash map's order ([`entropy`]). The same seed gives the same run, to the last operation; its trace
//! hash says so. FoundationDB and TigerBeetle are built on the same idea.
//!
//! ```text
//!  Plan (seed) --> Cluster: hosts, disks, clocks --+
//!              --> Traffic: clients, recorder  ----+--> run(): step, break, look, heal, judge --> Report
//!              --> Faults: what breaks when    ----+
//! ```

#![deny(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "the clock, the tasks and the timers that it reaches for are the simulated ones"
)]

mod clock;
mod cluster;
mod disk;
pub mod entropy;
mod faults;
mod host;
mod judge;
mod minimize;
mod moves;
mod mutants;
mod network;
mod plan;
mod random;
mod recorder;
mod report;
mod run;
mod store;
mod traffic;
mod watch;

pub use minimize::{Minimized, minimize};
pub use mutants::{Mutant, mutants};
pub use plan::{FaultKind, Plan, Theme};
pub use report::{Found, Report};
pub use run::run;
pub use store::StoreKind;
