//! Reading raw pairs, and compare-and-swap. Plain puts and deletes need no evaluation: the caller
//! writes [`RawValue::encode`] or a delete.

use bytes::Bytes;
use cribwork_types::{Cf, KeyRange, WriteBatch};

use super::RawValue;
use crate::{MvccError, ReadView};

/// The family behind a `cf` name of the raw API; none for an unknown name.
pub fn raw_cf(name: &str) -> Option<Cf> {
    match name {
        "" | "default" => Some(Cf::Raw),
        "lock" => Some(Cf::RawLock),
        "write" => Some(Cf::RawWrite),
        _ => None,
    }
}

fn load(
    view: &dyn ReadView,
    cf: Cf,
    key: &[u8],
    now_ms: u64,
) -> Result<Option<RawValue>, MvccError> {
    let Some(stored) = view.get(cf, key)? else {
        return Ok(None);
    };
    let value = RawValue::decode(&stored)?;
    Ok((!value.is_expired(now_ms)).then_some(value))
}

/// The value of `key`.
///
/// # Errors
/// [`MvccError`] if the store failed.
pub fn raw_get(
    view: &dyn ReadView,
    cf: Cf,
    key: &[u8],
    now_ms: u64,
) -> Result<Option<Bytes>, MvccError> {
    Ok(load(view, cf, key, now_ms)?.map(|stored| stored.value))
}

/// Seconds that `key` has left: none if it is absent, zero if it has no TTL.
///
/// # Errors
/// [`MvccError`] if the store failed.
pub fn raw_ttl_left_s(
    view: &dyn ReadView,
    cf: Cf,
    key: &[u8],
    now_ms: u64,
) -> Result<Option<u64>, MvccError> {
    Ok(load(view, cf, key, now_ms)?.map(|stored| stored.ttl_left_s(now_ms)))
}

/// How to scan raw pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawScanOptions {
    /// Most pairs to return.
    pub limit: usize,
    /// Leave values empty.
    pub key_only: bool,
    /// From the last key to the first.
    pub reverse: bool,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// The pairs of `range` (plain keys, start inside and end outside in either direction).
///
/// # Errors
/// [`MvccError`] if the store failed.
pub fn raw_scan(
    view: &dyn ReadView,
    cf: Cf,
    range: &KeyRange,
    scan: &RawScanOptions,
) -> Result<Vec<(Bytes, Bytes)>, MvccError> {
    let mut pairs = Vec::new();
    if range.is_empty() || scan.limit == 0 {
        return Ok(pairs);
    }
    let mut cursor = view.cursor(cf, range);
    let mut more = if scan.reverse { cursor.seek_to_last()? } else { cursor.seek_to_first()? };
    while more && pairs.len() < scan.limit {
        let stored = RawValue::parse(cursor.value())?;
        if !stored.is_expired(scan.now_ms) {
            let value = if scan.key_only { &[] } else { stored.value };
            pairs.push((Bytes::copy_from_slice(cursor.key()), Bytes::copy_from_slice(value)));
        }
        more = if scan.reverse { cursor.prev()? } else { cursor.next()? };
    }
    Ok(pairs)
}

/// A compare-and-swap of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CasParams {
    /// Family.
    pub cf: Cf,
    /// Plain key.
    pub key: Bytes,
    /// What must be there; none: nothing.
    pub expected: Option<Bytes>,
    /// What to put; none: delete.
    pub value: Option<Bytes>,
    /// When the new value ends ([`super::expiry_ms`]).
    pub expires_at_ms: Option<u64>,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// The result of [`raw_cas`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CasOutcome {
    /// Empty if the comparison failed.
    pub batch: WriteBatch,
    /// True if what was there was what was expected.
    pub succeeded: bool,
    /// What was there before, in either case.
    pub previous: Option<Bytes>,
}

/// Evaluates a compare-and-swap. The caller keeps other writers off the key until it is applied.
///
/// # Errors
/// [`MvccError`] if the store failed.
pub fn raw_cas(view: &dyn ReadView, params: &CasParams) -> Result<CasOutcome, MvccError> {
    let previous = raw_get(view, params.cf, &params.key, params.now_ms)?;
    let succeeded = previous == params.expected;
    let mut batch = WriteBatch::new();
    if succeeded {
        let (cf, key) = (params.cf, params.key.clone());
        match &params.value {
            Some(value) => {
                let new = RawValue { expires_at_ms: params.expires_at_ms, value };
                batch.put(cf, key, new.encode());
            }
            None => batch.delete(cf, key),
        }
    }
    Ok(CasOutcome { batch, succeeded, previous })
}

