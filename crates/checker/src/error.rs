//! Why a history or a dump cannot be read or written.

use cribwork_types::CodedError;

/// Any error of this crate. A violation is not an error: see [`Verdict`](crate::Verdict).
#[derive(Debug, thiserror::Error)]
pub enum CheckerError {
    /// The reader or writer that was handed in failed.
    #[error("reading or writing a history: {0}")]
    Io(#[from] std::io::Error),
    /// A line is not of the format.
    #[error("line {line}: {why}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What was expected, in the parser's words.
        why: String,
    },
    /// A line is of the format and says what cannot be.
    #[error("line {line}: {why}")]
    Invalid {
        /// Counted from 1.
        line: usize,
        /// What is impossible about it.
        why: &'static str,
    },
}

impl CodedError for CheckerError {
    fn code(&self) -> &'static str {
        match self {
            CheckerError::Io(_) => "CW-CHECKER-IO",
            CheckerError::Syntax { .. } => "CW-CHECKER-SYNTAX",
            CheckerError::Invalid { .. } => "CW-CHECKER-INVALID",
        }
    }

    fn is_retryable(&self) -> bool {
        false
    }

    fn hint(&self) -> &'static str {
        match self {
            CheckerError::Io(_) => "look at the file, its permissions and the disk",
            CheckerError::Syntax { .. } => {
                "a recorder that was killed leaves half a line: cut it off; else the file is foreign"
            }
            CheckerError::Invalid { .. } => "a mistake in the recorder: correct it and run again",
        }
    }
}
