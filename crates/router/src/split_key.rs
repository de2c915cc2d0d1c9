//! Where a range that has grown too large is cut: a key near the middle of its bytes.
//!
//! Somebody walks over the data and shows every row; about a thousand of them are kept, each with the
//! bytes that it stands for. A bound has to be the encoding of a user key, and cuts plain keys by their
//! bytes, too. So plain keys that share their first eight bytes and go on with one that is not `FF` lie on
//! one side of any bound: such data may be indivisible, and nothing is proposed then that leaves a side
//! without a row.

use bytes::Bytes;
use cribwork_types::{KeyRange, key};

/// Leading bytes of a plain key that are tried as user keys of bounds.
const PLAIN_PREFIXES_MAX: usize = 1024;

/// In which form a family stores user keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyForm {
    /// The user key itself: raw data.
    Plain,
    /// Its encoding: locks.
    Encoded,
    /// Its encoding and a timestamp: versions.
    Versioned,
}

/// One row that was kept.
#[derive(Clone, Debug)]
struct Sample {
    stored: Bytes,
    form: KeyForm,
    /// Of all rows of its family behind the sample before it, itself included.
    bytes: u64,
}

/// What is known of a range's data, for [`SplitSampler::choose`].
#[derive(Debug)]
pub struct SplitSampler {
    step_bytes: u64,
    samples: Vec<Sample>,
    /// Shown since the last sample.
    pending: u64,
    /// The family's last row so far, in a buffer that is used again.
    last: Vec<u8>,
    form: Option<KeyForm>,
    lowest: Option<Bytes>,
    highest: Option<Bytes>,
    total: u64,
}

impl SplitSampler {
    /// For a range of about `expected_bytes`.
    pub fn new(expected_bytes: u64) -> Self {
        Self {
            step_bytes: (expected_bytes / 1024).max(1),
            samples: Vec::new(),
            pending: 0,
            last: Vec::new(),
            form: None,
            lowest: None,
            highest: None,
            total: 0,
        }
    }

    /// Shows a row. The rows of a family come in order, one family after the other.
    pub fn row(&mut self, stored: &[u8], form: KeyForm, value_bytes: usize) {
        let bytes = (stored.len() + value_bytes) as u64;
        self.total += bytes;
        self.pending += bytes;
        if self.form.is_none() && self.lowest.as_ref().is_none_or(|lowest| stored < &lowest[..]) {
            self.lowest = Some(Bytes::copy_from_slice(stored));
        }
        self.form = Some(form);
        self.last.clear();
        self.last.extend_from_slice(stored);
        if self.pending >= self.step_bytes {
            self.keep(form);
        }
    }

    /// A family's rows are over. What is left over counts with the last of them.
    pub fn end_of_family(&mut self) {
        let Some(form) = self.form.take() else { return };
        if self.highest.as_ref().is_none_or(|highest| self.last[..] > highest[..]) {
            self.highest = Some(Bytes::copy_from_slice(&self.last));
        }
        if self.pending > 0 {
            self.keep(form);
        }
    }

    fn keep(&mut self, form: KeyForm) {
        let (stored, bytes) =
            (Bytes::copy_from_slice(&self.last), std::mem::take(&mut self.pending));
        self.samples.push(Sample { stored, form, bytes });
    }

    /// Keys and values of all rows that were shown.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// The bound inside of `span` that has a row on either side and comes closest to leaving as much on
    /// both, by the samples. `None` if there is none near the middle.
    pub fn choose(mut self, span: &KeyRange) -> Option<Bytes> {
        self.end_of_family();
        let (lowest, highest) = (self.lowest.take()?, self.highest.take()?);
        self.samples.sort_by(|a, b| a.stored.cmp(&b.stored));
        let mut left_of = Vec::with_capacity(self.samples.len());
        let mut sum = 0;
        for sample in &self.samples {
            sum += sample.bytes;
            left_of.push(sum);
        }
        let middle = left_of.partition_point(|left| *left < self.total / 2);
        let around = middle.saturating_sub(1)..(middle + 2).min(self.samples.len());
        let off_balance = |bound: &Bytes| {
            let before = self.samples.partition_point(|sample| sample.stored[..] < bound[..]);
            let left = before.checked_sub(1).map_or(0, |last| left_of[last]);
            left.abs_diff(self.total / 2)
        };
        let divides = |bound: &Bytes| {
            span.contains(bound) && *bound != span.start && lowest < *bound && highest >= *bound
        };
        let bounds = self.samples[around].iter().flat_map(bounds_near);
        bounds.filter(divides).min_by_key(off_balance)
    }
}

/// Bounds that cut near a row.
fn bounds_near(sample: &Sample) -> Vec<Bytes> {
    match sample.form {
        KeyForm::Encoded => before_and_behind(&sample.stored),
        KeyForm::Versioned => key::split_versioned(&sample.stored)
            .map(|(encoded, _)| before_and_behind(encoded))
            .unwrap_or_default(),
        KeyForm::Plain => (1..=sample.stored.len().min(PLAIN_PREFIXES_MAX))
            .map(|length| Bytes::from(key::encode(&sample.stored[..length])))
            .collect(),
    }
}