#[cfg(test)]
mod tests {
    use super::super::{RawChecksum, raw_checksum};
    use super::*;
    use crate::memory_view::MemoryView;

    /// `a` and `c` stay, `b` ends at 1000, `d` at 3000.
    fn view() -> MemoryView {
        let mut batch = WriteBatch::new();
        for (key, expires_at_ms) in [("a", None), ("b", Some(1000)), ("c", None), ("d", Some(3000))]
        {
            let value = RawValue { expires_at_ms, value: format!("v{key}") };
            batch.put(Cf::Raw, key, value.encode());
        }
        let mut view = MemoryView::new();
        view.apply(&batch);
        view
    }

    fn keys(view: &MemoryView, range: (&str, &str), limit: usize, reverse: bool) -> String {
        let range = KeyRange::new(range.0.to_owned(), range.1.to_owned());
        let scan = RawScanOptions { limit, key_only: true, reverse, now_ms: 2000 };
        let pairs = raw_scan(view, Cf::Raw, &range, &scan).unwrap();
        assert!(pairs.iter().all(|(_, value)| value.is_empty()));
        pairs.iter().map(|(key, _)| char::from(key[0])).collect()
    }

    #[test]
    fn the_expired_is_absent() {
        let view = view();
        assert_eq!(raw_get(&view, Cf::Raw, b"b", 999).unwrap().unwrap(), "vb");
        assert_eq!(raw_get(&view, Cf::Raw, b"b", 1000).unwrap(), None);
        assert_eq!(raw_ttl_left_s(&view, Cf::Raw, b"b", 1).unwrap(), Some(1));
        assert_eq!(raw_ttl_left_s(&view, Cf::Raw, b"b", 1000).unwrap(), None);
        assert_eq!(raw_ttl_left_s(&view, Cf::Raw, b"a", 1000).unwrap(), Some(0));
        assert_eq!(raw_get(&view, Cf::RawLock, b"a", 0).unwrap(), None, "families are apart");
    }

    #[test]
    fn scans() {
        let view = view();
        assert_eq!(keys(&view, ("", ""), 9, false), "acd");
        assert_eq!(keys(&view, ("", ""), 2, false), "ac");
        assert_eq!(keys(&view, ("a", "d"), 9, true), "ca");
        assert_eq!(keys(&view, ("", ""), 1, true), "d");
        assert_eq!(keys(&view, ("d", "a"), 9, true), "");
        assert_eq!(keys(&view, ("", ""), 0, false), "");
    }

    #[test]
    fn checksums_add_up() {
        let view = view();
        let sum = |start, end| {
            let range = KeyRange::new(start, end);
            raw_checksum(&view, Cf::Raw, &range, 2000).unwrap()
        };
        let mut parts = sum("", "c");
        parts.merge(sum("c", ""));
        assert_eq!(parts, sum("", ""));
        let mut expected = RawChecksum::default();
        for (key, value) in [(b"a", b"va"), (b"c", b"vc"), (b"d", b"vd")] {
            expected.add(key, value);
        }
        assert_eq!(parts, expected);
        assert_eq!((parts.total_kvs, parts.total_bytes), (3, 9));
    }

    #[test]
    fn compare_and_swap() {
        let mut view = view();
        let mut cas = |key: &'static str, expected: Option<&'static str>, value| {
            let params = CasParams {
                cf: Cf::Raw,
                key: Bytes::from(key),
                expected: expected.map(Bytes::from),
                value,
                expires_at_ms: Some(5000),
                now_ms: 2000,
            };
            let outcome = raw_cas(&view, &params).unwrap();
            assert_eq!(outcome.succeeded, !outcome.batch.is_empty());
            view.apply(&outcome.batch);
            (outcome.succeeded, outcome.previous)
        };
        let new = || Some(Bytes::from("new"));
        assert_eq!(cas("a", Some("x"), new()), (false, Some(Bytes::from("va"))));
        assert_eq!(cas("a", Some("va"), new()), (true, Some(Bytes::from("va"))));
        assert_eq!(cas("a", None, new()), (false, new()));
        assert_eq!(cas("b", None, new()), (true, None), "the expired counts as absent");
        assert_eq!(cas("c", Some("vc"), None), (true, Some(Bytes::from("vc"))));
        assert_eq!(raw_get(&view, Cf::Raw, b"c", 2000).unwrap(), None);
        assert_eq!(raw_get(&view, Cf::Raw, b"a", 5000).unwrap(), None, "the new expiry holds");
    }

    #[test]
    fn family_names() {
        assert_eq!(raw_cf(""), Some(Cf::Raw));
        assert_eq!(raw_cf("write"), Some(Cf::RawWrite));
        assert_eq!(raw_cf("raw"), None);
    }
}
