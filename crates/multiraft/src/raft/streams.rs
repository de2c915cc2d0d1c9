//! The receiving end of pipelined append streams: one for each leader that sends to this replica.
//!
//! Messages of one stream arrive in order; a leader that starts over uses a larger stream number,
//! which ends the one before. A stream that overflows is dropped, and the leader, missing its
//! answers, starts over.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use cribwork_transport::{Class, Message};
use cribwork_types::{ReplicaId, StoreId};
use futures::StreamExt;
use openraft::AsyncRuntime;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::codec;
use super::instance::RaftOf;
use super::kind;
use super::types::Types;
use crate::node::NodeShared;
use crate::options::INBOUND_STREAM_MAX;

struct Inbound<A: AsyncRuntime> {
    number: u64,
    requests: mpsc::Sender<(u64, AppendEntriesRequest<Types<A>>)>,
}

pub(super) struct InboundStreams<A: AsyncRuntime> {
    streams: Mutex<HashMap<ReplicaId, Inbound<A>>>,
}

/// Whom the answers of a stream go to.
#[derive(Clone, Copy)]
struct Route {
    store: StoreId,
    range: cribwork_types::RangeId,
    from: ReplicaId,
    to: ReplicaId,
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
        let Some((number, request)) = split_stream::<A>(message.payload) else {
            shared.metrics.malformed_messages.inc();
            return;
        };
        let mut streams = self.streams.lock();
        let current = streams.get(&message.from).map(|stream| stream.number);
        if current.is_some_and(|current| current > number) {
            return;
        }
        if current != Some(number) {
            let (requests, receiver) = mpsc::channel(INBOUND_STREAM_MAX);
            let route = Route { store, range: message.range, from: message.to, to: message.from };
            serve(shared.clone(), raft.clone(), receiver, route);
            streams.insert(message.from, Inbound { number, requests });
        }
        let full = streams
            .get(&message.from)
            .is_some_and(|stream| stream.requests.try_send((message.call, request)).is_err());
        if full {
            streams.remove(&message.from);
        }
    }

    /// Ends all streams.
    pub(super) fn clear(&self) {
        self.streams.lock().clear();
    }
}

fn split_stream<A: AsyncRuntime>(
    mut payload: Bytes,
) -> Option<(u64, AppendEntriesRequest<Types<A>>)> {
    if payload.len() < 8 {
        return None;
    }
    let number = payload.get_u64();
    codec::decode_append(payload).ok().map(|request| (number, request))
}

/// Feeds requests to openraft and sends each answer under its request's call number.
fn serve<A: AsyncRuntime>(
    shared: Arc<NodeShared>,
    raft: RaftOf<A>,
    requests: mpsc::Receiver<(u64, AppendEntriesRequest<Types<A>>)>,
    route: Route,
) where
    RaftOf<A>: Send + Sync,
{
    let (calls_in, mut calls) = mpsc::channel::<u64>(INBOUND_STREAM_MAX);
    let input = futures::stream::unfold((requests, calls_in), |(mut requests, calls_in)| async {
        let (call, request) = requests.recv().await?;
        calls_in.send(call).await.ok()?;
        Some((request, (requests, calls_in)))
    });
    let output = raft.stream_append(input);
    let sender = shared.clone();
    shared.runtime.spawn(Box::pin(async move {
        let mut output = std::pin::pin!(output);
        while let Some(Ok(result)) = output.next().await {
            let Some(call) = calls.recv().await else {
                return;
            };
            answer::<A>(&sender, route, call, &result);
        }
    }));
}

fn answer<A: AsyncRuntime>(
    shared: &NodeShared,
    route: Route,
    call: u64,
    result: &StreamAppendResult<Types<A>>,
) {
    let message = Message {
        range: route.range,
        from: route.from,
        to: route.to,
        kind: kind::APPEND_RESULT,
        call,
        payload: codec::encode_append_result::<A>(result),
    };
    shared.send(route.store, Class::Data, message);
}
