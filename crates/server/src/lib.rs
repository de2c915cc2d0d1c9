//! One Cribwork store process: the services of the node, and the life of the node around them.
//!
//! The node opens its data directory, listens, and, once it knows which cluster it belongs to, runs the
//! parts below it: `cribwork-multiraft` for replication, `cribwork-mvcc` for transactions,
//! `cribwork-placement` for placement. Every clock, timer, thread and random number of the process comes
//! from [`TokioRuntime`], the one module that may name them.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests unwrap and run on real time"))]

mod addresses;
pub mod admin;
mod autosplit;
mod bootstrap;
mod clock;
mod config;
mod doubts;
mod error;
#[cfg(test)]
mod fuzz;
mod grpc;
mod guests;
mod http;
mod identity;
mod incoming;
mod intake;
mod join;
pub mod kv;
mod member;
mod network;
mod node;
mod node_service;
mod node_state;
pub mod pd;
pub mod place;
mod process_metrics;
mod ranges;
mod report;
mod runtime;
mod sizes;
mod spare;
mod store;
#[cfg(test)]
mod tests;
mod units;
mod verify;

pub use addresses::{AddressBook, PeerClients, StoreInfo};
pub use clock::HybridClock;
pub use config::{Config, EngineConfig, LimitsConfig, LogConfig, LogFormat, RaftConfig};
pub use error::{CODE_METADATA, HINT_METADATA, ServerError};
pub use network::{Accepted, Accepting, Io, Listener, Network, TcpNetwork};
pub use node::{Node, NodeOptions, RunningNode};
pub use node_state::FatalHook;
pub use runtime::{TokioRuntime, tokio_runtime};
pub use units::{parse_duration, parse_size};
