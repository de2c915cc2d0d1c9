//! The production [`Runtime`]: tokio tasks, OS threads for workers, the system's clocks and random
//! numbers.

#![allow(
    clippy::disallowed_methods,
    reason = "this is the one module that stands for clocks, threads, tasks and randomness"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cribwork_types::{BoxFuture, Runtime};
use tokio::runtime::{Builder, Handle};
use tokio::time::Instant;

/// Everything a node needs from the machine beside disk and network.
#[derive(Clone, Debug)]
pub struct TokioRuntime {
    handle: Handle,
    start: Instant,
}

impl TokioRuntime {
    /// Tasks run on the runtime behind `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { handle, start: Instant::now() }
    }
}

impl Runtime for TokioRuntime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        // A clock before 1970 is as good as none.
        since.map_or(0, |since| since.as_millis() as u64)
    }

    fn random_u64(&self) -> u64 {
        rand::random()
    }

    fn spawn(&self, task: BoxFuture<()>) {
        self.handle.spawn(task);
    }

    /// A thread with a single-threaded runtime of its own, so that the worker may block without
    /// holding up any task, and its timers fire even when the node's threads are all busy.
    fn spawn_worker(&self, name: &str, worker: BoxFuture<()>) {
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            match Builder::new_current_thread().enable_time().build() {
                Ok(runtime) => runtime.block_on(worker),
                Err(error) => tracing::error!(%error, "cannot start a worker's timers"),
            }
        });
        if let Err(error) = started {
            // The worker is dropped: whoever waits for it hears that it ended.
            tracing::error!(%error, name, "cannot start a thread");
        }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        // Inside the block: the timer belongs to the runtime that polls, not to the caller's.
        Box::pin(async move { tokio::time::sleep(duration).await })
    }
}

/// A tokio runtime for a node: with one worker everything runs on the calling thread (the cheapest
/// form: no task ever changes threads), with more on a pool of that many.
///
/// # Errors
/// What the system says if it gives no threads or no event queue.
pub fn tokio_runtime(workers: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match workers {
        0 | 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if workers > 1 {
        builder.worker_threads(workers);
    }
    builder.thread_name("cribwork").enable_all().build()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cribwork_types::RuntimeExt;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn workers_have_threads_and_timers_of_their_own() {
        let tokio = tokio_runtime(1).unwrap();
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime::new(tokio.handle().clone()));
        let (sender, receiver) = oneshot::channel();
        let inner = runtime.clone();
        runtime.spawn_worker(
            "test-worker",
            Box::pin(async move {
                inner.sleep(Duration::from_millis(1)).await;
                let name = std::thread::current().name().map(str::to_owned);
                let _ = sender.send(name);
            }),
        );
        // The node's own thread is blocked here, not polled: the worker does without it.
        let name = receiver.blocking_recv().unwrap();
        assert_eq!(name.as_deref(), Some("test-worker"));
        let late =
            tokio.block_on(runtime.timeout(Duration::from_millis(1), std::future::pending::<()>()));
        assert!(late.is_err());
    }
}
