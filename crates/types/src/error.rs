//! The contract that every error enum of the workspace fulfils.

/// What a script, a log and a person need to know about an error beside its message.
///
/// Codes are stable: `CW-<CRATE>-<NAME>`, documented in `docs/errors.md`. Messages are not.
pub trait CodedError: std::error::Error {
    /// Stable identifier, for example `CW-ENGINE-CORRUPT`.
    fn code(&self) -> &'static str;
    /// True if the same request may succeed later without anybody changing anything.
    fn is_retryable(&self) -> bool;
    /// What the reader should do about it.
    fn hint(&self) -> &'static str;
}

/// Bytes that are not what the codec expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The input ended early.
    #[error("{what}: input ends early")]
    Truncated {
        /// What was being decoded.
        what: &'static str,
    },
    /// The input cannot have been written by the matching encoder.
    #[error("{what}: {why}")]
    Malformed {
        /// What was being decoded.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A version byte that this build does not know.
    #[error("{what}: unknown version {version}")]
    UnknownVersion {
        /// What was being decoded.
        what: &'static str,
        /// The byte found.
        version: u8,
    },
}

impl CodedError for CodecError {
    fn code(&self) -> &'static str {
        match self {
            CodecError::Truncated { .. } => "CW-TYPES-TRUNCATED",
            CodecError::Malformed { .. } => "CW-TYPES-MALFORMED",
            CodecError::UnknownVersion { .. } => "CW-TYPES-VERSION",
        }
    }

    fn is_retryable(&self) -> bool {
        false
    }

    fn hint(&self) -> &'static str {
        match self {
            CodecError::UnknownVersion { .. } => {
                "the bytes come from a newer build: run that build, or restore from a backup"
            }
            _ => "the bytes are damaged or foreign: check where they come from",
        }
    }
}
