//! What can go wrong with a replica.

use cribwork_engine::EngineError;
use cribwork_types::{
    CodecError, CodedError, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, StoreId,
};

/// Why a replica did not do what it was asked.
///
/// All variants but [`RaftError::Undetermined`] mean that a proposal certainly was not and will not
/// be applied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RaftError {
    /// Another replica leads, or none that is known.
    #[error("range {range}: this replica does not lead it")]
    NotLeader {
        /// The range asked for.
        range: RangeId,
        /// Who leads, if known.
        leader: Option<ReplicaDescriptor>,
    },
    /// The range changed shape since the command was evaluated.
    #[error("range {range}: its epoch is {epoch} now")]
    EpochChanged {
        /// The range asked for.
        range: RangeId,
        /// Its epoch now.
        epoch: RangeEpoch,
        /// What is known of the ranges that took its place, the range itself first.
        current: Vec<RangeDescriptor>,
    },
    /// No replica of the range is here.
    #[error("range {range}: no replica on store {store}")]
    RangeNotFound {
        /// The range asked for.
        range: RangeId,
        /// The store asked.
        store: StoreId,
    },
    /// A bounded queue is full.
    #[error("range {range}: {what} is full")]
    Busy {
        /// The range asked for.
        range: RangeId,
        /// Which queue.
        what: &'static str,
    },
    /// The command would make an entry that no log takes.
    #[error("range {range}: a command of {size_bytes} bytes, at most {max_bytes} fit")]
    TooLarge {
        /// The range asked for.
        range: RangeId,
        /// What was asked.
        size_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The command was refused for what it asks.
    #[error("range {range}: {why}")]
    Refused {
        /// The range asked for.
        range: RangeId,
        /// The reason.
        why: String,
    },
    /// The command entered the log and its fate is not known: it may or may not be applied.
    #[error("range {range}: outcome unknown: {why}")]
    Undetermined {
        /// The range asked for.
        range: RangeId,
        /// What was lost.
        why: &'static str,
    },
    /// A transfer of leadership did not complete.
    #[error("range {range}: leadership did not move to store {target}: {why}")]
    TransferFailed {
        /// The range asked for.
        range: RangeId,
        /// The wanted leader.
        target: StoreId,
        /// What went wrong.
        why: &'static str,
    },
    /// A change of members was not made, or only its first part.
    #[error("range {range}: its members do not change now: {why}")]
    ChangeFailed {
        /// The range asked for.
        range: RangeId,
        /// What stands in the way.
        why: &'static str,
    },
    /// The range is about to be merged into its neighbour: nothing in it is read or written for a moment.
    #[error("range {range}: it is being merged")]
    Merging {
        /// The range asked for.
        range: RangeId,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Shutdown,
    /// The storage engine failed.
    #[error("storage engine: {0}")]
    Engine(String),
    /// Stored bytes are damaged.
    #[error("stored bytes: {0}")]
    Codec(#[from] CodecError),
    /// openraft stopped with a fatal error; the supervisor rebuilds the instance.
    #[error("range {range}: raft stopped: {why}")]
    Fatal {
        /// The range asked for.
        range: RangeId,
        /// openraft's words.
        why: String,
    },
}

impl From<EngineError> for RaftError {
    fn from(error: EngineError) -> Self {
        RaftError::Engine(error.to_string())
    }
}

impl CodedError for RaftError {
    fn code(&self) -> &'static str {
        match self {
            RaftError::NotLeader { .. } => "CW-RAFT-NOT-LEADER",
            RaftError::EpochChanged { .. } => "CW-RAFT-EPOCH",
            RaftError::RangeNotFound { .. } => "CW-RAFT-NO-RANGE",
            RaftError::Busy { .. } => "CW-RAFT-BUSY",
            RaftError::TooLarge { .. } => "CW-RAFT-TOO-LARGE",
            RaftError::Refused { .. } => "CW-RAFT-REFUSED",
            RaftError::Undetermined { .. } => "CW-RAFT-UNDETERMINED",
            RaftError::TransferFailed { .. } => "CW-RAFT-TRANSFER",
            RaftError::ChangeFailed { .. } => "CW-RAFT-CHANGE",
            RaftError::Merging { .. } => "CW-RAFT-MERGING",
            RaftError::Shutdown => "CW-RAFT-SHUTDOWN",
            RaftError::Engine(_) => "CW-RAFT-ENGINE",
            RaftError::Codec(_) => "CW-RAFT-CODEC",
            RaftError::Fatal { .. } => "CW-RAFT-FATAL",
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(
            self,
            RaftError::NotLeader { .. }
                | RaftError::EpochChanged { .. }
                | RaftError::Busy { .. }
                | RaftError::RangeNotFound { .. }
                | RaftError::TransferFailed { .. }
                | RaftError::ChangeFailed { .. }
                | RaftError::Merging { .. }
                | RaftError::Shutdown
        )
    }

    fn hint(&self) -> &'static str {
        match self {
            RaftError::NotLeader { .. } => "ask the leader, or wait until one is elected",
            RaftError::EpochChanged { .. } => "look the key up again: the range was split or moved",
            RaftError::RangeNotFound { .. } => "look the key up again: the range is elsewhere",
            RaftError::Busy { .. } => "back off and retry: the node takes on no more work now",
            RaftError::TooLarge { .. } => "send less in one request",
            RaftError::Refused { .. } => "change the request as the message says",
            RaftError::Undetermined { .. } => "read back before writing again",
            RaftError::TransferFailed { .. } => {
                "check that the target is up and caught up, then retry"
            }
            RaftError::ChangeFailed { .. } => "wait for what the message names, then retry",
            RaftError::Merging { .. } => "back off and retry: its keys move to another range",
            RaftError::Shutdown => "ask another node",
            RaftError::Engine(_) => "check the node's disk and its log",
            RaftError::Codec(_) => "the store is damaged: rebuild this node from the others",
            RaftError::Fatal { .. } => "check the node's log; the replica restarts by itself",
        }
    }
}
