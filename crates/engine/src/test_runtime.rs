//! A [`Runtime`] over tokio for this crate's tests.

use std::time::{Duration, Instant};

use cribwork_types::{BoxFuture, Runtime};
use tokio::runtime::Handle;

/// Real time, tokio tasks, OS threads for workers.
pub(crate) struct TestRuntime {
    start: Instant,
    handle: Handle,
}

impl TestRuntime {
    /// Over the tokio runtime that the caller runs on.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), handle: Handle::current() }
    }
}

impl Runtime for TestRuntime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        0
    }

    fn random_u64(&self) -> u64 {
        0
    }

    fn spawn(&self, task: BoxFuture<()>) {
        self.handle.spawn(task);
    }

    fn spawn_worker(&self, name: &str, worker: BoxFuture<()>) {
        let handle = self.handle.clone();
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || handle.block_on(worker)).unwrap();
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        Box::pin(tokio::time::sleep(duration))
    }
}
