//! One destination: what waits for it, what is under way to it, and the frames in between.
//!
//! `send` queues and wakes; the [`FrameSource`] of the open stream, polled by the HTTP/2 client when
//! it has room, takes what the window allows; the dialer feeds acks back. No task stands between a
//! queued message and the network, and HTTP/2 never holds more than the window.

use std::sync::Arc;

use cribwork_proto::cribwork::peer::Frame;
use cribwork_types::StoreId;
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::lanes::Lanes;
use crate::transport::Shared;
use crate::window::Window;
use crate::{Class, Message, SendError, TransportError, frame};

/// One stream's life. Only the newest session of a link takes messages.
struct Session {
    /// Wakes the frame source; also tells sessions apart.
    work: Arc<Notify>,
    /// The peer accepted the handshake.
    open: bool,
}

#[derive(Default)]
struct State {
    lanes: Lanes,
    window: Window,
    session: Option<Session>,
    /// The link's task is over; nothing would ever drain the lanes.
    ended: bool,
}

impl State {
    fn session(&self, work: &Arc<Notify>) -> Option<&Session> {
        self.session.as_ref().filter(|session| Arc::ptr_eq(&session.work, work))
    }
}

/// The link to one store.
pub(crate) struct Link {
    pub(crate) peer: StoreId,
    state: Mutex<State>,
    /// Ends a pause between attempts.
    hurry: Notify,
}

enum Readiness {
    Ready,
    Idle,
    Over,
}

impl Link {
    pub(crate) fn new(peer: StoreId) -> Arc<Self> {
        Arc::new(Self { peer, state: Mutex::default(), hurry: Notify::new() })
    }

    /// Queues a message.
    pub(crate) fn send(
        &self,
        class: Class,
        message: Message,
        shared: &Shared,
    ) -> Result<(), SendError> {
        let mut state = self.state.lock();
        if state.ended {
            return Err(match *shared.shutdown.borrow() {
                true => SendError::Shutdown,
                false => SendError::UnknownStore { store: self.peer },
            });
        }
        let limit = shared.options.lanes[class as usize];
        let Some(was_empty) = state.lanes.push(class, message, limit) else {
            return Err(SendError::Full { store: self.peer, class: class.name() });
        };
        shared.metrics.queue_depth[class as usize].inc();
        match &state.session {
            // A lane that was not empty has woken the source already, or waits for an ack.
            Some(session) if session.open && was_empty => session.work.notify_one(),
            Some(session) if session.open => {}
            _ if class == Class::Control => self.hurry.notify_one(),
            _ => {}
        }
        Ok(())
    }

    /// Makes a pausing dialer try again soon.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Completes when somebody calls for an early attempt, at once if that happened since the last
    /// call.
    pub(crate) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Starts a session; its frames flow once it is [`Self::open`]ed.
    pub(crate) fn start_session(self: &Arc<Self>, shared: &Arc<Shared>) -> FrameSource {
        let work = Arc::new(Notify::new());
        let session = Session { work: Arc::clone(&work), open: false };
        self.state.lock().session = Some(session);
        FrameSource { link: Arc::clone(self), shared: Arc::clone(shared), work }
    }

    /// The peer accepted the session.
    pub(crate) fn open(&self) {
        if let Some(session) = &mut self.state.lock().session {
            session.open = true;
            session.work.notify_one();
        }
    }

    /// Takes an ack of the open session.
    pub(crate) fn acked(&self, sequence: u64, shared: &Shared) -> Result<(), TransportError> {
        let mut state = self.state.lock();
        let frames = state.window.acked(sequence, shared.runtime.now())?;
        shared.metrics.frames_in_flight.dec_by(frames as i64);
        if let Some(session) = &state.session
            && state.lanes.has_work(state.window.allows(&shared.options))
        {
            session.work.notify_one();
        }
        Ok(())
    }

    /// True if the open session is owed an ack for too long.
    pub(crate) fn is_stalled(&self, shared: &Shared) -> bool {
        self.state.lock().window.is_stalled(shared.runtime.now(), &shared.options)
    }

    /// Ends the session and drops what waited and what was under way. With `ended`, later sends
    /// fail.
    pub(crate) fn end_session(&self, shared: &Shared, ended: bool) {
        let mut state = self.state.lock();
        state.ended |= ended;
        let counts = state.lanes.clear();
        for (gauge, count) in shared.metrics.queue_depth.iter().zip(counts) {
            gauge.dec_by(count as i64);
        }
        shared.metrics.dropped_on_disconnect(counts.iter().sum());
        let window = std::mem::take(&mut state.window);
        shared.metrics.frames_in_flight.dec_by(window.len() as i64);
        if let Some(session) = state.session.take() {
            session.work.notify_one();
        }
    }

    fn readiness(&self, work: &Arc<Notify>, shared: &Shared) -> Readiness {
        let state = self.state.lock();
        match state.session(work) {
            None => Readiness::Over,
            Some(session)
                if session.open && state.lanes.has_work(state.window.allows(&shared.options)) =>
            {
                Readiness::Ready
            }
            Some(_) => Readiness::Idle,
        }
    }

    fn take_frame(&self, work: &Arc<Notify>, shared: &Shared) -> Option<Frame> {
        let mut state = self.state.lock();
        state.session(work)?;
        let allowed = state.window.allows(&shared.options);
        let batch = state.lanes.take(allowed, &shared.options);
        if batch.messages.is_empty() {
            return None;
        }
        let sequence = state.window.sent(batch.bytes, batch.bulk_bytes, shared.runtime.now());
        drop(state);
        let metrics = &shared.metrics;
        metrics.frames_sent.inc();
        metrics.frames_in_flight.inc();
        metrics.bytes_sent.inc_by(batch.bytes as u64);
        for (class, count) in batch.counts.into_iter().enumerate() {
            metrics.messages_sent[class].inc_by(count as u64);
            metrics.queue_depth[class].dec_by(count as i64);
        }
        Some(frame::encode(sequence, batch.messages))
    }
}

/// Makes the frames of one session.
pub(crate) struct FrameSource {
    link: Arc<Link>,
    shared: Arc<Shared>,
    work: Arc<Notify>,
}

impl FrameSource {
    /// The next frame, or `None` once the session is over.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.link.readiness(&self.work, &self.shared) {
                Readiness::Over => return None,
                Readiness::Idle => {
                    self.work.notified().await;
                    continue;
                }
                Readiness::Ready => {}
            }
            // Lets every task that is about to send do so first: halves the frames under load and
            // costs nothing when idle.
            tokio::task::yield_now().await;
            if let Some(frame) = self.link.take_frame(&self.work, &self.shared) {
                return Some(frame);
            }
        }
    }

    pub(crate) fn into_stream(self) -> impl Stream<Item = Frame> + Send + 'static {
        futures::stream::unfold(self, |mut source| async move {
            source.next().await.map(|frame| (frame, source))
        })
    }
}
