//! What an I/O crate is handed instead of reaching for a clock, a random number or a task itself, so
//! that the same code runs in production and in a seeded simulator.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

/// A boxed future that may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Clock, randomness and tasks of one node.
pub trait Runtime: Send + Sync + 'static {
    /// Monotonic time since an arbitrary start of this runtime. Never goes back; not comparable
    /// between nodes.
    fn now(&self) -> Duration;

    /// Unix time in milliseconds. May jump either way.
    fn wall_ms(&self) -> u64;

    /// A random number, seeded in a simulator.
    fn random_u64(&self) -> u64;

    /// Starts a task. It ends with the runtime.
    fn spawn(&self, task: BoxFuture<()>);

    /// Starts a long-lived worker that may block: its own OS thread in production, a task in a
    /// simulator. `name` shows up in thread lists (at most 15 bytes on Linux).
    fn spawn_worker(&self, name: &str, worker: BoxFuture<()>);

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<()>;
}

/// A future did not complete in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct TimedOut;

/// Conveniences over [`Runtime`].
pub trait RuntimeExt: Runtime {
    /// Runs `future` for at most `limit`.
    fn timeout<F: Future + Send>(
        &self,
        limit: Duration,
        future: F,
    ) -> impl Future<Output = Result<F::Output, TimedOut>> + Send {
        let mut deadline = self.sleep(limit);
        async move {
            let mut future = pin!(future);
            std::future::poll_fn(move |context| {
                if let Poll::Ready(output) = future.as_mut().poll(context) {
                    return Poll::Ready(Ok(output));
                }
                deadline.as_mut().poll(context).map(|()| Err(TimedOut))
            })
            .await
        }
    }
}

impl<R: Runtime + ?Sized> RuntimeExt for R {}
