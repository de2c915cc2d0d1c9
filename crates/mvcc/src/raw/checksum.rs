//! A checksum over raw pairs that does not depend on how they are spread over ranges.

use cribwork_types::{Cf, KeyRange};

use super::RawValue;
use super::crc64::crc64;
use crate::{MvccError, ReadView};

/// Sums over a set of pairs; merge two disjoint sets with [`RawChecksum::merge`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawChecksum {
    /// Exclusive or, over all pairs, of the CRC-64 of key then value.
    pub checksum: u64,
    /// Pairs.
    pub total_kvs: u64,
    /// Bytes of keys and values.
    pub total_bytes: u64,
}

impl RawChecksum {
    /// Adds one pair.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.checksum ^= crc64(&[key, value]);
        self.total_kvs += 1;
        self.total_bytes += (key.len() + value.len()) as u64;
    }

    /// Adds another set of pairs.
    pub fn merge(&mut self, other: RawChecksum) {
        self.checksum ^= other.checksum;
        self.total_kvs += other.total_kvs;
        self.total_bytes += other.total_bytes;
    }
}

/// The checksum of the pairs of `range` (plain keys) that have not expired at `now_ms`.
///
/// # Errors
/// [`MvccError`] if the store failed.
pub fn raw_checksum(
    view: &dyn ReadView,
    cf: Cf,
    range: &KeyRange,
    now_ms: u64,
) -> Result<RawChecksum, MvccError> {
    let mut sum = RawChecksum::default();
    if range.is_empty() {
        return Ok(sum);
    }
    let mut cursor = view.cursor(cf, range);
    let mut more = cursor.seek_to_first()?;
    while more {
        let stored = RawValue::parse(cursor.value())?;
        if !stored.is_expired(now_ms) {
            sum.add(cursor.key(), stored.value);
        }
        more = cursor.next()?;
    }
    Ok(sum)
}
