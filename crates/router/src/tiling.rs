//! The invariant that ranges tile the key space: no gap, no overlap.

use bytes::Bytes;
use cribwork_types::{KeyRange, RangeDescriptor, RangeId};

/// Where ranges fail to tile the key space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TilingError {
    /// Nobody holds these keys.
    #[error("no range holds {span}")]
    Gap {
        /// The keys that nobody holds.
        span: KeyRange,
    },
    /// Two ranges hold the same keys.
    #[error("ranges {left} and {right} both hold {span}")]
    Overlap {
        /// The range that begins first.
        left: RangeId,
        /// The other one.
        right: RangeId,
        /// The keys that both hold.
        span: KeyRange,
    },
    /// A range that can hold no key.
    #[error("range {range} is empty: {span}")]
    Empty {
        /// The range.
        range: RangeId,
        /// Its bounds.
        span: KeyRange,
    },
}

/// Checks that `descriptors`, given in the order of their starts, cover every key exactly once.
///
/// # Errors
/// The first [`TilingError`] from the left.
pub fn check_tiling<'a>(
    descriptors: impl IntoIterator<Item = &'a RangeDescriptor>,
) -> Result<(), TilingError> {
    // `None` once a range without upper bound was seen.
    let mut next_start = Some(Bytes::new());
    let mut last: Option<&RangeDescriptor> = None;
    for descriptor in descriptors {
        let span = &descriptor.span;
        if span.is_empty() {
            return Err(TilingError::Empty { range: descriptor.id, span: span.clone() });
        }
        if let Some(left) = last
            && left.span.overlaps(span)
        {
            let span = left.span.intersection(span);
            return Err(TilingError::Overlap { left: left.id, right: descriptor.id, span });
        }
        match next_start {
            Some(start) if start == span.start => {}
            expected => {
                let start = expected.unwrap_or_default();
                return Err(TilingError::Gap { span: KeyRange { start, end: span.start.clone() } });
            }
        }
        next_start = (!span.end.is_empty()).then(|| span.end.clone());
        last = Some(descriptor);
    }
    match next_start {
        None => Ok(()),
        Some(start) => Err(TilingError::Gap { span: KeyRange { start, end: Bytes::new() } }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(id: u64, start: &'static str, end: &'static str) -> RangeDescriptor {
        RangeDescriptor { id: RangeId(id), span: KeyRange::new(start, end), ..Default::default() }
    }

    #[test]
    fn names_what_is_wrong() {
        let gap = |start, end| Err(TilingError::Gap { span: KeyRange::new(start, end) });
        assert_eq!(check_tiling(&[range(1, "", "m"), range(2, "m", "")]), Ok(()));
        assert_eq!(check_tiling(&[range(1, "", "")]), Ok(()));
        assert_eq!(check_tiling(&[]), gap("", ""));
        assert_eq!(check_tiling(&[range(1, "a", "")]), gap("", "a"));
        assert_eq!(check_tiling(&[range(1, "", "f"), range(2, "m", "")]), gap("f", "m"));
        assert_eq!(check_tiling(&[range(1, "", "f")]), gap("f", ""));
        assert_eq!(
            check_tiling(&[range(1, "", "p"), range(2, "m", "")]),
            Err(TilingError::Overlap {
                left: RangeId(1),
                right: RangeId(2),
                span: KeyRange::new("m", "p")
            })
        );
        assert!(matches!(
            check_tiling(&[range(1, "", ""), range(2, "m", "")]),
            Err(TilingError::Overlap { .. })
        ));
        assert!(matches!(
            check_tiling(&[range(1, "", "m"), range(2, "m", "m")]),
            Err(TilingError::Empty { range: RangeId(2), .. })
        ));
    }
}
