//! The knobs of the schedulers.

use crate::PlacementError;

/// Most operators at a time.
pub const OPERATORS_MAX: usize = 32;
/// Most operators at a time that one store takes part in, as source or as target.
pub const OPERATORS_PER_STORE_MAX: usize = 16;
/// A store whose last heartbeat is older gets no leaders and no replicas, milliseconds.
pub const HEARTBEAT_AGE_MAX_MS: u64 = 3_000;
/// Fewest ranges that count as a table of their own for leader balance. Fewer cannot carry enough
/// load together to be worth a transfer.
pub const GROUP_RANGES_MIN: usize = 4;
/// How long a store may be silent before its replicas are made anew elsewhere, milliseconds.
pub const REPAIR_AFTER_MS: u64 = 5 * 60 * 1000;
/// How long a range with a learner that no operator owns is left alone, milliseconds: longer than any
/// operator takes.
pub const STRAY_LEARNER_MS: u64 = 2 * 60 * 1000;
/// Most changes of replicas at a time.
pub const REPLICA_CHANGES_MAX: usize = 8;
/// Most changes of replicas at a time that one store gives to or takes from: each sends it a snapshot.
pub const REPLICA_CHANGES_PER_STORE_MAX: usize = 4;
/// What a replica weighs beside its bytes. So stores with little data are balanced by count, and stores
/// with much by size.
pub const REPLICA_WEIGHT_BYTES: u64 = 4 << 20;
/// Replica balance lets stores differ by this part of the mean load, percent.
pub const LOAD_SPREAD_PERCENT: u64 = 5;
/// A store whose files take more of its file system gets no replicas, percent.
pub const DISK_USED_MAX_PERCENT: u64 = 85;
/// How long both ranges must have been as they are before they are merged, milliseconds: what was split
/// a moment ago is not put together again.
pub const MERGE_UNCHANGED_MS: u64 = 10_000;
/// Most merges at a time: each may send snapshots of one replica after the other.
pub const MERGES_MAX: usize = 4;

/// What leader balance may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancePolicy {
    /// Most operators in flight, those of the view included.
    pub operators_max: usize,
    /// Most operators in flight that one store takes part in. Below 2, moves that need a store in
    /// between are never made.
    pub operators_per_store_max: usize,
    /// A store with an older heartbeat takes no part, milliseconds.
    pub heartbeat_age_max_ms: u64,
    /// Fewest ranges that are balanced as a group of their own.
    pub group_ranges_min: usize,
}

impl Default for BalancePolicy {
    fn default() -> Self {
        Self {
            operators_max: OPERATORS_MAX,
            operators_per_store_max: OPERATORS_PER_STORE_MAX,
            heartbeat_age_max_ms: HEARTBEAT_AGE_MAX_MS,
            group_ranges_min: GROUP_RANGES_MIN,
        }
    }
}

/// How many voters each range shall have: 1, 3 or 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationFactor(u8);

impl ReplicationFactor {
    /// A factor of 1, 3 or 5.
    ///
    /// # Errors
    /// [`PlacementError::BadReplicationFactor`] for any other number: an even one costs a replica and
    /// stands no more failures than the odd one below.
    pub const fn new(factor: u64) -> Result<Self, PlacementError> {
        match factor {
            1 | 3 | 5 => Ok(Self(factor as u8)),
            asked => Err(PlacementError::BadReplicationFactor { asked }),
        }
    }

    /// The number.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl Default for ReplicationFactor {
    fn default() -> Self {
        Self(3)
    }
}

/// What all schedulers together may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementPolicy {
    /// Bounds of leader transfers, and which stores count as heard of.
    pub leaders: BalancePolicy,
    /// Voters that each range shall have.
    pub replication_factor: ReplicationFactor,
    /// How long a store may be silent before its replicas are made anew elsewhere, milliseconds.
    pub repair_after_ms: u64,
    /// How long a learner without an operator is kept, milliseconds.
    pub stray_learner_ms: u64,
    /// Most changes of replicas in flight. Balance uses at most half of them, and half of those of each
    /// store, so that repair finds room.
    pub replica_changes_max: usize,
    /// Most changes of replicas in flight that one store takes part in.
    pub replica_changes_per_store_max: usize,
    /// What a replica weighs beside its bytes.
    pub replica_weight_bytes: u64,
    /// How far loads of stores may differ, percent of their mean.
    pub load_spread_percent: u64,
    /// How full a store may be and still get replicas, percent.
    pub disk_used_max_percent: u64,
    /// Neighbours that together hold less are merged, bytes; 0 for never. It is to be at most half of
    /// the size at which ranges are split: else a merged range would soon be split again, and so on.
    pub merge_below_bytes: u64,
    /// How long neighbours must have been as they are before they are merged, milliseconds.
    pub merge_unchanged_ms: u64,
    /// Most merges in flight.
    pub merges_max: usize,
}

impl Default for PlacementPolicy {
    fn default() -> Self {
        Self {
            leaders: BalancePolicy::default(),
            replication_factor: ReplicationFactor::default(),
            repair_after_ms: REPAIR_AFTER_MS,
            stray_learner_ms: STRAY_LEARNER_MS,
            replica_changes_max: REPLICA_CHANGES_MAX,
            replica_changes_per_store_max: REPLICA_CHANGES_PER_STORE_MAX,
            replica_weight_bytes: REPLICA_WEIGHT_BYTES,
            load_spread_percent: LOAD_SPREAD_PERCENT,
            disk_used_max_percent: DISK_USED_MAX_PERCENT,
            merge_below_bytes: 0,
            merge_unchanged_ms: MERGE_UNCHANGED_MS,
            merges_max: MERGES_MAX,
        }
    }
}