/// The bound at a user's key, by its encoding, and the one right behind it: all versions of a key stay
/// together, on either side.
fn before_and_behind(encoded: &[u8]) -> Vec<Bytes> {
    let mut bounds = vec![Bytes::copy_from_slice(encoded)];
    if let Ok(mut user) = key::decode(encoded) {
        user.push(0);
        bounds.push(Bytes::from(key::encode(&user)));
    }
    bounds
}

#[cfg(test)]
mod tests {
    use cribwork_types::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn choose(rows: &[(Vec<u8>, KeyForm, usize)], span: &KeyRange) -> Option<Bytes> {
        let mut sampler =
            SplitSampler::new(rows.iter().map(|(key, _, value)| (key.len() + value) as u64).sum());
        for form in [KeyForm::Plain, KeyForm::Encoded, KeyForm::Versioned] {
            let mut family: Vec<_> = rows.iter().filter(|row| row.1 == form).collect();
            family.sort();
            family.iter().for_each(|(key, form, value)| sampler.row(key, *form, *value));
            sampler.end_of_family();
        }
        sampler.choose(span)
    }

    fn plain(keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<(Vec<u8>, KeyForm, usize)> {
        keys.into_iter().map(|key| (key.as_ref().to_vec(), KeyForm::Plain, 100)).collect()
    }

    fn versions(keys: impl IntoIterator<Item = String>) -> Vec<(Vec<u8>, KeyForm, usize)> {
        let stored = |key: String| key::encode_versioned(key.as_bytes(), Timestamp(7));
        keys.into_iter().map(|key| (stored(key), KeyForm::Versioned, 100)).collect()
    }

    /// Rows on the left and on the right of a bound.
    fn sides(rows: &[(Vec<u8>, KeyForm, usize)], bound: &[u8]) -> (usize, usize) {
        let left = rows.iter().filter(|(key, ..)| &key[..] < bound).count();
        (left, rows.len() - left)
    }

    #[test]
    fn even_data_is_cut_in_the_middle() {
        let rows = plain((0..1000).map(|n| format!("{n:04}")));
        let bound = choose(&rows, &KeyRange::all()).unwrap();
        assert!(key::is_bound(&bound));
        let (left, right) = sides(&rows, &bound);
        assert!(left.abs_diff(right) <= 20, "{left} and {right}");
        let rows = versions((0..1000).map(|n| format!("account{n:04}")));
        let bound = choose(&rows, &KeyRange::all()).unwrap();
        let (left, right) = sides(&rows, &bound);
        assert!(left.abs_diff(right) <= 20, "{left} and {right}");
    }

    #[test]
    fn bytes_count_and_not_rows() {
        let mut rows = plain((0..100).map(|n| format!("a{n:02}")));
        rows.push((b"zz".to_vec(), KeyForm::Plain, 1_000_000));
        let bound = choose(&rows, &KeyRange::all()).unwrap();
        assert_eq!(sides(&rows, &bound), (100, 1));
    }

    #[test]
    fn plain_keys_that_share_eight_bytes_stay_together() {
        let mut rows = plain((0..100).map(|n| format!("sameeight{n:02}")));
        assert_eq!(choose(&rows, &KeyRange::all()), None);
        rows.extend(plain(["a", "b"]));
        let bound = choose(&rows, &KeyRange::all()).unwrap();
        assert_eq!(sides(&rows, &bound), (2, 100));
    }

    #[test]
    fn versions_of_one_key_stay_together() {
        let stored = |ts| (key::encode_versioned(b"hot", Timestamp(ts)), KeyForm::Versioned, 10);
        let mut rows: Vec<_> = (0..100).map(stored).collect();
        assert_eq!(choose(&rows, &KeyRange::all()), None);
        rows.extend(versions(["cold".to_owned()]));
        let bound = choose(&rows, &KeyRange::all()).unwrap();
        assert_eq!(bound, key::encode(b"hot"));
        // The hot key comes first.
        let mut rows: Vec<_> = (0..100).map(stored).collect();
        rows.extend(versions(["later".to_owned(), "other".to_owned()]));
        let bound = choose(&rows, &KeyRange::all()).unwrap();
        assert_eq!(sides(&rows, &bound), (100, 2));
    }

    #[test]
    fn nothing_is_cut_where_nothing_is() {
        assert_eq!(choose(&[], &KeyRange::all()), None);
        assert_eq!(choose(&plain(["one"]), &KeyRange::all()), None);
    }

    fn form() -> impl Strategy<Value = KeyForm> {
        prop_oneof![Just(KeyForm::Plain), Just(KeyForm::Encoded), Just(KeyForm::Versioned)]
    }

    proptest! {
        #[test]
        fn both_sides_of_a_bound_have_rows(
            keys in prop::collection::vec((prop::collection::vec(0u8..4, 1..12), form(), 0usize..50), 0..60),
        ) {
            let rows: Vec<_> = keys
                .into_iter()
                .map(|(user, form, value)| {
                    let stored = match form {
                        KeyForm::Plain => user,
                        KeyForm::Encoded => key::encode(&user),
                        KeyForm::Versioned => key::encode_versioned(&user, Timestamp(9)),
                    };
                    (stored, form, value)
                })
                .collect();
            if let Some(bound) = choose(&rows, &KeyRange::all()) {
                prop_assert!(key::is_bound(&bound) && !bound.is_empty());
                let (left, right) = sides(&rows, &bound);
                prop_assert!(left > 0 && right > 0);
            }
        }
    }
}
