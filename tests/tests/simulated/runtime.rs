//! The simulated clock, seeded choices, and tasks of a simulated host.

use std::sync::Mutex;
use std::time::Duration;

use cribwork_types::{BoxFuture, Runtime};
use tokio::time::Instant;

/// Unix time at which every simulation begins, milliseconds.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again, until there is a value. The simulation's own end is the deadline.
pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    loop {
        if let Some(value) = look().await {
            return value;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The runtime of one life of one host. Everything runs on the host's only thread.
pub(crate) struct SimRuntime {
    start: Instant,
    random: Mutex<u64>,
}

impl SimRuntime {
    /// `seed` decides every random choice.
    pub(crate) fn new(seed: u64) -> Self {
        Self { start: Instant::now(), random: Mutex::new(seed) }
    }
}

impl Runtime for SimRuntime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        EPOCH_MS + turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    fn random_u64(&self) -> u64 {
        let mut state = self.random.lock().unwrap();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn spawn(&self, task: BoxFuture<()>) {
        tokio::spawn(task);
    }

    fn spawn_worker(&self, _name: &str, worker: BoxFuture<()>) {
        tokio::spawn(worker);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        Box::pin(async move { tokio::time::sleep(duration).await })
    }
}
