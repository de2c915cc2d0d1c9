//! Every error of this crate under one roof, with its code.

use cribwork_router::BoundsError;
use cribwork_types::{CodedError, StoreId};

use crate::{IdKind, TsoError};

/// Any error of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Timestamps that cannot be handed out.
    #[error(transparent)]
    Tso(#[from] TsoError),
    /// A number of ranges out of bounds.
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    /// All numbers of this kind are used up.
    #[error("no {} ids are left for a reservation of {asked}", .kind.name())]
    IdsExhausted {
        /// Which counter.
        kind: IdKind,
        /// How many were asked for.
        asked: u64,
    },
    /// A cluster id of zero.
    #[error("a cluster needs an id other than zero")]
    NoClusterId,
    /// A cluster without stores.
    #[error("a cluster needs at least one store")]
    NoStores,
    /// A store id that is zero or given twice, or an address that is empty or given twice.
    #[error("store {store} cannot be part of the plan: {why}")]
    BadStore {
        /// The store.
        store: StoreId,
        /// What is wrong.
        why: &'static str,
    },
    /// A number of replicas that no range may have.
    #[error("{asked} is no replication factor")]
    BadReplicationFactor {
        /// The number.
        asked: u64,
    },
}

impl CodedError for PlacementError {
    fn code(&self) -> &'static str {
        match self {
            PlacementError::Tso(TsoError::BadCount { .. }) => "CW-PLACEMENT-TSO-COUNT",
            PlacementError::Tso(TsoError::WindowExhausted { .. }) => "CW-PLACEMENT-TSO-WINDOW",
            PlacementError::Tso(TsoError::ClockJump { .. }) => "CW-PLACEMENT-TSO-CLOCK-JUMP",
            PlacementError::Bounds(_) => "CW-PLACEMENT-RANGE-COUNT",
            PlacementError::IdsExhausted { .. } => "CW-PLACEMENT-IDS-EXHAUSTED",
            PlacementError::NoClusterId => "CW-PLACEMENT-CLUSTER-ID",
            PlacementError::NoStores => "CW-PLACEMENT-NO-STORES",
            PlacementError::BadStore { .. } => "CW-PLACEMENT-BAD-STORE",
            PlacementError::BadReplicationFactor { .. } => "CW-PLACEMENT-REPLICATION-FACTOR",
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, PlacementError::Tso(TsoError::WindowExhausted { .. }))
    }

    fn hint(&self) -> &'static str {
        match self {
            PlacementError::Tso(TsoError::BadCount { .. }) => "ask for fewer timestamps at once",
            PlacementError::Tso(TsoError::WindowExhausted { .. }) => {
                "retry; if it lasts, look at the placement group: it cannot persist a new window"
            }
            PlacementError::Tso(TsoError::ClockJump { .. }) => {
                "set the clock of the placement leader right; if the new time is the right one, \
                 restart that node: a new leader takes its clock as it finds it"
            }
            PlacementError::Bounds(_) => "choose a number of ranges between 1 and 65536",
            PlacementError::IdsExhausted { .. } => "reserve fewer ids",
            PlacementError::NoClusterId => "draw another random cluster id",
            PlacementError::NoStores => "name at least one store",
            PlacementError::BadStore { .. } => {
                "give every store its own id above zero and its own address"
            }
            PlacementError::BadReplicationFactor { .. } => "choose 1, 3 or 5",
        }
    }
}
