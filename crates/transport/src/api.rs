//! The words of the transport: what is sent, in which class, and who receives it.

use bytes::Bytes;
use cribwork_types::{ClusterId, RangeId, ReplicaId, StoreId};

/// One message of one Raft group. The transport looks at nothing but its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The group; [`RangeId::PLACEMENT`] for the placement group.
    pub range: RangeId,
    /// The replica that sends.
    pub from: ReplicaId,
    /// The replica that is meant.
    pub to: ReplicaId,
    /// What the payload is; the sender and the handler agree on the numbers.
    pub kind: u8,
    /// Matches an answer to its question.
    pub call: u64,
    /// Opaque.
    pub payload: Bytes,
}

/// How urgent a message is. Within a frame the classes travel in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Heartbeats, votes, liveness, acks: drained first, and let through a full window.
    Control = 0,
    /// Log entries.
    Data = 1,
    /// Snapshot chunks of at most [`crate::BULK_BYTES_MAX`] bytes: a small share of each frame.
    Bulk = 2,
}

impl Class {
    /// All classes, in the order in which they are drained.
    pub const ALL: [Class; 3] = [Class::Control, Class::Data, Class::Bulk];

    /// The word in metrics and errors.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Control => "control",
            Class::Data => "data",
            Class::Bulk => "bulk",
        }
    }
}

/// Who this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Streams from any other cluster are refused.
    pub cluster: ClusterId,
    /// Streams meant for any other store are refused.
    pub store: StoreId,
}

/// Takes what arrives. Every method runs on the transport's tasks: it must not block or wait, and
/// must not call [`crate::Transport::shutdown`]. It may send.
pub trait MessageHandler: Send + Sync + 'static {
    /// A message from store `from`. Calls for one store never overlap and follow the sending order
    /// within a range and class.
    fn on_message(&self, from: StoreId, message: Message);

    /// The stream to `peer` is open: what is sent from now on is under way at once.
    fn on_connected(&self, _peer: StoreId) {}

    /// `peer` opened a new stream to this node. What it sent on an older one, answers among it, may be
    /// lost, though nothing of it comes any more.
    fn on_accepted(&self, _peer: StoreId) {}

    /// What was sent to `peer` since the last [`Self::on_connected`] may be lost. Also called after
    /// each attempt to connect that failed, because that drops what waited for it.
    fn on_disconnected(&self, _peer: StoreId) {}
}

/// Knows where stores live.
pub trait AddressResolver: Send + Sync + 'static {
    /// `host:port` of `store`, or `None` if no such store exists. Asked on every attempt to connect.
    fn address(&self, store: StoreId) -> Option<String>;
}
