//! The knobs of the schedulers.

/// Most operators at a time.
pub const OPERATORS_MAX: usize = 32;
/// Most operators at a time that one store takes part in, as source or as target.
pub const OPERATORS_PER_STORE_MAX: usize = 16;
/// A store whose last heartbeat is older gets no leaders, milliseconds.
pub const HEARTBEAT_AGE_MAX_MS: u64 = 3_000;
/// Fewest ranges that count as a table of their own for leader balance. Fewer cannot carry enough
/// load together to be worth a transfer.
pub const GROUP_RANGES_MIN: usize = 4;

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
