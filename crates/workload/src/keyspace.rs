//! The keys of one workload: a 4-byte tag, a 4-byte big-endian spread number, and the rest. The
//! tag keeps workloads apart; the spread number says which of the workload's own ranges a key lies
//! in, so that a key's range is known without asking.

use bytes::Bytes;
use cribwork_router::tagged_bounds;
use cribwork_types::{KeyRange, key};

/// The tag and how many ranges its keys are split into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeySpace {
    tag: [u8; 4],
    ranges: u32,
}

impl KeySpace {
    /// Bytes before what is the workload's own.
    pub(crate) const PREFIX_BYTES: usize = 8;

    pub(crate) fn new(tag: [u8; 4], ranges: u32) -> Self {
        Self { tag, ranges: ranges.max(1) }
    }

    /// Number of own ranges.
    pub(crate) fn slots(&self) -> usize {
        self.ranges as usize
    }

    /// Which of the own ranges a spread number falls into: the inverse of `floor(i * 2^32 / n)`.
    pub(crate) fn slot(&self, spread: u32) -> usize {
        (((u64::from(spread) + 1) * u64::from(self.ranges) - 1) >> 32) as usize
    }

    /// `tag ++ spread`, with room for `more` bytes.
    pub(crate) fn prefix(&self, spread: u32, more: usize) -> Vec<u8> {
        let mut key = Vec::with_capacity(Self::PREFIX_BYTES + more);
        key.extend_from_slice(&self.tag);
        key.extend_from_slice(&spread.to_be_bytes());
        key
    }

    /// The bounds that pre-splitting makes (encoded), the first at the tag itself; none for one
    /// range.
    pub(crate) fn bounds(&self) -> Vec<Bytes> {
        if self.ranges == 1 {
            return Vec::new();
        }
        tagged_bounds(self.tag, self.ranges)
    }

    /// The plain keys whose encodings are [`Self::bounds`].
    pub(crate) fn split_keys(&self) -> Vec<Bytes> {
        let decode = |bound: Bytes| key::decode(&bound).expect("a bound is an encoding");
        self.bounds().into_iter().map(|bound| decode(bound).into()).collect()
    }

    /// From the first bound to above every key with the tag; bounds are encoded.
    pub(crate) fn span(&self) -> KeyRange {
        let mut end = self.tag;
        // Tags are ASCII letters: this does not overflow.
        end[3] += 1;
        KeyRange::new(key::encode(&self.prefix(0, 0)), key::encode(&end))
    }
}

/// `floor(index * 2^32 / count)`: spreads `count` things evenly; unique for each `index < count`.
pub(crate) fn spread_evenly(index: u32, count: u32) -> u32 {
    ((u64::from(index) << 32) / u64::from(count)) as u32
}

/// A number that looks random but is always the same for the same input (SplitMix64's finalizer).
pub(crate) fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key lies at or above bound `slot` and below bound `slot + 1`, whatever the number of ranges.
    #[test]
    fn a_slot_is_the_range_between_two_bounds() {
        for ranges in [2, 3, 7, 16, 1000] {
            let space = KeySpace::new(*b"test", ranges);
            let bounds = space.bounds();
            assert_eq!(bounds.len(), space.slots());
            let edges = (0..ranges).flat_map(|i| {
                let edge = spread_evenly(i, ranges);
                [edge.saturating_sub(1), edge, edge.saturating_add(1)]
            });
            for spread in edges.chain([u32::MAX, 12_345_678]) {
                let slot = space.slot(spread);
                let encoded = key::encode(&space.prefix(spread, 0));
                assert!(bounds[slot] <= encoded, "{spread} of {ranges}");
                assert!(
                    bounds.get(slot + 1).is_none_or(|next| *next > encoded),
                    "{spread} of {ranges}"
                );
            }
        }
    }

    #[test]
    fn one_range_is_never_split() {
        let space = KeySpace::new(*b"test", 1);
        assert!(space.bounds().is_empty() && space.split_keys().is_empty());
        assert_eq!((space.slots(), space.slot(0), space.slot(u32::MAX)), (1, 0, 0));
    }

    #[test]
    fn split_keys_are_tag_and_spread() {
        let keys = KeySpace::new(*b"test", 2).split_keys();
        assert_eq!(keys, [&b"test\0\0\0\0"[..], &b"test\x80\0\0\0"[..]]);
    }

    #[test]
    fn the_span_holds_every_key_of_the_tag() {
        let space = KeySpace::new(*b"test", 4);
        let mut last = space.prefix(u32::MAX, 8);
        last.extend_from_slice(&[0xFF; 8]);
        assert!(space.span().contains(&key::encode(&space.prefix(0, 0))));
        assert!(space.span().contains(&key::encode(&last)));
        assert!(!space.span().contains(&key::encode(b"tesu")));
    }

    #[test]
    fn even_spreads_are_unique() {
        let mut spreads: Vec<_> = (0..1000).map(|i| spread_evenly(i, 1000)).collect();
        spreads.dedup();
        assert_eq!(spreads.len(), 1000);
        assert!(spreads.is_sorted());
    }
}
