//! What a merge makes of two neighbours. Every replica computes it from the same log entry, so it
//! depends on nothing but its arguments.

use std::collections::BTreeSet;

use cribwork_types::{KeyRange, RangeDescriptor, RangeEpoch, ReplicaRole, StoreId};

/// Why two ranges cannot be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The right one does not begin where the left one ends.
    #[error("the ranges are no neighbours")]
    NoNeighbours,
    /// The placement group, or a range without keys.
    #[error("one of them is no part of the key space")]
    NoPart,
    /// A store holds a replica of one and not of the other.
    #[error("they do not live on the same stores")]
    Stores,
    /// A member of one is a learner, or its members are changing.
    #[error("one of them is changing its members")]
    Members,
}

/// What the left one is once it has absorbed its right neighbour.
///
/// It keeps its id and its members and gets the right one's keys. Its version is above both, so that at
/// every key it rises. Replicas of both have to lie on the same stores, and all have to vote.
///
/// # Errors
/// [`MergeError`] if they do not fit.
pub fn merge(
    left: &RangeDescriptor,
    right: &RangeDescriptor,
) -> Result<RangeDescriptor, MergeError> {
    if left.span.is_empty() || right.span.is_empty() || left.id == right.id {
        return Err(MergeError::NoPart);
    }
    if left.span.end.is_empty() || left.span.end != right.span.start {
        return Err(MergeError::NoNeighbours);
    }
    let all_vote = |range: &RangeDescriptor| {
        range.replicas.iter().all(|replica| replica.role == ReplicaRole::Voter)
    };
    if !all_vote(left) || !all_vote(right) {
        return Err(MergeError::Members);
    }
    let stores = |range: &RangeDescriptor| -> BTreeSet<StoreId> {
        range.replicas.iter().map(|replica| replica.store).collect()
    };
    if stores(left) != stores(right) {
        return Err(MergeError::Stores);
    }
    let version = left.epoch.version.max(right.epoch.version) + 1;
    Ok(RangeDescriptor {
        id: left.id,
        span: KeyRange { start: left.span.start.clone(), end: right.span.end.clone() },
        epoch: RangeEpoch { conf_ver: left.epoch.conf_ver, version },
        replicas: left.replicas.clone(),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cribwork_types::RangeId;

    use super::*;
    use crate::testing::{enc, voters};
    use crate::{Inserted, RangeMap};

    fn left() -> RangeDescriptor {
        RangeDescriptor {
            id: RangeId(1),
            span: KeyRange { start: enc("b"), end: enc("m") },
            epoch: RangeEpoch { conf_ver: 4, version: 9 },
            replicas: voters(&[(1, 11), (2, 12), (3, 13)]),
        }
    }

    fn right() -> RangeDescriptor {
        RangeDescriptor {
            id: RangeId(2),
            span: KeyRange { start: enc("m"), end: Bytes::new() },
            epoch: RangeEpoch { conf_ver: 7, version: 12 },
            replicas: voters(&[(3, 23), (1, 21), (2, 22)]),
        }
    }

    #[test]
    fn the_left_one_gets_all_keys_above_both_versions() {
        let merged = merge(&left(), &right()).unwrap();
        assert_eq!(merged.span, KeyRange { start: enc("b"), end: Bytes::new() });
        assert_eq!(merged.epoch, RangeEpoch { conf_ver: 4, version: 13 });
        assert_eq!((merged.id, merged.replicas), (RangeId(1), left().replicas));
    }

    #[test]
    fn a_map_forgets_what_was_absorbed() {
        let mut map = RangeMap::new();
        for range in [left(), right()] {
            map.insert(range.into());
        }
        let merged = merge(&left(), &right()).unwrap();
        let Inserted::Applied { replaced } = map.insert(merged.clone().into()) else {
            panic!("a merge is newer than both")
        };
        assert_eq!(replaced.iter().map(|it| it.descriptor.id).collect::<Vec<_>>(), [RangeId(2)]);
        assert!(matches!(map.insert(right().into()), Inserted::Stale { .. }), "it never returns");
        assert_eq!(*map.get(&enc("x")).unwrap().descriptor, merged);
    }

    #[test]
    fn ranges_that_do_not_fit() {
        assert_eq!(merge(&right(), &left()), Err(MergeError::NoNeighbours));
        assert_eq!(merge(&left(), &left()), Err(MergeError::NoPart));
        let mut elsewhere = right();
        elsewhere.replicas = voters(&[(1, 21), (2, 22), (4, 24)]);
        assert_eq!(merge(&left(), &elsewhere), Err(MergeError::Stores));
        elsewhere.replicas = voters(&[(1, 21), (2, 22)]);
        assert_eq!(merge(&left(), &elsewhere), Err(MergeError::Stores));
        for role in [ReplicaRole::Learner, ReplicaRole::Incoming, ReplicaRole::Outgoing] {
            let mut changing = right();
            changing.replicas[1].role = role;
            assert_eq!(merge(&left(), &changing), Err(MergeError::Members));
        }
    }
}
