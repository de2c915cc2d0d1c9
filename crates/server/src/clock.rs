//! The clock by which raw values expire: the wall clock, but never behind the placement group's
//! timestamps, so that a node whose clock is slow does not show what other nodes hide.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cribwork_types::{Runtime, Timestamp};

/// Unix milliseconds from two sources, the larger one.
pub struct HybridClock {
    runtime: Arc<dyn Runtime>,
    /// Physical part of the newest timestamp seen.
    tso_ms: AtomicU64,
}

impl HybridClock {
    /// Over the wall clock of `runtime`; no timestamp seen yet.
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, tso_ms: AtomicU64::new(0) }
    }

    /// A timestamp was handed out, here or elsewhere.
    pub fn observe(&self, ts: Timestamp) {
        // "Newest committed" is no point in time.
        if ts != Timestamp::MAX {
            self.tso_ms.fetch_max(ts.physical_ms(), Ordering::Relaxed);
        }
    }

    /// Unix time in milliseconds: the wall clock or the newest timestamp seen, whichever is later.
    pub fn now_ms(&self) -> u64 {
        self.runtime.wall_ms().max(self.tso_ms.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TokioRuntime, tokio_runtime};

    #[test]
    fn a_timestamp_ahead_of_the_wall_clock_counts() {
        let tokio = tokio_runtime(1).unwrap();
        let runtime = Arc::new(TokioRuntime::new(tokio.handle().clone()));
        let clock = HybridClock::new(runtime.clone());
        let wall = runtime.wall_ms();
        clock.observe(Timestamp::new(wall - 10_000, 1));
        clock.observe(Timestamp::MAX);
        assert!((wall..wall + 5_000).contains(&clock.now_ms()));
        clock.observe(Timestamp::new(wall + 60_000, 1));
        clock.observe(Timestamp::new(wall, 1));
        assert_eq!(clock.now_ms(), wall + 60_000);
    }
}
