//! The placement host of one node, over restarts.

pub(crate) mod harness;
mod heartbeats;
mod orders;
mod tables;
