//! The batch stream: many commands over one stream, answered in any order.
//!
//! ```text
//!  request message --> for each command: --> point read, lease held --> answered on the spot
//!                                        \-> anything else ----------> runs among the others
//!  answers that are ready --> gathered into one message --> client
//! ```
//!
//! Reads of one message share a snapshot: all of them came before it was taken, and none is answered
//! before it was checked. One task works a stream; it goes on after the client has left until every
//! command it started has ended, because some hold latches.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cribwork_multiraft::{ReadHandle, Replica};
use cribwork_proto::tikvpb::batch_commands_request::request::Cmd;
use cribwork_proto::tikvpb::batch_commands_response::Response;
use cribwork_proto::tikvpb::batch_commands_response::response::Cmd as Reply;
use cribwork_proto::tikvpb::{
    BatchCommandsEmptyResponse, BatchCommandsRequest, BatchCommandsResponse,
};
use cribwork_types::quirk::{Quirk, at_work};
use cribwork_types::{BoxFuture, RangeId, Timestamp};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tonic::Status;

use crate::kv::answer::Answer;
use crate::kv::call::{Command, PointRead};
use crate::kv::checks::unsupported;
use crate::kv::core::Core;
use crate::kv::failure::Failure;

/// Messages to the client that may wait for the connection.
pub(crate) const MESSAGES_QUEUED_MAX: usize = 4;
/// Bytes of values after which an answer message is full; one answer may pass it.
const MESSAGE_BYTES: usize = 1 << 20;
/// Answers that one message holds at most.
const MESSAGE_ANSWERS: usize = 1024;
/// Bytes of answers that wait to be sent before no more is read from the client.
const READY_BYTES_MAX: usize = 16 << 20;

/// An answer and its size, roughly.
pub(crate) struct Weighed {
    pub(crate) reply: Reply,
    weight: usize,
}

/// A command that is not answered on the spot.
pub(crate) type Run = BoxFuture<Weighed>;

fn weighed<A: Answer>(outcome: Result<A, Failure>, wrap: fn(A) -> Reply) -> Weighed {
    let answer = outcome.unwrap_or_else(A::of);
    Weighed { weight: answer.weight(), reply: wrap(answer) }
}

/// Views that the reads of one message share.
#[derive(Default)]
pub(crate) struct Views {
    known: Vec<(RangeId, Arc<Replica>, Option<ReadHandle>)>,
    last: usize,
}

impl Views {
    /// The place of a range among the views, if it is known.
    fn position(&mut self, range: RangeId) -> Option<usize> {
        let is = |view: &(RangeId, _, _)| view.0 == range;
        if !self.known.get(self.last).is_some_and(is) {
            self.last = self.known.iter().position(is)?;
        }
        Some(self.last)
    }

    fn replica(&mut self, core: &Core, range: RangeId) -> Option<Arc<Replica>> {
        if let Some(at) = self.position(range) {
            return Some(self.known[at].1.clone());
        }
        let replica = core.multi.replica(range)?;
        self.last = self.known.len();
        // What is read on the spot cannot stand still in between.
        let view = if at_work(Quirk::HeldRead) { None } else { replica.try_read() };
        self.known.push((range, replica.clone(), view));
        Some(replica)
    }

    /// The range's view; none if its lease does not hold.
    fn handle(&mut self, range: RangeId) -> Option<&ReadHandle> {
        let at = self.position(range)?;
        self.known[at].2.as_ref()
    }
}

/// Starts commands of one message.
pub(crate) struct Starter<'c> {
    core: &'c Arc<Core>,
    views: Views,
    /// Commands that may still be started; reads on the spot do not count.
    room: usize,
    /// Whoever runs the commands may drop them half-way.
    detached: bool,
}

