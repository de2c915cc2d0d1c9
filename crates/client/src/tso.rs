//! Timestamps, many for one round trip: whoever asks while a request is under way shares the next.

use std::sync::Arc;
use std::time::Duration;

use cribwork_types::{Runtime, RuntimeExt, Timestamp};
use tokio::sync::{mpsc, oneshot};

use crate::backoff::Backoff;
use crate::channel::{ChannelError, PdChannel};

/// Most timestamps in one request; far below the 2^18 that fit into a millisecond.
const BATCH_MAX: usize = 4096;
/// Callers that may wait for the task to take their request.
const QUEUE_MAX: usize = 8192;

type Waiter = oneshot::Sender<Result<Timestamp, ChannelError>>;

/// Handle of the task that asks for timestamps. The task ends with the last handle.
#[derive(Clone)]
pub(crate) struct TsoBatcher {
    queue: mpsc::Sender<Waiter>,
}

impl TsoBatcher {
    /// Starts the task. A batch is given up after `limit`.
    pub(crate) fn start(
        runtime: Arc<dyn Runtime>,
        pd: Arc<dyn PdChannel>,
        limit: Duration,
    ) -> Self {
        let (queue, waiters) = mpsc::channel(QUEUE_MAX);
        let task = Task { runtime: runtime.clone(), pd, limit };
        runtime.spawn(Box::pin(task.run(waiters)));
        Self { queue }
    }

    /// A timestamp above every one that was handed out before this call.
    pub(crate) async fn timestamp(&self) -> Result<Timestamp, ChannelError> {
        let ended = || ChannelError::Unsent("the runtime has ended".to_owned());
        let (waiter, answer) = oneshot::channel();
        self.queue.send(waiter).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

struct Task {
    runtime: Arc<dyn Runtime>,
    pd: Arc<dyn PdChannel>,
    limit: Duration,
}

impl Task {
    async fn run(self, mut waiters: mpsc::Receiver<Waiter>) {
        let mut batch = Vec::new();
        while waiters.recv_many(&mut batch, BATCH_MAX).await > 0 {
            // Whoever is ready to run now may join.
            tokio::task::yield_now().await;
            while batch.len() < BATCH_MAX
                && let Ok(waiter) = waiters.try_recv()
            {
                batch.push(waiter);
            }
            batch.retain(|waiter| !waiter.is_closed());
            if !batch.is_empty() {
                self.serve(std::mem::take(&mut batch)).await;
            }
        }
    }

    async fn serve(&self, batch: Vec<Waiter>) {
        let count = batch.len() as u64;
        // A waiter that has gone in the meantime wastes its timestamp.
        match self.ask(count as u32).await {
            Ok(last) => {
                let first = last.get().saturating_sub(count - 1);
                for (waiter, ts) in batch.into_iter().zip(first..) {
                    let _ = waiter.send(Ok(Timestamp(ts)));
                }
            }
            Err(error) => {
                for waiter in batch {
                    let _ = waiter.send(Err(error.clone()));
                }
            }
        }
    }

    async fn ask(&self, count: u32) -> Result<Timestamp, ChannelError> {
        let deadline = self.runtime.now() + self.limit;
        let mut backoff = Backoff::default();
        loop {
            let left = deadline.saturating_sub(self.runtime.now());
            let error = match self.runtime.timeout(left, self.pd.tso(count)).await {
                Ok(Ok(last)) => return Ok(last),
                Ok(Err(error @ ChannelError::Refused { retryable: false, .. })) => {
                    return Err(error);
                }
                Ok(Err(error)) => error,
                Err(timed_out) => return Err(ChannelError::Unknown(timed_out.to_string())),
            };
            let pause = backoff.next(&*self.runtime);
            if self.runtime.now() + pause >= deadline {
                return Err(error);
            }
            self.runtime.sleep(pause).await;
        }
    }
}
