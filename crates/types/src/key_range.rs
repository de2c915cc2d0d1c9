//! A half-open interval of keys.

use std::fmt;

use bytes::Bytes;

/// `[start, end)` over byte strings; an empty `end` means "no upper bound". Whether the bytes are
/// plain or encoded keys is the user's business.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// First key inside.
    pub start: Bytes,
    /// First key outside; empty for none.
    pub end: Bytes,
}

impl KeyRange {
    /// Builds an interval.
    pub fn new(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: end.into() }
    }

    /// Every key.
    pub fn all() -> Self {
        Self::default()
    }

    /// True if no key is inside: the bounds are equal or inverted.
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.start >= self.end
    }

    /// True if `key` is inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && (self.end.is_empty() || key < &self.end[..])
    }

    /// True if all of `other` is inside.
    pub fn covers(&self, other: &KeyRange) -> bool {
        self.intersection(other) == *other
    }

    /// True if some key is in both.
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        !self.intersection(other).is_empty()
    }

    /// The keys in both; empty if there are none.
    pub fn intersection(&self, other: &KeyRange) -> KeyRange {
        let start = (&self.start).max(&other.start).clone();
        let end = match (self.end.is_empty(), other.end.is_empty()) {
            (true, _) => other.end.clone(),
            (_, true) => self.end.clone(),
            _ => (&self.end).min(&other.end).clone(),
        };
        KeyRange { start, end }
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, ", self.start.escape_ascii())?;
        match self.end.is_empty() {
            true => write!(f, "inf)"),
            false => write!(f, "{})", self.end.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::new(start, end)
    }

    #[test]
    fn an_empty_end_is_infinity() {
        assert!(KeyRange::all().contains(b"") && KeyRange::all().contains(&[0xFF; 20]));
        assert!(!KeyRange::all().is_empty());
        assert!(range("b", "b").is_empty() && range("c", "b").is_empty());
    }

    #[test]
    fn intersections() {
        assert_eq!(range("a", "m").intersection(&range("c", "")), range("c", "m"));
        assert!(!range("a", "c").overlaps(&range("c", "d")));
        assert!(range("a", "c").overlaps(&range("b", "")));
        assert!(range("a", "").covers(&range("b", "c")));
        assert!(!range("a", "c").covers(&range("b", "")));
    }
}