impl<'c> Starter<'c> {
    /// For the commands in `cmds`, of which `room` may run at once.
    pub(crate) fn new<'m>(
        core: &'c Arc<Core>,
        room: usize,
        cmds: impl Iterator<Item = &'m Cmd>,
    ) -> Self {
        // Before any snapshot is taken: what commits from now on is above all these reads.
        let times = cmds.filter_map(read_ts).map(Timestamp);
        let newest = times.filter(|ts| *ts != Timestamp::MAX && core.check_ts(*ts).is_ok()).max();
        core.raise_max_ts(newest.unwrap_or_default());
        Self { core, views: Views::default(), room, detached: false }
    }

    /// For one command, whose future may be dropped at any time.
    pub(crate) fn detached(core: &'c Arc<Core>, cmd: &Cmd) -> Self {
        Self { detached: true, ..Self::new(core, 1, std::iter::once(cmd)) }
    }

    fn read_now<R: PointRead>(&mut self, request: &R) -> Option<Result<R::Answer, Failure>> {
        if !request.is_small() {
            return None;
        }
        let started = self.core.runtime.now();
        let (core, views) = (self.core, &mut self.views);
        let target = core.target_among(request.context(), |range| views.replica(core, range));
        let outcome = match target {
            Ok(target) => {
                let handle = views.handle(target.replica.range_id())?;
                core.check_ts(request.ts())
                    .and_then(|()| core.open(&target, handle))
                    .and_then(|at| request.read(core, &at))
            }
            Err(failure) => Err(failure),
        };
        let took = core.runtime.now().saturating_sub(started);
        core.metrics.inline_reads.inc();
        core.metrics.observe(R::KIND, took, outcome.as_ref().err());
        Some(outcome)
    }

    fn read<R: PointRead + Command>(
        &mut self,
        request: R,
        wrap: fn(R::Answer) -> Reply,
        answer: impl FnOnce(Weighed),
    ) -> Option<Run> {
        match self.read_now(&request) {
            Some(outcome) => {
                answer(weighed(outcome, wrap));
                None
            }
            None => self.run(request, wrap, answer),
        }
    }

    fn run<C: Command>(
        &mut self,
        command: C,
        wrap: fn(C::Answer) -> Reply,
        answer: impl FnOnce(Weighed),
    ) -> Option<Run> {
        if self.room == 0 {
            let failure = self.core.busy("too many commands of this stream are under way");
            self.core.metrics.observe(C::KIND, Duration::ZERO, Some(&failure));
            answer(weighed(Err(failure), wrap));
            return None;
        }
        self.room -= 1;
        let (core, detached) = (self.core.clone(), self.detached);
        Some(Box::pin(async move {
            let outcome = match detached {
                true => core.serve_detached(command).await,
                false => core.serve(command).await,
            };
            weighed(outcome, wrap)
        }))
    }

    /// Starts one command: answers it through `done`, or gives what is to be run.
    pub(crate) fn start(&mut self, cmd: Cmd, done: impl FnOnce(Weighed)) -> Option<Run> {
        match cmd {
            Cmd::RawGet(request) => self.read(request, Reply::RawGet, done),
            Cmd::Get(request) => self.read(request, Reply::Get, done),
            Cmd::RawBatchGet(request) => self.read(request, Reply::RawBatchGet, done),
            Cmd::BatchGet(request) => self.read(request, Reply::BatchGet, done),
            Cmd::Scan(request) => self.run(request, Reply::Scan, done),
            Cmd::RawScan(request) => self.run(request, Reply::RawScan, done),
            Cmd::RawBatchScan(request) => self.run(request, Reply::RawBatchScan, done),
            Cmd::RawPut(request) => self.run(request, Reply::RawPut, done),
            Cmd::RawBatchPut(request) => self.run(request, Reply::RawBatchPut, done),
            Cmd::RawDelete(request) => self.run(request, Reply::RawDelete, done),
            Cmd::RawBatchDelete(request) => self.run(request, Reply::RawBatchDelete, done),
            Cmd::RawDeleteRange(request) => self.run(request, Reply::RawDeleteRange, done),
            Cmd::Prewrite(request) => self.run(request, Reply::Prewrite, done),
            Cmd::Commit(request) => self.run(request, Reply::Commit, done),
            Cmd::Cleanup(request) => self.run(request, Reply::Cleanup, done),
            Cmd::BatchRollback(request) => self.run(request, Reply::BatchRollback, done),
            Cmd::CheckTxnStatus(request) => self.run(request, Reply::CheckTxnStatus, done),
            Cmd::TxnHeartBeat(request) => self.run(request, Reply::TxnHeartBeat, done),
            Cmd::ScanLock(request) => self.run(request, Reply::ScanLock, done),
            Cmd::ResolveLock(request) => self.run(request, Reply::ResolveLock, done),
            Cmd::DeleteRange(request) => self.run(request, Reply::DeleteRange, done),
            Cmd::Gc(_) => missing("KvGC", Reply::Gc, done),
            Cmd::PessimisticLock(_) => missing("KvPessimisticLock", Reply::PessimisticLock, done),
            Cmd::PessimisticRollback(_) => {
                missing("KVPessimisticRollback", Reply::PessimisticRollback, done)
            }
            Cmd::CheckSecondaryLocks(_) => {
                missing("KvCheckSecondaryLocks", Reply::CheckSecondaryLocks, done)
            }
            Cmd::RawCoprocessor(_) => missing("RawCoprocessor", Reply::RawCoprocessor, done),
            Cmd::Empty(probe) => {
                let reply = BatchCommandsEmptyResponse { test_id: probe.test_id };
                done(Weighed { reply: Reply::Empty(reply), weight: 0 });
                None
            }
        }
    }
}

