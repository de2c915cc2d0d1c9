//! A set of user keys as the interval of their encodings.

use bytes::Bytes;
use cribwork_types::{Cf, KeyRange, WriteBatch, key};

/// The encodings of an interval of user keys. Requests name plain keys while range bounds are encoded;
/// this type keeps the two apart, and clipping happens on the encoded side, where it is exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpan(KeyRange);

impl KeySpan {
    /// The encodings of the plain keys in `keys` (an empty end means no upper bound).
    pub fn of(keys: &KeyRange) -> Self {
        let bound = |plain: &Bytes| match plain.is_empty() {
            true => Bytes::new(),
            false => Bytes::from(key::encode(plain)),
        };
        Self(KeyRange { start: bound(&keys.start), end: bound(&keys.end) })
    }

    /// What also lies within `bounds`, the encoded bounds of a range.
    pub fn clip(&self, bounds: &KeyRange) -> Self {
        Self(self.0.intersection(bounds))
    }

    /// The interval of encodings. The versions of a key lie inside exactly if the key does.
    pub fn encoded(&self) -> &KeyRange {
        &self.0
    }

    /// True if no key is inside.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Drops all locks, records and values of the keys in `span` at once, whatever transactions are under
/// way (`UnsafeDestroyRange`). Clip the span to the range first: without an end it goes to the end of
/// each family.
pub fn destroy_range(span: &KeySpan) -> WriteBatch {
    let mut batch = WriteBatch::new();
    if !span.is_empty() {
        for cf in [Cf::Lock, Cf::Write, Cf::Default] {
            batch.delete_range(cf, span.0.clone());
        }
    }
    batch
}

/// The smallest interval that holds every version of `keys` (plain); empty for none.
pub(crate) fn span_of_keys<'k>(keys: impl Iterator<Item = &'k [u8]>) -> KeyRange {
    let mut bounds: Option<(&[u8], &[u8])> = None;
    for key in keys {
        let (low, high) = bounds.unwrap_or((key, key));
        bounds = Some((low.min(key), high.max(key)));
    }
    let Some((low, high)) = bounds else {
        return KeyRange::all();
    };
    KeyRange {
        start: Bytes::from(key::encode(low)),
        end: Bytes::from(after_versions(&key::encode(high))),
    }
}

/// A stored key above every version of the encoded key and below the next user key.
pub(crate) fn after_versions(encoded: &[u8]) -> Vec<u8> {
    let mut after = Vec::with_capacity(encoded.len() + 9);
    after.extend_from_slice(encoded);
    after.extend_from_slice(&[0xFF; 9]);
    after
}
