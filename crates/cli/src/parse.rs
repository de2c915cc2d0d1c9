//! How arguments are written: keys, durations, sizes.

use std::time::Duration;

use bytes::Bytes;
use cribwork_server::{parse_duration, parse_size};

/// A key: text, or bytes in hexadecimal after `0x`.
pub(crate) fn key(text: &str) -> Result<Bytes, String> {
    let key = bound(text)?;
    if key.is_empty() {
        return Err("a key has at least one byte".to_owned());
    }
    Ok(key)
}

/// One end of an interval: like a key, but may be empty for "no bound".
pub(crate) fn bound(text: &str) -> Result<Bytes, String> {
    let Some(digits) = text.strip_prefix("0x") else {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    };
    if digits.len() % 2 == 1 {
        return Err("an odd number of hexadecimal digits".to_owned());
    }
    let digit = |c: u8| (c as char).to_digit(16).map(|value| value as u8);
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks_exact(2).map(pair).collect();
    bytes.map(Bytes::from).ok_or_else(|| "what follows 0x is not hexadecimal".to_owned())
}

/// A duration such as `10s` or `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
}

/// A size in bytes such as `64MiB`, `16B` or `1024`; below 4 GiB.
pub(crate) fn size(text: &str) -> Result<u32, String> {
    u32::try_from(parse_size(text)?).map_err(|_| "no key or value is so large".to_owned())
}

/// Bytes as hexadecimal digits, without `0x`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_text_or_hexadecimal() {
        for (text, bytes) in
            [("a", &b"a"[..]), ("0x00fF", &[0, 0xFF]), ("x0", b"x0"), ("ä", "ä".as_bytes())]
        {
            assert_eq!(key(text).as_deref(), Ok(bytes), "{text}");
        }
        for text in ["", "0x", "0x0", "0x0g", "0x+1"] {
            assert!(key(text).is_err(), "{text}");
        }
        assert_eq!(bound("").as_deref(), Ok(&b""[..]));
        assert_eq!(hex(&[0, 0xAB]), "00ab");
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("16B", 16), ("1024", 1024), ("64MiB", 64 << 20), ("2 kB", 2000)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "+1", "1.5MiB", "1 MiBs", "5GiB", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("5").is_err_and(|why| why.contains("500ms")));
    }
}