/// The answer to a call that this server does not have.
fn missing<A: Answer>(call: &str, wrap: fn(A) -> Reply, done: impl FnOnce(Weighed)) -> Option<Run> {
    done(weighed(unsupported(call), wrap));
    None
}

/// The snapshot of a read that may be answered on the spot.
fn read_ts(cmd: &Cmd) -> Option<u64> {
    match cmd {
        Cmd::Get(request) => Some(request.version),
        Cmd::BatchGet(request) => Some(request.version),
        _ => None,
    }
}

/// Answers that wait to be sent.
#[derive(Default)]
struct Ready {
    message: BatchCommandsResponse,
    full: VecDeque<BatchCommandsResponse>,
    message_bytes: usize,
    /// Bytes in all of them.
    bytes: usize,
    weights: VecDeque<usize>,
}

impl Ready {
    fn push(&mut self, id: u64, answer: Weighed) {
        self.push_response(id, Some(answer.reply), answer.weight);
    }

    fn push_response(&mut self, id: u64, cmd: Option<Reply>, weight: usize) {
        let has_some = !self.message.responses.is_empty();
        if has_some && self.message_bytes + weight > MESSAGE_BYTES {
            self.close();
        }
        self.message.responses.push(Response { cmd });
        self.message.request_ids.push(id);
        self.message_bytes += weight;
        self.bytes += weight;
        if self.message.responses.len() >= MESSAGE_ANSWERS {
            self.close();
        }
    }

    fn close(&mut self) {
        self.full.push_back(std::mem::take(&mut self.message));
        self.weights.push_back(std::mem::take(&mut self.message_bytes));
    }

    fn next(&mut self) -> Option<BatchCommandsResponse> {
        if self.full.is_empty() && !self.message.responses.is_empty() {
            self.close();
        }
        self.bytes -= self.weights.pop_front().unwrap_or_default();
        self.full.pop_front()
    }

    fn is_empty(&self) -> bool {
        self.full.is_empty() && self.message.responses.is_empty()
    }

    /// True if the client should take some before it sends more.
    fn is_full(&self) -> bool {
        self.bytes > READY_BYTES_MAX || self.full.len() > MESSAGES_QUEUED_MAX
    }
}

type Running = FuturesUnordered<Pin<Box<dyn Future<Output = (u64, Weighed)> + Send>>>;
type Output = mpsc::Sender<Result<BatchCommandsResponse, Status>>;

