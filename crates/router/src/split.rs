//! What a split makes of a descriptor. Every replica computes it from the same log entry, so it
//! depends on nothing but its arguments.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cribwork_types::{
    KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId, StoreId, key,
};

/// Why a split cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// The key is empty or no memcomparable encoding.
    #[error("0x{} is not an encoded key", hex(.key))]
    NotABound {
        /// The key given.
        key: Bytes,
    },
    /// The key lies in another range.
    #[error("key 0x{} is not inside range {range}", hex(.key))]
    Outside {
        /// The range to split.
        range: RangeId,
        /// The key given.
        key: Bytes,
    },
    /// The range begins at the key: the bound is there already.
    #[error("range {range} already begins at the split key")]
    ExistingBound {
        /// The range to split.
        range: RangeId,
    },
    /// The new range's id is zero or its parent's.
    #[error("{id} cannot be the id of a new range")]
    RightId {
        /// The id given.
        id: RangeId,
    },
    /// The replicas given for the new range do not match the members of its parent.
    #[error("replicas of the new range: {why} (store {store})")]
    Replicas {
        /// The store where they do not match.
        store: StoreId,
        /// In which way.
        why: &'static str,
    },
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Splits `parent` at `key`, an encoded bound strictly inside.
///
/// The left keeps the id, its replicas and `[start, key)`. The right gets `right_id`, `[key, end)` and
/// for each member of the parent a replica on the same store, in the same role, with the id that
/// `right_replicas` gives for that store. Both have the parent's `conf_ver` and its `version + 1`: at
/// every key the version rises with every change of bounds, which is what [`crate::RangeMap`] decides
/// by.
///
/// # Errors
/// [`SplitError`] if the key or the ids do not fit the parent.
pub fn split(
    parent: &RangeDescriptor,
    key: &Bytes,
    right_id: RangeId,
    right_replicas: &[(StoreId, ReplicaId)],
) -> Result<(RangeDescriptor, RangeDescriptor), SplitError> {
    if key.is_empty() || !key::is_bound(key) {
        return Err(SplitError::NotABound { key: key.clone() });
    }
    if *key == parent.span.start {
        return Err(SplitError::ExistingBound { range: parent.id });
    }
    if !parent.span.contains(key) {
        return Err(SplitError::Outside { range: parent.id, key: key.clone() });
    }
    if right_id == parent.id || right_id == RangeId::PLACEMENT {
        return Err(SplitError::RightId { id: right_id });
    }
    let epoch = RangeEpoch { conf_ver: parent.epoch.conf_ver, version: parent.epoch.version + 1 };
    let left = RangeDescriptor {
        id: parent.id,
        span: KeyRange { start: parent.span.start.clone(), end: key.clone() },
        epoch,
        replicas: parent.replicas.clone(),
    };
    let right = RangeDescriptor {
        id: right_id,
        span: KeyRange { start: key.clone(), end: parent.span.end.clone() },
        epoch,
        replicas: match_replicas(parent, right_replicas)?,
    };
    Ok((left, right))
}

/// The parent's members with the ids that `given` names for their stores.
fn match_replicas(
    parent: &RangeDescriptor,
    given: &[(StoreId, ReplicaId)],
) -> Result<Vec<ReplicaDescriptor>, SplitError> {
    let error = |store, why| Err(SplitError::Replicas { store, why });
    let mut by_store = BTreeMap::new();
    let mut seen: BTreeSet<ReplicaId> = parent.replicas.iter().map(|replica| replica.id).collect();
    for &(store, id) in given {
        if id.get() == 0 || !seen.insert(id) {
            return error(store, "the replica id is zero or in use");
        }
        if by_store.insert(store, id).is_some() {
            return error(store, "two replicas on one store");
        }
    }
    let mut replicas = Vec::with_capacity(parent.replicas.len());
    for member in &parent.replicas {
        match by_store.remove(&member.store) {
            Some(id) => replicas.push(ReplicaDescriptor { id, ..*member }),
            None => return error(member.store, "no replica for a member of the parent"),
        }
    }
    match by_store.first_key_value() {
        Some((store, _)) => error(*store, "the parent has no member there"),
        None => Ok(replicas),
    }
}

#[cfg(test)]
mod tests {
    use cribwork_types::ReplicaRole;

    use super::*;
    use crate::testing::{enc, voters};

    fn parent() -> RangeDescriptor {
        let mut replicas = voters(&[(1, 11), (2, 12), (3, 13)]);
        replicas[2].role = ReplicaRole::Learner;
        RangeDescriptor {
            id: RangeId(1),
            span: KeyRange { start: enc("b"), end: enc("y") },
            epoch: RangeEpoch { conf_ver: 4, version: 9 },
            replicas,
        }
    }

    const IDS: [(StoreId, ReplicaId); 3] =
        [(StoreId(3), ReplicaId(23)), (StoreId(1), ReplicaId(21)), (StoreId(2), ReplicaId(22))];

    #[test]
    fn halves_share_the_new_epoch_and_the_stores() {
        let (left, right) = split(&parent(), &enc("m"), RangeId(2), &IDS).unwrap();
        let epoch = RangeEpoch { conf_ver: 4, version: 10 };
        assert_eq!(
            (left.id, left.epoch, right.id, right.epoch),
            (RangeId(1), epoch, RangeId(2), epoch)
        );
        assert_eq!(left.span, KeyRange { start: enc("b"), end: enc("m") });
        assert_eq!(right.span, KeyRange { start: enc("m"), end: enc("y") });
        assert_eq!(left.replicas, parent().replicas);
        let mut expected = voters(&[(1, 21), (2, 22), (3, 23)]);
        expected[2].role = ReplicaRole::Learner;
        assert_eq!(right.replicas, expected);
    }

    #[test]
    fn keys_that_do_not_fit() {
        let at = |key: Bytes| split(&parent(), &key, RangeId(2), &IDS).unwrap_err();
        assert!(matches!(at(Bytes::new()), SplitError::NotABound { .. }));
        assert!(matches!(at(Bytes::from("m")), SplitError::NotABound { .. }));
        assert!(matches!(at(enc("b")), SplitError::ExistingBound { range: RangeId(1) }));
        for outside in ["a", "y", "z"] {
            assert!(matches!(at(enc(outside)), SplitError::Outside { .. }), "{outside}");
        }
    }

    #[test]
    fn ids_that_do_not_fit() {
        let with = |id, replicas: &[(u64, u64)]| {
            let replicas: Vec<_> =
                replicas.iter().map(|(store, id)| (StoreId(*store), ReplicaId(*id))).collect();
            split(&parent(), &enc("m"), RangeId(id), &replicas).unwrap_err()
        };
        let good = [(1, 21), (2, 22), (3, 23)];
        assert!(matches!(with(1, &good), SplitError::RightId { .. }));
        assert!(matches!(with(0, &good), SplitError::RightId { .. }));
        let wrong: [&[(u64, u64)]; 6] = [
            &[(1, 21), (2, 22)],
            &[(1, 21), (2, 22), (3, 23), (4, 24)],
            &[(1, 21), (2, 22), (2, 23), (3, 24)],
            &[(1, 21), (2, 22), (3, 22)],
            &[(1, 21), (2, 22), (3, 13)],
            &[(1, 21), (2, 22), (3, 0)],
        ];
        for replicas in wrong {
            assert!(matches!(with(2, replicas), SplitError::Replicas { .. }), "{replicas:?}");
        }
    }
}
