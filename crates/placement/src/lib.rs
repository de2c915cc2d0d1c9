//! What the placement group decides, without doing any of it.
//!
//! * [`schedule`] turns a [`ClusterView`] and a [`PlacementPolicy`] into [`Decision`]s, each with its
//!   candidates and why the others were rejected; [`explain_range`] and [`explain_store`] also say why
//!   nothing happens. Each scheduler is a module: repair, drain, zones, replica balance, merge, leader
//!   balance.
//! * [`next_step`] says what brings an [`Operator`] closer to its end. [`scatter`] and
//!   [`placement_members`] are asked for by name.
//! * [`Tso`] is the arithmetic of timestamps, [`IdAllocator`] that of ids, [`Directory`] the rule by
//!   which reports about ranges are believed.
//! * [`BootstrapPlan`] is what a fresh cluster looks like.
//!
//! Pure: no I/O, no clock, no randomness. The placement host feeds in time and persists what comes out.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may unwrap"))]

mod balance;
mod bootstrap;
mod decision;
mod directory;
mod drain;
mod error;
#[cfg(test)]
mod fuzz;
mod id_allocator;
mod members;
mod merge;
mod operator;
mod policy;
mod repair;
mod replica_balance;
mod replicas;
mod round_robin;
mod scatter;
mod schedule;
mod tso;
mod view;
mod zones;

pub use balance::{LEADER_BALANCE, balance_leaders, explain_leader};
pub use bootstrap::{BootstrapPlan, PLACEMENT_MEMBERS_MAX, PlannedStore, REPLICAS_PER_RANGE};
pub use decision::{Candidate, Decision};
pub use directory::{Directory, Reported};
pub use drain::{DRAIN, decommissioned_stores};
pub use error::PlacementError;
pub use id_allocator::{IdAllocator, IdKind};
pub use members::{PLACEMENT_MEMBERS, placement_handover, placement_members};
pub use merge::MERGE;
pub use operator::{Operator, Step, next_step};
pub use policy::{
    BalancePolicy, DISK_USED_MAX_PERCENT, GROUP_RANGES_MIN, HEARTBEAT_AGE_MAX_MS,
    LOAD_SPREAD_PERCENT, MERGE_UNCHANGED_MS, MERGES_MAX, OPERATORS_MAX, OPERATORS_PER_STORE_MAX,
    PlacementPolicy, REPAIR_AFTER_MS, REPLICA_CHANGES_MAX, REPLICA_CHANGES_PER_STORE_MAX,
    REPLICA_WEIGHT_BYTES, ReplicationFactor, STRAY_LEARNER_MS,
};
pub use repair::REPAIR;
pub use replica_balance::REPLICA_BALANCE;
pub use round_robin::replica_round_robin;
pub use scatter::{SCATTER, scatter};
pub use schedule::{StoreNote, explain_range, explain_store, schedule};
pub use tso::{Batch, FORWARD_JUMP_MAX_MS, PHYSICAL_LIMIT_MS, Tso, TsoError, WINDOW_MS};
pub use view::{ClusterView, RangeView, StoreState, StoreView};
pub use zones::ZONE_SPREAD;