/// What a stream waits for.
enum Event {
    /// A command ended; its answer is ready.
    Answer,
    /// There is room for a message to the client, or no client.
    Room(bool),
    /// The client sent something, or ended.
    Input(Option<Result<BatchCommandsRequest, Status>>),
}

/// One stream.
pub(crate) struct Pump<S> {
    core: Arc<Core>,
    input: S,
    output: Output,
    running: Running,
    ready: Ready,
    /// The client may send more, and is there to be answered.
    open: bool,
}

impl<S> Pump<S>
where
    S: Stream<Item = Result<BatchCommandsRequest, Status>> + Send + Unpin,
{
    pub(crate) fn new(core: Arc<Core>, input: S, output: Output) -> Self {
        let (running, ready) = (Running::new(), Ready::default());
        Self { core, input, output, running, ready, open: true }
    }

    /// Works the stream to its end.
    pub(crate) async fn run(mut self) {
        loop {
            self.gather().await;
            self.send_ready();
            if !self.open && self.running.is_empty() && self.ready.is_empty() {
                return;
            }
            let event = tokio::select! {
                biased;
                Some((id, answer)) = self.running.next(), if !self.running.is_empty() => {
                    self.ready.push(id, answer);
                    Event::Answer
                }
                permit = self.output.reserve(), if !self.ready.is_empty() => {
                    // What was reserved is taken by the next round of the loop.
                    Event::Room(permit.is_ok())
                }
                message = self.input.next(), if self.open && !self.ready.is_full() => {
                    Event::Input(message)
                }
            };
            match event {
                Event::Answer | Event::Room(true) => {}
                Event::Input(Some(Ok(message))) => self.take(message),
                Event::Input(Some(Err(_)) | None) => self.open = false,
                Event::Room(false) => self.leave(),
            }
        }
    }

    /// Starts the commands of one message.
    fn take(&mut self, message: BatchCommandsRequest) {
        if message.requests.len() != message.request_ids.len() {
            let why = "a message must have as many request ids as requests";
            // If there is no room for it, the end of the stream says the same.
            let _ = self.output.try_send(Err(Status::invalid_argument(why)));
            return self.leave();
        }
        let room = self.core.limits.stream_commands_max.saturating_sub(self.running.len());
        let cmds = message.requests.iter().filter_map(|request| request.cmd.as_ref());
        let mut starter = Starter::new(&self.core, room, cmds);
        for (id, request) in message.request_ids.into_iter().zip(message.requests) {
            let ready = &mut self.ready;
            let Some(cmd) = request.cmd else {
                // A command that this server does not know: clients take "nothing" for an error.
                ready.push_response(id, None, 0);
                continue;
            };
            if let Some(run) = starter.start(cmd, |answer| ready.push(id, answer)) {
                self.running.push(Box::pin(run.map(move |answer| (id, answer))));
            }
        }
    }

    /// Takes in all answers that are there, and those that one pause brings: commands of one round
    /// are applied together, and so are answered together.
    async fn gather(&mut self) {
        let mut paused = false;
        while !self.running.is_empty() {
            if let Some(Some((id, answer))) = self.running.next().now_or_never() {
                self.ready.push(id, answer);
            } else if self.ready.is_empty() || std::mem::replace(&mut paused, true) {
                return;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    fn send_ready(&mut self) {
        let mut gone = false;
        while !self.ready.is_empty() && !gone {
            match self.output.try_reserve() {
                Ok(permit) => {
                    if let Some(message) = self.ready.next() {
                        permit.send(Ok(message));
                    }
                }
                Err(TrySendError::Full(())) => return,
                Err(TrySendError::Closed(())) => gone = true,
            }
        }
        if gone {
            self.leave();
        }
    }

    /// Nobody is there any more to be answered.
    fn leave(&mut self) {
        self.open = false;
        self.ready = Ready::default();
    }
}
