//! Byte strings that stay readable in JSON.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

/// A key or a value: any bytes.
///
/// As text, a printable ASCII character other than `%` stands for itself and every other byte is `%`
/// with two upper-case hexadecimal digits. Each byte string has exactly one text, and any other text is
/// refused, so that texts may be compared instead of bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob(Bytes);

impl Blob {
    /// The bytes of `text`, or `None` if that is not how they are written.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let [first, after @ ..] = rest {
            rest = match (first, after) {
                (b'%', [high, low, after @ ..]) => {
                    let byte = digit(*high)? << 4 | digit(*low)?;
                    if is_plain(byte) {
                        return None;
                    }
                    bytes.push(byte);
                    after
                }
                (plain, after) if is_plain(*plain) => {
                    bytes.push(*plain);
                    after
                }
                _ => return None,
            };
        }
        Some(Self(bytes.into()))
    }
}

/// What a key holds, in words.
pub(crate) fn shown(value: Option<&Blob>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:?}"))
}

fn is_plain(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) && byte != b'%'
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.iter() {
            if is_plain(byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<&str> for Blob {
    /// The bytes of `text` as they are, without decoding.
    fn from(text: &str) -> Self {
        Self::from(text.as_bytes())
    }
}

impl From<String> for Blob {
    /// The bytes of `text` as they are, without decoding.
    fn from(text: String) -> Self {
        Self::from(text.into_bytes())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Blob::from_text(&text).ok_or_else(|| {
            D::Error::custom(format_args!("{text:?} is not how bytes are written: see Blob"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_text() {
        for byte in 0..=u8::MAX {
            let blob = Blob::from(vec![byte, b'a']);
            assert_eq!(Blob::from_text(&blob.to_string()), Some(blob));
        }
        assert_eq!(Blob::from(&b"a%\0\xff z"[..]).to_string(), "a%25%00%FF z");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["%", "%4", "%zz", "%ff", "%41", "\n", "é"] {
            assert_eq!(Blob::from_text(text), None, "{text:?}");
        }
    }
}
