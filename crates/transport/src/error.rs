//! What can go wrong: with one message ([`SendError`]) and with a stream ([`TransportError`]).

use cribwork_types::{CodedError, StoreId};

/// Why a message was not queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The lane of this class holds as much as it may.
    #[error("the {class} lane to store {store} is full")]
    Full {
        /// The destination.
        store: StoreId,
        /// Name of the class.
        class: &'static str,
    },
    /// Nobody knows an address for the store, or it is this store itself.
    #[error("store {store} is not known")]
    UnknownStore {
        /// The destination.
        store: StoreId,
    },
    /// The payload is larger than its class allows.
    #[error("a {class} message of {bytes} bytes is larger than {max}")]
    TooLarge {
        /// Name of the class.
        class: &'static str,
        /// Size of the payload.
        bytes: usize,
        /// Largest payload of that class.
        max: usize,
    },
    /// [`crate::Transport::shutdown`] was called.
    #[error("the transport is shut down")]
    Shutdown,
}

impl CodedError for SendError {
    fn code(&self) -> &'static str {
        match self {
            SendError::Full { .. } => "CW-TRANSPORT-FULL",
            SendError::UnknownStore { .. } => "CW-TRANSPORT-UNKNOWN-STORE",
            SendError::TooLarge { .. } => "CW-TRANSPORT-TOO-LARGE",
            SendError::Shutdown => "CW-TRANSPORT-SHUTDOWN",
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, SendError::Full { .. })
    }

    fn hint(&self) -> &'static str {
        match self {
            SendError::Full { .. } => "the peer or the network is slower than the load: send later",
            SendError::UnknownStore { .. } => "check that the store has joined the cluster",
            SendError::TooLarge { .. } => "send less at a time",
            SendError::Shutdown => "the node is stopping: use another one",
        }
    }
}

/// Why a stream did not open or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nobody knows an address for the store any more.
    #[error("store {store} is not known")]
    UnknownStore {
        /// The destination.
        store: StoreId,
    },
    /// The address is no valid `host:port`.
    #[error("{address:?} is not an address: {why}")]
    InvalidAddress {
        /// What the resolver answered.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// No connection came about.
    #[error("cannot connect to {address}: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the network said.
        why: String,
    },
    /// The peer answers, but says that it is not the one that is meant, or that we are not.
    #[error("refused: {why}")]
    Refused {
        /// What the peer, or the check of its handshake, said.
        why: String,
    },
    /// Connecting, the handshake or an acknowledgement took too long.
    #[error("{what} took too long")]
    Stalled {
        /// What did not come.
        what: &'static str,
    },
    /// The open stream broke.
    #[error("the stream broke: {why}")]
    Broken {
        /// What the network said.
        why: String,
    },
    /// The other end sent what no correct peer sends.
    #[error("protocol violation: {why}")]
    Protocol {
        /// What is wrong with it.
        why: &'static str,
    },
}

impl CodedError for TransportError {
    fn code(&self) -> &'static str {
        match self {
            TransportError::UnknownStore { .. } => "CW-TRANSPORT-UNKNOWN-STORE",
            TransportError::InvalidAddress { .. } => "CW-TRANSPORT-ADDRESS",
            TransportError::Unreachable { .. } => "CW-TRANSPORT-UNREACHABLE",
            TransportError::Refused { .. } => "CW-TRANSPORT-REFUSED",
            TransportError::Stalled { .. } => "CW-TRANSPORT-STALLED",
            TransportError::Broken { .. } => "CW-TRANSPORT-BROKEN",
            TransportError::Protocol { .. } => "CW-TRANSPORT-PROTOCOL",
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(
            self,
            TransportError::Unreachable { .. }
                | TransportError::Stalled { .. }
                | TransportError::Broken { .. }
        )
    }

    fn hint(&self) -> &'static str {
        match self {
            TransportError::UnknownStore { .. } => "check that the store has joined the cluster",
            TransportError::InvalidAddress { .. } => "correct the advertised address of that store",
            TransportError::Refused { .. } => {
                "the address belongs to another store or cluster, or to another version: \
                 check the advertised addresses"
            }
            TransportError::Protocol { .. } => "the other end is damaged or no Cribwork node",
            _ => "check that the node runs and that the network lets it through",
        }
    }
}
