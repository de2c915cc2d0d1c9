//! The receiving end of pipelined append streams: one for each leader that sends to this replica.
//!
//! Messages of one stream arrive in order; a leader that starts over uses a larger stream number,
//! which ends the one before. Numbers start at one in each life of the leader's process, so a stream
//! is named by life and number, and any stream of another life is newer: the transport hands over
//! nothing of an old life once the new one is connected.
//!
//! Every message is answered. One that comes to a stream which is full or has ended is answered with
//! nothing, so that its leader starts over at once and does not wait for a time-out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cribwork_transport::{Class, Message};
use cribwork_types::{RangeId, ReplicaId, StoreId};
use futures::StreamExt;
use openraft::AsyncRuntime;
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::codec;
use super::instance::RaftOf;
use super::kind;
use super::types::Types;
use crate::node::NodeShared;
use crate::options::INBOUND_STREAM_MAX;

/// Names a stream among all that one replica has ever sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamId {
    /// The life of the sender's process: a random number.
    pub(super) life: u64,
    /// Rises within a life.
    pub(super) number: u64,
}

impl StreamId {
    const BYTES: usize = 16;

    /// Puts the name in front of an encoded append.
    pub(super) fn prefix(self, append: &[u8]) -> Bytes {
        let mut payload = BytesMut::with_capacity(Self::BYTES + append.len());
        payload.put_u64(self.life);
        payload.put_u64(self.number);
        payload.put_slice(append);
        payload.freeze()
    }

    /// The name, and the append behind it.
    fn split(mut payload: Bytes) -> Option<(Self, Bytes)> {
        if payload.len() < Self::BYTES {
            return None;
        }
        let id = Self { life: payload.get_u64(), number: payload.get_u64() };
        Some((id, payload))
    }

    /// True for a stream that its sender had given up when it opened this one.
    fn replaces(self, other: Self) -> bool {
        self.life != other.life || self.number > other.number
    }
}

/// The append in the payload of a stream's message.
pub(crate) fn stream_append(payload: &Bytes) -> Option<Bytes> {
    StreamId::split(payload.clone()).map(|(_, append)| append)
}

/// Calls that openraft has not answered yet, in order.
#[derive(Default)]
struct Unanswered {
    calls: VecDeque<u64>,
    /// openraft takes no more of this stream.
    ended: bool,
}

struct Inbound<A: AsyncRuntime> {
    id: StreamId,
    requests: mpsc::Sender<AppendEntriesRequest<Types<A>>>,
    unanswered: Arc<Mutex<Unanswered>>,
}

impl<A: AsyncRuntime> Inbound<A> {
    /// False if the stream is full or has ended.
    fn push(&self, call: u64, request: AppendEntriesRequest<Types<A>>) -> bool {
        let mut unanswered = self.unanswered.lock();
        if unanswered.ended || self.requests.try_send(request).is_err() {
            return false;
        }
        unanswered.calls.push_back(call);
        true
    }
}

pub(super) struct InboundStreams<A: AsyncRuntime> {
    streams: Mutex<HashMap<ReplicaId, Inbound<A>>>,
}

/// Whom the answers of a stream go to.
#[derive(Clone, Copy)]
struct Route {
    store: StoreId,
    range: RangeId,
    from: ReplicaId,
    to: ReplicaId,
}

impl Route {
    /// Back to where `message` came from.
    fn back(store: StoreId, message: &Message) -> Self {
        Self { store, range: message.range, from: message.to, to: message.from }
    }

    fn answer(self, shared: &NodeShared, call: u64, payload: Bytes) {
        let Self { store, range, from, to } = self;
        let message = Message { range, from, to, kind: kind::APPEND_RESULT, call, payload };
        shared.send(store, Class::Data, message);
    }

    fn refuse(self, shared: &NodeShared, call: u64) {
        self.answer(shared, call, Bytes::new());
    }
}

impl<A: AsyncRuntime> InboundStreams<A>
where
    RaftOf<A>: Send + Sync,
{
    pub(super) fn new() -> Self {
        Self { streams: Mutex::new(HashMap::new()) }
    }

    /// Queues one append message on its stream, opening the stream if it is new.
    pub(super) fn push(
        &self,
        shared: &Arc<NodeShared>,
        raft: &RaftOf<A>,
        store: StoreId,
        message: Message,
    ) {
        let (route, call) = (Route::back(store, &message), message.call);
        let decoded = StreamId::split(message.payload)
            .and_then(|(id, append)| Some((id, codec::decode_append(append).ok()?)));
        let Some((id, request)) = decoded else {
            shared.metrics.malformed_messages.inc();
            return route.refuse(shared, call);
        };
        let mut streams = self.streams.lock();
        if streams.get(&message.from).is_none_or(|current| id.replaces(current.id)) {
            let (requests, receiver) = mpsc::channel(INBOUND_STREAM_MAX);
            let unanswered = Arc::new(Mutex::new(Unanswered::default()));
            serve(shared.clone(), raft.clone(), receiver, unanswered.clone(), route);
            streams.insert(message.from, Inbound { id, requests, unanswered });
        }
        let taken = streams
            .get(&message.from)
            .is_some_and(|stream| stream.id == id && stream.push(call, request));
        if !taken {
            route.refuse(shared, call);
        }
    }

    /// Ends all streams.
    pub(super) fn clear(&self) {
        self.streams.lock().clear();
    }
}

/// Feeds requests to openraft and sends each answer under its request's call number.
fn serve<A: AsyncRuntime>(
    shared: Arc<NodeShared>,
    raft: RaftOf<A>,
    requests: mpsc::Receiver<AppendEntriesRequest<Types<A>>>,
    unanswered: Arc<Mutex<Unanswered>>,
    route: Route,
) where
    RaftOf<A>: Send + Sync,
{
    let input = futures::stream::unfold(requests, |mut requests| async {
        let request = requests.recv().await?;
        Some((request, requests))
    });
    let output = raft.stream_append(input);
    let sender = shared.clone();
    shared.runtime.spawn(Box::pin(async move {
        let mut output = std::pin::pin!(output);
        while let Some(Ok(result)) = output.next().await {
            let Some(call) = unanswered.lock().calls.pop_front() else {
                break;
            };
            route.answer(&sender, call, codec::encode_append_result::<A>(&result));
        }
        let left = {
            let mut unanswered = unanswered.lock();
            unanswered.ended = true;
            std::mem::take(&mut unanswered.calls)
        };
        for call in left {
            route.refuse(&sender, call);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_a_new_life_replaces_any_of_the_old_one() {
        let id = |life, number| StreamId { life, number };
        assert!(id(7, 3).replaces(id(7, 2)));
        assert!(!id(7, 2).replaces(id(7, 2)));
        assert!(!id(7, 2).replaces(id(7, 3)));
        assert!(id(8, 1).replaces(id(7, 5000)), "numbers start over with the process");
    }

    #[test]
    fn the_name_of_a_stream_survives_the_wire() {
        let id = StreamId { life: u64::MAX - 1, number: 77 };
        let payload = id.prefix(b"append");
        assert_eq!(StreamId::split(payload), Some((id, Bytes::from_static(b"append"))));
        assert_eq!(StreamId::split(Bytes::from_static(b"too short")), None);
    }
}
