//! Bounds of ranges that exist before there is data.

use bytes::Bytes;
use cribwork_types::key;

/// Most ranges that a cluster may be initialised with: two bytes tell that many bounds apart.
pub const RANGES_MAX: u32 = 1 << 16;

/// A number of ranges that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot make {asked} ranges: the number must be between 1 and {RANGES_MAX}")]
pub struct BoundsError {
    /// The number asked for.
    pub asked: u32,
}

/// The inner bounds of a fresh cluster, rising: `enc(2-byte big-endian floor(i * 65536 / n))` for
/// `i` in `1..n`, then [`key::top_bound`]. That is `n` bounds, which cut the key space into `n` ranges
/// and one empty range on top.
///
/// # Errors
/// [`BoundsError`] unless `n` is in `1..=`[`RANGES_MAX`].
pub fn evenly_split_bounds(n: u32) -> Result<Vec<Bytes>, BoundsError> {
    if n == 0 || n > RANGES_MAX {
        return Err(BoundsError { asked: n });
    }
    let inner = (1..n).map(|i| {
        // Below 2^16, because i < n.
        let prefix = (u64::from(i) * u64::from(RANGES_MAX) / u64::from(n)) as u16;
        Bytes::from(key::encode(&prefix.to_be_bytes()))
    });
    Ok(inner.chain([key::top_bound()]).collect())
}

/// The bounds at which a table is cut into `n` ranges, rising: `enc(tag ++ 4-byte big-endian
/// floor(i * 2^32 / n))` for `i` in `0..n`. The first one is the table's own start. The table's keys
/// are `tag ++ 4-byte big-endian spread number ++ ...`.
///
/// The answer has `n` elements of some 50 bytes; limit `n` before you call.
pub fn tagged_bounds(tag: [u8; 4], n: u32) -> Vec<Bytes> {
    let bound = |i: u32| {
        let mut key = [0; 8];
        key[..4].copy_from_slice(&tag);
        // Below 2^32, because i < n.
        let spread = ((u64::from(i) << 32) / u64::from(n)) as u32;
        key[4..].copy_from_slice(&spread.to_be_bytes());
        Bytes::from(key::encode(&key))
    };
    (0..n).map(bound).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_cluster_is_cut_evenly() {
        let decoded: Vec<Vec<u8>> = evenly_split_bounds(4)
            .unwrap()
            .iter()
            .map(|bound| key::decode(bound).unwrap())
            .collect();
        assert_eq!(decoded, [vec![0x40, 0], vec![0x80, 0], vec![0xC0, 0], vec![0xFF; 9]]);
        assert_eq!(evenly_split_bounds(1).unwrap(), [key::top_bound()]);
        assert_eq!(evenly_split_bounds(3).unwrap()[0], key::encode(&[0x55, 0x55]), "floor");
    }

    #[test]
    fn bounds_rise_strictly_up_to_the_limit() {
        for n in [2, 3, 7, 1000, RANGES_MAX] {
            let bounds = evenly_split_bounds(n).unwrap();
            assert_eq!(bounds.len(), n as usize);
            assert!(bounds.is_sorted_by(|a, b| a < b), "{n}");
        }
        assert_eq!(evenly_split_bounds(0), Err(BoundsError { asked: 0 }));
        assert_eq!(evenly_split_bounds(RANGES_MAX + 1), Err(BoundsError { asked: RANGES_MAX + 1 }));
    }

    #[test]
    fn a_table_is_cut_by_its_spread_number() {
        let bounds = tagged_bounds(*b"bank", 3);
        assert_eq!(bounds[0], key::encode(b"bank\0\0\0\0"));
        assert_eq!(bounds[1], key::encode(b"bank\x55\x55\x55\x55"));
        assert_eq!(bounds[2], key::encode(b"bank\xAA\xAA\xAA\xAA"));
        assert_eq!(bounds.len(), 3);
        assert!(tagged_bounds(*b"bank", 0).is_empty());
    }
}
