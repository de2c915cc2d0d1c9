//! Many Raft groups in one node: the only crate that names openraft.
//!
//! ```text
//!  server --propose--> Replica --batcher--> raft::Instance --append--> RangeLog --> LogWriter (one fsync)
//!                         ^                      |  |
//!                         |                      |  +--stream_append--> transport --> peers
//!                         +---outcome--- ApplyWorker <--committed entries (all groups, one write)
//! ```
//!
//! * [`MultiRaft`] is a node's set of replicas: registry, start-up, liveness driver.
//! * [`compare`] tells whether stopped stores hold the same.
//! * [`Replica`] is one of them: propose, read, split, merge, transfer of leadership.
//! * Modules under `raft` adapt openraft to the log, the state machine and the transport; they are
//!   generic over openraft's async runtime, and everything else sees them through one trait.
//!
//! A replica is *cold* (a descriptor, no Raft instance) until a request, a message or a dead leader
//! needs it; then it is *live*.

#![forbid(unsafe_code)]

mod acks;
mod apply;
mod calls;
mod cold;
mod command;
mod compare;
mod driver;
mod effect;
mod error;
mod fate;
mod fence;
mod fingerprint;
#[cfg(test)]
mod fuzz;
mod inbound;
mod keys;
mod leads;
mod liveness;
mod log;
mod log_view;
mod members;
mod merge;
mod metrics;
mod node;
mod observer;
mod options;
mod overlay;
mod position;
mod propose;
mod raft;
mod read;
mod records;
mod removal;
mod replica;
mod seed;
mod snapshot;
mod split;
mod verify;

pub use cold::COLD_AFTER;
pub use compare::{Comparison, Outcome, RangeComparison, ReplicaComparison, StoreView, compare};
pub use error::RaftError;
pub use fate::Applied;
pub use fingerprint::{Fingerprint, fingerprints};
pub use log_view::{StoredEntry, StoredLog, has_open_split, stored_logs};
pub use members::ReplicaChange;
pub use merge::MergePart;
pub use metrics::MultiRaftMetrics;
pub use node::{MultiRaft, NodeParts, Sender};
pub use observer::{NoObserver, Observer};
pub use options::MultiRaftOptions;
pub use read::{ReadHandle, WriteToken};
pub use removal::tombstones;
pub use replica::{LeaderView, Replica, ReplicaState, SavedVote};
pub use split::NewRange;
pub use verify::FamilySums;
