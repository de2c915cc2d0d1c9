//! The receiving side: the gRPC service that takes peers' streams.
//!
//! The stream of acks drives the stream of frames: there is no task of our own in between, and a
//! peer that takes no acks is read no further.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use cribwork_proto::cribwork::peer::peer_server::Peer;
use cribwork_proto::cribwork::peer::{Ack, Frame};
use cribwork_types::BoxFuture;
use cribwork_types::quirk::{Quirk, strikes};
use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::frame;
use crate::handshake::{Hello, Refusal};
use crate::inbound::Slot;
use crate::lanes::cost;
use crate::transport::Shared;

/// Where a connection comes from; a server whose connections are not plain TCP gives it as their
/// connect info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// Takes the streams of peers; made by [`crate::Transport::service`].
pub struct PeerService {
    shared: Arc<Shared>,
}

impl PeerService {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn admit(&self, request: &Request<Streaming<Frame>>) -> Result<Arc<Slot>, Refusal> {
        let hello = Hello::read(request.metadata())?;
        hello.check(self.shared.identity)?;
        self.shared.inbound.admit(&hello)
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type DeliverStream = Pin<Box<dyn Stream<Item = Result<Ack, Status>> + Send>>;

    async fn deliver(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let slot = self.admit(&request).map_err(|refusal| {
            let address = request.extensions().get::<PeerAddress>().map(|address| address.0);
            self.shared.note_refusal(refusal, address.or(request.remote_addr()));
            refusal.status()
        })?;
        self.shared.handler.on_accepted(slot.from);
        self.shared.hurry(slot.from);
        let receiver = Receiver {
            shared: Arc::clone(&self.shared),
            slot,
            frames: request.into_inner(),
            received: 0,
            owed_frames: 0,
            owed_bytes: 0,
            ack_due: None,
        };
        Ok(Response::new(Box::pin(futures::stream::unfold(Some(receiver), |receiver| async {
            let mut receiver = receiver?;
            match receiver.next_ack().await {
                Ok(ack) => ack.map(|ack| (Ok(ack), Some(receiver))),
                Err(status) => Some((Err(status), None)),
            }
        }))))
    }
}

/// One inbound stream.
struct Receiver {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    frames: Streaming<Frame>,
    /// Sequence number of the last frame handed over.
    received: u64,
    owed_frames: usize,
    owed_bytes: usize,
    /// Runs while an ack is owed.
    ack_due: Option<BoxFuture<()>>,
}

impl Receiver {
    /// Hands frames over until an ack is due: at half a window, or a little after the first frame
    /// that is owed one. An ack for each frame would double the packets of a quiet link.
    /// `None` when the peer ended the stream.
    async fn next_ack(&mut self) -> Result<Option<Ack>, Status> {
        loop {
            let next = tokio::select! {
                biased;
                () = self.slot.stopped() => return Err(superseded()),
                next = self.frames.message() => next,
                () = due(&mut self.ack_due) => return Ok(Some(self.ack())),
            };
            // A broken stream needs no answer: nobody is there to read it.
            let Ok(Some(frame)) = next else {
                return Ok(None);
            };
            self.take(frame)?;
            let options = &self.shared.options;
            let bytes_max = options.window_bytes_max.min(options.window_bulk_bytes_max);
            if self.owed_frames * 2 >= options.window_frames_max || self.owed_bytes * 2 >= bytes_max
            {
                return Ok(Some(self.ack()));
            }
            if self.ack_due.is_none() {
                self.ack_due = Some(self.shared.runtime.sleep(options.ack_delay_max));
            }
        }
    }

    fn ack(&mut self) -> Ack {
        self.owed_frames = 0;
        self.owed_bytes = 0;
        self.ack_due = None;
        Ack { sequence: self.received }
    }

    fn take(&mut self, frame: Frame) -> Result<(), Status> {
        let from = self.slot.from;
        if strikes(Quirk::BreakStream) {
            return Err(Status::unavailable("the simulator broke the stream"));
        }
        let mut messages = frame::decode(frame, self.received + 1).map_err(|error| {
            tracing::error!(peer = %from, %error, "closing the peer's stream");
            Status::invalid_argument(error.to_string())
        })?;
        messages.retain(|_| !strikes(Quirk::LoseMessage));
        let bytes: usize = messages.iter().map(cost).sum();
        let metrics = &self.shared.metrics;
        metrics.frames_received.inc();
        metrics.messages_received.inc_by(messages.len() as u64);
        metrics.bytes_received.inc_by(bytes as u64);
        let handler = &self.shared.handler;
        let deliver = || messages.into_iter().for_each(|message| handler.on_message(from, message));
        self.slot.if_live(deliver).ok_or_else(superseded)?;
        self.received += 1;
        self.owed_frames += 1;
        self.owed_bytes += bytes;
        Ok(())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.inbound.remove(&self.slot);
    }
}

fn superseded() -> Status {
    Status::aborted("a newer stream took over, or the node is stopping")
}

async fn due(timer: &mut Option<BoxFuture<()>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}
