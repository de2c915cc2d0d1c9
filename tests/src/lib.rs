//! Tests of whole nodes: real processes of the `cribwork` binary, with data directories of their own,
//! on ports of 127.0.0.1. Everything is seen from outside, as a user or a foreign client sees it.
//!
//! * [`Cluster`] starts nodes, kills them, stops them, and runs commands against them;
//! * [`Process`] is one process with its output in files, [`Finished`] what it left behind;
//! * [`Load`] is what clients do meanwhile;
//! * [`wait_until`] is the one way to wait: for a condition, with a deadline and a reason.
//!
//! The tests themselves are in `tests/e2e`: one binary, because linking costs more than running.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this is test code over real processes: it may panic, and it has only the real clock"
)]

mod bank;
mod cluster;
mod load;
mod node;
mod poll;
mod ports;
mod process;
mod turn;

pub use bank::assert_sound;
pub use cluster::Cluster;
pub use load::{Load, Pulse};
pub use node::{Node, NodeFlags};
pub use poll::{wait_until, wait_until_async};
pub use ports::{free_address, http_get};
pub use process::{Finished, Memory, Process, run};
pub use turn::Turn;
