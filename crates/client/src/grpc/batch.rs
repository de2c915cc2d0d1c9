//! The batch stream of one store: all point operations of a client share it.
//!
//! Requests queue in a bounded channel. The stream that gRPC reads them from gathers: it takes the
//! first, lets every task that is ready run once, and sends whatever has queued by then in one
//! message. No timer is involved, so a lone request leaves at once and a busy client sends few
//! messages. Answers come in any order and are matched by id.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use cribwork_proto::tikvpb::{
    BatchCommandsRequest, BatchCommandsResponse, batch_commands_request::Request,
};
use cribwork_types::quirk::{Quirk, strikes};
use futures::Stream;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use crate::channel::{Answer, ChannelError, Command};

/// Most requests in one message.
const BATCH_MAX: usize = 256;
/// A message is sent when it has reached this size, bytes. The last request may exceed it, which
/// stays below what a node decodes.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Requests that may wait to be gathered.
const QUEUE_MAX: usize = 1024;
/// Requests without an answer; more are refused.
const PENDING_MAX: usize = 16 * 1024;

struct Waiter {
    answer: oneshot::Sender<Result<Answer, ChannelError>>,
    sent: bool,
}

#[derive(Default)]
struct Pending {
    waiters: HashMap<u64, Waiter>,
    last_id: u64,
    /// Why the stream is over.
    closed: Option<String>,
}

type Shared = Arc<Mutex<Pending>>;

/// Handle of one stream. The stream ends with its handles.
pub(super) struct BatchStream {
    queue: mpsc::Sender<(u64, Command)>,
    pending: Shared,
}

/// Removes a request whose caller has gone away, sent or not.
struct Forget<'a> {
    pending: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.pending.lock().waiters.remove(&self.id);
    }
}

impl BatchStream {
    /// A stream and the messages that it wants sent.
    pub(super) fn new() -> (Self, Gather) {
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        let pending = Shared::default();
        let gather = Gather {
            commands,
            pending: pending.clone(),
            batch: BatchCommandsRequest::default(),
            bytes: 0,
            yielded: false,
        };
        (Self { queue, pending }, gather)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.pending.lock().closed.is_some()
    }

    pub(super) fn receiver(&self) -> Receiver {
        Receiver { pending: self.pending.clone() }
    }

    pub(super) async fn call(&self, command: Command) -> Result<Answer, ChannelError> {
        let (waiter, answer) = oneshot::channel();
        let id = {
            let mut pending = self.pending.lock();
            if let Some(why) = &pending.closed {
                return Err(ChannelError::Unsent(why.clone()));
            }
            if pending.waiters.len() >= PENDING_MAX {
                return Err(ChannelError::Full(PENDING_MAX));
            }
            pending.last_id += 1;
            let id = pending.last_id;
            pending.waiters.insert(id, Waiter { answer: waiter, sent: false });
            id
        };
        let _forget = Forget { pending: &self.pending, id };
        if self.queue.send((id, command)).await.is_err() {
            return Err(ChannelError::Unsent("the stream has ended".to_owned()));
        }
        answer
            .await
            .unwrap_or_else(|_| Err(ChannelError::Unknown("the runtime has ended".to_owned())))
    }
}

/// Hands answers to their callers.
pub(super) struct Receiver {
    pending: Shared,
}

impl Receiver {
    pub(super) fn deliver(&self, batch: BatchCommandsResponse) {
        let mut pending = self.pending.lock();
        for (id, response) in batch.request_ids.into_iter().zip(batch.responses) {
            if let Some(waiter) = pending.waiters.remove(&id)
                && !strikes(Quirk::LoseAnswer)
            {
                let answer = response
                    .cmd
                    .ok_or_else(|| ChannelError::refused("the store does not know this command"));
                let _ = waiter.answer.send(answer);
            }
        }
    }

    /// Fails every request: those that were not sent certainly had no effect.
    pub(super) fn close(&self, why: &str) {
        let waiters = {
            let mut pending = self.pending.lock();
            pending.closed.get_or_insert_with(|| why.to_owned());
            std::mem::take(&mut pending.waiters)
        };
        for waiter in waiters.into_values() {
            let error = match waiter.sent {
                true => ChannelError::Unknown(why.to_owned()),
                false => ChannelError::Unsent(why.to_owned()),
            };
            let _ = waiter.answer.send(Err(error));
        }
    }
}

/// The messages to send.
pub(super) struct Gather {
    commands: mpsc::Receiver<(u64, Command)>,
    pending: Shared,
    batch: BatchCommandsRequest,
    bytes: usize,
    yielded: bool,
}

impl Gather {
    fn is_full(&self) -> bool {
        self.batch.request_ids.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn push(&mut self, id: u64, command: Command) {
        let request = Request { cmd: Some(command) };
        self.bytes += request.encoded_len();
        self.batch.requests.push(request);
        self.batch.request_ids.push(id);
    }

    /// The batch, without requests whose callers have gone; from here on they count as sent.
    fn take(&mut self) -> Option<BatchCommandsRequest> {
        self.bytes = 0;
        self.yielded = false;
        let mut batch = std::mem::take(&mut self.batch);
        let mut pending = self.pending.lock();
        let mut keep = batch.request_ids.iter().map(|id| match pending.waiters.get_mut(id) {
            Some(waiter) => {
                waiter.sent = true;
                true
            }
            None => false,
        });
        batch.requests.retain(|_| keep.next().unwrap_or(false));
        batch.request_ids.retain(|id| pending.waiters.contains_key(id));
        (!batch.request_ids.is_empty()).then_some(batch)
    }
}

impl Stream for Gather {
    type Item = BatchCommandsRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let ended = match this.commands.poll_recv(context) {
                Poll::Ready(Some((id, command))) => {
                    this.push(id, command);
                    if !this.is_full() {
                        continue;
                    }
                    false
                }
                Poll::Ready(None) => true,
                Poll::Pending if this.batch.request_ids.is_empty() => return Poll::Pending,
                Poll::Pending if !this.yielded => {
                    this.yielded = true;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => false,
            };
            match this.take() {
                Some(batch) => return Poll::Ready(Some(batch)),
                None if ended => return Poll::Ready(None),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
