//! Three nodes in one process: in-memory engines that can crash, an in-memory wire that can be cut.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod cold;
mod compare;
mod harness;
mod leadership;
mod members;
mod merges;
mod recovery;
mod splits;
mod verify;
mod writes;
