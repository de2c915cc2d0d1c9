//! Every error of this crate under one roof, with its code.

use cribwork_types::CodedError;

use crate::{BoundsError, SplitError, Stale, TilingError};

/// Any error of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouterError {
    /// A split that cannot be made.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// A command made for another epoch.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// Ranges that do not tile the key space.
    #[error(transparent)]
    Tiling(#[from] TilingError),
    /// A number of ranges out of bounds.
    #[error(transparent)]
    Bounds(#[from] BoundsError),
}

impl CodedError for RouterError {
    fn code(&self) -> &'static str {
        match self {
            RouterError::Split(SplitError::NotABound { .. }) => "CW-ROUTER-SPLIT-BOUND",
            RouterError::Split(SplitError::Outside { .. }) => "CW-ROUTER-SPLIT-OUTSIDE",
            RouterError::Split(SplitError::ExistingBound { .. }) => "CW-ROUTER-SPLIT-EXISTS",
            RouterError::Split(SplitError::RightId { .. }) => "CW-ROUTER-SPLIT-ID",
            RouterError::Split(SplitError::Replicas { .. }) => "CW-ROUTER-SPLIT-REPLICAS",
            RouterError::Stale(_) => "CW-ROUTER-STALE-EPOCH",
            RouterError::Tiling(_) => "CW-ROUTER-TILING",
            RouterError::Bounds(_) => "CW-ROUTER-RANGE-COUNT",
        }
    }

    fn is_retryable(&self) -> bool {
        // The membership may have changed between the allocation of the ids and the split.
        matches!(self, RouterError::Stale(_) | RouterError::Split(SplitError::Replicas { .. }))
    }

    fn hint(&self) -> &'static str {
        match self {
            RouterError::Split(SplitError::NotABound { .. }) => {
                "give the memcomparable encoding of a user key"
            }
            RouterError::Split(SplitError::Outside { .. }) => {
                "look up which range holds the key now and split that one"
            }
            RouterError::Split(SplitError::ExistingBound { .. }) => {
                "nothing to do: a range begins at this key already"
            }
            RouterError::Split(SplitError::RightId { .. } | SplitError::Replicas { .. }) => {
                "ask the placement group for new ids, one replica id for each member"
            }
            RouterError::Stale(_) => "refresh the route of the key and send the request again",
            RouterError::Tiling(_) => {
                "if it lasts longer than a split takes, report it: keys there are not reachable"
            }
            RouterError::Bounds(_) => "choose a number of ranges between 1 and 65536",
        }
    }
}

#[cfg(test)]
mod tests {
    use cribwork_types::{RangeEpoch, RangeId};

    use super::*;

    #[test]
    fn parts_convert_and_keep_their_message() {
        let epoch = RangeEpoch::INITIAL;
        let stale = Stale { range: RangeId(4), current: epoch, request: epoch };
        let error = RouterError::from(stale);
        assert_eq!(error.to_string(), stale.to_string());
        assert!(error.is_retryable());
        assert!(!RouterError::from(BoundsError { asked: 0 }).is_retryable());
    }
}
