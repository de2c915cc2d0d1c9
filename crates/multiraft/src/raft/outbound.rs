//! The sending end of a pipelined append stream: many requests in flight, answers in order.
//!
//! *Lazy commit*: when a leader's commit index moves and nothing else is to be sent, openraft emits
//! a request without entries. It is held back for a moment and dropped when a newer request
//! overtakes it, because that one carries the same or a newer commit index, and acknowledgements
//! are cumulative. On a busy range this halves the messages.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use cribwork_transport::Class;
use cribwork_types::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::AsyncRuntime;
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::oneshot;

use super::network::{Network, unreachable};
use super::streams::StreamId;
use super::types::Types;
use super::{codec, kind};
use crate::options::PIPELINE_MAX;

type Answer<A> = Result<StreamAppendResult<Types<A>>, RPCError<Types<A>>>;

struct Pipeline<'s, A: AsyncRuntime, S> {
    network: &'s Network<A>,
    id: StreamId,
    input: S,
    input_ended: bool,
    sent_any: bool,
    failed: bool,
    in_flight: VecDeque<InFlight>,
    held: Option<(AppendEntriesRequest<Types<A>>, BoxFuture<()>)>,
}

/// A request that waits for its answer.
struct InFlight {
    answer: oneshot::Receiver<Bytes>,
    /// Runtime clock before it was sent, and the term of the vote it carries.
    sent: Duration,
    term: u64,
}

enum Step<A: AsyncRuntime> {
    Answer(Result<Bytes, oneshot::error::RecvError>),
    Request(Option<AppendEntriesRequest<Types<A>>>),
    HeldLongEnough,
}

/// Sends what `input` yields as one numbered stream and yields the answers.
pub(super) fn pipeline<'s, A, S>(network: &'s Network<A>, input: S) -> BoxStream<'s, Answer<A>>
where
    A: AsyncRuntime,
    S: Stream<Item = AppendEntriesRequest<Types<A>>> + Send + Unpin + 'static,
{
    let shared = network.replica.shared();
    let pipeline = Pipeline {
        network,
        id: StreamId { life: shared.nonce, number: shared.next_number() },
        input,
        input_ended: false,
        sent_any: false,
        failed: false,
        in_flight: VecDeque::new(),
        held: None,
    };
    Box::pin(futures::stream::unfold(pipeline, |mut pipeline| async move {
        let answer = pipeline.next_answer().await?;
        Some((answer, pipeline))
    }))
}

impl<A, S> Pipeline<'_, A, S>
where
    A: AsyncRuntime,
    S: Stream<Item = AppendEntriesRequest<Types<A>>> + Send + Unpin + 'static,
{
    async fn next_answer(&mut self) -> Option<Answer<A>> {
        loop {
            if self.failed || (self.input_ended && self.in_flight.is_empty() && self.held.is_none())
            {
                return None;
            }
            match self.step().await {
                Step::Answer(Ok(bytes)) => {
                    let asked = self.in_flight.pop_front();
                    return Some(self.answered(asked, bytes));
                }
                Step::Answer(Err(_)) => return Some(self.fail("an append got no answer")),
                Step::Request(None) => self.input_ended = true,
                Step::Request(Some(request)) => {
                    if !self.take(request) {
                        let why = "the peer cannot be sent to, or is too far behind for the log";
                        return Some(self.fail(why));
                    }
                }
                Step::HeldLongEnough => {
                    if let Some((request, _)) = self.held.take()
                        && !self.send(&request)
                    {
                        return Some(self.fail("the peer's queue is full or the peer is unknown"));
                    }
                }
            }
        }
    }

    async fn step(&mut self) -> Step<A> {
        let may_read = !self.input_ended && self.in_flight.len() < PIPELINE_MAX;
        let has_answer = !self.in_flight.is_empty();
        let has_held = self.held.is_some();
        let head = self.in_flight.front_mut();
        let held = self.held.as_mut();
        tokio::select! {
            biased;
            answer = async { (&mut head.expect("guarded by has_answer").answer).await },
                if has_answer =>
            {
                Step::Answer(answer)
            }
            request = self.input.next(), if may_read => Step::Request(request),
            () = async { (&mut held.expect("guarded by has_held").1).await }, if has_held => {
                Step::HeldLongEnough
            }
        }
    }

    /// Sends a request, or holds it back if it carries nothing but a commit index.
    fn take(&mut self, request: AppendEntriesRequest<Types<A>>) -> bool {
        let shared = self.network.replica.shared();
        let from = request.prev_log_id.as_ref().map_or(0, |prev| prev.index);
        if self.network.replica.log_must_shrink(from) {
            return false;
        }
        self.held = None;
        if request.entries.is_empty() && self.sent_any {
            let pause = shared.runtime.sleep(shared.options.lazy_commit);
            self.held = Some((request, pause));
            return true;
        }
        self.send(&request)
    }

    fn send(&mut self, request: &AppendEntriesRequest<Types<A>>) -> bool {
        let shared = self.network.replica.shared();
        let payload = self.id.prefix(&codec::encode_append(request));
        let (sent, term) = (shared.runtime.now(), request.vote.leader_id.term);
        let (call, answer) = shared.calls.open(self.network.store, sent);
        let message = self.network.message(kind::APPEND, call, payload);
        if !shared.send(self.network.store, Class::Data, message) {
            shared.calls.drop_call(call);
            return false;
        }
        self.sent_any = true;
        self.in_flight.push_back(InFlight { answer, sent, term });
        true
    }

    fn answered(&mut self, asked: Option<InFlight>, bytes: Bytes) -> Answer<A> {
        match codec::decode_append_result(bytes) {
            Ok(answer) => {
                if let Some(asked) = asked {
                    self.network.answered(asked.term, asked.sent, &answer);
                }
                Ok(answer.result)
            }
            Err(error) => self.fail(&error.to_string()),
        }
    }

    fn fail(&mut self, why: &str) -> Answer<A> {
        self.failed = true;
        Err(unreachable(why))
    }
}
