//! The epoch of a range: which membership and which bounds a command was made for.

use std::fmt;

/// Grows whenever a range changes shape, so that a command evaluated under one shape can never take
/// effect under another (`metapb.RegionEpoch` on the wire).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeEpoch {
    /// Grows with every change of membership.
    pub conf_ver: u64,
    /// Grows with every split and merge, by the number of ranges made or absorbed.
    pub version: u64,
}

impl RangeEpoch {
    /// The epoch of a range that has just been made.
    pub const INITIAL: RangeEpoch = RangeEpoch { conf_ver: 1, version: 1 };

    /// True if `self` is older than `other` in either part: what `self` describes no longer exists.
    pub fn is_behind(&self, other: &RangeEpoch) -> bool {
        self.version < other.version || self.conf_ver < other.conf_ver
    }
}

impl fmt::Display for RangeEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.conf_ver, self.version)
    }
}
