//! Whole nodes in one process: real stores, real ports, one tokio runtime a node.

mod cluster;
mod harness;
mod single;
