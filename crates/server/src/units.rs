//! Durations and sizes as people write them: `10s`, `500ms`; `64MiB`, `16B`, `1024`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Reads a duration such as `10s`, `500ms` or `1m 30s`.
///
/// # Errors
/// A sentence that names the text and an example.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let why = |error| format!("{text:?} is no duration such as \"10s\" or \"500ms\": {error}");
    humantime::parse_duration(text.trim()).map_err(why)
}

/// Reads a size in bytes such as `64MiB`, `16B` or `1024`.
///
/// # Errors
/// A sentence that names the text and an example.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let unit = UNITS.into_iter().find(|(name, _)| trimmed.ends_with(name)).unwrap_or(("", 1));
    let number = trimmed[..trimmed.len() - unit.0.len()].trim();
    let whole = number.chars().all(|c| c.is_ascii_digit());
    let bytes = number.parse::<u64>().ok().filter(|_| whole);
    bytes
        .and_then(|count| count.checked_mul(unit.1))
        .ok_or_else(|| format!("{text:?} is no size such as \"64MiB\", \"16B\" or \"1024\""))
}

/// For `#[serde(deserialize_with)]`: a duration as text.
pub(crate) fn duration<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(input)?).map_err(de::Error::custom)
}

/// For `#[serde(deserialize_with)]`: a size as text or as a number of bytes.
pub(crate) fn size<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a size such as \"64MiB\" or a number of bytes")]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    match Size::deserialize(input)? {
        Size::Bytes(bytes) => Ok(bytes),
        Size::Text(text) => parse_size(&text).map_err(de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("16B", 16), ("1024", 1024), ("64MiB", 64 << 20), ("2 kB", 2000), ("0", 0)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "+1", "1.5MiB", "1 MiBs", "99999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(parse_duration("5").is_err());
    }
}
