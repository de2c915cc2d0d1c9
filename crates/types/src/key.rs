//! The memcomparable key encoding that TiKV and its clients use.
//!
//! `enc(k)`: `k` is cut into groups of 8 bytes; each group, the last one padded with zeros to 8, is
//! followed by one byte `0xFF - padding`. A key whose length is a multiple of 8 gets one more group
//! of 8 zeros and `0xF7`. So `enc("")` is `00 x8 F7` and `enc("abc")` is `61 62 63 00 x5 FA`. The
//! encoding keeps the order of keys, is prefix-free, and its length is a multiple of 9, which lets
//! a timestamp follow it.
//!
//! Every range bound is a valid encoding (or empty for "no bound"), whichever API asked for it.

use bytes::Bytes;

use crate::{CodecError, Timestamp};

const GROUP: usize = 8;
const CODED_GROUP: usize = GROUP + 1;
const MARKER: u8 = 0xFF;
const WHAT: &str = "memcomparable key";

/// Length of `enc(k)` for a key of `len` bytes.
pub const fn encoded_len(len: usize) -> usize {
    (len / GROUP + 1) * CODED_GROUP
}

/// Appends `enc(key)` to `out`.
pub fn encode_into(key: &[u8], out: &mut Vec<u8>) {
    out.reserve(encoded_len(key.len()));
    let mut groups = key.chunks_exact(GROUP);
    for group in &mut groups {
        out.extend_from_slice(group);
        out.push(MARKER);
    }
    let last = groups.remainder();
    out.extend_from_slice(last);
    let padding = GROUP - last.len();
    out.resize(out.len() + padding, 0);
    out.push(MARKER - padding as u8);
}

/// `enc(key)`.
pub fn encode(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_len(key.len()));
    encode_into(key, &mut out);
    out
}

/// Decodes the encoding at the front of `bytes`: the key and how many bytes it took.
///
/// # Errors
/// [`CodecError`] if `bytes` does not begin with a valid encoding.
pub fn decode_prefix(bytes: &[u8]) -> Result<(Vec<u8>, usize), CodecError> {
    let mut key = Vec::with_capacity(bytes.len());
    let mut at = 0;
    loop {
        let group = bytes.get(at..at + CODED_GROUP).ok_or(CodecError::Truncated { what: WHAT })?;
        at += CODED_GROUP;
        let padding = usize::from(MARKER - group[GROUP]);
        if padding > GROUP {
            return Err(CodecError::Malformed { what: WHAT, why: "bad group marker" });
        }
        let (data, pad) = group[..GROUP].split_at(GROUP - padding);
        if pad.iter().any(|byte| *byte != 0) {
            return Err(CodecError::Malformed { what: WHAT, why: "padding is not zero" });
        }
        key.extend_from_slice(data);
        if padding > 0 {
            return Ok((key, at));
        }
    }
}

/// Decodes a whole encoding: `decode(encode(k)) == k`.
///
/// # Errors
/// [`CodecError`] if `bytes` is not exactly one valid encoding.
pub fn decode(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    let (key, used) = decode_prefix(bytes)?;
    if used != bytes.len() {
        return Err(CodecError::Malformed { what: WHAT, why: "bytes after the last group" });
    }
    Ok(key)
}

/// True if `bytes` may be a range bound: empty, or one valid encoding.
pub fn is_bound(bytes: &[u8]) -> bool {
    bytes.is_empty() || decode(bytes).is_ok()
}

/// `enc(key) ++ !ts` (big-endian): versions of a key sort newest first, right after each other.
pub fn encode_versioned(key: &[u8], ts: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_len(key.len()) + 8);
    encode_into(key, &mut out);
    out.extend_from_slice(&(!ts.get()).to_be_bytes());
    out
}

/// Takes `enc(key) ++ !ts` apart: the encoded key's bytes and the timestamp.
///
/// # Errors
/// [`CodecError::Truncated`] if there is no room for a timestamp.
pub fn split_versioned(bytes: &[u8]) -> Result<(&[u8], Timestamp), CodecError> {
    let at = bytes.len().checked_sub(8).ok_or(CodecError::Truncated { what: WHAT })?;
    let (encoded, inverted) = bytes.split_at(at);
    let mut raw = [0; 8];
    raw.copy_from_slice(inverted);
    Ok((encoded, Timestamp(!u64::from_be_bytes(raw))))
}

/// The bound that lies above every user key from the start: `enc(FF x 9)`. The last user-visible
/// range ends here, because the Rust TiKV client's raw scan wraps to the first key when the last
/// range has no end.
pub fn top_bound() -> Bytes {
    Bytes::from(encode(&[0xFF; 9]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encodes_as_tikv_does() {
        assert_eq!(encode(b""), [0, 0, 0, 0, 0, 0, 0, 0, 0xF7]);
        assert_eq!(encode(b"abc"), [b'a', b'b', b'c', 0, 0, 0, 0, 0, 0xFA]);
        let eight = encode(b"12345678");
        assert_eq!(&eight[..9], b"12345678\xFF");
        assert_eq!(&eight[9..], [0, 0, 0, 0, 0, 0, 0, 0, 0xF7]);
    }

    #[test]
    fn refuses_what_no_encoder_writes() {
        assert!(decode(b"").is_err());
        assert!(decode(b"abc").is_err());
        assert!(decode(&[0, 0, 0, 0, 0, 0, 0, 0, 0xF6]).is_err(), "padding over 8");
        assert!(decode(&[1, 0, 0, 0, 0, 0, 0, 0, 0xF7]).is_err(), "dirty padding");
        assert!(decode(&[0, 0, 0, 0, 0, 0, 0, 0, 0xFF]).is_err(), "no last group");
        assert!(is_bound(b"") && !is_bound(b"k"));
    }

    proptest! {
        #[test]
        fn round_trips(key in proptest::collection::vec(any::<u8>(), 0..40)) {
            let encoded = encode(&key);
            prop_assert_eq!(encoded.len(), encoded_len(key.len()));
            prop_assert_eq!(decode(&encoded).unwrap(), key);
        }

        #[test]
        fn keeps_order(a in proptest::collection::vec(any::<u8>(), 0..20),
                       b in proptest::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(a.cmp(&b), encode(&a).cmp(&encode(&b)));
        }

        #[test]
        fn versions_sort_newest_first(key in proptest::collection::vec(any::<u8>(), 0..20),
                                      a: u64, b: u64) {
            let (first, second) = (encode_versioned(&key, Timestamp(a)), encode_versioned(&key, Timestamp(b)));
            prop_assert_eq!(first.cmp(&second), b.cmp(&a));
            let (encoded, ts) = split_versioned(&first).unwrap();
            prop_assert_eq!((encoded, ts), (&encode(&key)[..], Timestamp(a)));
        }

        #[test]
        fn decoding_garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(key) = decode(&bytes) {
                prop_assert_eq!(encode(&key), bytes);
            }
        }
    }
}
