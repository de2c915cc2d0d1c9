//! Newtypes for ids. All are `u64` on disk (big-endian) and on the wire (varint); zero is never a
//! valid id except [`RangeId::PLACEMENT`].

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The number itself.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<u64> for $name {
            fn from(id: u64) -> Self {
                Self(id)
            }
        }
    };
}

id! {
    /// Names one cluster. Random, never zero; two clusters never share one in practice.
    ClusterId
}
id! {
    /// One store: a data directory with its engine, one per node. Counted from 1.
    StoreId
}
id! {
    /// One range, and so one Raft group (`metapb.Region.id` on the wire). Counted from 1.
    RangeId
}
id! {
    /// One replica of a range on a store; openraft's node id. Never reused, not even when a
    /// replica is removed from a store and added again: its old vote must be forgotten.
    ReplicaId
}

impl RangeId {
    /// The placement group: Raft group 0. It holds no part of the key space.
    pub const PLACEMENT: RangeId = RangeId(0);
}
