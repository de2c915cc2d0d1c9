//! What a raw key holds on disk.
//!
//! Bytes: one byte whose high half is the format version (1) and whose lowest bit says that an expiry
//! follows (Unix milliseconds, 8 bytes, big-endian); the rest is the value.

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_types::CodecError;

const VERSION: u8 = 1 << 4;
const VERSION_MASK: u8 = 0xF0;
const HAS_EXPIRY: u8 = 1;
const WHAT: &str = "raw value";

/// A value and when it ends; `V` is `Bytes` or a borrowed slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawValue<V = Bytes> {
    /// Unix milliseconds from which on the value is absent; none: it stays.
    pub expires_at_ms: Option<u64>,
    /// What the user wrote.
    pub value: V,
}

/// When something written at `now_ms` with a TTL of `ttl_s` seconds ends; a TTL of zero means never.
pub fn expiry_ms(now_ms: u64, ttl_s: u64) -> Option<u64> {
    (ttl_s > 0).then(|| now_ms.saturating_add(ttl_s.saturating_mul(1000)))
}

impl<V> RawValue<V> {
    /// True if the value counts as absent at `now_ms`.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|end_ms| end_ms <= now_ms)
    }

    /// Seconds left at `now_ms`, rounded up so that a living value never shows the zero that means "no
    /// TTL".
    pub fn ttl_left_s(&self, now_ms: u64) -> u64 {
        self.expires_at_ms.map_or(0, |end_ms| end_ms.saturating_sub(now_ms).div_ceil(1000))
    }
}

impl<V: AsRef<[u8]>> RawValue<V> {
    /// The bytes on disk.
    pub fn encode(&self) -> Bytes {
        let value = self.value.as_ref();
        let mut out = BytesMut::with_capacity(9 + value.len());
        match self.expires_at_ms {
            None => out.put_u8(VERSION),
            Some(end_ms) => {
                out.put_u8(VERSION | HAS_EXPIRY);
                out.put_u64(end_ms);
            }
        }
        out.put_slice(value);
        out.freeze()
    }
}

impl<'b> RawValue<&'b [u8]> {
    /// Reads what [`RawValue::encode`] wrote, without copying.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not a raw value.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, CodecError> {
        let truncated = CodecError::Truncated { what: WHAT };
        let (&head, rest) = bytes.split_first().ok_or(truncated.clone())?;
        if head & VERSION_MASK != VERSION {
            return Err(CodecError::UnknownVersion { what: WHAT, version: head >> 4 });
        }
        match head & !VERSION_MASK {
            0 => Ok(Self { expires_at_ms: None, value: rest }),
            HAS_EXPIRY => {
                let (end_ms, value) = rest.split_first_chunk().ok_or(truncated)?;
                Ok(Self { expires_at_ms: Some(u64::from_be_bytes(*end_ms)), value })
            }
            _ => Err(CodecError::Malformed { what: WHAT, why: "unknown flag" }),
        }
    }
}

impl RawValue {
    /// Reads what [`RawValue::encode`] wrote; the value shares the buffer.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not a raw value.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let parsed = RawValue::parse(bytes)?;
        let value = bytes.slice(bytes.len() - parsed.value.len()..);
        Ok(Self { expires_at_ms: parsed.expires_at_ms, value })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden() {
        let forever = RawValue { expires_at_ms: None, value: Bytes::from_static(b"v") };
        assert_eq!(forever.encode()[..], *b"\x10v");
        let mortal = RawValue { expires_at_ms: Some(0x0102), value: Bytes::new() };
        assert_eq!(mortal.encode()[..], *b"\x11\0\0\0\0\0\0\x01\x02");
        for value in [forever, mortal] {
            assert_eq!(RawValue::decode(&value.encode()).unwrap(), value);
        }
        for bad in [&b""[..], b"\x20v", b"\x12v", b"\x11\0\0\0"] {
            assert!(RawValue::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn time_left() {
        let value = RawValue { expires_at_ms: expiry_ms(5_000, 2), value: "v" };
        assert_eq!(value.ttl_left_s(5_000), 2);
        assert_eq!(value.ttl_left_s(6_999), 1);
        assert!(!value.is_expired(6_999) && value.is_expired(7_000));
        let forever = RawValue { expires_at_ms: expiry_ms(5_000, 0), value: "v" };
        assert!(!forever.is_expired(u64::MAX) && forever.ttl_left_s(1) == 0);
        assert_eq!(expiry_ms(1, u64::MAX), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn decoding_garbage_never_panics(bytes in proptest::collection::vec(0u8..40, 0..16)) {
            if let Ok(value) = RawValue::decode(&Bytes::from(bytes.clone())) {
                prop_assert_eq!(&value.encode()[..], bytes);
            }
        }
    }
}
