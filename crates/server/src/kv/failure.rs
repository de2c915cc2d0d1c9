//! Why a request was not served, before it is known what its answer looks like.

use cribwork_multiraft::RaftError;
use cribwork_mvcc::MvccError;
use cribwork_proto::{errorpb, kvrpcpb};
use cribwork_types::{CodedError, RangeDescriptor, RangeId, ReplicaDescriptor};

use crate::ServerError;
use crate::kv::key_error::key_error;

/// What an error text begins with if the write may or may not take effect. Answers on the batch
/// stream have no status of their own, and a region error would make old clients repeat the write
/// blindly, so this prefix is how a client knows.
pub const UNDETERMINED: &str = "undetermined: ";

/// How long a client should wait after an internal queue was full, milliseconds.
const QUEUE_BACKOFF_MS: u64 = 20;

/// Why a request was not served.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// Wrong place or time; the request certainly had no effect.
    Region(Box<errorpb::Error>),
    /// A key refuses it.
    Key(Box<kvrpcpb::KeyError>),
    /// It asks for what is not there or not allowed; the text says what.
    Refused(String),
    /// The store failed.
    Internal(String),
    /// It may or may not take effect.
    Undetermined(String),
}

impl Failure {
    /// The words for answers that have room for words only.
    pub(crate) fn into_text(self) -> String {
        match self {
            Failure::Region(error) => error.message,
            Failure::Key(error) => match error.abort.is_empty() {
                true => format!("{error:?}"),
                false => error.abort,
            },
            Failure::Refused(text) | Failure::Internal(text) => text,
            Failure::Undetermined(text) => format!("{UNDETERMINED}{text}"),
        }
    }

    /// The failure for answers that have room for a key error.
    pub(crate) fn into_key_error(self) -> kvrpcpb::KeyError {
        match self {
            Failure::Key(error) => *error,
            other => kvrpcpb::KeyError { abort: other.into_text(), ..Default::default() },
        }
    }

    /// What became of a proposal. Other than for a read, a replica that goes away in the middle
    /// leaves the outcome open.
    pub(crate) fn of_proposal(error: RaftError) -> Self {
        match error {
            RaftError::Shutdown => Failure::Undetermined(error.to_string()),
            error => error.into(),
        }
    }
}

fn region(message: String, fill: impl FnOnce(&mut errorpb::Error)) -> Failure {
    let mut error = errorpb::Error { message, ..Default::default() };
    fill(&mut error);
    Failure::Region(Box::new(error))
}

/// A bound was reached.
pub(crate) fn busy(reason: impl Into<String>, backoff_ms: u64) -> Failure {
    let reason = reason.into();
    region(reason.clone(), |error| {
        let busy = errorpb::ServerIsBusy { reason, backoff_ms, ..Default::default() };
        error.server_is_busy = Some(busy);
    })
}

/// No replica of the range is here, or the request names no range at all.
pub(crate) fn region_not_found(range: RangeId, message: String) -> Failure {
    region(message, |error| {
        let region_id = range.get();
        error.region_not_found = Some(errorpb::RegionNotFound { region_id });
    })
}

/// The request is for another store.
pub(crate) fn store_not_match(requested: u64, actual: u64) -> Failure {
    region(format!("this is store {actual}, the request is for store {requested}"), |error| {
        error.store_not_match =
            Some(errorpb::StoreNotMatch { request_store_id: requested, actual_store_id: actual });
    })
}

/// The request is for another replica of the range, an earlier or later one on this store.
pub(crate) fn mismatch_peer_id(requested: u64, actual: u64) -> Failure {
    region(format!("this is replica {actual}, the request is for {requested}"), |error| {
        error.mismatch_peer_id =
            Some(errorpb::MismatchPeerId { request_peer_id: requested, store_peer_id: actual });
    })
}

