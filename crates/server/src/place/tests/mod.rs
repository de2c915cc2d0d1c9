//! The placement host of one node, over restarts.

pub(crate) mod harness;
mod heartbeats;
mod merges;
mod orders;
mod tables;
