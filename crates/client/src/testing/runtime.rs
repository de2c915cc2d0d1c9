//! Tokio as a runtime, with numbers that are equal in every run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cribwork_types::{BoxFuture, Runtime};
use tokio::time::Instant;

/// Tokio's clock, which tests pause, and numbers that are equal in every run.
pub(crate) struct TestRuntime {
    start: Instant,
    seed: AtomicU64,
}

impl TestRuntime {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), seed: AtomicU64::new(1) })
    }
}

impl Runtime for TestRuntime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.now().as_millis() as u64
    }

    fn random_u64(&self) -> u64 {
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17)
    }

    fn spawn(&self, task: BoxFuture<()>) {
        tokio::spawn(task);
    }

    fn spawn_worker(&self, _name: &str, worker: BoxFuture<()>) {
        tokio::spawn(worker);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        Box::pin(tokio::time::sleep(duration))
    }
}