/// Another replica leads, or none that is known.
pub(crate) fn not_leader(range: RangeId, leader: Option<ReplicaDescriptor>) -> Failure {
    let message = match leader {
        Some(leader) => format!("range {range} is led by store {}", leader.store),
        None => format!("range {range} has no leader that is known here"),
    };
    region(message, |error| {
        error.not_leader =
            Some(errorpb::NotLeader { region_id: range.get(), leader: leader.map(Into::into) });
    })
}

/// The request was made for another term.
pub(crate) fn stale_command(requested: u64, actual: u64) -> Failure {
    region(format!("the term is {actual}, the request is for {requested}"), |error| {
        error.stale_command = Some(errorpb::StaleCommand {});
    })
}

/// The range has changed its shape; `current` is what took its place, itself first.
pub(crate) fn epoch_not_match<'d>(
    range: RangeId,
    current: impl Iterator<Item = &'d RangeDescriptor>,
) -> Failure {
    region(format!("range {range} has changed since its bounds were looked up"), |error| {
        let current_regions = current.map(Into::into).collect();
        error.epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
    })
}

/// A key lies outside the range although the epochs agree.
pub(crate) fn key_not_in_region(key: &[u8], range: &RangeDescriptor) -> Failure {
    let message = format!("key {} is not in range {} {}", key.escape_ascii(), range.id, range.span);
    region(message, |error| {
        error.key_not_in_region = Some(errorpb::KeyNotInRegion {
            key: bytes::Bytes::copy_from_slice(key),
            region_id: range.id.get(),
            start_key: range.span.start.clone(),
            end_key: range.span.end.clone(),
        });
    })
}

impl From<RaftError> for Failure {
    fn from(error: RaftError) -> Self {
        let message = error.to_string();
        match error {
            RaftError::NotLeader { range, leader } => not_leader(range, leader),
            RaftError::EpochChanged { range, current, .. } => {
                epoch_not_match(range, current.iter())
            }
            RaftError::RangeNotFound { range, .. } => region_not_found(range, message),
            RaftError::Busy { .. } | RaftError::Merging { .. } => busy(message, QUEUE_BACKOFF_MS),
            RaftError::TooLarge { range, size_bytes, .. } => region(message, |error| {
                error.raft_entry_too_large = Some(errorpb::RaftEntryTooLarge {
                    region_id: range.get(),
                    entry_size: size_bytes as u64,
                });
            }),
            RaftError::Undetermined { .. } => Failure::Undetermined(message),
            // The instance is rebuilt, here or elsewhere: whoever asks again finds a leader.
            RaftError::Fatal { range, .. } => not_leader(range, None),
            RaftError::Shutdown => region(message, |error| {
                error.not_leader = Some(errorpb::NotLeader::default());
            }),
            RaftError::Refused { .. }
            | RaftError::TransferFailed { .. }
            | RaftError::ChangeFailed { .. } => Failure::Refused(message),
            RaftError::Engine(_) | RaftError::Codec(_) => Failure::Internal(message),
        }
    }
}

impl From<MvccError> for Failure {
    fn from(error: MvccError) -> Self {
        match error {
            MvccError::Key(error) => Failure::Key(Box::new(key_error(*error))),
            error => {
                tracing::error!(%error, code = error.code(), "cannot evaluate a command");
                Failure::Internal(format!("{}: {error}", error.code()))
            }
        }
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Raft(error) => error.into(),
            ServerError::Mvcc(error) => error.into(),
            error if error.is_retryable() => busy(error.to_string(), QUEUE_BACKOFF_MS),
            error => Failure::Refused(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_is_never_a_region_error() {
        let range = RangeId(7);
        let errors = [
            Failure::from(RaftError::Undetermined { range, why: "lost" }),
            Failure::of_proposal(RaftError::Shutdown),
        ];
        for failure in errors {
            assert!(matches!(&failure, Failure::Undetermined(_)), "{failure:?}");
            assert!(failure.clone().into_text().starts_with(UNDETERMINED));
            assert!(failure.into_key_error().abort.starts_with(UNDETERMINED));
        }
        assert!(matches!(Failure::from(RaftError::Shutdown), Failure::Region(_)));
    }
}
