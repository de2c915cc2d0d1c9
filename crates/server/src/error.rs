//! What can go wrong in a node, above the crates that it is made of, and how an error travels over
//! gRPC: as a status with the metadata `cribwork-code` and `cribwork-hint`.

use std::path::PathBuf;

use cribwork_engine::EngineError;
use cribwork_multiraft::RaftError;
use cribwork_mvcc::MvccError;
use cribwork_placement::PlacementError;
use cribwork_transport::{SendError, TransportError};
use cribwork_types::{ClusterId, CodecError, CodedError, StoreId};
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Status};

/// Metadata key of the stable code.
pub const CODE_METADATA: &str = "cribwork-code";
/// Metadata key of the advice.
pub const HINT_METADATA: &str = "cribwork-hint";

/// An error of a node.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ServerError {
    /// A replica did not do what it was asked.
    #[error(transparent)]
    Raft(#[from] RaftError),
    /// The store failed, or the data directory cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A key-value command was refused or could not be evaluated.
    #[error(transparent)]
    Mvcc(#[from] MvccError),
    /// Placement arithmetic refused.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// A connection to another node did not come about or broke.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A message to another node was not queued.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Bytes that do not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The configuration cannot be used.
    #[error("configuration: {0}")]
    Config(String),
    /// A port could not be opened.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// What was asked for.
        address: String,
        /// What the system says.
        why: String,
    },
    /// A file could not be read.
    #[error("cannot read {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The node is no member of a cluster yet.
    #[error("not initialised: run `cribwork init`")]
    Uninitialised,
    /// The cluster exists already.
    #[error("already initialised: this node belongs to cluster {cluster}")]
    AlreadyInitialised {
        /// The cluster.
        cluster: ClusterId,
    },
    /// A node that the new cluster needs does not take part; nothing was written.
    #[error("cannot initialise: {address}: {why}")]
    InitRefused {
        /// The node.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The new cluster is planned, but not every node has its part yet.
    #[error("initialisation is unfinished: {address}: {why}")]
    InitUnfinished {
        /// The node that has not.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store of this node is damaged, and the others cannot do without it.
    #[error("the damaged store is kept: {why}")]
    StillNeeded {
        /// What they lack.
        why: String,
    },
    /// The other side is a member of another cluster.
    #[error("cluster mismatch: this is cluster {ours}, the request is for cluster {theirs}")]
    WrongCluster {
        /// This node's cluster.
        ours: ClusterId,
        /// The other one.
        theirs: ClusterId,
    },
    /// This node does not lead the placement group, and must not or cannot forward.
    #[error("this node does not lead placement")]
    NotPlacementLeader {
        /// Who does, if known.
        leader: Option<StoreId>,
    },
    /// The directory has a gap at a key: its range is being split, and not both sides have been
    /// reported yet.
    #[error("the key's range is being split")]
    DirectoryGap,
    /// An argument that no node accepts.
    #[error("{0}")]
    Invalid(String),
    /// What was asked for does not exist.
    #[error("{0} not found")]
    NotFound(String),
    /// A bounded queue is full.
    #[error("{what} is full")]
    Busy {
        /// Which queue.
        what: &'static str,
    },
    /// Something did not happen in time.
    #[error("{what} took too long")]
    Timeout {
        /// What.
        what: &'static str,
    },
    /// Another node answered with an error.
    #[error("{message}")]
    Remote {
        /// Its gRPC code.
        grpc: Code,
        /// Its stable code; empty if it gave none.
        code: String,
        /// Its words.
        message: String,
        /// Its advice; may be empty.
        hint: String,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Shutdown,
}

impl ServerError {
    /// True if whoever is asked next, a moment later, may well succeed: no leader yet, or a broken
    /// connection. Narrower than [`CodedError::is_retryable`] only in that a busy node is left alone.
    pub fn is_transient(&self) -> bool {
        self.is_retryable() && !matches!(self, ServerError::Busy { .. })
    }

    /// The gRPC code that stands for this error.
    pub fn grpc_code(&self) -> Code {
        match self {
            ServerError::Raft(error) => raft_code(error),
            ServerError::Engine(_) | ServerError::Codec(_) | ServerError::File { .. } => {
                Code::Internal
            }
            ServerError::Mvcc(_) => Code::Aborted,
            ServerError::Placement(error) => match error.is_retryable() {
                true => Code::Unavailable,
                false => Code::InvalidArgument,
            },
            ServerError::Transport(_) | ServerError::Send(_) => Code::Unavailable,
            ServerError::Config(_) | ServerError::Invalid(_) => Code::InvalidArgument,
            ServerError::Listen { .. }
            | ServerError::Uninitialised
            | ServerError::NotPlacementLeader { .. }
            | ServerError::DirectoryGap
            | ServerError::Shutdown => Code::Unavailable,
            ServerError::AlreadyInitialised { .. } => Code::AlreadyExists,
            ServerError::InitRefused { .. }
            | ServerError::InitUnfinished { .. }
            | ServerError::StillNeeded { .. }
            | ServerError::WrongCluster { .. } => Code::FailedPrecondition,
            ServerError::NotFound(_) => Code::NotFound,
            ServerError::Busy { .. } => Code::ResourceExhausted,
            ServerError::Timeout { .. } => Code::DeadlineExceeded,
            ServerError::Remote { grpc, .. } => *grpc,
        }
    }

    /// The error as a gRPC status; an error that came from another node keeps that node's code.
    pub fn status(&self) -> Status {
        let (code, hint) = match self {
            ServerError::Remote { code, hint, .. } if !code.is_empty() => (&**code, &**hint),
            _ => (self.code(), self.hint()),
        };
        let mut status = Status::new(self.grpc_code(), self.to_string());
        for (key, value) in [(CODE_METADATA, code), (HINT_METADATA, hint)] {
            if let Ok(value) = AsciiMetadataValue::try_from(value) {
                status.metadata_mut().insert(key, value);
            }
        }
        status
    }
}

fn raft_code(error: &RaftError) -> Code {
    match error {
        RaftError::Busy { .. } => Code::ResourceExhausted,
        RaftError::TooLarge { .. } => Code::InvalidArgument,
        RaftError::Refused { .. }
        | RaftError::TransferFailed { .. }
        | RaftError::ChangeFailed { .. } => Code::FailedPrecondition,
        RaftError::Undetermined { .. } => Code::Unknown,
        RaftError::Engine(_) | RaftError::Codec(_) => Code::Internal,
        RaftError::NotLeader { .. }
        | RaftError::EpochChanged { .. }
        | RaftError::RangeNotFound { .. }
        | RaftError::Merging { .. }
        | RaftError::Shutdown
        | RaftError::Fatal { .. } => Code::Unavailable,
    }
}

impl From<ServerError> for Status {
    fn from(error: ServerError) -> Self {
        error.status()
    }
}

impl From<Status> for ServerError {
    fn from(status: Status) -> Self {
        let metadata = |name: &str| {
            let value = status.metadata().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        // A status that came from another node has no source: this one is of a connection that broke
        // on the way, most often because that node has died. Others can still answer.
        let broke = std::error::Error::source(&status).is_some();
        ServerError::Remote {
            grpc: if broke { Code::Unavailable } else { status.code() },
            code: metadata(CODE_METADATA),
            message: describe(&status),
            hint: metadata(HINT_METADATA),
        }
    }
}

/// A status with its causes: tonic hides "connection refused" in a source.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    match text.is_empty() {
        true => status.code().description().to_owned(),
        false => text,
    }
}

impl CodedError for ServerError {
    fn code(&self) -> &'static str {
        match self {
            ServerError::Raft(error) => error.code(),
            ServerError::Engine(error) => error.code(),
            ServerError::Mvcc(error) => error.code(),
            ServerError::Placement(error) => error.code(),
            ServerError::Transport(error) => error.code(),
            ServerError::Send(error) => error.code(),
            ServerError::Codec(error) => error.code(),
            ServerError::Config(_) => "CW-SERVER-CONFIG",
            ServerError::Listen { .. } => "CW-SERVER-LISTEN",
            ServerError::File { .. } => "CW-SERVER-FILE",
            ServerError::Uninitialised => "CW-SERVER-UNINITIALISED",
            ServerError::AlreadyInitialised { .. } => "CW-SERVER-ALREADY-INITIALISED",
            ServerError::InitRefused { .. } => "CW-SERVER-INIT-REFUSED",
            ServerError::InitUnfinished { .. } => "CW-SERVER-INIT-UNFINISHED",
            ServerError::StillNeeded { .. } => "CW-SERVER-STILL-NEEDED",
            ServerError::WrongCluster { .. } => "CW-SERVER-WRONG-CLUSTER",
            ServerError::NotPlacementLeader { .. } => "CW-SERVER-NOT-PLACEMENT-LEADER",
            ServerError::DirectoryGap => "CW-SERVER-DIRECTORY-GAP",
            ServerError::Invalid(_) => "CW-SERVER-INVALID",
            ServerError::NotFound(_) => "CW-SERVER-NOT-FOUND",
            ServerError::Busy { .. } => "CW-SERVER-BUSY",
            ServerError::Timeout { .. } => "CW-SERVER-TIMEOUT",
            ServerError::Remote { .. } => "CW-SERVER-REMOTE",
            ServerError::Shutdown => "CW-SERVER-SHUTDOWN",
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            ServerError::Raft(error) => error.is_retryable(),
            ServerError::Engine(error) => error.is_retryable(),
            ServerError::Mvcc(error) => error.is_retryable(),
            ServerError::Placement(error) => error.is_retryable(),
            ServerError::Transport(error) => error.is_retryable(),
            ServerError::Send(error) => error.is_retryable(),
            ServerError::Remote { grpc, .. } => {
                matches!(grpc, Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded)
            }
            ServerError::NotPlacementLeader { .. }
            | ServerError::DirectoryGap
            | ServerError::InitUnfinished { .. }
            | ServerError::Busy { .. }
            | ServerError::Timeout { .. }
            | ServerError::Shutdown => true,
            _ => false,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            ServerError::Raft(error) => error.hint(),
            ServerError::Engine(error) => error.hint(),
            ServerError::Mvcc(error) => error.hint(),
            ServerError::Placement(error) => error.hint(),
            ServerError::Transport(error) => error.hint(),
            ServerError::Send(error) => error.hint(),
            ServerError::Codec(error) => error.hint(),
            ServerError::Config(_) => "correct the named setting",
            ServerError::Listen { .. } => "choose a free port on an address of this machine",
            ServerError::File { .. } => "check the path and its permissions",
            ServerError::Uninitialised => {
                "run `cribwork init --endpoints <one of the nodes>` once, when all nodes are started"
            }
            ServerError::AlreadyInitialised { .. } => "nothing is to be done: use the cluster",
            ServerError::InitRefused { .. } => {
                "start every node of the join list with an empty data directory, then run init again"
            }
            ServerError::InitUnfinished { .. } => {
                "start that node, then run init again at the same node: it goes on where it stopped"
            }
            ServerError::StillNeeded { .. } => {
                "bring the others back first; what is lost is lost only once this store is given up"
            }
            ServerError::WrongCluster { .. } => {
                "check the addresses: one of the two nodes belongs to another cluster"
            }
            ServerError::NotPlacementLeader { .. } => "retry: a leader is being elected",
            ServerError::DirectoryGap => "retry: the new ranges are about to be reported",
            ServerError::Invalid(_) => "correct the request",
            ServerError::NotFound(_) => "list what there is: `cribwork ranges`, `cribwork nodes`",
            ServerError::Busy { .. } => "back off and retry",
            ServerError::Timeout { .. } => {
                "check that the nodes run and reach each other, then retry"
            }
            ServerError::Remote { .. } => "look at the log of the node that answered",
            ServerError::Shutdown => "ask another node",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_code_and_hint_over_the_wire_and_through_a_forwarder() {
        let status = ServerError::Uninitialised.status();
        assert_eq!(status.code(), Code::Unavailable);
        let received = ServerError::from(status);
        assert!(received.is_retryable(), "somebody may run init");
        let forwarded = received.status();
        assert_eq!(forwarded.code(), Code::Unavailable);
        let code = forwarded.metadata().get(CODE_METADATA).and_then(|code| code.to_str().ok());
        assert_eq!(code, Some("CW-SERVER-UNINITIALISED"));
        assert!(forwarded.metadata().get(HINT_METADATA).is_some());
        assert!(forwarded.message().contains("cribwork init"));
    }

    /// A node that passed a request on to one that then died must try another, and not tell its
    /// client that the request was refused for good.
    #[test]
    fn a_connection_that_breaks_is_no_refusal() {
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let broken = ServerError::from(Status::from_error(Box::new(reset)));
        assert!(broken.is_transient(), "{broken}");
        assert_eq!(broken.grpc_code(), Code::Unavailable);
        assert!(!ServerError::from(Status::unknown("a node's own words")).is_transient());
    }
}
