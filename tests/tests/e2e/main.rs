//! Tests of whole nodes from outside, by what they test.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this is test code over real processes: it may panic, and it has only the real clock"
)]

mod bank;
mod commands;
mod crash;
mod damage;
mod growth;
mod histories;
mod merges;
mod moves;
mod placement_group;
mod rebuild;
mod refusal;
mod shutdown;
mod stores;
mod tikv_rust;
mod verify;
mod wire;
