//! What several test modules share: shorthands, and a history of splits, merges and membership
//! changes to draw descriptors from.

use std::sync::Arc;

use bytes::Bytes;
use cribwork_types::{
    KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole,
    StoreId, key,
};
use proptest::prelude::*;

use crate::split;

/// `enc(key)`.
pub(crate) fn enc(key: &str) -> Bytes {
    Bytes::from(key::encode(key.as_bytes()))
}

/// Voters from `(store, replica id)`.
pub(crate) fn voters(members: &[(u64, u64)]) -> Vec<ReplicaDescriptor> {
    let voter = |(store, id): &(u64, u64)| ReplicaDescriptor {
        id: ReplicaId(*id),
        store: StoreId(*store),
        role: ReplicaRole::Voter,
    };
    members.iter().map(voter).collect()
}

/// A range on stores 1, 2, 3 with replica ids `10 * id + store`. An empty bound is none.
pub(crate) fn range(id: u64, start: &str, end: &str, version: u64) -> Arc<RangeDescriptor> {
    let bound = |text: &str| {
        if text.is_empty() { Bytes::new() } else { enc(text) }
    };
    Arc::new(RangeDescriptor {
        id: RangeId(id),
        span: KeyRange { start: bound(start), end: bound(end) },
        epoch: RangeEpoch { conf_ver: 1, version },
        replicas: voters(&[(1, 10 * id + 1), (2, 10 * id + 2), (3, 10 * id + 3)]),
    })
}

/// One change of shape.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Split at the encoding of this key.
    Split(Vec<u8>),
    /// Merge the range of this key with its right neighbour.
    Merge(Vec<u8>),
    /// Change the membership of the range of this key.
    Members(Vec<u8>),
}

/// Random changes; splits are the most frequent.
pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let key = || proptest::collection::vec(any::<u8>(), 0..3);
    let change = prop_oneof![
        4 => key().prop_map(Change::Split),
        1 => key().prop_map(Change::Merge),
        1 => key().prop_map(Change::Members),
    ];
    proptest::collection::vec(change, 1..40)
}

/// Every descriptor that ever was, and those that hold now.
#[derive(Debug)]
pub(crate) struct History {
    /// In the order in which they came to be.
    pub(crate) all: Vec<Arc<RangeDescriptor>>,
    /// What holds now, from left to right.
    pub(crate) now: Vec<Arc<RangeDescriptor>>,
    next_id: u64,
}

impl History {
    /// Runs `changes` on one range over all keys.
    pub(crate) fn run(changes: &[Change]) -> Self {
        let first = range(1, "", "", 1);
        let mut history = Self { all: vec![first.clone()], now: vec![first], next_id: 2 };
        changes.iter().for_each(|change| history.apply(change));
        history
    }

    fn at(&self, encoded: &[u8]) -> usize {
        self.now.iter().position(|range| range.span.contains(encoded)).expect("ranges tile")
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Split(key) => {
                let encoded = Bytes::from(key::encode(key));
                let at = self.at(&encoded);
                let parent = self.now[at].clone();
                let id = self.next_id;
                let stores = parent.replicas.iter().zip(1..);
                let replicas: Vec<_> =
                    stores.map(|(member, n)| (member.store, ReplicaId(1000 * id + n))).collect();
                if parent.span.start == encoded {
                    return;
                }
                self.next_id += 1;
                let (left, right) =
                    split(&parent, &encoded, RangeId(id), &replicas).expect("key is inside");
                self.replace(at, 1, &[left, right]);
            }
            Change::Merge(key) => {
                let at = self.at(&key::encode(key));
                if at + 1 == self.now.len() {
                    return;
                }
                let (target, source) = (self.now[at].clone(), self.now[at + 1].clone());
                let mut merged = (*target).clone();
                merged.span.end = source.span.end.clone();
                merged.epoch.version = target.epoch.version.max(source.epoch.version) + 1;
                self.replace(at, 2, &[merged]);
            }
            Change::Members(key) => {
                let at = self.at(&key::encode(key));
                let mut changed = (*self.now[at]).clone();
                changed.epoch.conf_ver += 1;
                changed.replicas[0].id = ReplicaId(1_000_000 + self.all.len() as u64);
                self.replace(at, 1, &[changed]);
            }
        }
    }

    fn replace(&mut self, at: usize, count: usize, with: &[RangeDescriptor]) {
        let with: Vec<_> = with.iter().cloned().map(Arc::new).collect();
        self.all.extend(with.iter().cloned());
        self.now.splice(at..at + count, with);
    }
}
