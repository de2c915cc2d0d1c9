//! What the placement group decides, without doing any of it.
//!
//! * [`balance_leaders`] turns a [`ClusterView`] and a [`BalancePolicy`] into [`Decision`]s, each with
//!   its candidates and why the others were rejected; [`explain_leader`] also says why nothing happens.
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
mod error;
mod id_allocator;
mod policy;
mod round_robin;
mod tso;
mod view;

pub use balance::{LEADER_BALANCE, balance_leaders, explain_leader};
pub use bootstrap::{BootstrapPlan, PLACEMENT_MEMBERS_MAX, PlannedStore, REPLICAS_PER_RANGE};
pub use decision::{Candidate, Decision, Operator};
pub use directory::{Directory, Reported};
pub use error::PlacementError;
pub use id_allocator::{IdAllocator, IdKind};
pub use policy::{
    BalancePolicy, GROUP_RANGES_MIN, HEARTBEAT_AGE_MAX_MS, OPERATORS_MAX, OPERATORS_PER_STORE_MAX,
};
pub use round_robin::replica_round_robin;
pub use tso::{Batch, FORWARD_JUMP_MAX_MS, PHYSICAL_LIMIT_MS, Tso, TsoError, WINDOW_MS};
pub use view::{ClusterView, RangeView, StoreState, StoreView};
