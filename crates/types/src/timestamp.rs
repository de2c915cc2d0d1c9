//! Transaction timestamps, as TiKV's placement driver hands them out.

use std::fmt;

/// A hybrid timestamp: `physical_ms << 18 | logical`. Physical is Unix time in milliseconds,
/// logical counts within one millisecond. Strictly rising over the life of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Bits of the logical part.
    pub const LOGICAL_BITS: u32 = 18;
    /// First logical value that no longer fits.
    pub const LOGICAL_LIMIT: u64 = 1 << Self::LOGICAL_BITS;
    /// Before every timestamp handed out.
    pub const ZERO: Timestamp = Timestamp(0);
    /// After every timestamp handed out. A read at `MAX` means "newest committed".
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// Builds a timestamp; `logical` must be below [`Self::LOGICAL_LIMIT`].
    pub const fn new(physical_ms: u64, logical: u64) -> Self {
        debug_assert!(logical < Self::LOGICAL_LIMIT);
        Self((physical_ms << Self::LOGICAL_BITS) | logical)
    }

    /// Unix time in milliseconds.
    pub const fn physical_ms(self) -> u64 {
        self.0 >> Self::LOGICAL_BITS
    }

    /// Position within the millisecond.
    pub const fn logical(self) -> u64 {
        self.0 & (Self::LOGICAL_LIMIT - 1)
    }

    /// The next larger timestamp; `MAX` stays `MAX`.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The next smaller timestamp; `ZERO` stays `ZERO`.
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The number on the wire.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for Timestamp {
    fn from(raw: u64) -> Self {
        Self(raw)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_round_trip() {
        let ts = Timestamp::new(1_700_000_000_123, 77);
        assert_eq!((ts.physical_ms(), ts.logical()), (1_700_000_000_123, 77));
        assert!(ts.next() > ts && ts.prev() < ts);
        assert_eq!(Timestamp::MAX.next(), Timestamp::MAX);
    }
}
