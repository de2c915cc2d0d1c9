//! The transport as openraft's network: every request is a numbered message, every answer finds its
//! caller by that number.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_transport::{Class, Message};
use cribwork_types::quirk::{Quirk, strikes};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{ReplicaId, RuntimeExt, StoreId};
use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::{AsyncRuntime, OptionalSend};

use super::codec::Appended;
use super::state_machine::{RaftSnapshot, applied_record};
use super::types::{OnStore, Types, Vote};
use super::{codec, kind, outbound};
use crate::replica::Replica;
use crate::snapshot::{self, RangeSnapshot};

/// By how much [`Quirk::HoldTransfer`] delays a message at most, milliseconds: a few transfers.
const LATE_MAX_MS: u64 = 4000;

pub(super) fn unreachable<A: AsyncRuntime>(why: &str) -> RPCError<Types<A>> {
    RPCError::Unreachable(Unreachable::from_string(why))
}

pub(super) struct NetworkFactory<A> {
    replica: Arc<Replica>,
    runtime: PhantomData<fn() -> A>,
}

impl<A> NetworkFactory<A> {
    pub(super) fn new(replica: Arc<Replica>) -> Self {
        Self { replica, runtime: PhantomData }
    }

    fn client(&self, target: u64, node: &OnStore, heartbeat: bool) -> Network<A> {
        Network {
            replica: self.replica.clone(),
            target: ReplicaId(target),
            store: node.0,
            heartbeat,
            runtime: PhantomData,
        }
    }
}

impl<A: AsyncRuntime> RaftNetworkFactory<Types<A>> for NetworkFactory<A> {
    type Network = Network<A>;

    async fn new_client(&mut self, target: u64, node: &OnStore) -> Network<A> {
        self.client(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &OnStore) -> Network<A> {
        self.client(target, node, true)
    }
}

/// A client of one member.
pub(super) struct Network<A> {
    pub(super) replica: Arc<Replica>,
    pub(super) target: ReplicaId,
    pub(super) store: StoreId,
    /// Serves openraft's heartbeat worker: single appends that must not wait behind data.
    heartbeat: bool,
    runtime: PhantomData<fn() -> A>,
}

impl<A: AsyncRuntime> Network<A> {
    pub(super) fn message(&self, kind: u8, call: u64, payload: Bytes) -> Message {
        let (range, from) = (self.replica.range_id(), self.replica.replica_id());
        Message { range, from, to: self.target, kind, call, payload }
    }

    async fn call(
        &self,
        class: Class,
        kind: u8,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Bytes, RPCError<Types<A>>> {
        let shared = self.replica.shared();
        let (call, answer) = shared.calls.open(self.store, shared.runtime.now());
        if !shared.send(self.store, class, self.message(kind, call, payload)) {
            shared.calls.drop_call(call);
            return Err(unreachable("the peer's queue is full or the peer is unknown"));
        }
        match shared.runtime.timeout(limit, answer).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => Err(unreachable("the connection to the peer broke")),
            Err(_) => {
                shared.calls.drop_call(call);
                Err(unreachable("no answer in time"))
            }
        }
    }

    /// Sends what nobody waits for, some seconds from now at most.
    fn send_late(&self, message: Message) {
        let (shared, store) = (self.replica.shared().clone(), self.store);
        let late = Duration::from_millis(shared.runtime.random_u64() % LATE_MAX_MS);
        shared.runtime.clone().spawn(Box::pin(async move {
            shared.runtime.sleep(late).await;
            shared.send(store, Class::Control, message);
        }));
    }

    async fn single_append(
        &self,
        request: AppendEntriesRequest<Types<A>>,
        limit: Duration,
    ) -> Result<StreamAppendResult<Types<A>>, RPCError<Types<A>>> {
        let (sent, term) = (self.replica.shared().runtime.now(), request.vote.leader_id.term);
        let payload = codec::encode_append(&request);
        let bytes = self.call(Class::Control, kind::HEARTBEAT, payload, limit).await?;
        let answer =
            codec::decode_append_result(bytes).map_err(|error| unreachable(&error.to_string()))?;
        self.answered(term, sent, &answer);
        Ok(answer.result)
    }

    /// The member answered what was sent to it at `sent` under this leader's vote of `term`.
    pub(super) fn answered(&self, term: u64, sent: Duration, answer: &Appended<A>) {
        let received = || self.replica.shared().runtime.now();
        let sent = if has(Bug::LeaseFromReceipt) { received() } else { sent };
        if answer.promised {
            self.replica.acks.record(term, self.target, sent);
        }
    }

    async fn ask_vote(
        &self,
        kind: u8,
        request: VoteRequest<Types<A>>,
        limit: Duration,
    ) -> Result<VoteResponse<Types<A>>, RPCError<Types<A>>> {
        let payload = codec::encode_vote_request(&request);
        let bytes = self.call(Class::Control, kind, payload, limit).await?;
        codec::decode_vote_response(bytes).map_err(|error| unreachable(&error.to_string()))
    }
}

impl<A: AsyncRuntime> RaftNetworkV2<Types<A>> for Network<A> {
    type SnapshotData = RangeSnapshot;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types<A>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<A>>, RPCError<Types<A>>> {
        Ok(self.single_append(request, option.hard_ttl()).await?.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<Types<A>>, RPCError<Types<A>>>>,
            RPCError<Types<A>>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types<A>>> + OptionalSend + Unpin + 'static,
    {
        let this: &'s Self = self;
        Box::pin(async move {
            let stream: BoxStream<'s, _> = match this.heartbeat {
                true => {
                    let limit = option.hard_ttl();
                    Box::pin(futures::StreamExt::then(input, move |request| {
                        this.single_append(request, limit)
                    }))
                }
                // Never an error from here: openraft would retry without a pause.
                false => outbound::pipeline(this, input),
            };
            Ok(stream)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types<A>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<A>>, RPCError<Types<A>>> {
        self.ask_vote(kind::VOTE, request, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<A>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<A>>, RPCError<Types<A>>> {
        self.ask_vote(kind::PRE_VOTE, request, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<A>>, StreamingError<Types<A>>> {
        let mut cancel = std::pin::pin!(cancel);
        let applied = applied_record(&snapshot.meta);
        let header = codec::encode_vote(&vote);
        let sending = snapshot::send(
            &self.replica,
            self.target,
            self.store,
            header,
            &applied,
            snapshot.snapshot,
        );
        tokio::select! {
            closed = &mut cancel => Err(StreamingError::Closed(closed)),
            sent = sending => {
                let bytes = sent.map_err(|error| unreachable::<A>(&error.to_string()))?;
                let vote = codec::decode_vote(bytes)
                    .map_err(|error| unreachable::<A>(&error.to_string()))?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<A>>,
        option: RPCOption,
    ) -> Result<openraft::raft::TransferLeaderResponse<Types<A>>, RPCError<Types<A>>> {
        let payload = codec::encode_transfer(&request);
        if strikes(Quirk::HoldTransfer) {
            self.send_late(self.message(kind::TRANSFER, 0, payload));
            return Err(unreachable("the request is late"));
        }
        let bytes = self.call(Class::Control, kind::TRANSFER, payload, option.hard_ttl()).await?;
        match codec::decode_flag(bytes) {
            Ok(true) => Ok(Ok(())),
            _ => Err(unreachable("the target refused the transfer")),
        }
    }
}
