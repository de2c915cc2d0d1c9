//! What can go wrong for a user of the client.

use std::fmt;

use bytes::Bytes;
use cribwork_proto::kvrpcpb;
use cribwork_types::{CodedError, Timestamp};

use crate::ChannelError;

/// With this a node begins an answer that says that it does not know what became of a write: it
/// may have taken effect, or may yet.
const UNDETERMINED: &str = "undetermined: ";

/// The error of an answer whose text says that the outcome is not known.
pub(crate) fn undetermined(what: &'static str, message: &str) -> Option<ClientError> {
    let why = message.strip_prefix(UNDETERMINED)?.to_owned();
    Some(ClientError::Unknown { what, why })
}

/// Why a call failed. Every variant but [`ClientError::Unknown`] means that a write certainly did
/// not take effect as a whole (a batch of raw writes that spans ranges may have done so in part).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No endpoint could be reached.
    #[error("no endpoint answers: {why}")]
    Connect {
        /// What happened at the last one.
        why: String,
    },
    /// The call's time is up.
    #[error("{what}: out of time: {why}")]
    Timeout {
        /// The call.
        what: &'static str,
        /// What the last attempt met.
        why: String,
    },
    /// A write was sent and its outcome could not be learnt.
    #[error("{what}: outcome unknown: {why}")]
    Unknown {
        /// The call.
        what: &'static str,
        /// What happened to the answer.
        why: String,
    },
    /// Another transaction wrote a key first.
    #[error("{0}")]
    Conflict(Box<Conflict>),
    /// A key that was to be inserted exists.
    #[error("key {} exists", .key.escape_ascii())]
    AlreadyExists {
        /// The key.
        key: Bytes,
    },
    /// A lock of another live transaction outlasted the call.
    #[error("key {} is locked by transaction {holder}", .key.escape_ascii())]
    Locked {
        /// The key.
        key: Bytes,
        /// Start timestamp of the transaction that holds it.
        holder: Timestamp,
    },
    /// The transaction was rolled back.
    #[error("transaction aborted: {why}")]
    Aborted {
        /// By what.
        why: String,
    },
    /// The transaction was committed or rolled back before.
    #[error("the transaction is over")]
    Finished,
    /// A store has no room for writes.
    #[error("disk full: {why}")]
    DiskFull {
        /// The store's words.
        why: String,
    },
    /// An argument that no server would take.
    #[error("{what}: {why}")]
    Invalid {
        /// The argument.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The server said no.
    #[error("{message}")]
    Refused {
        /// The server's stable code; may be empty.
        server_code: String,
        /// The reason in words.
        message: String,
        /// What the server advises; may be empty.
        advice: String,
        /// True if the same request may succeed later.
        retryable: bool,
    },
    /// The server answered what no server should.
    #[error("{what}: unexpected answer: {why}")]
    Protocol {
        /// The call.
        what: &'static str,
        /// What is wrong with the answer.
        why: String,
    },
}

/// Which key, and which transaction won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The key.
    pub key: Bytes,
    /// Start of the transaction that lost.
    pub start_ts: Timestamp,
    /// Start of the transaction that won.
    pub winner_start_ts: Timestamp,
    /// Its commit; zero if unknown.
    pub winner_commit_ts: Timestamp,
    /// Which check found it.
    pub reason: kvrpcpb::write_conflict::Reason,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "write conflict on key {}: transaction {} lost to transaction {} committed at {}",
            self.key.escape_ascii(),
            self.start_ts,
            self.winner_start_ts,
            self.winner_commit_ts,
        )
    }
}

impl ClientError {
    /// Builds the error of a refusal or a failure to send; `Unknown` stays unknown.
    pub(crate) fn from_channel(what: &'static str, error: ChannelError) -> Self {
        match error {
            ChannelError::Unsent(why) => ClientError::Connect { why },
            full @ ChannelError::Full(_) => ClientError::Timeout { what, why: full.to_string() },
            ChannelError::Unknown(why) => ClientError::Unknown { what, why },
            ChannelError::Refused { code, message, hint, retryable } => {
                ClientError::Refused { server_code: code, message, advice: hint, retryable }
            }
        }
    }

    /// A refusal in the words of the raw API.
    pub(crate) fn server(message: String) -> Self {
        ClientError::Refused {
            server_code: String::new(),
            message,
            advice: String::new(),
            retryable: false,
        }
    }

    /// True if the transaction that met it may be run again from its beginning: it certainly had no
    /// effect, and the cause passes.
    pub fn is_transaction_retryable(&self) -> bool {
        matches!(
            self,
            ClientError::Conflict(_) | ClientError::Locked { .. } | ClientError::Aborted { .. }
        )
    }
}

impl CodedError for ClientError {
    fn code(&self) -> &'static str {
        match self {
            ClientError::Connect { .. } => "CW-CLIENT-CONNECT",
            ClientError::Timeout { .. } => "CW-CLIENT-TIMEOUT",
            ClientError::Unknown { .. } => "CW-CLIENT-UNKNOWN",
            ClientError::Conflict(_) => "CW-CLIENT-CONFLICT",
            ClientError::AlreadyExists { .. } => "CW-CLIENT-EXISTS",
            ClientError::Locked { .. } => "CW-CLIENT-LOCKED",
            ClientError::Aborted { .. } => "CW-CLIENT-ABORTED",
            ClientError::Finished => "CW-CLIENT-FINISHED",
            ClientError::DiskFull { .. } => "CW-CLIENT-DISK-FULL",
            ClientError::Invalid { .. } => "CW-CLIENT-INVALID",
            ClientError::Refused { .. } => "CW-CLIENT-REFUSED",
            ClientError::Protocol { .. } => "CW-CLIENT-PROTOCOL",
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            ClientError::Connect { .. } | ClientError::Timeout { .. } => true,
            ClientError::Refused { retryable, .. } => *retryable,
            _ => self.is_transaction_retryable(),
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            ClientError::Connect { .. } => "check the endpoints and that the nodes run",
            ClientError::Timeout { .. } => {
                "a majority of some range may be down: see `cribwork status`; or allow more time"
            }
            ClientError::Unknown { .. } => {
                "the write may or may not have taken effect: read before writing it again"
            }
            ClientError::Conflict(_) | ClientError::Aborted { .. } => {
                "run the transaction again from its beginning"
            }
            ClientError::AlreadyExists { .. } => "use put to overwrite",
            ClientError::Locked { .. } => {
                "wait for the other transaction, or for its lock to expire, and try again"
            }
            ClientError::Finished => "begin a new transaction",
            ClientError::DiskFull { .. } => "delete data or add room; reads and deletes still work",
            ClientError::Invalid { .. } => "correct the argument",
            ClientError::Refused { .. } => "the message names the cause",
            ClientError::Protocol { .. } => "compare the versions of client and server",
        }
    }
}
